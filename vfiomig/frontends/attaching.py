"""Running one real QEMU on simulated devices, from its start to its end."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vfiomig.frontends.attached_machine import AttachedMachine, labels, probe_targets
from vfiomig.protocol.errors import DriverDiedError, VfiomigError
from vfiomig.protocol.history import Header
from vfiomig.serve.broker.child import start
from vfiomig.serve.broker.supervisor import Supervisor
from vfiomig.serve.monitor import Monitor, Seen
from vfiomig.serve.qemu import QemuProgram, ask_program, with_devices

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from vfiomig.client.recorder import HistoryWriter
    from vfiomig.frontends.attached_device import Account, AttachedDevice
    from vfiomig.frontends.fail_steps import FailStep
    from vfiomig.protocol.history import RegionShape

_TICK: Final = 0.01  # seconds between two pieces of work, at least
_REST: Final = 0.25  # seconds, where there is no work
# A QEMU that is asked to end does so at once, or hangs.
_GRACE: Final = 10.0  # seconds
_MOMENT: Final = 1.0  # seconds
_TOO_LATE: Final = "it did not go on within the limit"


class HangError(VfiomigError):
    """QEMU did not end in time, and was killed."""


@dataclass(frozen=True, slots=True)
class Known:
    """What was found out before QEMU is run: the regions of its devices, and itself."""

    shapes: tuple[RegionShape, ...]
    program: QemuProgram


def find_out(command: Sequence[str], targets: Sequence[str]) -> Known:
    """Make each driver once, and ask QEMU what it is.

    Raises:
        TargetError, TargetStartError: as `probe_targets`.
        QemuError: there is no such program, or it will not do.
    """
    shapes = probe_targets(targets)
    program = ask_program(command[0])
    program.require_v1()
    return Known(shapes, program)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """What to run: QEMU's command line, and its devices.

    ``work`` is units of guest traffic a second, for each device that runs; ``limit``
    seconds after which QEMU is ended; ``party`` stands before the devices' names.
    ``fault`` is the access at which each device fails, once; ``snapshots`` a folder
    for what each device was when it stopped (see `AttachedDevice`).  Who has found out
    what is ``known`` spares `attach` that.
    """

    command: tuple[str, ...]
    targets: tuple[str, ...]
    work: int = 0
    limit: float | None = None
    party: str = ""
    fault: FailStep | None = None
    snapshots: Path | None = None
    known: Known | None = None


@dataclass(slots=True, kw_only=True)
class Attached:
    """How it went; ``status`` is QEMU's, negative for a signal, None if it was killed.

    ``seen`` is what QEMU told of its migrations, ``accounts`` what the devices saw.
    """

    status: int | None = None
    accounts: dict[str, Account] = field(default_factory=dict)
    seen: Seen = field(default_factory=Seen)
    deaths: list[DriverDiedError] = field(default_factory=list)
    calls: int = 0
    is_interrupted: bool = False
    has_hung: bool = False


def attach(
    attachment: Attachment, log: HistoryWriter, *, monitor: Path | None = None
) -> Attached:
    """Run it; returns when QEMU has ended.

    Raises:
        TargetError, TargetStartError: as `load_target`, or a driver does not start.
        QemuError, StartError, SeccompError: QEMU cannot be run, or not like this.
    """
    known = attachment.known or find_out(attachment.command, attachment.targets)
    names = labels(attachment.targets, attachment.party)
    shapes = dict(zip(names, known.shapes, strict=True))
    log.begin(Header(recorded_by="vfiomig qemu", devices=shapes))
    attached = Attached()
    with contextlib.ExitStack() as things:
        folder = Path(things.enter_context(tempfile.TemporaryDirectory()))
        sysfs = folder / "sys"
        sysfs.mkdir()
        machine = AttachedMachine(
            attachment.targets,
            sysfs,
            log,
            party=attachment.party,
            fault=attachment.fault,
            snapshots=attachment.snapshots,
        )
        things.callback(log.flush)
        command = with_devices(attachment.command, machine.sysfsdevs)
        socket = _monitor_socket(known.program, monitor, folder)
        if socket is not None:
            command += ["-qmp", f"unix:{socket},server=on,wait=off"]
        # The program is forked before there is a second thread.
        supervisor = Supervisor(start(command), machine.dev_vfio)
        things.callback(_note_end, attached, machine, supervisor)
        things.callback(supervisor.close)
        if socket is not None and monitor is None:
            watch = Monitor(socket)
            attached.seen = watch.seen
            things.callback(watch.close)
        _serve(supervisor, machine, attachment, attached)
    return attached


def _monitor_socket(
    program: QemuProgram, monitor: Path | None, folder: Path
) -> Path | None:
    """Return where QEMU shall listen.

    Nowhere, if it is perhaps no QEMU, and nobody has to ask it anything.
    """
    if monitor is None and program.version is None:
        return None
    return monitor or folder / "monitor"


def _serve(
    supervisor: Supervisor,
    machine: AttachedMachine,
    attachment: Attachment,
    attached: Attached,
) -> None:
    with _Patience(attachment.limit) as patience:
        guest = _Guest(machine.devices, attachment.work, supervisor.deaths)

        def idle() -> float:
            patience.require()
            return guest.run()

        try:
            attached.status = supervisor.serve(idle)
        except HangError:
            attached.has_hung = not patience.is_interrupted
        except KeyboardInterrupt:  # a second one: what was found so far is told
            pass
        attached.is_interrupted = patience.is_interrupted


def _note_end(
    attached: Attached, machine: AttachedMachine, supervisor: Supervisor
) -> None:
    attached.accounts = {each.name: each.account for each in machine.devices}
    attached.deaths = supervisor.deaths
    attached.calls = supervisor.calls


class _Guest:
    """Traffic of a guest that is not there: work for each device that runs.

    A driver that dies of it is one of the ``deaths``, and gets no more.
    """

    def __init__(
        self,
        devices: Sequence[AttachedDevice],
        rate: int,
        deaths: list[DriverDiedError],
    ) -> None:
        self._devices = devices
        self._rate = rate
        self._deaths = deaths
        self._dead: set[str] = set()
        self._done_until = time.monotonic()

    def run(self) -> float:
        """Do what is due; return after how many seconds to come again."""
        amount = int((time.monotonic() - self._done_until) * self._rate)
        if amount:
            for device in self._devices:
                self._work(device, amount)
            # Behind it: what takes longer than it may is not made up for.
            self._done_until = time.monotonic()
        return _TICK if self._rate else _REST

    def _work(self, device: AttachedDevice, amount: int) -> None:
        if device.name in self._dead:
            return
        try:
            device.work(amount)
        except DriverDiedError as death:
            self._dead.add(device.name)
            self._deaths.append(death)


class _Patience:
    """A limit in seconds, and what Ctrl-C does: QEMU gets it too, and is waited for.

    It is looked at between calls.  A driver that hangs inside one is interrupted a
    moment later, by an alarm, and so it is by a second Ctrl-C.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._deadline: float | None = None
        self.is_interrupted = False

    def require(self) -> None:
        """Raise `HangError` when there is none left."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise HangError(_TOO_LATE)

    def __enter__(self) -> _Patience:
        self._before = (
            signal.signal(signal.SIGINT, self._interrupt),
            signal.signal(signal.SIGALRM, self._ring),
        )
        if self._limit is not None:
            self._begin(self._limit)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, self._before[0])
        signal.signal(signal.SIGALRM, self._before[1])

    def _begin(self, limit: float) -> None:
        self._deadline = time.monotonic() + limit
        signal.setitimer(signal.ITIMER_REAL, limit + _MOMENT)

    def _ring(self, _: int, __: FrameType | None) -> None:
        raise HangError(_TOO_LATE)

    def _interrupt(self, _: int, __: FrameType | None) -> None:
        if self.is_interrupted:
            raise KeyboardInterrupt
        self.is_interrupted = True
        self._begin(_GRACE)
