"""One live migration between two real QEMUs, and what became of each device."""

from __future__ import annotations

import contextlib
import enum
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vfiomig.frontends.attached_device import Account
from vfiomig.frontends.attached_machine import labels
from vfiomig.frontends.attaching import Attached, Attachment, Known, find_out
from vfiomig.frontends.fail_steps import CANCEL, FAIL_STEPS
from vfiomig.frontends.merged_history import merged
from vfiomig.frontends.qemu_side import QemuSide, SideError
from vfiomig.frontends.tampering_link import TamperingLink
from vfiomig.serve.monitor import ENDED, MonitorError, MonitorGoneError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.serve.monitor import Monitor

SOURCE, DESTINATION = "source", "destination"

_RUNS_BEFORE: Final = 0.3  # seconds in which the devices work before they move
_SLOW: Final = 1 << 20  # bytes a second, so that there is something to cancel


class DeviceVerdict(enum.Enum):
    """What became of the state of one device."""

    VERIFIED = "state verified"
    UNVERIFIED = "moved, but it has no snapshot to compare"
    DIFFERS = "the destination's state is another"
    STAYED = "the source runs on, its state is whole"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoQemus:
    """What to do: QEMU's command, for both sides, and how it is to end.

    ``fail`` is a key of `FAIL_STEPS`, or "cancel"; ``flip`` and ``cut`` are bytes of
    the stream; ``limit`` seconds for all of it.
    """

    command: tuple[str, ...]
    targets: tuple[str, ...]
    work: int
    limit: float
    fail: str | None = None
    flip: int | None = None
    cut: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedDevice:
    """One device, as each side saw it."""

    name: str
    source: Account
    destination: Account
    verdict: DeviceVerdict


@dataclass(slots=True, kw_only=True)
class Moved:
    """How it ended; ``status`` is the last that the source told of the migration.

    ``notes`` are what else a person has to know.
    """

    status: str
    devices: list[MovedDevice] = field(default_factory=list)
    sides: dict[str, Attached] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def is_as_asked(self, what: TwoQemus) -> bool:
        """Whether it ended as it was to."""
        if any(side.deaths for side in self.sides.values()):
            return False
        verdicts = {each.verdict for each in self.devices}
        if what.flip is not None or what.cut is not None:
            return False  # a damaged stream is never an end to be content with
        if what.fail is not None:
            return verdicts == {DeviceVerdict.STAYED}
        return verdicts <= {DeviceVerdict.VERIFIED, DeviceVerdict.UNVERIFIED}


def migrate_qemus(
    what: TwoQemus, write_history: Callable[[bytes], object] | None = None
) -> Moved:
    """Start two QEMUs, move the devices from one to the other, and end both.

    Raises:
        VfiomigError, OSError: nothing was begun, for a reason of `attach`'s.
        SideError, MonitorError: a QEMU ended at once, or hangs.
    """
    known = find_out(what.command, what.targets)  # before there is any process
    with contextlib.ExitStack() as things:
        folder = Path(things.enter_context(tempfile.TemporaryDirectory()))
        near = far = folder / "link"
        if what.flip is not None or what.cut is not None:
            near = folder / "near"
            link = TamperingLink(near, far, flip=what.flip, cut=what.cut)
            things.callback(link.close)
        source = _side(what, SOURCE, folder, known)
        things.callback(source.close)
        incoming = ("-incoming", f"unix:{far}")
        destination = _side(what, DESTINATION, folder, known, incoming)
        things.callback(destination.close)
        status = _run(what, source, destination, near)
        runs = _is_running(source), _is_running(destination)
        moved = Moved(status=status)
        moved.sides = {SOURCE: source.end(), DESTINATION: destination.end()}
        moved.devices = _devices(what, moved, runs)
        _note(moved, what)
        if write_history is not None:
            for line in merged([folder / f"{p}.jsonl" for p in (SOURCE, DESTINATION)]):
                write_history(line)
        return moved


