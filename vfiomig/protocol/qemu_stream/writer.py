"""Writes records as the bytes of QEMU's migration stream."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, assert_never

from vfiomig.protocol.qemu_stream import framing, vmdesc
from vfiomig.protocol.qemu_stream.command import encode_command
from vfiomig.protocol.qemu_stream.configuration import configuration_state
from vfiomig.protocol.qemu_stream.cursor import encode_counted
from vfiomig.protocol.qemu_stream.ram_writer import (
    encode_blocks,
    encode_mark,
    encode_page,
    encode_pages,
)
from vfiomig.protocol.qemu_stream.records import (
    Command,
    Configuration,
    EndOfFile,
    FileHeader,
    Opaque,
    RamBlocks,
    RamEncodedPage,
    RamEndOfState,
    RamHook,
    RamMultifdFlush,
    RamPages,
    SectionEnd,
    SectionFooter,
    SectionFull,
    SectionPart,
    SectionStart,
    VfioConfig,
    VfioData,
    VfioEndOfState,
    VfioInitDataSent,
    VfioSetup,
    VmDescription,
    VmState,
)
from vfiomig.protocol.qemu_stream.vfio import IRQ
from vfiomig.protocol.qemu_stream.vmstate import encode_state, encode_subsection
from vfiomig.uapi.qemu_stream import (
    QEMU_VM_CONFIGURATION,
    QEMU_VM_FILE_MAGIC,
    QEMU_VM_SECTION_END,
    QEMU_VM_SECTION_FULL,
    QEMU_VM_SECTION_PART,
    QEMU_VM_SECTION_START,
    QEMU_VM_VMDESCRIPTION,
    VFIO_MIG_FLAG_DEV_CONFIG_STATE,
    VFIO_MIG_FLAG_DEV_INIT_DATA_SENT,
    VFIO_MIG_FLAG_DEV_SETUP_STATE,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vfiomig.protocol.qemu_stream.records import Record, View

_FILE_HEADER: Final = struct.Struct(">II")
_INSTANCE_AND_VERSION: Final = struct.Struct(">II")
_VERSION: Final = struct.Struct(">I")


def write_stream(records: Iterable[Record]) -> Iterator[View]:
    """Yield the bytes of all records in order: what ``read_stream`` reads.

    Raises:
        ValueError: a value does not fit where it stands.
    """
    for record in records:
        yield from encode(record)


def encode(record: Record) -> Iterator[View]:
    """Yield the bytes of one record, RAM in pieces of about 1 MiB at most.

    Buffers and device data come as the views that the record holds; pages are
    copied once, each behind its word.

    Raises:
        ValueError: a value does not fit where it stands.
    """
    try:
        yield from _encode(record)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"{type(record).__name__}: {error}") from None


def _encode(record: Record) -> Iterator[View]:
    match record:
        case SectionPart() | SectionEnd() | SectionFooter():
            yield _head(record)
        case SectionStart() | SectionFull():
            yield _named_head(record)
        case RamPages():
            yield from encode_pages(record)
        case RamEncodedPage():
            yield from encode_page(record)
        case RamBlocks():
            yield from encode_blocks(record)
        case RamEndOfState() | RamHook() | RamMultifdFlush():
            yield encode_mark(record)
        case VfioData():
            yield framing.data_head(len(record.data))
            yield record.data
        case VfioSetup() | VfioInitDataSent() | VfioEndOfState():
            yield _VFIO_MARKS[type(record)]
        case VfioConfig():
            yield from _encode_config(record)
        case VmState():
            yield from encode_state(record)
        case Opaque():
            yield record.data
        case _:
            yield from _encode_rare(record)


def _encode_rare(
    record: FileHeader | Configuration | Command | EndOfFile | VmDescription,
) -> Iterator[View]:
    match record:
        case FileHeader():
            yield _FILE_HEADER.pack(QEMU_VM_FILE_MAGIC, record.version)
        case Configuration():
            yield bytes([QEMU_VM_CONFIGURATION])
            yield from encode_state(configuration_state(record))
        case Command():
            yield encode_command(record)
        case EndOfFile():
            yield framing.STREAM_END
        case VmDescription():
            text = vmdesc.text_of(record)
            yield vmdesc.HEAD.pack(QEMU_VM_VMDESCRIPTION, len(text))
            yield text
        case _:
            assert_never(record)


def _head(record: SectionPart | SectionEnd | SectionFooter) -> bytes:
    match record:
        case SectionPart():
            return framing.section_head(QEMU_VM_SECTION_PART, record.section_id)
        case SectionEnd():
            return framing.section_head(QEMU_VM_SECTION_END, record.section_id)
        case SectionFooter():
            return framing.section_foot(record.section_id)


def _named_head(record: SectionStart | SectionFull) -> bytes:
    full = isinstance(record, SectionFull)
    type_ = QEMU_VM_SECTION_FULL if full else QEMU_VM_SECTION_START
    head = framing.section_head(type_, record.section_id)
    rest = _INSTANCE_AND_VERSION.pack(record.instance_id, record.version_id)
    return head + encode_counted(record.idstr) + rest


_VFIO_MARKS: Final = {
    VfioSetup: framing.TAG.pack(VFIO_MIG_FLAG_DEV_SETUP_STATE),
    VfioInitDataSent: framing.TAG.pack(VFIO_MIG_FLAG_DEV_INIT_DATA_SENT),
    VfioEndOfState: framing.END_OF_STATE,
}


def _encode_config(record: VfioConfig) -> Iterator[View]:
    yield framing.TAG.pack(VFIO_MIG_FLAG_DEV_CONFIG_STATE)
    yield _VERSION.pack(record.version)
    yield record.config
    yield IRQ.pack(*record.irq)
    if record.msix is not None:
        yield record.msix.table
        yield record.msix.pending
    if record.display is not None:
        yield from encode_subsection(record.display)
