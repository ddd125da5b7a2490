"""rsocket's calls as librdmacm has them, by ctypes.

Nothing is judged here: what the library does with a number that is none of its own, or
with a socket in the wrong state, is its affair, and rrecv(), rsend(), riomap() and
riowrite() of 44.0 crash on a socket that was never connected.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import re
import select
import socket
import time
from ctypes import c_int, c_long, c_size_t, c_ssize_t, c_uint32, c_ulong
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vfiomig.migration.transport.rsocket.buffer_address import address_of
from vfiomig.uapi.rsocket import itimerspec, pollfd, sockaddr_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vfiomig.migration.transport.rsocket.library import Address

_LIBRARY: Final = "librdmacm.so.1"
_PACKAGES: Final = "librdmacm1 and ibverbs-providers"
_FAILED: Final = -1
_GROWS_SAFELY: Final = 53  # of rdma-core
_ROUNDS: Final = 8  # room for some 30 sockets
_DISCARD: Final = 9  # a port where nobody listens
_MASK: Final = 0xFFFF  # of a revents, which C has as a short

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_address = ctypes.POINTER(sockaddr_in)
_length = ctypes.POINTER(c_uint32)
_buffer = ctypes.c_void_p
_Signature = tuple[Any, tuple[Any, ...]]

# <rdma/rsocket.h>: what each returns, and its arguments. rfcntl()'s third is variadic.
_CALLS: Final[dict[str, _Signature]] = {
    "rsocket": (c_int, (c_int, c_int, c_int)),
    "rbind": (c_int, (c_int, _address, c_uint32)),
    "rlisten": (c_int, (c_int, c_int)),
    "raccept": (c_int, (c_int, _address, _length)),
    "rconnect": (c_int, (c_int, _address, c_uint32)),
    "rshutdown": (c_int, (c_int, c_int)),
    "rclose": (c_int, (c_int,)),
    "rrecv": (c_ssize_t, (c_int, _buffer, c_size_t, c_int)),
    "rsend": (c_ssize_t, (c_int, _buffer, c_size_t, c_int)),
    "rpoll": (c_int, (ctypes.POINTER(pollfd), c_ulong, c_int)),
    "rgetpeername": (c_int, (c_int, _address, _length)),
    "rgetsockname": (c_int, (c_int, _address, _length)),
    "rsetsockopt": (c_int, (c_int, c_int, c_int, _buffer, c_uint32)),
    "rgetsockopt": (c_int, (c_int, c_int, c_int, _buffer, _length)),
    "rfcntl": (c_int, (c_int, c_int)),
    "riomap": (c_long, (c_int, _buffer, c_size_t, c_int, c_int, c_long)),
    "riounmap": (c_int, (c_int, _buffer, c_size_t)),
    # size_t in C, and (size_t) -1 for an error
    "riowrite": (c_ssize_t, (c_int, _buffer, c_size_t, c_long, c_int)),
}


class Librdmacm:
    """The calls of `RsocketLibrary`, on RDMA devices.

    Every call lets other threads run. One that a signal interrupts goes on, but for
    rconnect(): what is left of a connection then is an error, which it raises (EINTR).

    Raises OSError (ENOENT) whose line names the packages, where the library is missing.
    """

    def __init__(self, name: str = _LIBRARY) -> None:
        try:
            library = ctypes.CDLL(name, use_errno=True)
        except OSError as error:
            why = f"{error}: Debian has it in {_PACKAGES}"
            raise OSError(errno.ENOENT, why) from error
        self._version = _version_of(library)
        self._calls: dict[str, Callable[..., int]] = {}
        for called, (result, arguments) in _CALLS.items():
            call = getattr(library, called)
            call.restype, call.argtypes = result, arguments
            self._calls[called] = call
        # What is mapped stays where it is: by number, address and length.
        self._mapped: dict[tuple[int, int, int], memoryview] = {}

    def rsocket(self, domain: int, kind: int, protocol: int = 0) -> int:
        """Return a new socket. Raises OSError: ENODEV without an RDMA device."""
        return self._do("rsocket", domain, kind, protocol)

    def rbind(self, number: int, address: Address) -> None:
        """Bind to an address of an RDMA device."""
        self._do("rbind", number, _encode(address), ctypes.sizeof(sockaddr_in))

    def rlisten(self, number: int, backlog: int) -> None:
        """Listen; a thread of the library accepts.

        Whoever listens will have several connections, and before rdma-core 53 the
        fourth of a process makes the library write to freed memory: see `_Room`.
        """
        self._do("rlisten", number, backlog)
        if self._version < _GROWS_SAFELY:
            _ROOM.make(self, self.rgetsockname(number)[0])

    def raccept(self, number: int) -> tuple[int, Address]:
        """Return a connection that the library has accepted, and its peer."""
        place, size = sockaddr_in(), c_uint32(ctypes.sizeof(sockaddr_in))
        accepted = self._do("raccept", number, place, size)
        return accepted, _decode(place)

    def rconnect(self, number: int, address: Address) -> None:
        """Connect. Raises OSError: ECONNREFUSED, EINPROGRESS, EINTR for good."""
        size = ctypes.sizeof(sockaddr_in)
        self._do_once("rconnect", number, _encode(address), size)

    def rsend(self, number: int, data: memoryview, flags: int = 0) -> int:
        """Send; ``data`` is read where it is."""
        return self._do("rsend", number, address_of(data), len(data), flags)

    def rrecv(self, number: int, buffer: memoryview, flags: int = 0) -> int:
        """Receive straight into ``buffer``. Raises TypeError if it is read-only."""
        _require_writable(buffer)
        return self._do("rrecv", number, address_of(buffer), len(buffer), flags)

    def rpoll(
        self, watched: Sequence[tuple[int, int]], timeout: int
    ) -> list[tuple[int, int]]:
        """Wait as poll(2); a signal does not make it longer.

        The library never has to watch the time: before rdma-core 63 the first rpoll()
        whose time runs out leaves itself among those that poll, and the next one goes
        round and round and never returns ("librdmacm: Fix rpoll in case of timeout").
        A timer is among the descriptors instead.
        """
        if timeout <= 0:
            return self._poll(watched, timeout)
        with _timer(timeout) as timer:
            ready = self._poll([*watched, (timer, select.POLLIN)], -1)
        return [found for found in ready if found[0] != timer]

    def _poll(
        self, watched: Sequence[tuple[int, int]], timeout: int
    ) -> list[tuple[int, int]]:
        asked = (pollfd * len(watched))()
        for each, (number, events) in zip(asked, watched, strict=True):
            each.fd, each.events = number, events
        if not self._do("rpoll", asked, len(asked), timeout):
            return []
        return [(each.fd, each.revents & _MASK) for each in asked if each.revents]

    def rfcntl(self, number: int, command: int, argument: int = 0) -> int:
        """Do F_GETFL or F_SETFL. Raises OSError: ENOTSUP (44.0)."""
        return self._do("rfcntl", number, command, c_int(argument))

    def rshutdown(self, number: int, how: int) -> None:
        """Shut one direction or both; it waits until what was sent has been placed."""
        self._do("rshutdown", number, how)

    def rclose(self, number: int) -> None:
        """Close, and let go of what is mapped."""
        # Its error is a return value, and errno is what it was.
        if code := self._calls["rclose"](number):
            code = ctypes.get_errno() if code == _FAILED else code
            raise OSError(code, f"rclose: {os.strerror(code)}")
        for key in [key for key in self._mapped if key[0] == number]:
            del self._mapped[key]

    def rgetsockname(self, number: int) -> Address:
        """Return its own address."""
        return self._name("rgetsockname", number)

    def rgetpeername(self, number: int) -> Address:
        """Return its peer's address; nowhere, if there is none."""
        return self._name("rgetpeername", number)

    def rsetsockopt(self, number: int, level: int, option: int, value: int) -> None:
        """Set an option that is a number of 32 bits."""
        given = c_uint32(value)
        size = ctypes.sizeof(given)
        self._do("rsetsockopt", number, level, option, ctypes.addressof(given), size)

    def rgetsockopt(self, number: int, level: int, option: int) -> int:
        """Return an option that is a number."""
        value = c_int()
        size = c_uint32(ctypes.sizeof(value))
        where = ctypes.addressof(value)
        self._do("rgetsockopt", number, level, option, where, size)
        return value.value

    def riomap(self, number: int, buffer: memoryview, offset: int = -1) -> int:
        """Let the peer write into ``buffer``, which stays alive until it is unmapped.

        Raises TypeError if it is read-only.
        """
        _require_writable(buffer)
        where, size = address_of(buffer), len(buffer)
        mapped = self._do("riomap", number, where, size, mmap.PROT_WRITE, 0, offset)
        self._mapped[number, where, size] = buffer[:]
        return mapped

    def riounmap(self, number: int, buffer: memoryview) -> None:
        """End that."""
        where, size = address_of(buffer), len(buffer)
        self._do("riounmap", number, where, size)
        self._mapped.pop((number, where, size), None)

    def riowrite(
        self, number: int, data: memoryview, offset: int, flags: int = 0
    ) -> int:
        """Write to where the peer mapped ``offset``; never beyond the mapping's end."""
        return self._do("riowrite", number, address_of(data), len(data), offset, flags)

    def _name(self, call: str, number: int) -> Address:
        place, size = sockaddr_in(), c_uint32(ctypes.sizeof(sockaddr_in))
        self._do(call, number, place, size)
        return _decode(place)

    def _do(self, name: str, *arguments: object) -> int:
        """Call until no signal interrupts it."""
        while True:
            with contextlib.suppress(InterruptedError):
                return self._do_once(name, *arguments)

    def _do_once(self, name: str, *arguments: object) -> int:
        """Call, and raise what errno says."""
        answer = self._calls[name](*arguments)
        if answer == _FAILED:
            code = ctypes.get_errno()
            raise OSError(code, f"{name}: {os.strerror(code)}")
        return answer


