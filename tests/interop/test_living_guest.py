"""A guest that lives: Linux' own 8250 driver, on a card that is moved under its hands.

It writes numbered lines to one port of `serial`, and reads them at the other, while it
migrates to and fro between two hosts.  At whatever moment that is, and whatever is in
the FIFOs then, no line is lost, doubled or torn: on the way, or as the guest reads it.
"""

from __future__ import annotations

import ctypes
import hashlib
import random
from typing import TYPE_CHECKING

import pytest

from tests.interop.linux_guest import LAST, LINE, LinuxGuest, what_is_missing
from vfiomig.vendor.serial import PortState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEED = 1
MOVES = 24
LONGEST = 400  # bytes that are delivered before it is moved again
LEAST_WITH_BYTES = 5


@pytest.fixture
def guest(folder: Path) -> Iterator[LinuxGuest]:
    missing = what_is_missing()
    if missing is not None:
        pytest.skip(missing)
    with LinuxGuest(folder) as guest:
        yield guest


def first_fault(line: bytes) -> str | None:
    """Return what is wrong with the lines that were delivered."""
    *lines, rest = line.split(b"\n")
    due = [(LINE % number).encode() for number in range(1, len(lines))]
    due.append(LAST.encode())
    for number, (found, expected) in enumerate(zip(lines, due, strict=False), 1):
        if found != expected:
            return f"line {number} is {found!r}, not {expected!r}"
    return f"{rest!r} is behind the last line" if rest or not lines else None


def ports_in(snapshot: bytes) -> list[PortState]:
    size = ctypes.sizeof(PortState)
    starts = range(0, len(snapshot), size)
    return [PortState.from_buffer_copy(snapshot, at) for at in starts]


def has_bytes_in_fifos(snapshot: bytes) -> bool:
    uarts = [port.uart for port in ports_in(snapshot)]
    return any(uart.transmit.count or uart.receive.count for uart in uarts)


@pytest.mark.slow
def test_no_line_is_lost_doubled_or_torn(guest: LinuxGuest) -> None:
    luck = random.Random(SEED)
    guest.boot()
    for _ in range(MOVES):
        guest.move(after=luck.randrange(LONGEST))
    account = guest.finish()
    line = guest.line(0)
    assert first_fault(line) is None
    assert guest.line(1) == b""

    digest = hashlib.md5(line).hexdigest()
    assert account == (digest, len(line), len(line), ())

    *moments, end = guest.stops
    assert len(moments) == MOVES
    assert sum(map(has_bytes_in_fifos, moments)) >= LEAST_WITH_BYTES
    counts = [ports_in(each)[0].delivered for each in guest.stops]
    assert counts == sorted(counts)
    assert ports_in(end)[0].delivered == len(line)

    accounts = [each for side in guest.left for each in side.accounts.values()]
    stopped = [each.at_stop for each in accounts[:-1]]
    assert [each.at_start for each in accounts[1:]] == stopped
    assert all(side.status == 0 and not side.deaths for side in guest.left)


ONE, TWO, THREE = (f"{LINE % number}\n" for number in (1, 2, 3))
END = f"{LAST}\n"


@pytest.mark.parametrize(
    ("text", "is_good"),
    [
        (ONE + TWO + THREE + END, True),
        ("", False),
        (ONE + TWO + THREE, False),
        (ONE + THREE + END, False),
        (ONE + TWO + TWO + THREE + END, False),
        (ONE + THREE + TWO + END, False),
        (ONE + TWO[:9] + TWO[10:] + THREE + END, False),
        (ONE + TWO[:9] + TWO[8:] + THREE + END, False),
        (ONE + TWO[:-1] + THREE + END, False),
        (ONE + TWO + THREE + END + "l", False),
        (ONE + TWO + THREE + END + END, False),
    ],
)
def test_a_line_that_is_lost_doubled_or_torn_is_seen(text: str, is_good: bool) -> None:
    assert (first_fault(text.encode()) is None) is is_good
