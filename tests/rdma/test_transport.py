"""The suites of every transport, over the real rsocket, in each of the ways to wait."""

from __future__ import annotations

import pytest

from tests.rdma.vm import ADDRESS
from vfiomig.migration.transport import (
    WAYS,
    check_channels,
    check_transport,
    listen_rsocket,
    make_rsocket_pair,
)
from vfiomig.migration.transport.rsocket.check_watch import check_rsocket_watch
from vfiomig.migration.transport.rsocket.librdmacm import Librdmacm

ANY_PORT = (ADDRESS, 0)
# A datagram of the connection manager that soft-RoCE drops is sent again after 4 s, and
# once more after as long again.
PATIENT = 30.0


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_wait_keeps_every_promise(way: str) -> None:
    check_transport(lambda: make_rsocket_pair(Librdmacm(), way, ANY_PORT))


def test_several_channels_are_carried() -> None:
    # Two in every order: with three there are 200 connections, a quarter second each.
    check_channels(
        lambda: listen_rsocket(Librdmacm(), address=ANY_PORT),
        wait_seconds=PATIENT,
        most=1,
    )


def test_a_watched_blocking_rsocket_hangs_its_loop_and_is_named() -> None:
    check_rsocket_watch(Librdmacm, ANY_PORT)
