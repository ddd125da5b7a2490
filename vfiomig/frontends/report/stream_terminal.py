"""A migration stream on a terminal: its sections as a table, and the totals.

Rule 1: a row is printed when its section is complete, so that a stream of any length
takes no memory, and what stands before a damage is seen.

Rule 2: the names of a stream are somebody else's: they are printed plain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.stream_words import counted, holds, ram_words, vfio_words
from vfiomig.frontends.report.units import bytes_text
from vfiomig.frontends.stream_sections import sections_of
from vfiomig.frontends.stream_totals import Totals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from vfiomig.frontends.stream_sections import Section
    from vfiomig.frontends.stream_totals import Part
    from vfiomig.migration.qemu_image import QemuImage

_HEADING: Final = (
    f"{'#':>5}  {'type':<13} {'offset':>11} {'size':>11} {'id':>4} {'inst':>4} "
    f"{'ver':>3}  {'name':<28}  holds"
)

_KIB: Final = 1 << 10
_PART: Final = 32
_TOTALS_HEADING: Final = f"{'part':<{_PART}} {'rows':>8} {'bytes':>13}  holds"


def print_sections(image: QemuImage, console: Console) -> None:
    """Print the table of all sections, and the totals by part.

    Raises:
        ImageError: the stream is damaged; what could be read is printed.
    """
    print_line(console, title(image), "bold")
    print_line(console, "")
    print_line(console, _HEADING, "dim")
    totals = Totals()
    try:
        for section in sections_of(image.records()):
            totals.add(section)
            print_row(console, _row(section))
    finally:
        print_line(console, "")
        print_totals(totals, console)


def title(image: QemuImage) -> str:
    """Return the name of a stream and its size."""
    packed = f", unpacked from {image.packed}" if image.packed else ""
    size = f"{image.size:,} bytes"
    size += f", {bytes_text(image.size)}" if image.size >= _KIB else ""
    return f"{plain(image.name)}: {size}{packed}"


def print_line(console: Console, text: str, style: str = "") -> None:
    """Print one line that is never wrapped."""
    console.print(Text(_printable(console, text), style=style), soft_wrap=True)


def print_row(console: Console, text: str) -> None:
    """Print one of many lines; rich would take longer than reading the stream."""
    console.file.write(f"{_printable(console, text.rstrip())}\n")


def _printable(console: Console, text: str) -> str:
    """Return ``text`` without what the terminal's encoding does not have."""
    if text.isascii():
        return text
    return text.encode(console.encoding, "backslashreplace").decode(console.encoding)


def print_totals(totals: Totals, console: Console) -> None:
    """Print the totals by part, and what is true of the whole stream."""
    print_line(console, _TOTALS_HEADING, "dim")
    for part in totals.parts():
        words = ", ".join([*ram_words(part.ram), *vfio_words(part.vfio)])
        sizes = f"{part.sections:>8,} {part.size:>13,}"
        print_row(console, f"{_part_name(part):<{_PART}} {sizes}  {words}")
    print_line(console, "")
    for line in _facts(totals):
        print_line(console, line)


def _part_name(part: Part) -> str:
    instance = f" (instance {part.instance_id})" if part.instance_id else ""
    return plain(part.name) + instance


def _facts(totals: Totals) -> Iterator[str]:
    configuration = totals.configuration
    if configuration is None:
        yield "configuration: none (machine types up to 2.3 send none)"
    if totals.has_footers is not None:
        without = "no (machine types up to 2.3 send none)"
        yield f"footers: {'yes' if totals.has_footers else without}"
    if totals.description.sections:
        yield f"VM description: {counted(totals.description.size, 'byte')}"
    else:
        yield "VM description: none"
    if totals.opaque:
        yield f"not described: {counted(totals.opaque, 'section')}"


def _row(section: Section) -> str:
    number = "" if section.number is None else str(section.number)
    name = "" if section.idstr is None else plain(section.idstr)
    identity = (
        f"{_number(section.section_id):>4} {_number(section.instance_id):>4} "
        f"{_number(section.version_id):>3}"
    )
    place = f"{section.offset:>#11x} {section.size:>11,}"
    row = f"{number:>5}  {section.type:<13} {place} {identity}  {name:<28}"
    return f"{row}  {holds(section)}"


def _number(value: int | None) -> str:
    return "" if value is None else str(value)
