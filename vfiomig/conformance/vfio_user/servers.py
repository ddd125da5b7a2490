"""The servers behind a vfio-user target: one that is there, or those that we start.

Rule 1: a server has one client at a time.  Of one that is not ours there is one device
at a time; those that are ours are as many as devices are open at once.

Rule 2: a server of ours has a folder and a socket of its own, and ends with the process
that started it, whatever it is doing.  It goes on from one client to the next; after a
death, and before a finding is confirmed, all are ended and others are started.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from vfiomig.client.vfio_user import BusyError, ConnectError, connect
from vfiomig.conformance.parent import die_with
from vfiomig.conformance.target_errors import TargetStartError

if TYPE_CHECKING:
    from vfiomig.client.vfio_user import VfioUserDevice

SOCKET: Final = "{socket}"  # in a command: where the server shall listen
FOLDER: Final = "{folder}"  # ... and a folder of its own

# Source, destination, and a fresh device beside them.
_AT_ONCE: Final = 3
_START_LIMIT: Final = 20.0  # seconds until a server listens
_GLANCE: Final = 0.005
_ENDING: Final = 0.5  # seconds from a closed socket to the end of a process
_PRINTED_LIMIT: Final = 4000


class Servers(Protocol):
    """Where sessions with a vfio-user device come from.

    ``index`` is where the migration region was last time: it is looked for there first.
    """

    index: int | None

    @property
    def name(self) -> str:
        """What to call them: a path, or a command."""

    @property
    def is_alone(self) -> bool:
        """Whether there is one device at a time."""

    def make_ready(self) -> None:
        """Start what is likely to be needed, before other processes need it.

        Raises:
            TargetStartError: it does not start.
        """

    def renew(self) -> None:
        """See that the next devices are of servers that had no client before."""

    def obituary(self) -> str:
        """Say how one has ended; nothing if none has, or nobody knows."""

    def printed(self) -> str:
        """Return the end of what servers have printed since they were renewed."""

    def connect(self, limit: float) -> VfioUserDevice:
        """Begin a session; ``limit`` is in seconds.

        Raises:
            TargetStartError: there is no server, or it refuses.
        """

    def let_go(self, device: VfioUserDevice) -> None:
        """End a session."""


class OneServer:
    """A server that somebody else has started, at a path."""

    is_alone = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self.index: int | None = None
        self.name = str(path)

    def make_ready(self) -> None:
        """Nothing to do: it is there."""

    def renew(self) -> None:
        """Nothing to do: it is not ours."""

    def obituary(self) -> str:
        """Return nothing: its parent knows."""
        return ""

    def printed(self) -> str:
        """Return nothing: what it prints goes elsewhere."""
        return ""

    def connect(self, limit: float) -> VfioUserDevice:
        """Begin a session."""
        try:
            return connect(self._path, limit=limit)
        except ConnectError as error:
            raise TargetStartError(str(error)) from error

    def let_go(self, device: VfioUserDevice) -> None:
        """End a session."""
        device.close()


class StartedServers:
    """Servers that a command starts; {socket} in it is the path of a server's socket.

    Raises:
        ValueError: the command cannot be split into words, or names no socket.
    """

    is_alone = False

    def __init__(self, command: str) -> None:
        self.name = command
        self.index: int | None = None
        self._words = shlex.split(command)
        if not any(SOCKET in word for word in self._words):
            message = f"the command has no {SOCKET}, where the server shall listen"
            raise ValueError(message)
        # Made here: children of this process end without tidying up.
        self._folder = tempfile.TemporaryDirectory(prefix="vfiomig-")
        self._servers: list[_Server] = []
        self._number = 0

    def make_ready(self) -> None:
        """Start as many as there are devices at once, all of them at the same time."""
        self._forget_the_dead()
        new = [self._start() for _ in range(_AT_ONCE - len(self._servers))]
        for server in new:
            server.await_socket()

    def renew(self) -> None:
        """End all."""
        while self._servers:
            self._servers.pop().end()

    def obituary(self) -> str:
        """Say how the first one ended that has; who closes a socket may be ending."""
        deadline = time.monotonic() + _ENDING
        while True:
            for server in self._servers:
                if how := server.how_it_ended():
                    return how
            if time.monotonic() > deadline:
                return ""
            time.sleep(_GLANCE)

    def printed(self) -> str:
        """Return the end of what they printed, those of our children included."""
        texts = [
            path.read_bytes()[-_PRINTED_LIMIT:].decode("utf-8", "replace").strip()
            for path in sorted(Path(self._folder.name).glob("*/printed"))
        ]
        return "\n".join(text for text in texts if text)[-_PRINTED_LIMIT:]

    def connect(self, limit: float) -> VfioUserDevice:
        """Begin a session with one that has no client; start another if need be."""
        self._forget_the_dead()
        for server in self._servers:
            if server.device is None and not server.is_unusable:
                with contextlib.suppress(ConnectError):
                    return server.connect(limit)
                server.is_unusable = True
        server = self._start()
        server.await_socket()
        try:
            return server.connect(limit)
        except ConnectError as error:
            raise TargetStartError(str(error)) from error

    def let_go(self, device: VfioUserDevice) -> None:
        """End a session; its server may have another one."""
        device.close()
        for server in self._servers:
            if server.device is device:
                server.device = None

    def _start(self) -> _Server:
        self._number += 1
        name = f"{os.getpid()}-{self._number}"
        server = _Server(self._words, Path(self._folder.name) / name)
        self._servers.append(server)
        return server

    def _forget_the_dead(self) -> None:
        self._servers = [each for each in self._servers if each.is_alive()]


class _Server:
    """One server: its process, its folder, and the session that it has."""

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
        self.is_unusable = False  # whatever is wrong with it, it had clients before

    def await_socket(self) -> None:
        """Wait until it listens.

        Raises:
            TargetStartError: it has ended, or takes too long.
        """
        deadline = time.monotonic() + _START_LIMIT
        while not self._socket.exists():
            if not self.is_alive():
                how = f"{self.how_it_ended()} before it listened"
                raise TargetStartError(f"{self._name}: {how}{self._last()}")
            if time.monotonic() > deadline:
                late = f"it made no socket within {_START_LIMIT:g} seconds"
                raise TargetStartError(f"{self._name}: {late}{self._last()}")
            time.sleep(_GLANCE)

    def connect(self, limit: float) -> VfioUserDevice:
        """Begin a session; raises ConnectError."""
        deadline = time.monotonic() + limit
        while True:
            try:
                self.device = connect(
                    self._socket,
                    limit=limit,
                    name=self._name,
                    post_mortem=self._post_mortem,
                )
            except BusyError:
                raise
            except ConnectError:
                # A socket is bound before anybody listens at it.
                if not self.is_alive() or time.monotonic() > deadline:
                    raise
                time.sleep(_GLANCE)
            else:
                return self.device

    def is_alive(self) -> bool:
        if os.getpid() != self._owner:  # it is the child of who forked us
            return _lives(self._process.pid)
        return self._process.poll() is None

    def how_it_ended(self) -> str:
        """Say it; nothing if it has not, or is not our child."""
        if os.getpid() != self._owner or (status := self._process.poll()) is None:
            return ""
        if status < 0:
            with contextlib.suppress(ValueError):
                return f"the server was killed by {signal.Signals(-status).name}"
        return f"the server ended with status {status}"

    def end(self) -> None:
        """End it, and all that it has started; what it printed is forgotten."""
        if os.getpid() == self._owner:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _post_mortem(self) -> str:
        if os.getpid() == self._owner:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_ENDING)
        return self.how_it_ended()

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
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")
