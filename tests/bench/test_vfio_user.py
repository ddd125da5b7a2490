"""Devices behind a vfio-user socket: both ends are ours, in two processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import shlex
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.figures import best_of, show, timed
from tests.bench.test_register_read import EverLessPending
from tests.unit.conformance.vfio_user.serving import WithoutBench
from vfiomig.client.region import find_migration_region
from vfiomig.client.vfio_user import connect
from vfiomig.conformance.effort import EFFORTS
from vfiomig.conformance.suite import run_suite
from vfiomig.conformance.target import load_target
from vfiomig.protocol.v1.registers import Register
from vfiomig.serve.vfio_user.listening import listening
from vfiomig.serve.vfio_user.server import Server
from vfiomig.vendor.reference import ReferenceDriver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vfiomig.conformance.finding import Outcome
    from vfiomig.host.device_ops import TrappedDriver

READS: Final = 5_000
# A REGION_READ of 8 bytes, and its reply.
COMMAND, REPLY = 32, 40
_FORK = multiprocessing.get_context("fork")


@contextlib.contextmanager
def in_another_process(serve: Callable[[], object]) -> Iterator[None]:
    process = _FORK.Process(target=serve, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


@contextlib.contextmanager
def served(make_driver: Callable[[], TrappedDriver]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        with (
            listening(path) as listener,
            in_another_process(Server(make_driver, listener).serve),
        ):
            yield path


@contextlib.contextmanager
def ping_pong() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()

    def pong() -> None:
        ours.close()
        reply = bytes(REPLY)
        while theirs.recv(COMMAND):
            theirs.send(reply)

    with ours, theirs, in_another_process(pong):
        theirs.close()
        yield ours


def many_pings(ours: socket.socket) -> float:
    def ping_all() -> None:
        command = bytes(COMMAND)
        for _ in range(READS):
            ours.send(command)
            ours.recv(REPLY)

    return timed(ping_all)


def test_a_register_read_over_the_socket() -> None:
    with (
        served(lambda: ReferenceDriver(EverLessPending())) as path,
        ping_pong() as ours,
    ):
        device = connect(path)
        region = find_migration_region(device)
        device.pwrite((3).to_bytes(4, "little"), region.offset)  # pre-copy
        place = region.offset + Register.PENDING_BYTES.offset
        assert device.pread(8, place) != device.pread(8, place)

        def read_all() -> None:
            for _ in range(READS):
                device.pread(8, place)

        bare, read = best_of(lambda: many_pings(ours), lambda: timed(read_all), runs=15)
        device.close()
    beside = "a bare ping-pong of messages of its size"
    show("a register read over the socket", read / bare, 2, beside)
    print(f"({read / READS * 1e6:.1f} us a read)")


def test_checking_over_the_socket() -> None:
    """Quick effort, with workers, and with servers that the suite starts itself.

    In process the driver has no bench either: so the conversations are the same.
    """
    serve = f"{shlex.quote(sys.executable)} -m vfiomig serve reference"
    remote = load_target(f"vfio-user:{serve} --socket {{socket}}")
    make = load_target("reference").make_driver
    effort = EFFORTS["quick"]

    def check_here() -> Outcome:
        return run_suite(lambda: WithoutBench(make()), effort=effort)

    def check_there() -> Outcome:
        return run_suite(remote.make_driver, effort=effort, servers=remote.servers)

    here, there = check_here(), check_there()
    assert (here.conversations, here.accesses) == (there.conversations, there.accesses)
    in_process, over_socket = best_of(
        lambda: timed(check_here), lambda: timed(check_there), runs=2
    )
    assert remote.servers is not None
    remote.servers.renew()
    beside = "the same conversations in process"
    show("checking over the socket", over_socket / in_process, 4, beside)