def _side(
    what: TwoQemus,
    party: str,
    folder: Path,
    known: Known,
    arguments: tuple[str, ...] = (),
) -> QemuSide:
    step = FAIL_STEPS.get(what.fail or "")
    attachment = Attachment(
        command=what.command,
        targets=what.targets,
        work=what.work,
        limit=what.limit,
        party=party,
        fault=step if step is not None and step.party == party else None,
        known=known,
    )
    history = folder / f"{party}.jsonl"
    return QemuSide(attachment, folder, arguments=arguments, history=history)


def _run(what: TwoQemus, source: QemuSide, destination: QemuSide, link: Path) -> str:
    """Let the source migrate; return how that ended."""
    source.require_running()
    destination.require_running()
    time.sleep(_RUNS_BEFORE)
    try:
        return _migrated(what, source.monitor, link)
    except MonitorGoneError:
        return "aborted"


def _migrated(what: TwoQemus, monitor: Monitor, link: Path) -> str:
    if what.fail == CANCEL:
        monitor.ask("migrate-set-parameters", **{"max-bandwidth": _SLOW})
    monitor.ask("migrate", uri=f"unix:{link}")
    if what.fail == CANCEL:
        monitor.wait_until("active", limit=what.limit)
        monitor.ask("migrate_cancel")
    return monitor.wait_until(*ENDED, limit=what.limit)


def _is_running(side: QemuSide) -> bool:
    """Tell whether a VM runs; one whose QEMU has gone does not."""
    if side.has_ended:
        return False
    try:
        # The last word of a migration may come before the VM goes on.
        for _ in range(50):
            status = side.monitor.ask("query-status")["status"]
            if status in {"running", "postmigrate"}:  # the second is of a source
                return bool(status == "running")
            time.sleep(0.02)
    except (MonitorError, SideError):
        return False
    return False


# -- what became of it -----------------------------------------------------------------


def _devices(
    what: TwoQemus, moved: Moved, runs: tuple[bool, bool]
) -> list[MovedDevice]:
    names = labels(what.targets, "")
    devices = []
    for name in names:
        source, destination = (
            moved.sides[party].accounts.get(f"{party}/{name}", Account())
            for party in (SOURCE, DESTINATION)
        )
        verdict = _verdict(source, destination, runs)
        devices.append(
            MovedDevice(
                name=name, source=source, destination=destination, verdict=verdict
            )
        )
    return devices


def _verdict(
    source: Account, destination: Account, runs: tuple[bool, bool]
) -> DeviceVerdict:
    source_runs, destination_runs = runs
    if destination_runs and not source_runs:
        if not source.has_snapshot or not destination.has_snapshot:
            return DeviceVerdict.UNVERIFIED
        is_equal = source.at_stop is not None and source.at_stop == destination.at_start
        return DeviceVerdict.VERIFIED if is_equal else DeviceVerdict.DIFFERS
    if source_runs and not destination_runs:
        return DeviceVerdict.LOST if source.is_whole is False else DeviceVerdict.STAYED
    return DeviceVerdict.LOST


def _note(moved: Moved, what: TwoQemus) -> None:
    for party, side in moved.sides.items():
        moved.notes += [f"{party}: {each}" for each in side.deaths]
        if side.has_hung:
            moved.notes.append(f"{party}: QEMU did not end in {what.limit:g} s: killed")
        elif side.status:
            moved.notes.append(f"{party}: {ending(side)}")
    step = FAIL_STEPS.get(what.fail or "")
    if step is not None:
        accounts = moved.sides[step.party].accounts.values()
        if not any(each.has_failed for each in accounts):
            moved.notes.append(f"the moment of {what.fail} never came")


def ending(side: Attached) -> str:
    """Say how a QEMU ended that did not end well."""
    if side.status is None:
        return "QEMU was killed"
    if side.status >= 0:
        return f"QEMU ended with exit status {side.status}"
    in_error = [name for name, each in side.accounts.items() if each.is_in_error]
    if side.status == -signal.SIGABRT and in_error:
        return (
            f"QEMU aborted because the device_state of {', '.join(in_error)} read "
            "ERROR (vfio_migration_set_state)"
        )
    return f"QEMU was ended by signal {-side.status}"
