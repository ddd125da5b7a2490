"""Generated schedules: the client's accesses against sections 2.1 to 2.5, retold.

The oracle below was written from the page alone, in the plainest way, and shares
nothing with the client: it makes up the accesses that the page says follow from a
schedule of pending bytes, buffers, areas and places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.client.scripted_driver import DATA, OpenDevice, ScriptedDriver
from tests.unit.client.scripted_migration import given_to, migrate, sent_by
from vfiomig.client.conduct import QEMU_7_2, STRICT, Conduct
from vfiomig.migration.metrics import Outcome
from vfiomig.migration.savevm import load_vm, save_vm

if TYPE_CHECKING:
    from collections.abc import Sequence

Areas = tuple[tuple[int, int], ...]
Buffer = tuple[int, int]

SIZE = 0x6000
PAGES = range(1, 6)


# -- the oracle -----------------------------------------------------------------------


def maps(areas: Areas) -> list[str]:
    return [f"map{start:x}+{length:x}" for start, length in areas]


def data_accesses(
    letters: tuple[str, str], offset: int, size: int, areas: Areas
) -> list[str]:
    """Move a buffer: section 2.3 for the sections of it, 2.1 for the slow path."""
    mapped, trapped = letters
    told = []
    while size > 0:
        area = None
        for candidate in areas:
            if candidate[0] <= offset < candidate[0] + candidate[1]:
                area = candidate
                break
        if area is not None:
            length = min(size, area[0] + area[1] - offset)
            told.append(f"{mapped}{offset:x}+{length:x}")
        else:
            length = size
            for start, _ in areas:
                if start > offset:
                    length = min(length, start - offset)
            place, left = offset, length
            while left:
                if left >= 8 and place % 8 == 0:
                    width = 8
                elif left >= 4 and place % 4 == 0:
                    width = 4
                elif left >= 2 and place % 2 == 0:
                    width = 2
                else:
                    width = 1
                told.append(f"{trapped}{width}@{place:x}")
                place += width
                left -= width
        offset += length
        size -= length
    return told


def in_one_piece(told: Sequence[str]) -> list[str]:
    """Join the neighbouring pieces of trapped data: what a strict client does."""
    joined: list[tuple[str, int, int]] = []
    others: list[str] = []
    for each in told:
        if each[0] in "rw":
            width, place = each[1:].split("@")
            kind, start = each[0], int(place, 16)
            if joined and joined[-1][0] == kind and sum(joined[-1][1:]) == start:
                joined[-1] = (kind, joined[-1][1], joined[-1][2] + int(width))
                others[-1] = f"{kind}{joined[-1][2]}@{joined[-1][1]:x}"
                continue
            joined.append((kind, start, int(width)))
        else:
            joined.append(("", 0, 0))
        others.append(each)
    return others


class Saving:
    """What a source is expected to do with a script of pending bytes and buffers."""

    def __init__(self, script: Script) -> None:
        self.told: list[str] = []
        self.script = script
        self.pending = list(script.pending)
        self.buffers = list(script.buffers)
        self.sent: list[Buffer] = []

    def read_pending(self) -> int:
        value = self.pending.pop(0) if self.pending else 0
        self.told.append(f"R8={value:x}")
        return value

    def save_buffer(self) -> int:
        offset, size = self.buffers.pop(0)
        self.told += [f"R16={offset:x}", f"R24={size:x}"]
        moved = data_accesses(("m", "r"), offset, size, self.script.areas)
        self.told += in_one_piece(moved) if self.script.strict else moved
        self.sent.append((offset, size))
        return size

    def complete(self) -> None:
        self.told += ["R4=2", "W4=2"]
        while self.read_pending():
            if not self.save_buffer() and not self.script.strict:
                break
        self.told += ["R4=2", "W4=0"]

    def migrate(self) -> None:
        self.told += [*maps(self.script.areas), "R4=1", "W4=3"]
        while self.read_pending():
            self.save_buffer()
        self.told += ["R4=3", "W4=2"]
        self.complete()

    def savevm(self) -> None:
        self.told += ["R4=1", "W4=2", *maps(self.script.areas), "R4=2", "W4=2"]
        while self.read_pending():
            self.save_buffer()
        self.complete()
        self.told += ["R4=0", "W4=1"]


def loading(
    sizes: Sequence[int], places: Sequence[int], size: int, areas: Areas
) -> tuple[list[str], list[int]]:
    """Section 2.5 for each chunk: its accesses, and the sizes that are committed."""
    told, committed = [], []
    places = list(places)
    for left in sizes:
        while left:
            place = places.pop(0) if places else DATA
            told.append(f"R16={place:x}")
            piece = size - place if place + left > size else left
            told += data_accesses(("M", "w"), place, piece, areas)
            told.append(f"W24={piece:x}")
            committed.append(piece)
            left -= piece
    return told, committed


# -- schedules ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Script:
    """``pending`` says how pre-copy goes, then stop-and-copy; a buffer for each."""

    pending: tuple[int, ...]
    buffers: tuple[Buffer, ...]
    areas: Areas
    strict: bool

    @property
    def conduct(self) -> Conduct:
        return STRICT if self.strict else QEMU_7_2

    def driver(self) -> ScriptedDriver:
        return ScriptedDriver(
            size=SIZE, areas=self.areas, pending=self.pending, buffers=self.buffers
        )


@st.composite
def page_areas(draw: st.DrawFn) -> Areas:
    """Disjoint areas of whole pages behind the first, in any order."""
    mapped = draw(st.sets(st.sampled_from(PAGES)))
    areas: list[tuple[int, int]] = []
    for page in sorted(mapped):
        start = page * 0x1000
        if areas and sum(areas[-1]) == start and draw(st.booleans()):
            areas[-1] = (areas[-1][0], areas[-1][1] + 0x1000)
        else:
            areas.append((start, 0x1000))
    return tuple(draw(st.permutations(areas)))


@st.composite
def spans(draw: st.DrawFn, least: int = 0) -> Buffer:
    """A range of the data section: near a page's edge more often than not."""
    edge = draw(st.sampled_from([0x40, *(page * 0x1000 for page in PAGES)]))
    offset = edge + draw(st.integers(-20, 20))
    size = draw(st.integers(least, 40) | st.integers(0xFF0, 0x1010))
    return offset, min(size, SIZE - offset)


