"""The suites of every transport, over the real rsocket, in each of the ways to wait."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.rdma.vm import ADDRESS
from vfiomig.migration.transport import (
    WAYS,
    check_channels,
    check_transport,
    listen_rsocket,
    make_rsocket_pair,
)
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


WATCH = f"""
from vfiomig.migration.transport.rsocket.check_watch import check_rsocket_watch
from vfiomig.migration.transport.rsocket.librdmacm import Librdmacm
check_rsocket_watch(Librdmacm, {ANY_PORT!r})
"""
# Two poll threads and one that hangs: librdmacm 44 was seen, once in 13 runs, to leave
# a thread in rpoll() for good.  No other complaint is given a second try.
STUCK = "the poll thread did not answer"


def test_a_watched_blocking_rsocket_hangs_its_loop_and_is_named() -> None:
    for _ in range(2):
        held = subprocess.run(
            [sys.executable, "-c", WATCH],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if STUCK not in held.stderr:
            break
    assert (held.returncode, held.stderr) == (0, "")
