"""Streams that QEMU wrote: read, written again, and changed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.unit.protocol.qemu_stream.streams import (
    ALL,
    COMPRESS,
    MAPPED,
    MULTIFD,
    OLD,
    POSTCOPY,
    SHARED,
    V1,
    V2,
    XBZRLE,
    located,
    real,
    written,
)
from vfiomig.protocol.qemu_stream import vmdesc, vmstate
from vfiomig.protocol.qemu_stream.reader import read_stream
from vfiomig.protocol.qemu_stream.records import (
    Command,
    Configuration,
    Located,
    Opaque,
    PostcopyAdvice,
    RamBlocks,
    RamDiscard,
    RamEncodedPage,
    RamMultifdFlush,
    RamPageKind,
    RamPages,
    Record,
    SectionFooter,
    SectionFull,
    SectionName,
    SectionStart,
    VfioConfig,
    VfioData,
    VfioEndOfState,
    VmDescription,
    VmState,
)

DEVICE_DATA = bytes(range(256)) * 1024


def records(name: str) -> list[Record]:
    return [each.record for each in located(name)]


def states(name: str) -> dict[str, VmState]:
    return {
        each.section.idstr: each.record
        for each in located(name)
        if each.section is not None and isinstance(each.record, VmState)
    }


@pytest.mark.parametrize("name", ALL)
def test_what_is_read_is_written_byte_for_byte_without_a_gap(name: str) -> None:
    data, position = real(name), 0
    for each in located(name):
        assert each.offset == position
        position += each.size
        assert written([each.record]) == data[each.offset : position]
    assert position == len(data)


@pytest.mark.parametrize("name", [name for name in ALL if name != POSTCOPY])
def test_the_vm_description_can_be_made_of_the_values(name: str) -> None:
    devices, configuration = [], None
    for each in located(name):
        if isinstance(each.record, Configuration) and name.startswith("qemu-10"):
            configuration = each.record
        if isinstance(each.record, VmState):
            assert each.section is not None
            devices.append(vmdesc.describe(each.section, each.record))
        if isinstance(each.record, VfioConfig):
            assert each.section is not None
            size = each.size + 8  # and the end of state
            devices.append(vmdesc.describe_data(each.section, size))
    made = vmdesc.vm_description(devices, page_size=4096, configuration=configuration)
    (theirs,) = (x for x in records(name) if isinstance(x, VmDescription))
    assert made == theirs
    assert vmdesc.text_of(made) == vmdesc.text_of(theirs)


# Of qemu-7.2-vfio-v1 and qemu-10.0-vfio-v2 without their VFIO sections, QEMU 10.0.2's
# own scripts/analyze-migration.py says so (all of it was compared once, alike).
@pytest.mark.parametrize(
    ("name", "idstr", "path", "value"),
    [
        (V1, "cpu_common", ["halted"], 1),
        (V1, "cpu", ["env.regs", 1], 0xB79D),
        (V1, "cpu", ["env.eflags"], 0x246),
        (V1, "apic", ["apicbase"], 0xFEE00900),
        (V1, "apic", ["lvt", 3], 0x8700),
        (V1, "hpet", ["num_timers"], 3),
        (V1, "hpet", ["timer", 1, "config"], 0x400000030),
        (V1, "hpet", ["timer", 2, "qemu_timer"], 2**64 - 1),
        (V1, "i8254", ["channels", 0, "next_transition_time"], 0x6D583315),
        (V1, "pckbd", ["kbd", "pckbd/extended_state", "obdata"], 0xFA),
        (V1, "globalstate", ["runstate"], b"running".ljust(100, b"\0")),
        (V2, "cpu", ["env.regs", 1], 0xB7A6),
        (V2, "hpet", ["num_timers_save"], 3),
        (V2, "i8254", ["channels", 0, "count_load_time"], 0x1AB5BEB),
        (V2, "globalstate", ["has_vm_was_suspended"], True),
        (V2, "globalstate", ["runstate"], b"running".ljust(32, b"\0")),
    ],
)
def test_vmstate_has_the_values_that_qemus_own_script_finds(
    name: str, idstr: str, path: list[str | int], value: object
) -> None:
    assert vmstate.find(states(name)[idstr], path) == value


@pytest.mark.parametrize(
    ("name", "sizes"), [(V1, [0x10000] * 4), (V2, [0x40000])], ids=["v1", "v2"]
)
def test_the_device_data_is_all_there(name: str, sizes: list[int]) -> None:
    found = [each for each in records(name) if isinstance(each, VfioData)]
    assert [len(each.data) for each in found if each.data] == sizes
    assert b"".join(each.data for each in found) == DEVICE_DATA


@pytest.mark.parametrize("name", [V1, V2])
def test_the_configuration_of_the_device_is_typed(name: str) -> None:
    (config,) = (x for x in records(name) if isinstance(x, VfioConfig))
    assert config.version == 2
    assert len(config.config) == 256
    assert config.irq == (0, 0, 0, 0)
    assert config.msix is None


@pytest.mark.parametrize("name", [V1, V2])
def test_sections_are_named_by_the_one_that_began_them(name: str) -> None:
    vfio = SectionName("0000:00:02.0/vfio", 0)
    of_vfio = [type(each.record) for each in located(name) if each.section == vfio]
    assert of_vfio[0] is SectionStart
    assert SectionFull in of_vfio
    assert of_vfio.count(VfioEndOfState) == of_vfio.count(SectionFooter)


def test_the_blocks_and_all_their_pages_are_found() -> None:
    (blocks,) = (x for x in records(V1) if isinstance(x, RamBlocks))
    assert {block.idstr: block.used_length for block in blocks.blocks} == {
        "pc.ram": 0x1000000,
        "/rom@etc/acpi/tables": 0x20000,
        "pc.bios": 0x40000,
        "pc.rom": 0x20000,
        "/rom@etc/table-loader": 0x1000,
        "/rom@etc/acpi/rsdp": 0x1000,
    }
    sent = {block.idstr: set[int]() for block in blocks.blocks}
    for run in (x for x in records(V1) if isinstance(x, RamPages)):
        sent[run.block].update(run.addresses.tolist())
    for block in blocks.blocks:
        assert sent[block.idstr] == set(range(0, block.used_length, 4096))


# --- knobs -------------------------------------------------------------------------


def test_a_stream_without_configuration_and_footers_is_read_as_well() -> None:
    kinds = {type(each) for each in records(OLD)}
    assert VmState in kinds
    assert not kinds & {Configuration, SectionFooter, Opaque}


def test_a_postcopy_stream_has_its_commands_typed() -> None:
    commands = [each for each in records(POSTCOPY) if isinstance(each, Command)]
    assert commands[:3] == [
        Command(1),
        Command(2, 1),
        Command(3, PostcopyAdvice(4096, 4096)),
    ]
    discard = RamDiscard("pc.rom", ((0, 0x20000),))
    assert Command(6, discard) in commands
    numbers = [each.command for each in commands]
    assert numbers.index(7) < numbers.index(4) < numbers.index(5)
    assert not any(isinstance(each, VmState) for each in records(POSTCOPY))


def test_without_a_vm_description_sections_end_where_their_footers_are() -> None:
    full = [each for each in located(POSTCOPY) if isinstance(each.record, Opaque)]
    heads = [each for each in records(POSTCOPY) if isinstance(each, SectionFull)]
    assert len(full) == len(heads) == 30


def test_mapped_ram_lies_at_its_offsets_in_the_file() -> None:
    configuration, blocks = (
        next(x for x in records(MAPPED) if isinstance(x, kind))
        for kind in (Configuration, RamBlocks)
    )
    assert isinstance(configuration, Configuration)
    assert configuration.capabilities == ("mapped-ram",)
    assert isinstance(blocks, RamBlocks)
    ram = blocks.blocks[0]
    mapped = ram.mapped
    assert mapped is not None
    assert mapped.pages.shape == (ram.used_length // 4096, 4096)
    bits = np.unpackbits(mapped.bitmap, bitorder="little")[: len(mapped.pages)]
    # The guest's code counts in the first byte of 16 pages: see tests/README.md.
    assert np.flatnonzero(bits).tolist() == list(range(16, 32))
    assert mapped.pages[16:32, 0].any(axis=0)
    assert not mapped.pages[:, 1:].any()
    first = mapped.pages_offset + 16 * 4096
    assert real(MAPPED)[first] == mapped.pages[16, 0]


def test_x_ignore_shared_tells_where_the_blocks_are() -> None:
    configuration = records(SHARED)[1]
    assert configuration == Configuration(
        machine="pc-i440fx-10.0",
        capabilities=("x-ignore-shared",),
        uuid=bytes.fromhex("12345678123456781234567812345678"),
    )
    (blocks,) = (x for x in records(SHARED) if isinstance(x, RamBlocks))
    addresses = {block.idstr: block.address for block in blocks.blocks}
    assert addresses["pc.bios"] == (1 << 32) - 0x10000
    assert addresses["pc.rom"] == 0xC0000


def test_multifd_sends_its_pages_elsewhere() -> None:
    assert RamMultifdFlush() in records(MULTIFD)
    assert not any(isinstance(each, RamPages) for each in records(MULTIFD))


@pytest.mark.parametrize(
    ("name", "kind"),
    [(XBZRLE, RamPageKind.XBZRLE), (COMPRESS, RamPageKind.COMPRESS_PAGE)],
)
def test_encoded_pages_are_told_apart(name: str, kind: RamPageKind) -> None:
    found = [each for each in records(name) if isinstance(each, RamEncodedPage)]
    assert {each.kind for each in found} == {kind}
    assert {each.block for each in found} >= {"pc.ram"}


# --- changes -----------------------------------------------------------------------


def with_(name: str, old: Located, new: Record) -> bytes:
    return written(new if x is old else x.record for x in located(name))


def differing(one: bytes | memoryview, other: bytes | memoryview) -> list[int]:
    assert len(one) == len(other)
    first, second = (np.frombuffer(each, np.uint8) for each in (one, other))
    return np.flatnonzero(first != second).tolist()


@pytest.mark.parametrize("name", [V1, V2])
def test_another_value_of_a_field_changes_its_bytes_and_no_others(name: str) -> None:
    (old,) = (
        each
        for each in located(name)
        if isinstance(each.record, VmState) and each.record.vmsd_name == "cpu_common"
    )
    assert isinstance(old.record, VmState)
    new = vmstate.replace(old.record, ["interrupt_request"], 0x01020304)
    changed = with_(name, old, new)
    # cpu_common is uint32 halted, uint32 interrupt_request.
    places = list(range(old.offset + 4, old.offset + 8))
    assert differing(changed, real(name)) == places
    assert changed[places[0] : places[-1] + 1] == b"\x01\x02\x03\x04"
    assert [each.record for each in read_stream(memoryview(changed))].count(new) == 1


@pytest.mark.parametrize("name", [V1, V2])
def test_another_page_changes_its_bytes_and_no_others(name: str) -> None:
    old = max(
        (each for each in located(name) if isinstance(each.record, RamPages)),
        key=lambda each: each.size,
    )
    run = old.record
    assert isinstance(run, RamPages)
    assert run.contents is not None
    contents = run.contents.copy()
    contents[3] ^= 0xFF
    changed = with_(name, old, dataclasses.replace(run, contents=contents))
    first = old.offset + 3 * (8 + 4096) + 8
    if run.named:
        first += 1 + len(run.block)
    assert differing(changed, real(name)) == list(range(first, first + 4096))
