"""A real QEMU on our devices that a test steers by its monitor.

It tells what it does: the history is of its accesses, the trace of its functions.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from vfiomig.frontends.attaching import Attachment
from vfiomig.frontends.qemu_side import QemuSide
from vfiomig.protocol.history import Header, Record, decode

if TYPE_CHECKING:
    from pathlib import Path

    from vfiomig.frontends.attaching import Attached
    from vfiomig.frontends.fail_steps import FailStep

QEMU: Final = (
    *("qemu-system-x86_64", "-M", "pc", "-m", "16", "-accel", "tcg"),
    *("-nodefaults", "-display", "none"),
)
SLOTS: Final = ("05", "06", "07")

_TRACED: Final = ("vfio_*", "savevm_*", "loadvm_*")
_LIMIT: Final = 60.0  # seconds, for anything that takes a fraction of one
_TICK: Final = 0.002


class SteeredQemu:
    """A QEMU with devices at ``slots``; its history and trace go to ``folder``."""

    def __init__(
        self,
        folder: Path,
        name: str,
        targets: tuple[str, ...],
        *arguments: str,
        work: int = 0,
        traced: tuple[str, ...] = _TRACED,
        fault: FailStep | None = None,
        slots: tuple[str, ...] = SLOTS,
    ) -> None:
        self.name = name
        self._history = folder / f"{name}.jsonl"
        self._trace = folder / f"{name}.trace"
        self._ended: Attached | None = None
        placed = [f"{{vfio}},addr={slot}.0" for slot in slots[: len(targets)]]
        devices = [part for each in placed for part in ("-device", each)]
        traces = [part for each in traced for part in ("-trace", each)]
        attachment = Attachment(
            command=(*QEMU, *devices, *traces, "-D", str(self._trace), *arguments),
            targets=targets,
            work=work,
            limit=_LIMIT,
            party=name,
            fault=fault,
        )
        self._side = QemuSide(attachment, folder, history=self._history)

    def __enter__(self) -> SteeredQemu:
        return self

    def __exit__(self, *_: object) -> None:
        self._side.close()

    def ask(self, command: str, **arguments: object) -> object:
        """Perform a command of its monitor."""
        return self._side.monitor.ask(command, **arguments)

    def human(self, line: str) -> None:
        """Perform a command of the monitor for people; it must have nothing to say."""
        said = self.ask("human-monitor-command", **{"command-line": line})
        assert not said, said

    def until(self, status: str) -> None:
        """Wait until the VM is so."""
        deadline = time.monotonic() + _LIMIT
        while self.status != status:
            assert time.monotonic() < deadline, f"{self.status} is not {status}"
            time.sleep(_TICK)

    @property
    def status(self) -> str:
        """What query-status says."""
        answer = self.ask("query-status")
        assert isinstance(answer, dict)
        return str(answer["status"])

    def migrated(self, uri: str) -> str:
        """Migrate; return how that ended."""
        self.ask("migrate", uri=uri)
        return self.ended()

    def ended(self) -> str:
        """Wait until its migration has ended; return how."""
        return self._side.monitor.wait_until(
            "completed", "failed", "cancelled", limit=_LIMIT
        )

    def is_migrating(self) -> None:
        """Wait until it migrates."""
        self._side.monitor.wait_until("active", limit=_LIMIT)

    def end(self) -> Attached:
        """Let it quit, or wait until it has gone by itself."""
        if self._ended is None:
            self._ended = self._side.end()
        return self._ended

    def gone(self) -> Attached:
        """Wait until it has gone by itself."""
        assert self.goes(within=_LIMIT), "it still runs"
        return self.end()

    def goes(self, within: float) -> bool:
        """Tell whether it goes by itself in so many seconds."""
        deadline = time.monotonic() + within
        while not self._side.has_ended and time.monotonic() < deadline:
            time.sleep(_TICK)
        return self._side.has_ended

    @property
    def records(self) -> list[Record]:
        """The records of its history."""
        with self._history.open("rb") as lines:
            return [
                each for each in decode(iter(lines)) if not isinstance(each, Header)
            ]

    @property
    def trace(self) -> list[str]:
        """The lines of its trace."""
        return self._trace.read_text().splitlines()
