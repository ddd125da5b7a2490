"""One server that a command starts: its process, its folder, its socket, its end."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vfiomig.client.vfio_user import ConnectError, connect
from vfiomig.conformance.parent import die_with
from vfiomig.conformance.target_errors import TargetStartError
from vfiomig.conformance.vfio_user.listeners import end_holders, is_listening

if TYPE_CHECKING:
    from vfiomig.client.vfio_user import VfioUserDevice

SOCKET: Final = "{socket}"  # in a command: where the server shall listen
FOLDER: Final = "{folder}"  # ... and a folder of its own

_START_LIMIT: Final = 20.0  # seconds until a server listens
_GLANCE: Final = 0.005
_DAEMON_LIMIT: Final = 1.0  # seconds from the end of who forks one until it listens
_ENDING: Final = 0.5  # seconds from a closed socket to the end of a process


class Server:
    """A server: its process, its folder, and the session that it has.

    Raises:
        TargetStartError: there is no such program.
    """

    def __init__(self, words: list[str], folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._socket = folder / "s"
        self._printed = folder / "printed"
        names = {SOCKET: str(self._socket), FOLDER: str(folder)}
        command = [_replaced(word, names) for word in words]
        self._name = shlex.join(words)
        parent = os.getpid()
        try:
            with self._printed.open("wb") as printed:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=printed,
                    stderr=printed,
                    start_new_session=True,
                    preexec_fn=lambda: die_with(parent),
                )
        except OSError as error:
            why = error.strerror or str(error)
            raise TargetStartError(f"{self._name}: {command[0]}: {why}") from error
        self._owner = parent
        self.device: VfioUserDevice | None = None
        self._is_daemon = False
        self.is_new = True  # it had no client yet
        self.is_unusable = False

    def await_socket(self) -> None:
        """Wait until it listens.

        Raises:
            TargetStartError: it has ended, or takes too long.
        """
        deadline = time.monotonic() + _START_LIMIT
        hopeless = deadline
        while not self._socket.exists():
            if not self.is_alive():
                hopeless = min(hopeless, time.monotonic() + self._grace())
            if time.monotonic() >= hopeless and not self.is_alive():
                how = f"{self.how_it_ended()} before it listened"
                raise TargetStartError(f"{self._name}: {how}{self._last()}")
            if time.monotonic() > deadline:
                late = f"it made no socket within {_START_LIMIT:g} seconds"
                raise TargetStartError(f"{self._name}: {late}{self._last()}")
            time.sleep(_GLANCE)

    def connect(self, limit: float) -> VfioUserDevice:
        """Begin a session; raises ConnectError."""
        self.is_new = False
        deadline = time.monotonic() + limit
        while True:
            try:
                self.device = connect(
                    self._socket,
                    limit=limit,
                    name=self._name,
                    post_mortem=self._post_mortem,
                )
            except ConnectError as error:
                # A socket is bound before anybody listens at it.
                is_early = isinstance(error.__cause__, ConnectionRefusedError)
                if not is_early or not self.is_alive() or time.monotonic() > deadline:
                    raise
                time.sleep(_GLANCE)
            else:
                return self.device

    @property
    def pid(self) -> int:
        """Its process, or who has put it into the background."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Tell whether it runs, or listens in the background."""
        if os.getpid() != self._owner:  # it is the child of who forked us
            lives = _lives(self._process.pid)
        else:
            lives = self._process.poll() is None
        if not lives and not self._is_daemon and self._grace():
            self._is_daemon = is_listening(self._socket)
            return self._is_daemon
        return lives or (self._is_daemon and is_listening(self._socket))

    def _grace(self) -> float:
        """Return how long it may take until one in the background listens."""
        return 0.0 if self._process.returncode else _DAEMON_LIMIT

    def has_crashed(self) -> bool:
        """Tell whether it was killed by a signal."""
        return not self._is_daemon and (self._status() or 0) < 0

    def how_it_ended(self) -> str:
        """Say it; nothing if it has not, or nobody knows."""
        status = self._status()
        if status is None or self._is_daemon:  # nobody tells how that one ends
            return ""
        if status < 0:
            with contextlib.suppress(ValueError):
                return f"the server was killed by {signal.Signals(-status).name}"
        return f"the server ended with status {status}"

    def _status(self) -> int | None:
        """Return its status as Popen has it; None while it lives."""
        if os.getpid() == self._owner:
            return self._process.poll()
        return _status_of_zombie(self._process.pid)

    def end(self) -> None:
        """End it, and all that it has started; what it printed is forgotten."""
        if os.getpid() == self._owner:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            end_holders(self._folder)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _post_mortem(self) -> str:
        deadline = time.monotonic() + _ENDING
        while not (how := self.how_it_ended()) and time.monotonic() < deadline:
            time.sleep(_GLANCE)
        return how

    def _last(self) -> str:
        lines = self._printed.read_bytes().decode("utf-8", "replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return f": {said[-1][:300]}" if said else ""


def _replaced(word: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        word = word.replace(name, value)
    return word


def _lives(pid: int) -> bool:
    """Tell whether a process lives that is not our child."""
    state, _ = _stat(pid)
    return state not in ("Z", "X")


def _status_of_zombie(pid: int) -> int | None:
    """Return the status that awaits the parent of a process which is not our child."""
    state, code = _stat(pid)
    return os.waitstatus_to_exitcode(code) if state == "Z" else None


def _stat(pid: int) -> tuple[str, int]:
    """Return the state of a process, X where there is none, and its exit_code."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", 0
    return fields[0], int(fields[-1])
