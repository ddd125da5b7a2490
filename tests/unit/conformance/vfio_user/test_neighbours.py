"""A server and its client share a processor where that is the faster way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from vfiomig.conformance.vfio_user.neighbours import own_processors, share_if_faster

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="there is one processor only"
)


@pytest.fixture
def server() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as process:
        yield process.pid
        process.kill()


def is_shared() -> bool:
    return len(os.sched_getaffinity(0)) == 1


def take_long(*, if_shared: bool) -> None:
    until = time.perf_counter() + 0.002 * (is_shared() is if_shared)
    while time.perf_counter() < until:
        pass


def test_they_share_one_where_answers_come_sooner_then(server: int) -> None:
    with own_processors():
        assert share_if_faster([server], lambda: take_long(if_shared=False))
        assert is_shared()
        assert os.sched_getaffinity(server) == os.sched_getaffinity(0)
    assert not is_shared()


def test_they_keep_their_own_where_sharing_is_slow(server: int) -> None:
    before = os.sched_getaffinity(0)
    with own_processors():
        assert not share_if_faster([server], lambda: take_long(if_shared=True))
        assert os.sched_getaffinity(0) == os.sched_getaffinity(server) == before


def test_a_process_that_has_ended_is_no_matter() -> None:
    with own_processors():
        assert share_if_faster([2**22 + 1], lambda: take_long(if_shared=False))
