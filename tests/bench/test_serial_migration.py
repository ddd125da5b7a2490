"""A whole migration of a serial card, against a bare replay of what crosses its fds.

Bare means: open the two devices, and make the same calls on their fds, in the same
order and with the same data, those that look for the migration region included.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from tests.bench.figures import best_of, show, timed
from tests.bench.machines import Side, migrate
from vfiomig.host.device_fd import DeviceFd
from vfiomig.vendor.reference import ReferenceDriver
from vfiomig.vendor.serial import SerialModel

if TYPE_CHECKING:
    import mmap

MIGRATIONS = 40


def make_driver() -> ReferenceDriver:
    return ReferenceDriver(SerialModel(), data_section="trapped")


class Call(NamedTuple):
    """A call on one of two fds: its name, what it was given, and where."""

    at_source: bool
    name: str
    given: int | bytes
    place: int


class CallLog:
    """A handle that writes down what is called on the one behind it."""

    def __init__(self, fd: DeviceFd, calls: list[Call], *, at_source: bool) -> None:
        self.fd = fd
        self.calls = calls
        self.at_source = at_source

    def pread(self, size: int, offset: int) -> bytes:
        self.calls.append(Call(self.at_source, "pread", size, offset))
        return self.fd.pread(size, offset)

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        self.calls.append(Call(self.at_source, "pwrite", bytes(data), offset))
        return self.fd.pwrite(data, offset)

    def ioctl(self, request: int, argument: bytearray | None = None) -> int:
        self.calls.append(
            Call(self.at_source, "ioctl", bytes(argument or b""), request)
        )
        return self.fd.ioctl(request, argument)

    def mmap(self, length: int, offset: int) -> mmap.mmap:
        raise AssertionError("the data section is trapped")

    def close(self) -> None:
        self.fd.close()


def migrate_once() -> None:
    source, destination = Side.of(make_driver()), Side.of(make_driver())
    migrate(source, destination)
    source.fd.close()
    destination.fd.close()


def calls_of_a_migration() -> list[Call]:
    calls: list[Call] = []
    source = Side.of(make_driver(), lambda fd: CallLog(fd, calls, at_source=True))
    destination = Side.of(make_driver(), lambda fd: CallLog(fd, calls, at_source=False))
    migrate(source, destination)
    source.fd.close()
    destination.fd.close()
    return calls


def replay(calls: list[Call]) -> None:
    source, destination = DeviceFd(make_driver()), DeviceFd(make_driver())
    for at_source, name, given, place in calls:
        fd = source if at_source else destination
        if name == "pread":
            fd.pread(given, place)  # type: ignore[arg-type]  # by its name
        elif name == "pwrite":
            fd.pwrite(given, place)  # type: ignore[arg-type]
        else:
            with contextlib.suppress(OSError):  # there is no VGA region
                fd.ioctl(place, bytearray(given))
    source.close()
    destination.close()


def test_a_migration_of_serial() -> None:
    calls = calls_of_a_migration()
    bare, whole = best_of(
        lambda: timed(lambda: replay(calls), MIGRATIONS),
        lambda: timed(migrate_once, MIGRATIONS),
    )
    print(f"\n{len(calls)} calls")
    show("a migration of serial", whole / bare, 2, "a bare replay of its calls")
