"""Our client and our server, with somebody between them who garbles what they say.

Whatever comes, the client ends in an error of its own, in time; the server serves the
next client, and neither keeps a file descriptor.
"""

from __future__ import annotations

import contextlib
import select
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from vfiomig.client.region import find_migration_region
from vfiomig.client.vfio_user import ConnectError, connect
from vfiomig.conformance.target import load_target
from vfiomig.protocol.errors import VendorDriverError
from vfiomig.serve.vfio_user.listening import listening
from vfiomig.serve.vfio_user.server import Server
from vfiomig.serve.vfio_user.session import Limits
from vfiomig.uapi.ioctl import VFIO_DEVICE_RESET

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.client.vfio_user import VfioUserDevice

HEADER: Final = 16
LIMIT: Final = 0.1  # seconds, of each wait of either party
ALL: Final = 3.0  # seconds, of all that a client asks, on a machine with other work


class Trouble(NamedTuple):
    """What happens to a message, counted from 0, of one direction."""

    from_client: bool
    number: int
    what: str
    place: int  # of a byte, taken modulo the length
    bit: int


troubles = st.builds(
    Trouble,
    from_client=st.booleans(),
    number=st.integers(0, 9),
    what=st.sampled_from(["flip", "cut", "tear", "keep", "twice", "swap", "merge"]),
    place=st.integers(0, 127),
    bit=st.integers(0, 7),
)


class Direction:
    """Bytes from one socket to another, a message at a time."""

    def __init__(self, to: socket.socket, troubles: list[Trouble]) -> None:
        self._to = to
        self._troubles = {each.number: each for each in troubles}
        self._got = bytearray()
        self._held = b""
        self._number = 0

    def take(self, data: bytes) -> bool:
        """Pass on what is whole; tell whether the link survives."""
        self._got += data
        while len(self._got) >= HEADER:
            size = max(HEADER, int.from_bytes(self._got[4:8], "little"))
            if len(self._got) < size:
                break
            message = bytes(self._got[:size])
            del self._got[:size]
            if not self._pass_on(message):
                return False
        return True

    def _pass_on(self, message: bytes) -> bool:
        trouble = self._troubles.get(self._number)
        self._number += 1
        held, self._held = self._held, b""
        if trouble is None:
            self._to.sendall(message + held)
            return True
        at = trouble.place % len(message)
        if trouble.what == "flip":
            bad = bytearray(message)
            bad[at] ^= 1 << trouble.bit
            message = bytes(bad)
        elif trouble.what == "cut":
            self._to.sendall(held + message[:at])
            return False
        elif trouble.what == "tear":
            self._to.sendall(held + message[:at])
            held, message = b"", message[at:]
        elif trouble.what == "twice":
            message += message
        elif trouble.what == "keep":
            message = b""
        elif trouble.what == "swap":  # it comes behind the next one, if there is one
            held, self._held, message = b"", message, held
        else:  # with the next one's beginning
            message += message[:at]
        self._to.sendall(held + message)
        return True


def stand_between(listener: socket.socket, path: Path, some: list[Trouble]) -> None:
    """Let one client through to the server at ``path``, until either leaves."""
    client, _ = listener.accept()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with client, server, contextlib.suppress(OSError):
        server.connect(str(path))
        ways = {
            client: Direction(server, [each for each in some if each.from_client]),
            server: Direction(client, [each for each in some if not each.from_client]),
        }
        while True:
            ready, _, _ = select.select(list(ways), [], [], 10)
            if not ready:
                return
            for each in ready:
                data = each.recv(1 << 16)
                if not data or not ways[each].take(data):
                    return


def ask(device: VfioUserDevice) -> None:
    """Ask for a bit of everything; an errno is an answer."""
    base = find_migration_region(device).offset
    for _ in range(2):
        with contextlib.suppress(OSError):
            device.pread(4, base)
        with contextlib.suppress(OSError):
            device.pwrite(b"\2\0\0\0", base)
        with contextlib.suppress(OSError):
            device.pread(5000, base)
        with contextlib.suppress(OSError):
            device.ioctl(VFIO_DEVICE_RESET())


@contextlib.contextmanager
def served() -> Iterator[Path]:
    driver = load_target("reference,state=4K,data-section=mapped")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "server"
        with listening(path) as listener:
            limits = Limits(patience=LIMIT)
            server = Server(driver.make_driver, listener, limits=limits)

            def serve() -> None:
                with contextlib.suppress(OSError):  # the listener was shut down
                    server.serve()

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            yield path
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            assert not thread.is_alive()


def open_fds_beside_an_honest_client(path: Path) -> int:
    device = connect(path, limit=5)
    try:
        assert device.pread(4, find_migration_region(device).offset) == b"\1\0\0\0"
        return len(list(Path("/proc/self/fd").iterdir()))
    finally:
        device.close()


@settings(max_examples=25, deadline=None)
@given(some=st.lists(troubles, min_size=1, max_size=3))
def test_who_garbles_messages_costs_one_session(some: list[Trouble]) -> None:
    with served() as path, listening(path.with_name("between")) as between:
        before = open_fds_beside_an_honest_client(path)
        middle = threading.Thread(target=stand_between, args=(between, path, some))
        middle.start()
        began = time.monotonic()
        with contextlib.suppress(ConnectError, VendorDriverError, OSError):
            device = connect(path.with_name("between"), limit=LIMIT)
            try:
                ask(device)
            finally:
                device.close()
        took = time.monotonic() - began
        middle.join(10)
        assert not middle.is_alive()
        assert took < ALL
        assert open_fds_beside_an_honest_client(path) == before
