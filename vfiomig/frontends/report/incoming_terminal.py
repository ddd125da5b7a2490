"""A stream that was loaded, on a terminal; the verdict is the last line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from vfiomig.frontends.incoming_report import verdict_of
from vfiomig.frontends.plain_text import CLAIM, plain
from vfiomig.frontends.report.units import bytes_text
from vfiomig.frontends.report.verdict import device_words
from vfiomig.migration.metrics import Outcome
from vfiomig.protocol.qemu_stream.framing import VFIO_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from vfiomig.frontends.incoming_report import IncomingReport, LoadedRam
    from vfiomig.frontends.run_report import DeviceReport

_LABEL: Final = 13
_SHOWN: Final = 8  # of what was passed over, by name
_HEADINGS: Final = ("device", "is", "section", "took", "before", "after")


def print_incoming(report: IncomingReport, console: Console) -> None:
    """Print what became of it."""
    machine = f" of {plain(report.machine_type)}" if report.machine_type else ""
    title = f"{plain(report.file)}: {bytes_text(report.size)}{machine}"
    _line(console, title, "bold")
    _line(console, "")
    for what, text in _figures(report):
        _line(console, f"{what:<{_LABEL}}  {text}")
    _line(console, "")
    console.print(_devices_table(report))
    _line(console, "")
    for each in report.reports:
        if each.reason:
            _line(console, f"{plain(each.name)}: {plain(each.reason)}")
    for note in report.notes:
        _line(console, f"note: {plain(note)}")
    verdict = verdict_of(report)
    style = "bold green" if verdict == CLAIM else "bold yellow"
    _line(console, verdict, style if report.ok else "bold red")


def _figures(report: IncomingReport) -> Iterator[tuple[str, str]]:
    for number, text in enumerate(_ram_words(report.ram)):
        yield "" if number else "RAM", text
    if report.outcome is not Outcome.COMPLETED:
        states = [f"{plain(e.report.name)} {e.device_state}" for e in report.devices]
        yield "left in", ", ".join(states)
    if changed := [each for each in report.devices if each.changed_config]:
        parts = [f"{plain(e.report.name)} {e.changed_config}" for e in changed]
        yield "configuration", f"bytes changed, not compared: {', '.join(parts)}"
    if report.passed_over:
        names = [plain(name) for name in report.passed_over]
        more = len(names) - _SHOWN
        shown = ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
        count = sum(report.passed_over.values())
        yield "passed over", f"{count} section{'s' * (count != 1)}: {shown}"
    if report.commands:
        numbers = ", ".join(map(str, report.commands[:_SHOWN]))
        yield "commands", f"{len(report.commands)}: {numbers}"
    if report.expected_from is not None:
        yield "compared with", plain(report.expected_from)


def _ram_words(ram: LoadedRam) -> Iterator[str]:
    if ram.report is not None:
        yield f"{ram.pages} pages"
    if ram.encoded:
        yield f"{ram.encoded} pages left out: they are written as changes, or packed"
    names = list(ram.left_out.items())
    for name, why in names[:_SHOWN]:
        yield f"{plain(name)} left out: {plain(why)}"
    if len(names) > _SHOWN:
        yield f"and {len(names) - _SHOWN} more blocks left out"


def _devices_table(report: IncomingReport) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in _HEADINGS:
        table.add_column(heading, overflow="fold")
    for each in report.devices:
        place = plain(each.idstr.removesuffix(VFIO_SUFFIX))
        _row(table, each.report, place, bytes_text(each.size))
    if report.ram.report is not None:
        _row(table, report.ram.report, "-", f"{report.ram.pages} pages")
    return table


def _row(table: Table, device: DeviceReport, *cells: str) -> None:
    digests = device.digests
    ends = (digests.destination_before, digests.destination_after)
    shown = [digest[:8] if digest else "-" for digest in ends]
    texts = (plain(device.name), device_words(device.verdict), *cells, *shown)
    table.add_row(*map(Text, texts))


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)
