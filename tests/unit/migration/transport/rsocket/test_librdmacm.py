"""The real library, as far as a machine without an RDMA device has it.

What needs a device is claimed in tests/rdma, in a VM with one.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import inspect
import select
import signal
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vfiomig.migration.transport.rsocket import librdmacm
from vfiomig.migration.transport.rsocket.check import CLAIMS, check_rsocket, name_of
from vfiomig.migration.transport.rsocket.library import RsocketLibrary
from vfiomig.migration.transport.rsocket.librdmacm import Librdmacm
from vfiomig.uapi.rsocket import RDMA_SQSIZE, SOL_RDMA

if TYPE_CHECKING:
    from collections.abc import Callable

NOWHERE = ("127.0.0.1", 0)
# They hold before any device is asked for.
HERE = (
    "it has no unix sockets",
    "a type has no flags",
    "a number of the kernel is no socket",
)


@pytest.fixture
def library() -> RsocketLibrary:
    try:
        return Librdmacm()
    except OSError as error:
        pytest.skip(str(error))


def number_of_the_kernel() -> int:
    """Return a descriptor that is open for as long as the process is."""
    return 2


CALLS: dict[str, Callable[[RsocketLibrary, int], object]] = {
    "rbind": lambda library, number: library.rbind(number, NOWHERE),
    "rlisten": lambda library, number: library.rlisten(number, 1),
    "raccept": lambda library, number: library.raccept(number),
    "rconnect": lambda library, number: library.rconnect(number, NOWHERE),
    "rfcntl": lambda library, number: library.rfcntl(number, fcntl.F_SETFL, 0),
    "rshutdown": lambda library, number: library.rshutdown(number, socket.SHUT_WR),
    "rclose": lambda library, number: library.rclose(number),
    "rgetsockname": lambda library, number: library.rgetsockname(number),
    "rgetpeername": lambda library, number: library.rgetpeername(number),
    "rsetsockopt": lambda library, number: library.rsetsockopt(
        number, SOL_RDMA, RDMA_SQSIZE, 1
    ),
    "rgetsockopt": lambda library, number: library.rgetsockopt(
        number, SOL_RDMA, RDMA_SQSIZE
    ),
}


@pytest.mark.skipif(
    Path("/dev/infiniband").exists(), reason="this machine has RDMA devices"
)
def test_a_stream_needs_a_device(library: RsocketLibrary) -> None:
    with pytest.raises(OSError, match="rsocket: No such device") as refused:
        library.rsocket(socket.AF_INET, socket.SOCK_STREAM)
    assert refused.value.errno == errno.ENODEV


@pytest.mark.parametrize("name", CALLS)
def test_a_descriptor_of_the_kernel_is_bad(library: RsocketLibrary, name: str) -> None:
    with pytest.raises(OSError, match=name) as refused:
        CALLS[name](library, number_of_the_kernel())
    assert refused.value.errno == errno.EBADF


@pytest.mark.parametrize("name", HERE)
def test_what_is_claimed_without_a_device_holds(
    library: RsocketLibrary, name: str
) -> None:
    claims = [claim for claim in CLAIMS if name_of(claim) == name]
    assert len(claims) == 1
    check_rsocket(library, lambda: NOWHERE, claims=claims)


def test_rpoll_knows_ordinary_descriptors(library: RsocketLibrary) -> None:
    one, other = socket.socketpair()
    with one, other:
        watched = [(one.fileno(), select.POLLIN), (other.fileno(), select.POLLIN)]
        assert library.rpoll(watched, 0) == []
        other.send(b"!")
        assert library.rpoll(watched, -1) == [(one.fileno(), select.POLLIN)]
    assert library.rpoll([(watched[0][0], 0)], 0) == [(watched[0][0], select.POLLNVAL)]
    assert library.rpoll([], 0) == []


def test_rpoll_can_wait_in_vain_again_and_again(library: RsocketLibrary) -> None:
    one, other = socket.socketpair()
    with one, other:
        watched = [(one.fileno(), select.POLLIN)]
        # The second rpoll() of 44.0 itself would not return; it lets threads run.
        waits = threading.Thread(
            target=lambda: [library.rpoll(watched, 5) for _ in range(3)], daemon=True
        )
        waits.start()
        waits.join(5)
        assert not waits.is_alive()


def test_rpoll_lets_other_threads_run(library: RsocketLibrary) -> None:
    one, other = socket.socketpair()
    with one, other:
        sender = threading.Timer(0.01, other.send, [b"!"])
        sender.start()
        watched = [(one.fileno(), select.POLLIN)]
        assert library.rpoll(watched, 10_000) == watched
        sender.join()


def test_a_signal_makes_rpoll_neither_fail_nor_wait_longer(
    library: RsocketLibrary,
) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    one, other = socket.socketpair()
    with one, other:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            start = time.monotonic()
            assert library.rpoll([(one.fileno(), select.POLLIN)], 60) == []
            took = time.monotonic() - start
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert seen
    assert took < 1


def test_a_buffer_to_receive_into_is_writable(library: RsocketLibrary) -> None:
    view = memoryview(b"read-only")
    with pytest.raises(TypeError, match="read-only"):
        library.rrecv(number_of_the_kernel(), view)
    with pytest.raises(TypeError, match="read-only"):
        library.riomap(number_of_the_kernel(), view)


def test_every_call_of_the_interface_is_there() -> None:
    for name, call in vars(RsocketLibrary).items():
        if not name.startswith("r"):
            continue
        ours = inspect.signature(getattr(Librdmacm, name))
        assert list(ours.parameters) == list(inspect.signature(call).parameters), name


def test_a_missing_library_is_one_line_that_names_its_packages() -> None:
    with pytest.raises(FileNotFoundError) as missing:
        Librdmacm("libnosuchthing.so.1")
    said = str(missing.value)
    assert "libnosuchthing.so.1" in said
    assert "Debian has it in librdmacm1 and ibverbs-providers" in said
    assert "\n" not in said


def test_addresses_are_those_that_libc_has() -> None:
    place = librdmacm._encode(("127.0.0.3", 0))
    libc = ctypes.CDLL(None)
    with socket.socket() as bound:
        size = ctypes.sizeof(place)
        assert libc.bind(bound.fileno(), ctypes.byref(place), size) == 0
        host, port = bound.getsockname()
        assert host == "127.0.0.3"
        place = librdmacm._encode((host, port))
        assert librdmacm._decode(place) == (host, port)
