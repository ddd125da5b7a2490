"""The sections of a migration stream, and what each holds, in numbers.

One pass, a record at a time: a section costs the same whatever its length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from vfiomig.frontends.stream_xenstore import has_store
from vfiomig.migration.qemu_image import ImageError
from vfiomig.protocol.qemu_stream.records import (
    Command,
    Configuration,
    EndOfFile,
    FileHeader,
    Opaque,
    RamBlocks,
    RamEncodedPage,
    RamHook,
    RamMultifdFlush,
    RamPageKind,
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

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from vfiomig.protocol.qemu_stream.records import Located, Record

RAM: Final = "ram"

# What begins a row of the table, and what it is called there.  The words in capitals
# are sections, as QEMU names them.
_TYPES: Final[dict[type, str]] = {
    FileHeader: "header",
    Configuration: "configuration",
    Command: "command",
    SectionStart: "START",
    SectionPart: "PART",
    SectionEnd: "END",
    SectionFull: "FULL",
    EndOfFile: "end",
    VmDescription: "vmdesc",
}
_HEADS: Final = (SectionStart, SectionFull)
SECTION_TYPES: Final = frozenset({"START", "PART", "END", "FULL"})
_BITMAP_PIECE: Final = 1 << 20


@dataclass(slots=True)
class RamCount:
    """What sections hold of RAM; pages count as often as they were sent.

    ``encoded`` is XBZRLE and zlib; ``mapped`` pages stand at fixed places in the file.
    """

    blocks: int = 0
    block_bytes: int = 0
    zero: int = 0
    full: int = 0
    encoded: int = 0
    mapped: int = 0
    flushes: int = 0
    hooks: int = 0

    def take(self, record: Record) -> bool:
        """Count a record; tell whether it is RAM's."""
        match record:
            case RamPages(kind=RamPageKind.ZERO):
                self.zero += len(record)
            case RamPages():
                self.full += len(record)
            case RamEncodedPage():
                self.encoded += 1
            case RamBlocks(blocks):
                self.blocks += len(blocks)
                self.block_bytes += sum(block.used_length for block in blocks)
                self.mapped += sum(
                    ones_in(block.mapped.bitmap) for block in blocks if block.mapped
                )
            case RamMultifdFlush():
                self.flushes += 1
            case RamHook():
                self.hooks += 1
            case _:
                return False
        return True

    def add(self, other: RamCount) -> None:
        """Count what another has counted."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class VfioCount:
    """What sections hold of a VFIO device: its records, and the bytes of its data."""

    records: int = 0
    buffers: int = 0
    empty: int = 0  # buffers of size 0 among them
    data_bytes: int = 0
    setups: int = 0
    ends: int = 0  # END_OF_STATE
    init_data_sent: int = 0
    configs: int = 0

    def take(self, record: Record) -> bool:
        """Count a record; tell whether it is a VFIO device's."""
        match record:
            case VfioData(data):
                self.buffers += 1
                self.empty += len(data) == 0
                self.data_bytes += len(data)
            case VfioSetup():
                self.setups += 1
            case VfioEndOfState():
                self.ends += 1
            case VfioInitDataSent():
                self.init_data_sent += 1
            case VfioConfig():
                self.configs += 1
            case _:
                return False
        self.records += 1
        return True

    def add(self, other: VfioCount) -> None:
        """Count what another has counted."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True, kw_only=True)
class Section:
    """A row of the table: a section, or what stands between sections.

    ``number`` counts sections from 1, ``None`` for what is none.  ``size`` is in
    bytes, head and footer included, and grows until the section is complete.
    ``head`` is the record that began it.  ``fields`` and ``subsections`` are those of
    a vmstate, ``opaque`` the bytes of which nothing is known; ``store`` is the record
    of a Xen guest's store.
    """

    type: str
    number: int | None
    head: Record
    offset: int
    idstr: str | None = None
    instance_id: int | None = None
    version_id: int | None = None
    section_id: int | None = None
    size: int = 0
    has_footer: bool = False
    is_cut: bool = False
    ram: RamCount = field(default_factory=RamCount)
    vfio: VfioCount = field(default_factory=VfioCount)
    config: VfioConfig | None = None
    fields: int | None = None
    subsections: int = 0
    opaque: int | None = None
    store: Located | None = None

    @property
    def is_section(self) -> bool:
        """Whether it is one; else it stands between sections."""
        return self.type in SECTION_TYPES

    def take(self, located: Located) -> None:
        """Count the next record of this section."""
        record = located.record
        self.size = located.offset + located.size - self.offset
        match record:
            case SectionFooter():
                self.has_footer = True
            case VmState():
                self.fields = len(record.fields)
                self.subsections = len(record.subsections)
                self.store = located if has_store(record) else None
            case Opaque(data):
                self.opaque = len(data)
            case _ if self.vfio.take(record):
                if isinstance(record, VfioConfig):
                    self.config = record
            case _:
                self.ram.take(record)


def placed(records: Iterable[Located]) -> Iterator[tuple[Section, Located]]:
    """Yield each record with the section that it is part of, counted so far."""
    section, number = None, 0
    for located in records:
        kind = _TYPES.get(type(located.record))
        if kind is not None or section is None:
            kind = kind or "unknown"
            number += kind in SECTION_TYPES
            section = _begun(kind, number, located)
        section.take(located)
        yield section, located


def sections_of(records: Iterable[Located]) -> Iterator[Section]:
    """Yield each section when it is complete; one that the damage cut, marked so.

    Raises:
        ImageError: as the records did, after the last section.
    """
    last = None
    try:
        for section, _ in placed(records):
            if last is not None and section is not last:
                yield last
            last = section
    except ImageError:
        if last is not None:
            last.is_cut = last.is_section and not last.has_footer
            yield last
        raise
    if last is not None:
        yield last


def _begun(kind: str, number: int, located: Located) -> Section:
    head = located.record
    section = Section(
        type=kind,
        number=number if kind in SECTION_TYPES else None,
        head=head,
        offset=located.offset,
    )
    if located.section is not None:
        section.idstr, section.instance_id = located.section
    if isinstance(head, _HEADS):
        section.version_id = head.version_id
    if isinstance(head, SectionStart | SectionFull | SectionPart | SectionEnd):
        section.section_id = head.section_id
    return section


def ones_in(bitmap: NDArray[np.uint8]) -> int:
    """Count the ones of a bitmap, a piece at a time."""
    pieces = (
        bitmap[start : start + _BITMAP_PIECE]
        for start in range(0, len(bitmap), _BITMAP_PIECE)
    )
    return sum(int(_ONES[piece].sum()) for piece in pieces)


_ONES: Final = np.array([value.bit_count() for value in range(256)], np.uint8)
