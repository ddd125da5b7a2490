"""Journeys of a device from machine to machine, and a twin that stays at home.

A journey is a few migrations one after another: a client and a driver on each side,
joined through the host, with at most one piece of trouble in each.  Beside it a twin
of the device does the same work and never moves, so its snapshot is at every moment
what the travelling device's must be.

A migration has two outcomes.  Either the device runs at the destination as the twin
does, and the source stands still; or both sides say that it failed, and the source
runs on as the twin does.  `travel` raises ``AssertionError`` for anything else.
"""

from __future__ import annotations

import enum
import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.client.conduct import CONDUCTS
from vfiomig.client.region import find_migration_region
from vfiomig.client.v1 import V1Client
from vfiomig.host.device_fd import DeviceFd
from vfiomig.migration.clock import SECOND, Channel, LinkModel, VirtualClock
from vfiomig.migration.convergence import DowntimeEstimate, Limits
from vfiomig.migration.destination import Destination
from vfiomig.migration.exchange import Party, exchange
from vfiomig.migration.metrics import Metrics, Outcome
from vfiomig.migration.observer import Unobserved
from vfiomig.migration.side import Ending, MigratingDevice
from vfiomig.migration.source import Source
from vfiomig.migration.transport import PAIRS, CutLink, FlipBit
from vfiomig.vendor.builtin import BUILTIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vfiomig.migration.transport import ByteStream
    from vfiomig.protocol.region import SparseMmapArea
    from vfiomig.vendor.reference import ReferenceDriver

PAGE: Final = 4096
RESET: Final = 0x3B6F
STOP, RUNNING = 0, 1

# Small, and yet of several chunks where the data section is small.
DEVICES: Final[dict[str, dict[str, int | None]]] = {
    "serial": {"ports": 2},
    "opaque": {"state": 10_001},
    "reference": {"state": 3 * PAGE},
    "accelerator": {"memory": 2 * PAGE, "spread": PAGE},
}


class Side(enum.Enum):
    """Which end of a migration."""

    SOURCE = "source"
    DESTINATION = "destination"


# -- trouble -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NoTrouble:
    """All goes well."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The ``number``-th access of a kind, from 1, fails with ``code``."""

    side: Side
    access: str
    number: int
    code: int


@dataclass(frozen=True, slots=True)
class Fault:
    """After ``number`` accesses of any kind the bench arms a fault."""

    side: Side
    site: str
    number: int
    code: int


@dataclass(frozen=True, slots=True)
class LinkCut:
    """The link goes after ``byte`` bytes from this side."""

    side: Side
    byte: int


@dataclass(frozen=True, slots=True)
class BitFlipped:
    """A bit of a byte that the source sends is turned over on its way."""

    byte: int
    bit: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A person gives up after ``number`` looks at what is pending."""

    number: int


@dataclass(frozen=True, slots=True)
class NotConverging:
    """Pre-copy gives up after the rounds that it has, and does not go over."""


Trouble = (
    NoTrouble | Refused | Fault | LinkCut | BitFlipped | Cancelled | NotConverging
)

SITES: Final = ("device_state", "pending_bytes", "data_offset", "data_size", "data")
ACCESSES: Final = (
    "write device_state",
    "read device_state",
    "read pending_bytes",
    "read data_offset",
    "read data_size",
    "write data_size",
    "read data",
    "write data",
    "mmap",
)
_REGISTERS: Final = {
    0: "device_state",
    8: "pending_bytes",
    16: "data_offset",
    24: "data_size",
}


# -- a journey ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A data section: its pages, and how it is reached."""

    pages: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One migration of a journey: to a new machine, or ``back`` to the last one.

    The guest does ``work`` at each look at pending_bytes.  ``rounds`` of pre-copy at
    most; a ``patient`` source goes over only when nothing is pending or they are up.
    """

    back: bool
    section: Section
    conduct: str
    transport: str
    work: int
    rounds: int
    patient: bool
    trouble: Trouble


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """A device, what it did before, where it starts, and where it goes."""

    device: str
    work: int
    start: Section
    legs: tuple[Leg, ...]


class Troubled:
    """A driver in front of another: it counts accesses, and makes trouble once."""

    def __init__(self, driver: ReferenceDriver) -> None:
        self.driver = driver
        self.migration_region = driver.migration_region
        self.log: list[tuple[str, int, str]] = []
        self._trouble: Trouble = NoTrouble()
        self._left = 0

    def expect(self, trouble: Trouble, side: Side) -> None:
        """Make this trouble from now on, if it is of this side."""
        if isinstance(trouble, Refused | Fault) and trouble.side is side:
            self._trouble, self._left = trouble, trouble.number
        else:
            self._trouble = NoTrouble()

    def read(self, offset: int, size: int) -> bytes:
        self._notice("read", offset, size)
        return self.driver.read(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        self._notice("write", offset, len(data), data)
        self.driver.write(offset, data)

    def mmap(self, area: SparseMmapArea) -> tuple[int, int]:
        self._notice("mmap", area.offset, area.size)
        return self.driver.mmap(area)

    def reset(self) -> None:
        self.log.append(("reset", 0, ""))
        self.driver.reset()

    def close(self) -> None:
        self.driver.close()

    def _notice(self, verb: str, offset: int, size: int, data: bytes = b"") -> None:
        name = f"{verb} {_REGISTERS.get(offset, 'data')}" if verb != "mmap" else verb
        self.log.append((name, size, data[:8].hex()))
        match self._trouble:
            case Refused(access=access, code=code) if access == name:
                self._left -= 1
                if not self._left:
                    self.log.append(("failed", code, errno.errorcode[code]))
                    raise OSError(code, "trouble")
            case Fault(site=site, code=code):
                self._left -= 1
                if not self._left:
                    self.log.append(("armed", code, site))
                    self.driver.fail(site, code)


class Machine:
    """One machine of a journey: a device, opened."""

    def __init__(self, device: str, section: Section) -> None:
        self.driver = Troubled(_make(device, section))
        self.fd = DeviceFd(self.driver)
        self.region = find_migration_region(self.fd)

    @property
    def device_state(self) -> int:
        return int.from_bytes(self.driver.driver.read(0, 4), "little")

    @property
    def snapshot(self) -> bytes:
        return bytes(self.driver.driver.snapshot())

    def work(self, amount: int) -> None:
        self.driver.driver.work(amount)

    def client(self, conduct: str) -> V1Client:
        return V1Client(self.fd, self.region, conduct=CONDUCTS[conduct])


def _make(device: str, section: Section) -> ReferenceDriver:
    return BUILTIN[device].make(
        **DEVICES[device], section=section.pages * PAGE, data_section=section.kind
    )


class Guest:
    """The guest of a running device, and of its twin."""

    def __init__(self, devices: Sequence[Machine], amount: int) -> None:
        self._devices = devices
        self._amount = amount
        self.looks = 0

    def run_until(self, _now: int) -> None:
        """Let both devices do the same work."""
        self.looks += 1
        for device in self._devices:
            device.work(self._amount)


class Moments(Unobserved):
    """The snapshots of the moments that the contract names."""

    def __init__(self, source: Machine, destination: Machine) -> None:
        self._source = source
        self._destination = destination
        self.at_stop: bytes | None = None
        self.at_start: bytes | None = None

    def source_stopped(self, device: str) -> None:
        self.at_stop = self._source.snapshot

    def destination_runs(self, device: str) -> None:
        self.at_start = self._destination.snapshot


class _CancelledLimits(Limits):
    """Limits of a person who gives up at a certain look."""
