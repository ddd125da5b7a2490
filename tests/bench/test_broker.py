"""One trapped read of a register by another process, against what it cannot be below.

That is a loop that receives the call, checks its id, makes the one transfer of memory
and answers; and half a round trip over a socket, where nobody traps anything.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from tests.bench.figures import best_of, show
from vfiomig.host.dev_vfio import DevVfio
from vfiomig.serve.broker.child import start
from vfiomig.serve.broker.device_file import DeviceFile
from vfiomig.serve.broker.filter import syscalls
from vfiomig.serve.broker.supervisor import Supervisor
from vfiomig.serve.mapped_areas import Place
from vfiomig.uapi.seccomp import (
    SECCOMP_IOCTL_NOTIF_ID_VALID,
    SECCOMP_IOCTL_NOTIF_RECV,
    SECCOMP_IOCTL_NOTIF_SEND,
    SECCOMP_IOCTL_NOTIF_SET_FLAGS,
    SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP,
    SECCOMP_USER_NOTIF_FLAG_CONTINUE,
)
from vfiomig.vendor.reference import ReferenceDriver
from vfiomig.vendor.scratchpad import ScratchpadModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.host.device_fd import DeviceFd
    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.host.user_process import HostFile
    from vfiomig.protocol.region import MigrationRegion

READS: Final = 5_000
LAST: Final = 0x7777  # an offset that ends the bare loop

# Reads `times` times by the call that is pasted in, and tells the median in ns.
MEDIAN: Final = """
import os, statistics, sys, time
def median(action):
    took = []
    for _ in range({times}):
        began = time.perf_counter_ns()
        action()
        took.append(time.perf_counter_ns() - began)
    os.write({told}, str(int(statistics.median(took))).encode())
"""

OPEN_DEVICE: Final = """
import fcntl, struct
group = os.open("/dev/vfio/7", os.O_RDWR)
container = os.open("/dev/vfio/vfio", os.O_RDWR)
fcntl.ioctl(group, 0x3b68, struct.pack("i", container))
fcntl.ioctl(container, 0x3b66, 3)
device = fcntl.ioctl(group, 0x3b6a, bytearray(b"device\\0"))
info = bytearray(struct.pack("=IIIIQQ", 32, 0, 9, 0, 0, 0))
fcntl.ioctl(device, 0x3b6c, info)
place = struct.unpack("=IIIIQQ", info)[5]
median(lambda: os.pread(device, 4, place))
"""

READ_ANYTHING: Final = f"""
median(lambda: os.pread(1000, 4, 0))
os.pread(1000, 4, {LAST})
"""

ROUND_TRIP: Final = """
import socket
peer = socket.socket(fileno={peer})
def there_and_back():
    peer.send(b"word")
    peer.recv(4)
median(there_and_back)
"""


class _iovec(ctypes.Structure):  # noqa: N801 -- C's name
    _fields_ = (("iov_base", ctypes.c_uint64), ("iov_len", ctypes.c_size_t))


def told_median(run: Callable[[int], None]) -> float:
    """Return the seconds that a child tells through a pipe, whose end it is given."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    run(writer)
    os.close(writer)
    told = os.read(reader, 64)
    os.close(reader)
    return int(told) / 1e9


def command(script: str, told: int) -> list[str]:
    code = MEDIAN.format(times=READS, told=told) + script
    return [sys.executable, "-c", code]


def wrapped(_: str, fd: DeviceFd, driver: TrappedDriver) -> HostFile:
    region: MigrationRegion = driver.migration_region
    places = [Place(area, *fd.area_file(area)) for area in region.areas]
    return DeviceFile(fd, region, places)


def by_the_broker() -> float:
    """A read of device_state, through the supervisor, host and driver."""

    def run(told: int) -> None:
        driver = {"device": lambda: ReferenceDriver(ScratchpadModel())}
        child = start(command(OPEN_DEVICE, told))
        supervisor = Supervisor(child, DevVfio({7: driver}, wrap=wrapped))
        assert supervisor.serve() == 0
        supervisor.close()

    return told_median(run)


def by_a_bare_loop() -> float:
    """A read that is answered with what was there before."""

    def run(told: int) -> None:
        child = start(command(READ_ANYTHING, told))
        fcntl.ioctl(
            child.listener,
            SECCOMP_IOCTL_NOTIF_SET_FLAGS,
            SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP,
        )
        answer_all(child.listener)
        child.leash.close()
        os.close(child.listener)

    return told_median(run)


def answer_all(listener: int) -> None:
    writev = ctypes.CDLL(None).process_vm_writev
    data = ctypes.create_string_buffer(b"\1\0\0\0", 4)
    local = _iovec(ctypes.addressof(data), 4)
    remote = _iovec(0, 4)
    seen, told = bytearray(80), bytearray(24)
    pread64, ioctl = syscalls().pread64, fcntl.ioctl
    while True:
        seen[:] = bytes(80)
        ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, seen)
        known, thread, number, _, address, _, offset = struct.unpack_from(
            "=QI4xi4x8xQQQQ", seen
        )
        if number != pread64:
            flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE
            struct.pack_into("=QqiI", told, 0, known, 0, 0, flags)
            ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, told)
            continue
        remote.iov_base = address
        ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, struct.pack("=Q", known))
        writev(thread, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
        struct.pack_into("=QqiI", told, 0, known, 4, 0, 0)
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, told)
        if offset == LAST:
            return


def by_a_socket() -> float:
    """A round trip between two processes."""

    def run(told: int) -> None:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                script = ROUND_TRIP.format(peer=theirs.fileno())
                child = subprocess.Popen(
                    command(script, told), pass_fds=(told, theirs.fileno())
                )
            while message := ours.recv(4):
                ours.send(message)
        assert child.wait() == 0

    return told_median(run)


def test_a_trapped_read() -> None:
    broker, bare, trip = best_of(by_the_broker, by_a_bare_loop, by_a_socket, runs=5)
    print(
        f"\na trapped read of 4 bytes: {broker * 1e6:.1f} us, bare loop"
        f" {bare * 1e6:.1f} us, round trip {trip * 1e6:.1f} us"
    )
    what = "a trapped read of 4 bytes"
    show(what, broker / bare, 2, "a bare notification loop")
    show(what, broker / trip, 0.5, "a round trip over a unix socket")