class _Room:
    """Room in the table of the library's thread for connections; one for a process.

    When a socket that was accepted, or connects without waiting, makes that table grow,
    the thread goes on in the old one, which is freed ("librdmacm: Fix cm_svc_run", 53).
    But the table grows as well, by four, each time that the thread begins, and the
    thread ends with the last of its sockets: so a few of them come and go first.
    """

    def __init__(self) -> None:
        self._is_made = False

    def make(self, library: Librdmacm, host: str) -> None:
        """Make it, by connecting to a port of ``host`` where nobody listens."""
        if self._is_made:
            return
        self._is_made = True
        for _ in range(_ROUNDS):
            number = library.rsocket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                library.rfcntl(number, fcntl.F_SETFL, os.O_NONBLOCK)
                # Nearly always EINPROGRESS; who is refused at once makes no room.
                with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                    library.rconnect(number, (host, _DISCARD))
            finally:
                library.rclose(number)


_ROOM: Final = _Room()


def _version_of(library: ctypes.CDLL) -> int:
    """Return the version of rdma-core, from the name of the file that was loaded.

    It is librdmacm.so.1.3.44.0 for 44.0; of another name the newest is assumed.
    """
    found = re.search(
        r"librdmacm\.so\.\d+\.\d+\.(\d+)\.\d+", _file_of(library["rsocket"])
    )
    return int(found[1]) if found else _GROWS_SAFELY