# What pending_bytes says is no measure of what comes (V1-PEND-08).
pending_values = st.integers(1, (1 << 64) - 1) | st.integers(1, 0x2000)


@st.composite
def scripts(draw: st.DrawFn, *, strict: bool | None = None) -> Script:
    before = draw(st.lists(pending_values, max_size=4))
    after = draw(st.lists(pending_values, max_size=4))
    buffers = [draw(spans()) for _ in range(len(before) + len(after))]
    return Script(
        pending=(*before, 0, *after, 0),
        buffers=tuple(buffers),
        areas=draw(page_areas()),
        strict=draw(st.booleans()) if strict is None else strict,
    )


@given(script=scripts())
def test_a_source_makes_the_accesses_of_the_page(script: Script) -> None:
    expected = Saving(script)
    expected.migrate()
    with OpenDevice(script.driver(), conduct=script.conduct) as device:
        device.start_vm()
        ending, _ = migrate(device)
        assert ending.outcome is Outcome.COMPLETED
        assert device.told().split() == expected.told


@given(script=scripts())
def test_savevm_makes_the_accesses_of_the_page(script: Script) -> None:
    expected = Saving(script)
    expected.savevm()
    with OpenDevice(script.driver(), conduct=script.conduct) as device:
        device.start_vm()
        _, ending = sent_by(save_vm([device.participant]))
        assert ending.outcome is Outcome.COMPLETED
        assert device.told().split() == expected.told


@given(
    script=scripts(strict=False),
    pages=st.integers(2, 6),
    places=st.lists(st.integers(0x20, 0x1FFF), max_size=8),
    areas=page_areas(),
)
def test_a_destination_makes_the_accesses_of_the_page(
    script: Script, pages: int, places: list[int], areas: Areas
) -> None:
    size = pages * 0x1000
    areas = tuple(area for area in areas if sum(area) <= size)
    source = Saving(script)
    source.migrate()
    told, committed = loading([s for _, s in source.sent], places, size, areas)
    target = ScriptedDriver(size=size, areas=areas, places=places)
    with OpenDevice(script.driver()) as near, OpenDevice(target) as far:
        near.start_vm()
        _, ending = migrate(near, far)
        assert ending.outcome is Outcome.COMPLETED
        expected = [*maps(areas), "R4=1", "W4=4", *told, "R4=4", "W4=1"]
        assert far.told().split() == expected
        assert [len(chunk) for chunk in far.driver.committed] == committed
        memory = near.driver.memory
        sent = b"".join(memory[offset : offset + s] for offset, s in source.sent)
        assert b"".join(far.driver.committed) == sent


@given(script=scripts(strict=True), areas=page_areas())
def test_a_strict_destination_gives_the_chunks_of_the_source(
    script: Script, areas: Areas
) -> None:
    source = Saving(script)
    source.savevm()
    sizes = [size for _, size in source.sent if size]
    told, committed = loading(sizes, [0x20] * len(sizes), SIZE, areas)
    target = ScriptedDriver(size=SIZE, areas=areas, places=[0x20] * len(sizes))
    with (
        OpenDevice(script.driver(), conduct=STRICT) as near,
        OpenDevice(target, conduct=STRICT) as far,
    ):
        stream, _ = sent_by(save_vm([near.participant]))
        ending = given_to(load_vm([far.participant]), stream)
        assert ending.outcome is Outcome.COMPLETED
        reset = ["RESET", *maps(areas), "R4=1", "W4=4"]
        assert far.told().split() == [*reset, *in_one_piece(told)]
        assert committed == sizes
        assert [len(chunk) for chunk in far.driver.committed] == sizes


@pytest.mark.parametrize(
    ("told", "joined"),
    [
        (["r8@1000", "r4@1008", "r1@100c"], ["r13@1000"]),
        (["r8@1000", "m1008+8", "r8@1010"], ["r8@1000", "m1008+8", "r8@1010"]),
        (["w8@1000", "W24=8", "w8@1008"], ["w8@1000", "W24=8", "w8@1008"]),
        (["r8@1000", "r8@1010"], ["r8@1000", "r8@1010"]),
    ],
)
def test_the_oracle_joins_neighbours_only(told: list[str], joined: list[str]) -> None:
    assert in_one_piece(told) == joined
