"""The model's claims, of the library that it is a model of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.rdma.vm import ADDRESS
from vfiomig.migration.transport.rsocket.check import CLAIMS, check_rsocket, name_of
from vfiomig.migration.transport.rsocket.librdmacm import Librdmacm

if TYPE_CHECKING:
    from vfiomig.migration.transport.rsocket.check import Claim


@pytest.mark.parametrize("claim", CLAIMS, ids=name_of)
def test_librdmacm_keeps(claim: Claim) -> None:
    check_rsocket(Librdmacm(), lambda: (ADDRESS, 0), claims=[claim])
