"""Every mutant is found at normal effort, by a rule that it breaks."""

from __future__ import annotations

import pytest

from tests.unit.conformance.vfio_user.test_museum_over_a_socket import (
    DRIVERS,
    require_found_over_a_socket,
)
from vfiomig.conformance.museum import Exhibit, every_exhibit, try_exhibit


@pytest.mark.parametrize("exhibit", every_exhibit(), ids=lambda it: it.name)
def test_a_mutant_is_found(exhibit: Exhibit) -> None:
    found = try_exhibit(exhibit, effort="normal", seed=1)
    assert found.is_found, (sorted(exhibit.violates), sorted(found.broken), found.died)


@pytest.mark.parametrize("exhibit", DRIVERS, ids=lambda it: it.name)
def test_a_mutant_that_needs_no_bench_is_found_over_a_socket(exhibit: Exhibit) -> None:
    require_found_over_a_socket(exhibit)
