"""The servers behind a vfio-user target: one that is there, or those that we start.

Rule 1: a server has one client at a time.  Of one that is not ours there is one device
at a time; those that are ours are as many as devices are open at once.

Rule 2: a server of ours has a folder and a socket of its own, and ends with the process
that started it, whatever it is doing; one in the background, with `StartedServers`.  It
goes on from one client to the next; after a death, and before a finding is confirmed,
all are ended and others are started.
"""

from __future__ import annotations

import os
import shlex
import tempfile
import time
import weakref
from ctypes import sizeof
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from vfiomig.client.vfio_user import BusyError, ConnectError, connect
from vfiomig.conformance.target_errors import TargetStartError
from vfiomig.conformance.vfio_user.listeners import end_holders
from vfiomig.conformance.vfio_user.neighbours import share, share_if_faster
from vfiomig.conformance.vfio_user.server_process import SOCKET, Server
from vfiomig.protocol.errors import DriverLostError
from vfiomig.uapi.ioctl import VFIO_DEVICE_GET_INFO
from vfiomig.uapi.vfio import vfio_device_info

if TYPE_CHECKING:
    from vfiomig.client.vfio_user import VfioUserDevice
    from vfiomig.conformance.vfio_user.bench_file import BlackBox

# Source, destination, and a fresh device beside them.
_AT_ONCE: Final = 3
_GLANCE: Final = 0.005
_ENDING: Final = 0.5  # seconds from a closed socket to the end of a process
_PRINTED_LIMIT: Final = 4000
_ASK_LIMIT: Final = 1.0  # seconds, where nothing depends on the answer


class Servers(Protocol):
    """Where sessions with a vfio-user device come from.

    ``index`` is where the migration region was last time: it is looked for there first.
    ``rehearsed`` are the bench files that were tried on one of them.
    """

    index: int | None
    rehearsed: list[BlackBox]

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
        self.rehearsed: list[BlackBox] = []
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
        self.rehearsed: list[BlackBox] = []
        self._words = shlex.split(command)
        if not any(SOCKET in word for word in self._words):
            message = f"the command has no {SOCKET}, where the server shall listen"
            raise ValueError(message)
        # Made here: children of this process end without tidying up.
        self._folder = tempfile.TemporaryDirectory(prefix="vfiomig-")
        weakref.finalize(self, _end_all_in, Path(self._folder.name), os.getpid())
        self._servers: list[Server] = []
        self._number = 0
        self._crash = ""  # how one ended that had no client any more
        self._is_crash_told = False
        self._is_sharing: bool | None = None  # a processor, with them; not known yet

    def make_ready(self) -> None:
        """Start as many as there are devices at once, all of them at the same time.

        This process may be left with one processor, which it shares with them.
        """
        self._forget_the_dead()
        if self._is_sharing:
            share(())  # and so do those that it starts
        new = [self._start() for _ in range(_AT_ONCE - len(self._servers))]
        for server in new:
            server.await_socket()
        if self._is_sharing is None:
            self._is_sharing = self._is_faster_shared()

    def renew(self) -> None:
        """End all."""
        self._forget_the_dead()
        # Once is enough: others that crash are replaced as those that end.
        self._is_crash_told = self._is_crash_told or bool(self._crash)
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
        """Begin a session with one that has no client; start another if need be.

        Raises:
            TargetStartError: it does not start, or refuses.
            DriverLostError: one was killed by a signal after its client had left.
        """
        self._forget_the_dead()
        if self._crash and not self._is_crash_told:
            self._is_crash_told = True
            how = f"{self._crash} after its client had left"
            raise DriverLostError("close", self.name, how)
        for server in self._servers:
            if server.device is None and not server.is_unusable:
                was_new = server.is_new
                try:
                    return server.connect(limit)
                except BusyError as error:
                    if was_new:  # so is the next one
                        raise TargetStartError(str(error)) from error
                except ConnectError:
                    pass
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

    def _is_faster_shared(self) -> bool:
        pids = [server.pid for server in self._servers]
        argument = bytes(vfio_device_info(argsz=sizeof(vfio_device_info)))
        try:
            device = self._servers[0].connect(_ASK_LIMIT)
            try:
                return share_if_faster(
                    pids,
                    lambda: device.ioctl(VFIO_DEVICE_GET_INFO(), bytearray(argument)),
                )
            finally:
                self.let_go(device)
        except (ConnectError, OSError, DriverLostError):
            return False  # what is wrong with it is told where it is needed

    def _start(self) -> Server:
        self._number += 1
        name = f"{os.getpid()}-{self._number}"
        server = Server(self._words, Path(self._folder.name) / name)
        self._servers.append(server)
        return server

    def _forget_the_dead(self) -> None:
        dead = [each for each in self._servers if not each.is_alive()]
        for server in dead:
            self._servers.remove(server)
            if server.has_crashed():
                self._crash = server.how_it_ended()
            else:
                server.end()


def _end_all_in(folder: Path, owner: int) -> None:
    if os.getpid() == owner:
        end_holders(folder)
