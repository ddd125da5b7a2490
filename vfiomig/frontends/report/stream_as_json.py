"""A migration stream as JSON, for programs; keys are only ever added.

It is written while the stream is read, a record a line, so that neither needs memory.
Device data and pages are not in it: ``--extract`` has them.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import msgspec

from vfiomig.frontends.report.stream_words import command_name, uuid_text
from vfiomig.frontends.stream_sections import placed
from vfiomig.frontends.stream_totals import Totals
from vfiomig.frontends.stream_xenstore import view_of
from vfiomig.migration.qemu_image import ImageError
from vfiomig.protocol.qemu_stream.records import (
    Command,
    Configuration,
    FileHeader,
    Opaque,
    PostcopyAdvice,
    RamBlock,
    RamBlocks,
    RamDiscard,
    RamEncodedPage,
    RamHook,
    RamMultifdFlush,
    RamPageKind,
    RamPages,
    VfioConfig,
    VfioData,
    VfioEndOfState,
    VfioInitDataSent,
    VfioSetup,
    VmDescription,
    VmState,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vfiomig.frontends.stream_sections import RamCount, Section, VfioCount
    from vfiomig.frontends.stream_totals import Part
    from vfiomig.migration.qemu_image import QemuImage
    from vfiomig.protocol.qemu_stream.records import Field, Located, Record, Value

_SCHEMA: Final = 1
_WORD: Final = 1 << 64
_VECTOR: Final = 16  # bytes of the MSI-X table
_RUNS: Final = (RamPages, RamEncodedPage, RamHook, RamMultifdFlush)
_KINDS: Final = {
    RamPageKind.ZERO: "zero",
    RamPageKind.PAGE: "full",
    RamPageKind.XBZRLE: "xbzrle",
    RamPageKind.COMPRESS_PAGE: "zlib",
}


def write_json(
    image: QemuImage, write: Callable[[bytes], object], *, with_runs: bool
) -> None:
    """Write the whole stream as one JSON object; ``with_runs``: RAM's runs as well.

    A damaged stream is written as far as it can be read, with its ``damage``.

    Raises:
        ImageError: the stream is damaged; the object is whole all the same.
    """
    totals, damage = Totals(), None
    head = {"schema": _SCHEMA, "file": text(image.name), "size": image.size}
    write(_encoded({**head, "packed": image.packed})[:-1] + b',"sections":[')
    try:
        _write_sections(image, write, totals, with_runs=with_runs)
    except ImageError as error:
        damage = error
    write(b"\n]," + _encoded(_tail(totals, damage))[1:] + b"\n")
    if damage is not None:
        raise damage


def _write_sections(
    image: QemuImage,
    write: Callable[[bytes], object],
    totals: Totals,
    *,
    with_runs: bool,
) -> None:
    """Write the rows, each with its records; one that was cut is closed as well."""
    last, comma = None, b"\n"
    try:
        for section, located in placed(image.records()):
            if section is not last:
                if last is not None:
                    _end(last, write, totals)
                separator = b"\n" if last is None else b",\n"
                write(separator + _encoded(_head(section))[:-1] + b',"records":[')
                last, comma = section, b"\n  "
            if with_runs or not isinstance(located.record, _RUNS):
                told = _record(located)
                if told is not None:
                    write(comma + _encoded(told))
                    comma = b",\n  "
    except ImageError:
        if last is not None:
            last.is_cut = last.is_section and not last.has_footer
            _end(last, write, totals)
        raise
    if last is not None:
        _end(last, write, totals)


def _end(section: Section, write: Callable[[bytes], object], totals: Totals) -> None:
    totals.add(section)
    tail = {
        "size": section.size,
        "has_footer": section.has_footer,
        "is_cut": section.is_cut,
        "ram": _counts(section.ram),
        "vfio": _counts(section.vfio),
        "xenstore": None if section.store is None else _store(section.store),
    }
    write(b"]," + _encoded(tail)[1:])


def _head(section: Section) -> dict[str, object]:
    return {
        "number": section.number,
        "type": section.type,
        "name": None if section.idstr is None else text(section.idstr),
        "instance_id": section.instance_id,
        "version_id": section.version_id,
        "section_id": section.section_id,
        "offset": section.offset,
    }


def _counts(counted: RamCount | VfioCount) -> dict[str, int] | None:
    """Return what was counted; ``None`` where that is nothing."""
    counts: dict[str, int] = asdict(counted)
    return counts if any(counts.values()) else None


def _store(located: Located) -> dict[str, object] | None:
    """Return what a Xen guest's store has; of a damaged one how long it is."""
    view = view_of(located)
    if view is None:
        return None
    store, damage = view.store, view.store_damage or view.events_damage
    return {
        "bytes": view.size,
        "nodes": None if store is None else store.tree.count,
        "transactions": None if store is None else len(store.transactions),
        "watches": None if store is None else len(store.watches),
        "events": None if view.events_damage else len(view.events),
        "damage": None
        if damage is None
        else {"position": damage.position, "reason": text(damage.reason)},
    }


def _tail(totals: Totals, damage: ImageError | None) -> dict[str, object]:
    description = totals.description
    return {
        "parts": [_part(part) for part in totals.parts()],
        "has_footers": totals.has_footers,
        "vm_description": description.size if description.sections else None,
        "damage": None
        if damage is None
        else {"position": damage.position, "reason": text(damage.reason)},
    }


