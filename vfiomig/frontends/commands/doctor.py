"""``vfiomig doctor``: what sysfs and /dev/vfio tell of a device's migration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfiomig.client.doctor import Verdict, examine
from vfiomig.frontends.exit_codes import DONE, NOT_AS_EXPECTED
from vfiomig.frontends.plain_text import plain

if TYPE_CHECKING:
    from vfiomig.client.doctor import Finding

_SYSFS: Final = Path("/sys")
_DEV: Final = Path("/dev")

# What is looked for in /dev, which is this machine's and not another tree's.
_OF_THIS_MACHINE: Final = ("container", "group_node")

_STYLES: Final = {
    Verdict.OK: "green",
    Verdict.PROBLEM: "bold red",
    Verdict.UNKNOWN: "yellow",
}


@click.command()
@click.argument("uuid", required=False)
@click.option(
    "--sysfs-root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Read this tree instead of /sys; /dev/vfio is not looked at then.",
)
def doctor(uuid: str | None, sysfs_root: Path | None) -> int:
    """Tell why a device can or cannot migrate, as far as sysfs and /dev/vfio know.

    UUID names one mdev; without it everything that is there is examined. What only
    the device fd could tell is listed as unknown.

    \b
    vfiomig doctor
    vfiomig doctor 83b8f4f2-509f-382f-3c1e-e6bfe0fa1001
    """  # noqa: D301 -- click wants the character
    findings = examine(sysfs_root or _SYSFS, _DEV, uuid)
    if sysfs_root is not None:
        findings = [f for f in findings if f.about not in _OF_THIS_MACHINE]
    console = Console(highlight=False)
    _print(findings, console)
    problems = sum(finding.verdict is Verdict.PROBLEM for finding in findings)
    unknown = sum(finding.verdict is Verdict.UNKNOWN for finding in findings)
    console.print(f"{problems} problems; {unknown} questions that sysfs cannot answer")
    return NOT_AS_EXPECTED if problems else DONE


def _print(findings: list[Finding], console: Console) -> None:
    """Print the findings by subject; why it matters stands under what is not ok."""
    subject = None
    for finding in findings:
        if (finding.subject, finding.name) != subject:
            subject = (finding.subject, finding.name)
            console.print(
                Text(f"{finding.subject.value} {plain(finding.name)}", "bold")
            )
        table = Table.grid(padding=(0, 2, 0, 0), pad_edge=True)
        table.add_column(min_width=9)
        table.add_column(min_width=20)
        table.add_column(overflow="fold")
        verdict = Text(f"  {finding.verdict.value}", _STYLES[finding.verdict])
        table.add_row(verdict, finding.about, Text(finding.seen))
        if finding.verdict is not Verdict.OK:
            table.add_row("", "", Text(finding.why))
            table.add_row("", "", Text(plain(str(finding.where))))
        console.print(table)
