"""QEMU's migration stream: writing and reading are inverse, for streams of any kind."""

from __future__ import annotations

import dataclasses
import string
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream import vmdesc, vmstate
from vfiomig.protocol.qemu_stream.reader import read_stream
from vfiomig.protocol.qemu_stream.records import (
    Command,
    Configuration,
    EndOfFile,
    Field,
    FileHeader,
    MappedRam,
    MsixState,
    Opaque,
    PostcopyAdvice,
    RamBlock,
    RamBlocks,
    RamDiscard,
    RamEncodedPage,
    RamEndOfState,
    RamHook,
    RamMultifdFlush,
    RamPageKind,
    RamPages,
    Record,
    SectionEnd,
    SectionFooter,
    SectionFull,
    SectionName,
    SectionPart,
    SectionStart,
    Value,
    VfioConfig,
    VfioData,
    VfioEndOfState,
    VfioInitDataSent,
    VfioSetup,
    VmState,
)
from vfiomig.protocol.qemu_stream.writer import write_stream

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE_BITS = 10
PAGE = 1 << PAGE_BITS
MOST_PAGES = 24
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
NAMES = st.text(string.ascii_letters + string.digits + ":./@é", min_size=1, max_size=9)
CLEAN = st.binary(max_size=20).filter(lambda data: b"\x7e" not in data)

MARKS: st.SearchStrategy[Record] = st.sampled_from([RamHook(), RamMultifdFlush()])


def written(records: list[Record]) -> bytes:
    return b"".join(bytes(piece) for piece in write_stream(records))


# --- RAM ---------------------------------------------------------------------------


def blocks_of(
    draw: st.DrawFn, configuration: Configuration, advice: int, position: int
) -> RamBlocks:
    """Draw a list; ``position`` is where its first entry begins in the stream."""
    capabilities = configuration.capabilities or ()
    blocks: list[RamBlock] = []
    for name in draw(st.lists(NAMES, min_size=1, max_size=3, unique=True)):
        length = draw(st.integers(1, MOST_PAGES)) * PAGE
        block = RamBlock(
            idstr=name,
            used_length=length,
            page_size=advice if advice and draw(st.booleans()) else None,
            address=draw(U64) if "x-ignore-shared" in capabilities else None,
        )
        if "mapped-ram" in capabilities:
            used = len(written([RamBlocks((*blocks, block))])) - 8
            block = dataclasses.replace(
                block, mapped=mapped(draw, position + used, length)
            )
        blocks.append(block)
    return RamBlocks(tuple(blocks))


def mapped(draw: st.DrawFn, header: int, length: int) -> MappedRam:
    pages = length // PAGE
    bitmap = np.frombuffer(draw(st.binary(min_size=8, max_size=8)), np.uint8)
    bitmap_offset = header + 28
    return MappedRam(
        page_size=PAGE,
        bitmap_offset=bitmap_offset,
        pages_offset=bitmap_offset + 8 + draw(st.integers(0, 99)),
        bitmap=bitmap,
        pages=contents_of(draw, pages),
    )


def contents_of(draw: st.DrawFn, pages: int) -> np.ndarray:
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).integers(0, 256, (pages, PAGE), np.uint8)


def ram_payload(
    draw: st.DrawFn, blocks: RamBlocks, state: dict[str, str]
) -> list[Record]:
    """Draw pages; a run that would melt into the one before names its block."""
    found: list[Record] = []
    for _ in range(draw(st.integers(0, 4))):
        block = draw(st.sampled_from(blocks.blocks))
        same = state.get("block") == block.idstr
        kind = draw(st.sampled_from(RamPageKind))
        named = not same or draw(st.booleans())
        most = block.used_length // PAGE - 1
        if kind in (RamPageKind.ZERO, RamPageKind.PAGE):
            numbers = draw(st.lists(st.integers(0, most), min_size=1, max_size=40))
            full = kind is RamPageKind.PAGE
            fill = 0 if full else draw(st.sampled_from([0, 0, 7]))
            last = found[-1] if found else None
            if isinstance(last, RamPages) and (last.kind, last.fill) == (kind, fill):
                named = True
            found.append(
                RamPages(
                    kind=kind,
                    block=block.idstr,
                    addresses=np.array(numbers, np.uint64) * PAGE,
                    contents=contents_of(draw, len(numbers)) if full else None,
                    named=named,
                    fill=fill,
                )
            )
        else:
            found.append(
                RamEncodedPage(
                    kind=kind,
                    block=block.idstr,
                    address=draw(st.integers(0, most)) * PAGE,
                    data=draw(st.binary(max_size=30)),
                    named=named,
                )
            )
        state["block"] = block.idstr
        if draw(st.integers(0, 5)) == 0:
            found.append(draw(MARKS))
    return [*found, RamEndOfState()]


