"""One QEMU of several, with its devices in a broker process of its own.

Each broker answers one QEMU alone: the two sides of a migration must not wait for one
another in one thread.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vfiomig.client.recorder import HistoryWriter
from vfiomig.conformance.parent import die_with
from vfiomig.frontends.attaching import Attached, Attachment, attach
from vfiomig.protocol.errors import VfiomigError
from vfiomig.serve.monitor import Monitor, MonitorError, MonitorGoneError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# Not forked: this process has threads, those of the monitors.
_FRESH: Final = multiprocessing.get_context("spawn")
_TICK: Final = 0.05  # seconds
_PATIENCE: Final = 30.0  # seconds, for a QEMU that was told to end


class SideError(VfiomigError):
    """One of the QEMUs could not be run; the message says which and why."""


class QemuSide:
    """A QEMU that runs, and its monitor.

    ``history`` is the file that its broker writes; ``arguments`` come behind those of
    the attachment.
    """

    def __init__(
        self,
        attachment: Attachment,
        folder: Path,
        *,
        arguments: tuple[str, ...] = (),
        history: Path | None = None,
    ) -> None:
        self.party = attachment.party
        self._limit = attachment.limit
        socket = folder / f"{self.party}.qmp"
        whole = replace(attachment, command=attachment.command + arguments)
        self._reports, theirs = _FRESH.Pipe(duplex=False)
        self._broker = _FRESH.Process(
            target=_run_broker,
            args=(whole, socket, history, theirs, os.getpid()),
            name=f"vfiomig-{self.party}",
        )
        self._broker.start()
        theirs.close()
        self.monitor = Monitor(socket, name=self.party)
        self._attached: Attached | None = None

    def require_running(self) -> None:
        """Wait until QEMU answers.

        Raises:
            SideError: it does not.
            VfiomigError, OSError: it could not be run, as `attach` says.
        """
        deadline = time.monotonic() + _PATIENCE
        while not self.monitor.is_connected(within=_TICK):
            if self.has_ended:
                raise SideError(f"{self.party}: {self._early_end()}")
            if time.monotonic() > deadline:
                message = f"{self.party}: QEMU does not answer within {_PATIENCE:g} s"
                raise SideError(message)

    def _early_end(self) -> str:
        attached = self.result()
        if attached.deaths:
            return str(attached.deaths[0])
        if attached.has_hung:
            return f"QEMU did not answer within {self._limit:g} s, and was killed"
        return f"QEMU ended at once, with status {attached.status}"

    @property
    def has_ended(self) -> bool:
        """Whether QEMU has ended, or could not begin."""
        return self._attached is not None or self._reports.poll(0)

    def end(self) -> Attached:
        """Ask QEMU to quit, and return how it went.

        Raises:
            SideError, VfiomigError, OSError: as `result`.
        """
        try:
            if not self.has_ended:
                self.monitor.ask("quit")
        except MonitorGoneError:
            pass  # as it was to
        except MonitorError:
            self.kill()
            message = f"{self.party}: QEMU does not answer any more, and was killed"
            raise SideError(message) from None
        return self.result()

    def result(self) -> Attached:
        """Wait until QEMU has ended, and return how it went.

        Raises:
            SideError: it hangs.
            VfiomigError, OSError: it could not be run, as `attach` says.
        """
        if self._attached is None:
            if not self._reports.poll(_PATIENCE):
                self.kill()
                message = f"{self.party}: QEMU does not end"
                raise SideError(message)
            try:
                report = self._reports.recv()
            except EOFError:
                message = f"{self.party}: its broker has gone"
                raise SideError(message) from None
            if isinstance(report, Exception):
                raise report
            self._attached = report
        self._attached.seen = self.monitor.seen
        return self._attached

    def kill(self) -> None:
        """End the broker, and its QEMU with it."""
        self._broker.kill()
        self._broker.join()

    def close(self) -> None:
        """Let go of everything; what still runs is killed."""
        self.monitor.close()
        if self._broker.is_alive() and not self.has_ended:
            self.kill()
        self._broker.join(_PATIENCE)
        self._broker.close()
        self._reports.close()


def _run_broker(
    attachment: Attachment,
    socket: Path,
    history: Path | None,
    reports: Connection,
    parent: int,
) -> None:
    """Run one QEMU in this process, which is of its own; report how it went."""
    die_with(parent)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # two of them cannot share a terminal's input
    try:
        with Path(history or os.devnull).open("wb") as file:
            attached = attach(attachment, HistoryWriter(file.write), monitor=socket)
        reports.send(attached)  # now the history is there as well
    except (VfiomigError, OSError) as error:
        reports.send(error)
