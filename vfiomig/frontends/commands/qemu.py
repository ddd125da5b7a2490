"""``vfiomig qemu``: a real QEMU on simulated devices."""

from __future__ import annotations

import contextlib
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import click
import msgspec
from rich.console import Console

from vfiomig.client.recorder import HistoryWriter
from vfiomig.frontends.attaching import Attached, Attachment, attach
from vfiomig.frontends.commands.judge import judge_file
from vfiomig.frontends.exit_codes import DONE, INTERRUPTED, NOT_AS_EXPECTED
from vfiomig.frontends.fail_steps import CANCEL, FAIL_STEPS
from vfiomig.frontends.report.qemu_as_json import attached_as_dict, moved_as_dict
from vfiomig.frontends.report.qemu_terminal import print_attached, print_moved
from vfiomig.frontends.report.writing import writing_whole
from vfiomig.frontends.two_qemus import TwoQemus, migrate_qemus

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.frontends.two_qemus import Moved

_OUTPUT: Final = click.Path(path_type=Path)
_DEFAULT_COMMAND: Final = (
    *("qemu-system-x86_64", "-M", "pc", "-m", "64", "-accel", "tcg"),
    *("-nodefaults", "-display", "none"),
)
_LIMIT: Final = 120.0  # seconds, for a migration that nobody watches
_WORK: Final = 1000  # units a second, so that there is state to move


@click.command(context_settings={"ignore_unknown_options": False})
@click.option(
    "--device",
    "targets",
    multiple=True,
    metavar="TARGET",
    default=("reference",),
    show_default=True,
    help="A device for QEMU; may be repeated. Without {vfio} in QEMU's arguments it "
    "is added behind them.",
)
@click.option(
    "--migrate",
    "is_migration",
    is_flag=True,
    help="Start two QEMUs, migrate live from one to the other, and end both.",
)
@click.option(
    "--fail",
    type=click.Choice([*FAIL_STEPS, CANCEL]),
    help="With --migrate: let the device fail there, once, or cancel.",
)
@click.option(
    "--flip",
    type=click.IntRange(min=0),
    metavar="BYTE",
    help="With --migrate: flip a bit of that byte of the stream.",
)
@click.option(
    "--cut",
    type=click.IntRange(min=0),
    metavar="BYTE",
    help="With --migrate: break the link before that byte of the stream.",
)
@click.option(
    "--work",
    type=click.IntRange(min=0),
    metavar="N",
    help="Units of guest traffic a second, for each device while it runs "
    f"(with --migrate {_WORK}, else 0).",
)
@click.option(
    "--limit",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help=f"End QEMU after so long (with --migrate {_LIMIT:g}, else never).",
)
@click.option(
    "--history",
    "history_file",
    type=_OUTPUT,
    help="Write every access to the migration regions, as JSON lines.",
)
@click.option(
    "--judge", "is_judged", is_flag=True, help="Judge the accesses by the rules of v1."
)
@click.option("--json", "json_file", type=_OUTPUT, help="Write all figures as JSON.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def qemu(
    targets: tuple[str, ...],
    is_migration: bool,  # noqa: FBT001 -- click calls it by name
    fail: str | None,
    flip: int | None,
    cut: int | None,
    work: int | None,
    limit: float | None,
    history_file: Path | None,
    is_judged: bool,  # noqa: FBT001 -- click calls it by name
    json_file: Path | None,
    command: tuple[str, ...],
) -> int:
    """Run the QEMU that you have on devices that live in Python.

    COMMAND is QEMU with its arguments, behind --. It opens /dev/vfio as ever, and
    vfiomig answers; neither root nor a kernel module is needed. QEMU 7.2 is the last
    that speaks v1 of the migration protocol.

    {vfio} in an argument stands for what -device takes, so that options can be added:
    -device {vfio},addr=05.0.

    \b
    vfiomig qemu --device serial -- qemu-system-x86_64 -m 64 -display none
    vfiomig qemu --device driver.py:MyDriver --judge -- qemu-system-x86_64 -nographic
    vfiomig qemu --migrate --device driver.py:MyDriver
    vfiomig qemu --migrate --device accelerator --fail stop-and-copy
    """  # noqa: D301 -- click wants the character
    if not is_migration and (fail, flip, cut) != (None, None, None):
        message = "--fail, --flip and --cut are about --migrate"
        raise click.UsageError(message)
    if not command and not is_migration:
        message = "which QEMU? Put it behind --, with its arguments"
        raise click.UsageError(message)
    with contextlib.ExitStack() as outputs:
        as_json = outputs.enter_context(writing_whole(json_file)) if json_file else None
        history, judged = _history(outputs, history_file, is_judged=is_judged)
        console = Console(highlight=False)
        if is_migration:
            what = TwoQemus(
                command=command or _DEFAULT_COMMAND,
                targets=targets,
                work=_WORK if work is None else work,
                limit=limit or _LIMIT,
                fail=fail,
                flip=flip,
                cut=cut,
            )
            moved = migrate_qemus(what, history)
            facts, code = moved_as_dict(moved, what), _code_of_move(moved, what)
            show = partial(print_moved, moved, what, console)
        else:
            attachment = Attachment(
                command=command, targets=targets, work=work or 0, limit=limit
            )
            attached = attach(attachment, HistoryWriter(history or _nowhere))
            facts, code = attached_as_dict(attached), _code_of(attached)
            show = partial(print_attached, attached, console)
        if as_json is not None:
            as_json(msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n")
    show()
    if judged is not None:
        with judged:
            judged.seek(0)
            code = judge_file("QEMU", judged, console) or code
    return code


def _history(
    outputs: contextlib.ExitStack, path: Path | None, *, is_judged: bool
) -> tuple[Callable[[bytes], object] | None, BinaryIO | None]:
    """Return what writes the history, and the copy of it that is to be judged."""
    write = outputs.enter_context(writing_whole(path)) if path is not None else None
    if not is_judged:
        return write, None
    copy = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 -- read later

    def write_both(data: bytes) -> None:
        copy.write(data)
        if write is not None:
            write(data)

    return write_both, copy


def _nowhere(_: bytes) -> None:
    """Take a history that nobody asked for."""


def _code_of(attached: Attached) -> int:
    if attached.is_interrupted:
        return INTERRUPTED
    has_failed = attached.deaths or attached.has_hung or attached.status
    return NOT_AS_EXPECTED if has_failed else DONE


def _code_of_move(moved: Moved, what: TwoQemus) -> int:
    if any(side.is_interrupted for side in moved.sides.values()):
        return INTERRUPTED
    return DONE if moved.is_as_asked(what) else NOT_AS_EXPECTED