# --- VFIO --------------------------------------------------------------------------


@st.composite
def vfio_configs(draw: st.DrawFn) -> VfioConfig:
    vectors = draw(st.integers(0, 40))
    space = draw(st.sampled_from([256, 4096]))
    msix = MsixState(bytes(16 * vectors), bytes((vectors + 7) // 8))
    return VfioConfig(
        version=draw(U32),
        config=draw(st.binary(min_size=16, max_size=16)) * (space // 16),
        irq=draw(st.tuples(U32, U32, U32, U32)),
        msix=msix if vectors else None,
    )


def vfio_payload(draw: st.DrawFn) -> list[Record]:
    data: list[Record] = [
        VfioData(each) for each in draw(st.lists(st.binary(max_size=50), max_size=3))
    ]
    return [*data, draw(VFIO_ENDS)]


VFIO_ENDS: st.SearchStrategy[Record] = st.sampled_from(
    [VfioEndOfState(), VfioInitDataSent()]
)


# --- vmstate -----------------------------------------------------------------------


def numbers(type_: str, size: int) -> st.SearchStrategy[Value]:
    bits = 8 * size
    low, high = (
        (-(1 << bits - 1), (1 << bits - 1) - 1)
        if type_[0] == "i"
        else (0, (1 << bits) - 1)
    )
    return st.integers(low, high)


LEAVES: dict[str, tuple[int, st.SearchStrategy[Value]]] = {
    **{
        f"{sign}int{bits}": (bits // 8, numbers(f"{sign}int{bits}", bits // 8))
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
    "bool": (1, st.booleans()),
    "timer": (8, U64),
    "nullptr": (1, st.none()),
    "bitmap": (16, st.integers(0, 2**128 - 1)),
    "buffer": (5, st.binary(min_size=5, max_size=5)),
    "unused_buffer": (3, st.binary(min_size=3, max_size=3)),
    "msix state": (17, st.binary(min_size=17, max_size=17)),
    "capability": (4, st.just("abc")),
}


@st.composite
def leaf_fields(draw: st.DrawFn, name: str) -> Field:
    type_ = draw(st.sampled_from(sorted(LEAVES)))
    size, values = LEAVES[type_]
    array = draw(st.integers(0, 3))
    value = draw(st.tuples(*[values] * (array + 1))) if array else draw(values)
    index = draw(st.none() | st.integers(0, 9)) if not array else None
    return Field(name=name, type=type_, value=value, size=size, index=index)


@st.composite
def states(draw: st.DrawFn, depth: int = 2) -> VmState:
    fields = []
    for number in range(draw(st.integers(0, 4))):
        name = f"f{number}"
        if depth and draw(st.integers(0, 3)) == 0:
            inner = draw(states(depth=depth - 1))
            size = vmstate.size_of(inner)
            type_ = draw(st.sampled_from(["struct", "vstruct", "tmp"]))
            fields.append(Field(name=name, type=type_, value=inner, size=size))
        else:
            fields.append(draw(leaf_fields(name)))
    more = draw(st.lists(states(depth=depth - 1), max_size=2)) if depth else []
    return VmState(
        vmsd_name=draw(NAMES),
        version=draw(st.integers(0, 99)),
        fields=tuple(fields),
        subsections=tuple(more),
    )


@st.composite
def old_states(draw: st.DrawFn) -> VmState:
    data = draw(st.binary(max_size=20))
    field = Field(name="data", type="buffer", value=data, size=len(data))
    return VmState(vmsd_name=None, version=None, fields=(field,))


# --- the whole ---------------------------------------------------------------------

COMMANDS = st.one_of(
    st.builds(Command, st.sampled_from([1, 4, 5, 8, 9, 11])),
    st.builds(Command, st.sampled_from([2, 7]), U32),
    st.builds(Command, st.just(10), NAMES),
    st.builds(Command, st.integers(12, 27), st.binary(min_size=1, max_size=9)),
    st.builds(
        Command,
        st.just(6),
        st.builds(
            RamDiscard, NAMES, st.lists(st.tuples(U64, U64), max_size=3).map(tuple)
        ),
    ),
)
CONFIGURATIONS = st.builds(
    Configuration,
    machine=NAMES,
    target_page_bits=st.just(PAGE_BITS),
    capabilities=st.none()
    | st.lists(
        st.sampled_from(["x-ignore-shared", "mapped-ram", "c"]), unique=True
    ).map(tuple),
    uuid=st.none() | st.binary(min_size=16, max_size=16),
)

LATER_SECTIONS: st.SearchStrategy[list[Callable[[int], Record]]] = st.lists(
    st.sampled_from([SectionPart, SectionEnd]), max_size=3
)


class Drawn:
    """A stream that grows, with the description of its FULL sections."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.footers = draw(st.booleans())
        self.described = draw(st.booleans()) or not self.footers
        self.records: list[Record] = [FileHeader()]
        self.devices: list[dict[str, object]] = []
        self.next_id = draw(st.integers(0, 1 << 20))

    def section(self, head: Record, payload: list[Record], number: int) -> None:
        self.records += [head, *payload]
        if self.footers:
            self.records.append(SectionFooter(number))

    def begin(
        self, kind: Callable[..., Record], idstr: str, payload: list[Record]
    ) -> int:
        number = self.next_id
        self.next_id += self.draw(st.integers(1, 3))
        head = kind(section_id=number, idstr=idstr, instance_id=number, version_id=1)
        self.section(head, payload, number)
        return number

    def full(
        self, idstr: str, payload: list[Record], device: dict[str, object]
    ) -> None:
        number = self.begin(SectionFull, idstr, payload)
        self.devices.append(device | {"name": idstr, "instance_id": number})


def draw_ram(drawn: Drawn, configuration: Configuration, advice: int) -> None:
    draw = drawn.draw
    head = SectionStart(section_id=0, idstr="ram", instance_id=0, version_id=4)
    position = len(written([*drawn.records, head])) + 8
    blocks = blocks_of(draw, configuration, advice, position)
    number = drawn.begin(SectionStart, "ram", [blocks, RamEndOfState()])
    state: dict[str, str] = {}
    for kind in draw(LATER_SECTIONS):
        drawn.section(kind(number), ram_payload(draw, blocks, state), number)


def draw_vfio(drawn: Drawn, name: str) -> None:
    draw = drawn.draw
    start: list[Record] = [VfioSetup(), VfioEndOfState()]
    number = drawn.begin(SectionStart, name, start)
    for kind in draw(LATER_SECTIONS):
        drawn.section(kind(number), vfio_payload(draw), number)
    payload: list[Record] = [draw(vfio_configs()), VfioEndOfState()]
    size = len(written(payload))
    drawn.full(name, payload, vmdesc.describe_data(SectionName(name, 0), size))


def draw_device(drawn: Drawn) -> None:
    draw = drawn.draw
    name = "dev-" + draw(NAMES).replace("/", "")
    if drawn.described:
        state = draw(states() | old_states())
        drawn.full(name, [state], vmdesc.describe(SectionName(name, 0), state))
    else:
        drawn.full(name, [Opaque(draw(CLEAN))], {})


@st.composite
def streams(draw: st.DrawFn) -> list[Record]:
    drawn = Drawn(draw)
    configuration = draw(CONFIGURATIONS)
    drawn.records.append(configuration)
    advice = draw(st.sampled_from([0, 0, 1 << 21]))
    if advice:
        drawn.records.append(Command(3, PostcopyAdvice(advice | PAGE, PAGE)))
    drawn.records += draw(st.lists(COMMANDS, max_size=3))
    draw_ram(drawn, configuration, advice)
    for name in draw(st.lists(st.sampled_from(["vfio", "0:4/vfio"]), unique=True)):
        draw_vfio(drawn, name)
    for _ in range(draw(st.integers(0, 3))):
        draw_device(drawn)
    drawn.records.append(EndOfFile())
    if drawn.described:
        description = vmdesc.vm_description(
            drawn.devices, page_size=PAGE, configuration=configuration
        )
        drawn.records.append(description)
    return drawn.records


SLOW_TO_DRAW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.mark.slow
@settings(max_examples=50, suppress_health_check=SLOW_TO_DRAW, deadline=None)
@given(streams())
def test_what_is_written_is_read_as_the_same_values(records: list[Record]) -> None:
    data = written(records)
    assert [each.record for each in read_stream(memoryview(data))] == records


@pytest.mark.slow
@settings(max_examples=50, suppress_health_check=SLOW_TO_DRAW, deadline=None)
@given(streams(), st.data())
def test_what_is_read_of_any_bytes_is_written_as_it_was(
    records: list[Record], chance: st.DataObject
) -> None:
    data = bytearray(written(records))
    for _ in range(chance.draw(st.integers(1, 3))):
        place = chance.draw(st.integers(0, len(data) - 1))
        data[place] = chance.draw(st.integers(0, 255))
    if chance.draw(st.booleans()):
        del data[chance.draw(st.integers(0, len(data))) :]
    found, error = [], None
    try:
        for each in read_stream(memoryview(data)):
            found.append(each.record)
    except StreamError as raised:
        error = raised
    assert error is None or 0 <= error.position <= len(data)
    assert data.startswith(written(found))