def _part(part: Part) -> dict[str, object]:
    return {
        "name": text(part.name),
        "instance_id": part.instance_id,
        "is_vfio": part.is_vfio,
        "sections": part.sections,
        "size": part.size,
        "ram": _counts(part.ram),
        "vfio": _counts(part.vfio),
    }


# -- records -----------------------------------------------------------------------


def _record(located: Located) -> dict[str, object] | None:
    """Return a record; ``None`` where its section says it all."""
    told = _facts(located.record)
    if told is None:
        return None
    kind, facts = told
    place = {"offset": located.offset, "size": located.size}
    return {"record": kind, **place, **facts}


def _facts(record: Record) -> tuple[str, dict[str, object]] | None:
    match record:
        case FileHeader(version):
            return "header", {"version": version}
        case Configuration():
            return "configuration", _configuration(record)
        case Command():
            return "command", _command(record)
        case VmDescription(document):
            return "vmdesc", {"page_size": _number(document.get("page_size"))}
        case Opaque():
            return "opaque", {}
        case VmState():
            return "vmstate", {"state": _state(record)}
        case _:
            return _vfio(record) or _ram(record)


def _configuration(record: Configuration) -> dict[str, object]:
    capabilities = record.capabilities
    return {
        "machine": text(record.machine),
        "target_page_bits": record.target_page_bits,
        "capabilities": None if capabilities is None else [*map(text, capabilities)],
        "uuid": None if record.uuid is None else uuid_text(record.uuid),
    }


def _command(record: Command) -> dict[str, object]:
    argument: object
    match record.argument:
        case PostcopyAdvice():
            argument = asdict(record.argument)
        case RamDiscard(block, ranges):
            argument = {"block": text(block), "ranges": ranges}
        case str(block):
            argument = text(block)
        case int() | None as number:
            argument = number
        case data:
            argument = data.hex()
    return {"command": command_name(record.command), "argument": argument}


def _vfio(record: Record) -> tuple[str, dict[str, object]] | None:
    match record:
        case VfioSetup():
            return "SETUP", {}
        case VfioData(data):
            return "DATA", {"data_size": len(data)}
        case VfioInitDataSent():
            return "INIT_DATA_SENT", {}
        case VfioEndOfState():
            return "END_OF_STATE", {}
        case VfioConfig():
            return "CONFIG", {"config": _config(record)}
        case _:
            return None


def _config(config: VfioConfig) -> dict[str, object]:
    msix = config.msix
    return {
        "version": config.version,
        "config": config.config.hex(),
        "irq": config.irq,
        "msix": None
        if msix is None
        else {
            "vectors": len(msix.table) // _VECTOR,
            "table": msix.table.hex(),
            "pending": msix.pending.hex(),
        },
        "display": None if config.display is None else _state(config.display),
    }


def _ram(record: Record) -> tuple[str, dict[str, object]] | None:
    match record:
        case RamBlocks(blocks):
            return "blocks", {"blocks": [_block(block) for block in blocks]}
        case RamPages():
            return "pages", {
                "kind": _KINDS[record.kind],
                "block": text(record.block),
                "pages": len(record),
                "first": int(record.addresses[0]),
                "last": int(record.addresses[-1]),
            }
        case RamEncodedPage():
            first = {"first": record.address, "last": record.address}
            block = {"block": text(record.block), "pages": 1}
            return "pages", {"kind": _KINDS[record.kind], **block, **first}
        case RamMultifdFlush():
            return "flush", {}
        case RamHook():
            return "hook", {}
        case _:
            return None


def _block(block: RamBlock) -> dict[str, object]:
    mapped = block.mapped
    return {
        "name": text(block.idstr),
        "used_length": block.used_length,
        "page_size": block.page_size,
        "address": block.address,
        "mapped": None
        if mapped is None
        else {
            "page_size": mapped.page_size,
            "bitmap_offset": mapped.bitmap_offset,
            "pages_offset": mapped.pages_offset,
        },
    }


# -- vmstate -----------------------------------------------------------------------


def _state(state: VmState) -> dict[str, object]:
    return {
        "vmsd_name": None if state.vmsd_name is None else text(state.vmsd_name),
        "version": _number(state.version),
        "fields": [_field(field) for field in state.fields],
        "subsections": [_state(inner) for inner in state.subsections],
    }


def _field(field: Field) -> dict[str, object]:
    return {
        "name": text(field.name),
        "type": text(field.type),
        "size": _number(field.size),
        "index": _number(field.index),
        "value": _values(field),
    }


def _values(field: Field) -> object:
    value = field.value
    if not isinstance(value, tuple):
        return _value(value)
    is_bytes = (field.type, field.size) == ("uint8", 1)  # there may be many
    return value if is_bytes else [*map(_value, value)]


def _value(value: Value) -> object:
    """Return a value: a buffer and a number of more than 64 bits as hex."""
    match value:
        case VmState():
            return _state(value)
        case str():
            return text(value)
        case int() if not isinstance(value, bool):
            return _number(value)
        case bytes() | memoryview() as data:
            return data.hex()
        case _:
            return value


def text(name: str) -> str:
    r"""Return a name of the stream as valid Unicode, a byte that is none ``\udcff``."""
    return name.encode(errors="backslashreplace").decode()


def _number(value: object) -> int | str | None:
    """Return what a VM description says is a number, if it is one."""
    if not isinstance(value, int):
        return None
    # No JSON number of ours holds more than 64 bits.
    return value if -_WORD // 2 <= value < _WORD else hex(value)


def _encoded(facts: Mapping[str, object]) -> bytes:
    return msgspec.json.encode(facts)
