"""A run of real QEMUs on a terminal: what QEMU said, what the devices saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.units import bytes_text
from vfiomig.frontends.two_qemus import DeviceVerdict, ending

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

    from vfiomig.frontends.attached_device import Account
    from vfiomig.frontends.attaching import Attached
    from vfiomig.frontends.two_qemus import Moved, TwoQemus

_GOOD: Final = "bold green"
_BAD: Final = "bold red"
_CAUTION: Final = "bold yellow"
_LONGEST_PATH: Final = 8  # states that are shown of a long life


def print_attached(attached: Attached, console: Console) -> None:
    """Print what became of one QEMU; the verdict is the last line."""
    _line(console, "")
    _print_side(attached, console)
    text, style = _verdict_of(attached)
    _line(console, text, style)


def print_moved(moved: Moved, what: TwoQemus, console: Console) -> None:
    """Print what became of a migration between two; the verdict is the last line."""
    for party, side in moved.sides.items():
        _line(console, party, "bold")
        _print_side(side, console)
    table = _new_table("device", "became", "source at stop", "destination at start")
    for each in moved.devices:
        source = each.source.at_stop or "-"
        destination = each.destination.at_start or "-"
        cells = (plain(each.name), each.verdict.value, source[:8], destination[:8])
        table.add_row(*map(Text, cells))
    console.print(table)
    _line(console, "")
    for note in moved.notes:
        _line(console, f"note: {plain(note)}")
    text, style = _verdict_of_move(moved, what)
    _line(console, text, style)


# -- verdicts --------------------------------------------------------------------------


def _verdict_of(attached: Attached) -> tuple[str, str]:
    if attached.deaths:
        return f"died: {plain(str(attached.deaths[0]))}", _BAD
    if attached.has_hung:
        return "QEMU did not end within the limit, and was killed", _BAD
    if attached.status:
        return ending(attached), _BAD
    last = attached.seen.statuses[-1:] or ["no migration"]
    return f"QEMU ended; migration: {last[0]}", _GOOD


def _verdict_of_move(moved: Moved, what: TwoQemus) -> tuple[str, str]:
    verdicts = {each.verdict for each in moved.devices}
    how = f"migration {moved.status}"
    if not moved.is_as_asked(what):
        tampered = what.flip is not None or what.cut is not None
        why = "the stream was damaged on its way, " if tampered else ""
        worst = ", ".join(sorted(each.value for each in verdicts)) or "no device"
        return f"not as it should be: {why}{how}: {worst}", _BAD
    if what.fail is not None:
        return f"{how} at {what.fail}, as asked: {_only(verdicts)}", _GOOD
    if verdicts == {DeviceVerdict.VERIFIED}:
        return f"{how}: state verified", _GOOD
    return f"{how}: {DeviceVerdict.UNVERIFIED.value}", _CAUTION


def _only(verdicts: set[DeviceVerdict]) -> str:
    return ", ".join(each.value for each in verdicts)


# -- one side --------------------------------------------------------------------------


def _print_side(attached: Attached, console: Console) -> None:
    if attached.accounts:
        table = _new_table("device", "saved", "loaded", "resets", "refused", "states")
        for name, account in attached.accounts.items():
            table.add_row(*map(Text, _cells(name, account)))
        console.print(table)
    for line in _qemu_lines(attached.seen.figures):
        _line(console, line)
    if attached.seen.statuses:
        _line(console, f"QEMU's migration: {' > '.join(attached.seen.statuses)}")
    _line(console, f"{attached.calls} calls were answered")
    _line(console, "")


def _cells(name: str, account: Account) -> Iterator[str]:
    yield plain(name)
    yield _moved(account.saved_bytes, account.saved_buffers)
    yield _moved(account.loaded_bytes, account.loaded_buffers)
    yield str(account.resets)
    yield str(account.refusals)
    states = account.states
    shown = states[-_LONGEST_PATH:]
    yield ("... > " if len(states) > len(shown) else "") + " > ".join(shown)


def _moved(count: int, buffers: int) -> str:
    return f"{bytes_text(count)} in {buffers}" if buffers else "-"


def _qemu_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what query-migrate said, where it said anything."""
    times = [
        f"{what} {figures[key]} ms"
        for what, key in (
            ("total time", "total-time"),
            ("downtime", "downtime"),
            ("set-up", "setup-time"),
        )
        if key in figures
    ]
    if times:
        yield f"QEMU: {', '.join(times)}"
    ram = figures.get("ram")
    if ram:
        yield f"QEMU: {bytes_text(int(ram['transferred']))} transferred, devices apart"
    if figures.get("error-desc"):
        yield f"QEMU: {plain(str(figures['error-desc']))}"


def _new_table(*headings: str) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)
