"""No damage to the stream passes: both sides fail, and the source runs on.

The devices are scripted and take anything, so what refuses a damaged stream is the
destination alone.  Their data is left out: whether it is whole is the driver's affair.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.unit.client.scripted_driver import OpenDevice, ScriptedDriver
from tests.unit.client.scripted_migration import Wrap, migrate
from vfiomig.client.conduct import QEMU_7_2, STRICT, Conduct
from vfiomig.migration.metrics import Outcome
from vfiomig.migration.transport import CutLink, FlipBit, Tee
from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream import framing

if TYPE_CHECKING:
    from vfiomig.migration.side import Ending

RUNNING = 1
THE_SOURCE, THE_DESTINATION = [True, True, False, False], [False, False, True, True]

DATA = (0x1000, 8)
AREAS = ((0x1000, 0x2000),)  # what a damaged length moves goes there in one piece


class Pair:
    """Two devices on each side; what the destination's may be in is looked at."""

    def __init__(self, conduct: Conduct) -> None:
        self.sources = [self._source("a", conduct), self._source("b", conduct)]
        self.targets = [
            OpenDevice(ScriptedDriver(areas=AREAS), name=name, conduct=conduct)
            for name in "ab"
        ]
        for device in self.sources:
            device.start_vm()

    @staticmethod
    def _source(name: str, conduct: Conduct) -> OpenDevice:
        # Three passes: a's buffer; a's empty record and b's buffer; nothing.  Then a
        # buffer of each while they are stopped.
        pending = [8, 0, 0, 0, 8, 0] if name == "a" else [8, 8, 0, 8, 0]
        driver = ScriptedDriver(pending=pending, buffers=[DATA, DATA])
        return OpenDevice(driver, name=name, conduct=conduct)

    def migrate(self, link: Wrap, return_path: Wrap = lambda s: s) -> list[Ending]:
        return list(
            migrate(self.sources, self.targets, link=link, return_path=return_path)
        )

    def running(self) -> list[bool]:
        """Tell which devices run, as far as both the device and its VM are asked."""
        return [
            device.driver.state == RUNNING and device.client.vm_is_running
            for device in (*self.sources, *self.targets)
        ]

    def close(self) -> None:
        for device in (*self.sources, *self.targets):
            device.__exit__()


@cache
def whole_stream() -> bytes:
    """Return what crosses the link when nothing is wrong."""
    stream = bytearray()
    pair = Pair(QEMU_7_2)
    endings = pair.migrate(lambda s: Tee(s, stream.extend))
    assert [ending.outcome for ending in endings] == [Outcome.COMPLETED] * 2
    assert pair.running() == THE_DESTINATION
    pair.close()
    return bytes(stream)


@cache
def places_of_framing() -> list[int]:
    """Find all but the devices' data, which is the same 8 bytes four times."""
    stream = whole_stream()
    driver = ScriptedDriver()
    data = driver.memory[0x1000:0x1008]
    driver.close()
    found, start = set(), stream.find(data)
    while start >= 0:
        found |= set(range(start, start + 8))
        start = stream.find(data, start + 8)
    assert len(found) == 4 * 8
    return sorted(set(range(len(stream))) - found)


def flip(place: int, bit: int) -> Wrap:
    return lambda stream: FlipBit(stream, place, bit)


def cut(place: int) -> Wrap:
    return lambda stream: CutLink(stream, place)


def outcome_of(
    link: Wrap, return_path: Wrap = lambda s: s, conduct: Conduct = QEMU_7_2
) -> tuple[list[Ending], list[bool]]:
    pair = Pair(conduct)
    try:
        return pair.migrate(link, return_path), pair.running()
    finally:
        pair.close()


def test_the_stream_has_the_framing_that_is_damaged_below() -> None:
    start = 5 + 1 + len("a/vfio") + 4 + 4 + 8 + 8 + 5
    part = end = 5 + 16 + 8 + 5  # without the data
    assert len(places_of_framing()) == 8 + 2 * start + 3 * part + 2 * end + 1


@pytest.mark.slow
@pytest.mark.parametrize("bit", range(8))
def test_no_flipped_bit_of_the_framing_passes(bit: int) -> None:
    for place in places_of_framing():
        (source, destination), running = outcome_of(flip(place, bit))
        where = f"bit {bit} of byte {place}"
        assert source.outcome is Outcome.FAILED, where
        assert destination.outcome is Outcome.FAILED, where
        assert source.lost == (), where
        assert isinstance(destination.error, StreamError), where
        assert isinstance(source.error, ConnectionError), where
        assert running == THE_SOURCE, where


@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("place", range(8))
def test_a_damaged_length_makes_nobody_wait(place: int, bit: int) -> None:
    first = whole_stream().index(framing.data_head(8)) + 8
    (source, destination), running = outcome_of(flip(first + place, bit))
    assert isinstance(destination.error, StreamError)
    assert isinstance(source.error, ConnectionError)
    assert running == THE_SOURCE


@pytest.mark.parametrize("conduct", [QEMU_7_2, STRICT], ids=["qemu", "strict"])
@pytest.mark.parametrize("step", range(8))
def test_a_link_that_is_cut_anywhere_leaves_the_source_running(
    conduct: Conduct, step: int
) -> None:
    for place in range(step, len(whole_stream()) + 1, 8):
        (source, destination), running = outcome_of(cut(place), conduct=conduct)
        where = f"cut after {place} bytes"
        assert source.outcome is destination.outcome is Outcome.FAILED, where
        assert isinstance(source.error, ConnectionError), where
        assert source.lost == (), where
        assert running == THE_SOURCE, where


@pytest.mark.parametrize("place", range(8))
def test_a_return_path_that_is_cut_leaves_only_the_source_running(place: int) -> None:
    # The destination runs already; who cannot say so stops again.
    (source, destination), running = outcome_of(lambda s: s, cut(place))
    assert source.outcome is destination.outcome is Outcome.FAILED
    assert isinstance(source.error, ConnectionError)
    assert isinstance(destination.error, ConnectionError)
    assert running == THE_SOURCE


@pytest.mark.parametrize("place", range(8))
def test_a_damaged_answer_never_lets_both_sides_run(place: int) -> None:
    # All of it was sent, so the destination goes on: it runs, and the source must not.
    for bit in range(8):
        (source, destination), running = outcome_of(lambda s: s, flip(place, bit))
        assert source.outcome is destination.outcome is Outcome.COMPLETED
        assert running == THE_DESTINATION