def _file_of(function: Any) -> str:
    """Return the file of the library that has a function, symbolic links followed."""
    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, *_, file = line.split()
        first, last = (int(end, 16) for end in place.split("-"))
        if first <= address < last:
            return file
    return ""


@contextlib.contextmanager
def _timer(milliseconds: int) -> Iterator[int]:
    """Have a descriptor that is readable after so many milliseconds."""
    number = _LIBC.timerfd_create(time.CLOCK_MONOTONIC, os.O_CLOEXEC)
    if number == _FAILED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        seconds, rest = divmod(milliseconds, 1000)
        expires = itimerspec(it_value=(seconds, rest * 1_000_000))
        _LIBC.timerfd_settime(number, 0, ctypes.byref(expires), None)
        yield number
    finally:
        os.close(number)


def _require_writable(buffer: memoryview) -> None:
    if buffer.readonly:
        message = "the buffer to receive into is read-only"
        raise TypeError(message)


def _encode(address: Address) -> sockaddr_in:
    """Write an address. Raises OSError for a host that is no IPv4 address."""
    host, port = address
    return sockaddr_in(
        sin_family=socket.AF_INET,
        sin_port=tuple(port.to_bytes(2, "big")),
        sin_addr=tuple(socket.inet_aton(host)),
    )


def _decode(place: sockaddr_in) -> Address:
    port = int.from_bytes(bytes(place.sin_port), "big")
    return socket.inet_ntoa(bytes(place.sin_addr)), port
