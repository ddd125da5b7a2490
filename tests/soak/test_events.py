"""A million events cross a migration, and none of them is lost or doubled."""

from __future__ import annotations

from typing import Final

import pytest

from tests.unit.vm.xen.migrating import migrate
from vfiomig.vm.xen.shared_info import LAYOUTS

_EVENTS: Final = 1_000_000
_ROUNDS: Final = 50
_PORTS: Final = (*range(1, 120), *range(300, 1024, 61))


@pytest.mark.parametrize("bits", LAYOUTS)
def test_a_million_events_cross_a_migration(bits: int) -> None:
    migrate(_EVENTS, _ROUNDS, _PORTS, bits)
