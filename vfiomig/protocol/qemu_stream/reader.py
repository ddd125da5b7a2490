"""Reads a whole migration stream of QEMU: bytes in, records out.

A stream does not say how long a section is.  RAM and VFIO devices end themselves;
what a FULL section holds the VM description at the end tells, so that is looked for
first; of all else the end is its footer, if there are footers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream import vmdesc
from vfiomig.protocol.qemu_stream.command import read_command
from vfiomig.protocol.qemu_stream.configuration import read_configuration
from vfiomig.protocol.qemu_stream.cursor import Cursor
from vfiomig.protocol.qemu_stream.footer import find_footer, is_plausible
from vfiomig.protocol.qemu_stream.framing import section_foot
from vfiomig.protocol.qemu_stream.ram import RamReader
from vfiomig.protocol.qemu_stream.records import (
    EndOfFile,
    FileHeader,
    Located,
    Opaque,
    PostcopyAdvice,
    SectionEnd,
    SectionFooter,
    SectionFull,
    SectionName,
    SectionPart,
    SectionStart,
)
from vfiomig.protocol.qemu_stream.vfio import is_vfio, read_vfio
from vfiomig.protocol.qemu_stream.vmstate import VmStateReader
from vfiomig.uapi.qemu_stream import (
    QEMU_VM_COMMAND,
    QEMU_VM_CONFIGURATION,
    QEMU_VM_EOF,
    QEMU_VM_FILE_MAGIC,
    QEMU_VM_FILE_VERSION,
    QEMU_VM_SECTION_END,
    QEMU_VM_SECTION_FULL,
    QEMU_VM_SECTION_PART,
    QEMU_VM_SECTION_START,
    QEMU_VM_VMDESCRIPTION,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeAlias

    from vfiomig.protocol.qemu_stream.records import (
        Configuration,
        Record,
        VmDescription,
    )
    from vfiomig.protocol.qemu_stream.vmstate import Description

    Head: TypeAlias = SectionStart | SectionFull | SectionPart | SectionEnd

RAM_IDSTR: Final = "ram"
_PAGE_SIZE: Final = 4096  # where nothing tells another
_MOST_MISFITS: Final = 16  # then the VM description is believed no more


def read_stream(data: memoryview) -> Iterator[Located]:
    """Yield every record of the stream that ``data`` is, in order, without a gap.

    Of a stream that is damaged or cut, all records that can be known come first.
    Pages, device data and buffers are views of ``data``.

    Raises:
        StreamError: it goes on in no way that is known, or ends too early.
    """
    yield from _Reader(data.cast("B")).read()


class _Reader:
    """What is known of a stream while it is read."""

    def __init__(self, data: memoryview) -> None:
        self._source = Cursor(data)
        self._names: dict[int, SectionName] = {}
        self._footers: bool | None = None  # not known before the first section
        self._fault: StreamError | None = None
        self._misfits = 0
        self._page_size = _PAGE_SIZE
        self._ram: RamReader | None = None
        self._configuration: Configuration | None = None
        self._page_sizes = 0
        self._description: VmDescription | None = None
        self._devices: dict[SectionName, Description] = {}
        self._description_at = vmdesc.find(data)
        if self._description_at is not None:
            self._look_ahead(self._description_at)

    def _look_ahead(self, position: int) -> None:
        """Use the VM description; one that is damaged is told of when it is read."""
        text = self._source.data[position + vmdesc.HEAD.size :]
        try:
            self._description = vmdesc.parse(text, position)
        except StreamError:
            return
        document = self._description.document
        self._devices = vmdesc.devices_of(document)
        self._page_size = vmdesc.page_size_of(document) or _PAGE_SIZE

    def read(self) -> Iterator[Located]:
        """Yield everything."""
        source = self._source
        yield from self._file_header()
        while True:
            began = source.position
            if not source.remaining:
                raise source.error("the stream ends before its end of file")
            type_ = source.peek(1)[0]
            if type_ in _SECTIONS:
                yield from self._section()
            elif type_ == QEMU_VM_COMMAND:
                yield self._command()
            elif type_ == QEMU_VM_EOF:
                source.position += 1
                yield self._located(EndOfFile(), began)
                break
            else:
                raise source.error(f"no record has type {type_:#x}")
        try:
            yield from self._behind_the_end()
        except StreamError as error:
            raise self._fault or error from None
        if self._fault is not None:
            raise self._fault

    def _located(
        self, record: Record, began: int, section: SectionName | None = None
    ) -> Located:
        return Located(record, began, self._source.position - began, section)

    def _file_header(self) -> Iterator[Located]:
        source = self._source
        magic = source.be32("its header")
        if magic != QEMU_VM_FILE_MAGIC:
            raise source.error("this is no migration stream of QEMU", 0)
        version = source.be32("its header")
        if version != QEMU_VM_FILE_VERSION:
            raise source.error(f"version {version} of the format is not known", 4)
        yield self._located(FileHeader(version), 0)
        began = source.position
        if source.peek(1) == bytes([QEMU_VM_CONFIGURATION]):
            source.position += 1
            self._configuration = read_configuration(source)
            bits = self._configuration.target_page_bits
            if bits is not None:
                self._page_size = 1 << bits
            yield self._located(self._configuration, began)

    def _command(self) -> Located:
        began = self._source.position
        self._source.position += 1
        command = read_command(self._source)
        if isinstance(command.argument, PostcopyAdvice):
            self._page_sizes = command.argument.page_sizes
        return self._located(command, began)

    def _section(self) -> Iterator[Located]:
        began = self._source.position
        head = self._head()
        name = self._names[head.section_id]
        yield self._located(head, began, name)
        yield from self._payload(head, name)
        yield from self._footer(head.section_id, name)

    def _head(self) -> Head:
        source = self._source
        what = "the head of a section"
        began = source.position
        type_ = source.u8(what)
        section_id = source.be32(what)
        if type_ in (QEMU_VM_SECTION_PART, QEMU_VM_SECTION_END):
            if section_id not in self._names:
                raise source.error(
                    f"section {section_id} goes on but never began", began
                )
            return _UNNAMED[type_](section_id)
        idstr = source.counted_string(what)
        head = _NAMED[type_](
            section_id=section_id,
            idstr=idstr,
            instance_id=source.be32(what),
            version_id=source.be32(what),
        )
        self._names[section_id] = SectionName(idstr, head.instance_id)
        return head

    def _payload(self, head: Head, name: SectionName) -> Iterator[Located]:
        full = isinstance(head, SectionFull)
        if name.idstr == RAM_IDSTR and not full:
            yield from self._each(self._ram_reader().read(), name)
        elif is_vfio(name.idstr) and not full:
            yield from self._each(read_vfio(self._source, head.section_id, None), name)
        elif is_vfio(name.idstr):
            size = self._described_size(name)
            records = read_vfio(self._source, head.section_id, size)
            yield from self._whole(records, head, name)
        elif full and name in self._devices:
            reader = VmStateReader(self._source)
            states = (reader.read(self._devices[each]) for each in (name,))
            yield from self._whole(states, head, name)
        else:
            yield self._opaque(head, name)

    def _each(self, records: Iterable[Record], name: SectionName) -> Iterator[Located]:
        began = self._source.position
        for record in records:
            yield self._located(record, began, name)
            began = self._source.position

    def _whole(
        self, records: Iterable[Record], head: Head, name: SectionName
    ) -> Iterator[Located]:
        """Yield the records of a FULL section; as opaque what cannot be read so."""
        source = self._source
        began = source.position
        try:
            found = list(self._each(records, name))
            footer = section_foot(head.section_id)
            if self._footers and source.peek(len(footer)) != footer:
                raise source.error(f"section {name.idstr!r} is not as it is described")
        except StreamError as fault:
            self._misfit(fault)
            source.position = began
            found = [self._opaque(head, name)]
        yield from found

    def _misfit(self, fault: StreamError) -> None:
        self._fault = self._fault or fault
        self._misfits += 1
        if self._misfits == _MOST_MISFITS:
            self._devices = {}

    def _opaque(self, head: Head, name: SectionName) -> Located:
        source = self._source
        began = source.position
        end = None
        if self._footers is not False:
            end = find_footer(source.data, began, head.section_id, self._names)
        if end is None:
            error = source.error(f"nothing tells where section {name.idstr!r} ends")
            raise self._fault or error
        data = source.take(end - began, "a section")
        return self._located(Opaque(data), began, name)

    def _footer(self, section_id: int, name: SectionName) -> Iterator[Located]:
        source = self._source
        began = source.position
        footer = section_foot(section_id)
        if source.peek(len(footer)) == footer:
            self._footers = True
            source.position += len(footer)
            yield self._located(SectionFooter(section_id), began, name)
        elif footer.startswith(source.peek(len(footer))) and self._footers is not False:
            raise source.cut(f"the footer of section {name.idstr!r}")
        elif self._footers:
            raise source.error(f"section {name.idstr!r} has no footer here")
        elif is_plausible(source.data, began, self._names):
            self._footers = False
        else:
            raise source.error(f"no record follows section {name.idstr!r}")

    def _ram_reader(self) -> RamReader:
        if self._ram is None:
            configuration = self._configuration
            names = configuration.capabilities if configuration else None
            self._ram = RamReader(self._source, self._page_size)
            self._ram.page_sizes = self._page_sizes
            self._ram.addressed = "x-ignore-shared" in (names or ())
            self._ram.mapped = "mapped-ram" in (names or ())
        return self._ram

    def _described_size(self, name: SectionName) -> int | None:
        size = self._devices.get(name, {}).get("size")
        return size if isinstance(size, int) else None

    def _behind_the_end(self) -> Iterator[Located]:
        source = self._source
        began = source.position
        if source.peek(1) == bytes([QEMU_VM_VMDESCRIPTION]):
            source.position += 1
            what = "the VM description"
            text = source.take(source.be32(what), what)
            if self._description is None or began != self._description_at:
                self._description = vmdesc.parse(text, began)
            yield self._located(self._description, began)
        if source.remaining:
            raise source.error("there is more behind the end")


_SECTIONS: Final = (
    QEMU_VM_SECTION_START,
    QEMU_VM_SECTION_PART,
    QEMU_VM_SECTION_END,
    QEMU_VM_SECTION_FULL,
)
_NAMED: Final[dict[int, type[SectionStart | SectionFull]]] = {
    QEMU_VM_SECTION_START: SectionStart,
    QEMU_VM_SECTION_FULL: SectionFull,
}
_UNNAMED: Final[dict[int, type[SectionPart | SectionEnd]]] = {
    QEMU_VM_SECTION_PART: SectionPart,
    QEMU_VM_SECTION_END: SectionEnd,
}
