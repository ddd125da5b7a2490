"""The vmstate values of a migration stream as a tree of lines.

Long buffers and arrays are cut here; ``--json`` has them whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.frontends.plain_text import plain, quoted
from vfiomig.frontends.report.stream_terminal import print_line, print_row, title
from vfiomig.frontends.report.stream_xenstore import store_lines
from vfiomig.frontends.stream_sections import placed
from vfiomig.frontends.stream_xenstore import view_of
from vfiomig.protocol.qemu_stream.records import VfioConfig, VmState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

    from vfiomig.frontends.stream_sections import Section
    from vfiomig.migration.qemu_image import QemuImage
    from vfiomig.protocol.qemu_stream.records import Field, Value

_BYTES: Final = 16
_ELEMENTS: Final = 8
_DIGIT: Final = 9  # what is larger is shown in hex as well
_INDENT: Final = "  "


def print_tree(
    image: QemuImage, name: str, console: Console, *, everything: bool = False
) -> bool:
    """Print the values of each section with ``name`` in its name; tell if any is.

    ``everything``: of a Xen guest's store as well.

    Raises:
        ImageError: the stream is damaged; what could be read is printed.
    """
    print_line(console, title(image), "bold")
    is_found = False
    for section, located in placed(image.records()):
        state = _state_of(located.record)
        if state is not None and name in (section.idstr or ""):
            is_found = True
            print_line(console, "")
            print_line(console, _heading(section), "bold")
            view = view_of(located)
            instead = store_lines(view, everything=everything) if view else {}
            for line in _state(state, _INDENT, instead):
                print_row(console, line)
    return is_found


def _state_of(record: object) -> VmState | None:
    if isinstance(record, VfioConfig):  # of a ramfb: the rest is --vfio's
        return record.display
    return record if isinstance(record, VmState) else None


def _heading(section: Section) -> str:
    where = f"instance {section.instance_id}, version {section.version_id}"
    return f"{plain(section.idstr or '')} ({where}) at {section.offset:#x}"


def _state(
    state: VmState, indent: str, instead: Mapping[str, Iterator[str]]
) -> Iterator[str]:
    """Yield the lines of a state; ``instead`` has those of some fields, by name."""
    for field in state.fields:
        if field.name in instead:
            for line in instead[field.name]:
                yield indent + line
        else:
            yield from _field(field, indent)
    for inner in state.subsections:
        name = plain(inner.vmsd_name or "")
        yield f"{indent}subsection {name}, version {inner.version}"
        yield from _state(inner, indent + _INDENT, instead)


def _field(field: Field, indent: str) -> Iterator[str]:
    name = plain(field.name) + ("" if field.index is None else f"[{field.index}]")
    if not isinstance(field.value, tuple):
        yield from _value(name, field.type, field.value, indent)
    elif any(isinstance(value, VmState) for value in field.value):
        for index, value in enumerate(field.value):
            yield from _value(f"{name}[{index}]", field.type, value, indent)
    else:
        shown = ", ".join(value_text(value) for value in field.value[:_ELEMENTS])
        more = len(field.value) - _ELEMENTS
        rest = f", ... ({more:,} more)" if more > 0 else ""
        head = f"{indent}{name} [{len(field.value):,}] ({plain(field.type)})"
        yield f"{head} {shown}{rest}"


def _value(name: str, kind: str, value: Value, indent: str) -> Iterator[str]:
    if isinstance(value, VmState):
        yield f"{indent}{name}: {plain(value.vmsd_name or kind)}"
        yield from _state(value, indent + _INDENT, {})
    else:
        yield f"{indent}{name} ({plain(kind)}) {value_text(value)}"


def value_text(value: Value) -> str:
    """Return a value that is no struct on one line; a long one is cut."""
    match value:
        case None:
            return "NULL"
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value} ({value:#x})" if abs(value) > _DIGIT else str(value)
        case str():
            return quoted(value)
        case VmState():
            return plain(value.vmsd_name or "struct")
        case _:
            return bytes_shown(value)


def bytes_shown(data: bytes | memoryview) -> str:
    """Return bytes in hex, a long buffer cut, a buffer of zeros in words."""
    size = len(data)
    if size > _BYTES and not any(data):
        return f"{size:,} zero bytes"
    shown = bytes(data[:_BYTES]).hex(" ")
    return f"{shown} ... ({size:,} bytes)" if size > _BYTES else shown or "no bytes"
