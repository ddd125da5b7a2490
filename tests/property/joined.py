"""Journeys of a device from machine to machine, and a twin that stays at home.

A journey is a few migrations one after another: a client and a driver on each side,
joined through the host, with at most one piece of trouble in each.  Beside it a twin
of the device does the same work and never moves, so its snapshot is at every moment
what the travelling device's must be.

A migration has two outcomes.  Either the device runs at the destination as the twin
does, and the source stands still; or both sides say that it failed, and the source
runs on as the twin does.  `travel` raises ``AssertionError`` for anything else, but
for a source that says that it lost its device: whether it may is up to the caller.
"""

from __future__ import annotations

import contextlib
import enum
import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

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
    from collections.abc import Sequence

    from vfiomig.migration.transport import ByteStream
    from vfiomig.protocol.region import SparseMmapArea
    from vfiomig.vendor.reference import ReferenceDriver

PAGE: Final = 4096
RESET: Final = 0x3B6F
STOP, RUNNING = 0, 1

# Small, and yet of several chunks where the data section is small.
DEVICES: Final[dict[str, dict[str, Any]]] = {
    "serial": {"ports": 2, "log": None},
    "opaque": {"state": 10_001},
    "reference": {"state": 3 * PAGE},
    "accelerator": {"memory": 2 * PAGE, "spread": PAGE},
}


class Side(enum.Enum):
    """Which end of a migration."""

    SOURCE = "source"
    DESTINATION = "destination"


# -- trouble ---------------------------------------------------------------------------


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
    """A person gives up at this moment, in virtual nanoseconds."""

    at: int


@dataclass(frozen=True, slots=True)
class NotConverging:
    """Pre-copy gives up after the rounds that it has, and does not go over."""


Trouble = NoTrouble | Refused | Fault | LinkCut | BitFlipped | Cancelled | NotConverging

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


# -- a journey -------------------------------------------------------------------------


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
        self._notice("write", offset, len(data), data[:8].hex())
        self.driver.write(offset, data)

    def mmap(self, area: SparseMmapArea) -> tuple[int, int]:
        self._notice("mmap", area.offset, area.size)
        return self.driver.mmap(area)

    def reset(self) -> None:
        self.log.append(("reset", 0, ""))
        self.driver.reset()

    def close(self) -> None:
        self.driver.close()

    def _notice(self, verb: str, offset: int, size: int, data: str = "") -> None:
        name = f"{verb} {_REGISTERS.get(offset, 'data')}" if verb != "mmap" else verb
        self.log.append((name, size, data))
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
        self.pages = section.pages
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

    def client(self, conduct: str, *, vm_is_running: bool = False) -> V1Client:
        """Return a user application of its own for one migration."""
        return V1Client(
            self.fd,
            self.region,
            conduct=CONDUCTS[conduct],
            vm_is_running=vm_is_running,
        )


def _make(device: str, section: Section) -> ReferenceDriver:
    return BUILTIN[device].make(
        **DEVICES[device], section=section.pages * PAGE, data_section=section.kind
    )


class Guest:
    """The guest of a running device, and of its twin."""

    def __init__(self, devices: Sequence[Machine | ReferenceDriver], work: int) -> None:
        self._devices = devices
        self._work = work

    def run_until(self, now: int) -> None:
        """Let all devices do the same work."""
        for device in self._devices:
            device.work(self._work)


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


# -- the migrations --------------------------------------------------------------------


class Arrival(enum.Enum):
    """What came of a migration: the two outcomes that there are, and the sad one."""

    MOVED = "runs at the destination"
    STAYED = "runs at the source, and both sides say so"
    LOST = "both sides failed, and the source says that it lost its device"


def travel(journey: Journey, *, may_be_lost: bool = False) -> list[Arrival]:
    """Go on a journey and return what came of each leg; it ends where a device does.

    Raises:
        AssertionError: a leg had a third outcome; with the conversation that led there.
    """
    with contextlib.ExitStack() as stack:
        machines: list[Machine] = []

        def new_machine(section: Section) -> Machine:
            machines.append(Machine(journey.device, section))
            stack.callback(machines[-1].fd.close)
            return machines[-1]

        twin = _make(journey.device, journey.start)
        stack.callback(twin.close)
        here, last = new_machine(journey.start), None
        Guest([here, twin], journey.work).run_until(0)
        arrivals = []
        for leg in journey.legs:
            there = last if leg.back else None
            if there is None or not _has_room(there.pages, here.pages, leg.trouble):
                there = new_machine(_roomy(leg, here.pages))
            try:
                arrivals.append(_go(here, there, twin, leg))
                assert may_be_lost or arrivals[-1] is not Arrival.LOST, "it is lost"
            except AssertionError as third:
                third.add_note(_conversation(here, there))
                raise
            if arrivals[-1] is Arrival.LOST:
                break
            if arrivals[-1] is Arrival.MOVED:
                here, last = there, here
            else:
                there.fd.ioctl(RESET)  # who tries again begins with a clean device
                last = there
        return arrivals


def _has_room(pages: int, needed: int, trouble: Trouble) -> bool:
    """Tell whether a data section is good enough.

    One that is smaller than the source's is a trouble of its own: one at a time.
    """
    return pages >= needed or isinstance(trouble, NoTrouble)


def _roomy(leg: Leg, needed: int) -> Section:
    if _has_room(leg.section.pages, needed, leg.trouble):
        return leg.section
    return Section(pages=needed, kind=leg.section.kind)


def _go(here: Machine, there: Machine, twin: ReferenceDriver, leg: Leg) -> Arrival:
    """Migrate once, and hold what came of it to the twin."""
    moments = Moments(here, there)
    for machine, side in ((here, Side.SOURCE), (there, Side.DESTINATION)):
        machine.driver.log.clear()
        machine.driver.expect(leg.trouble, side)
    endings = _migrate(here, there, twin, leg, moments)
    for machine in (here, there):
        machine.driver.expect(NoTrouble(), Side.SOURCE)
    outcomes = [ending.outcome for ending in endings]
    home = bytes(twin.snapshot())
    if outcomes == [Outcome.COMPLETED] * 2:
        assert moments.at_stop == home, "the source stopped in another state"
        assert moments.at_start == home, "the destination began with another state"
        assert (here.device_state, there.device_state) == (STOP, RUNNING)
        assert here.snapshot == home, "the source was touched after its stop"
        _assert_works(there, twin)
        return Arrival.MOVED
    assert Outcome.COMPLETED not in outcomes, f"one side failed alone: {endings}"
    has_run = moments.at_start is not None
    assert not has_run or there.device_state != RUNNING, "the destination runs on"
    if endings[0].lost:
        return Arrival.LOST
    assert here.device_state == RUNNING, f"the source does not run: {endings}"
    assert here.snapshot == home, "the source was harmed"
    _assert_works(here, twin)
    return Arrival.STAYED


def _assert_works(machine: Machine, twin: ReferenceDriver) -> None:
    """The device goes on as its twin does, from a state that is really the same."""
    Guest([machine, twin], 5).run_until(0)
    assert machine.snapshot == bytes(twin.snapshot()), "it does not go on as its twin"


def _migrate(
    here: Machine, there: Machine, twin: ReferenceDriver, leg: Leg, moments: Moments
) -> list[Ending]:
    near, far = PAIRS[leg.transport]()
    try:
        link = LinkModel(SECOND, 1000)  # a byte takes a nanosecond
        clocks = VirtualClock(), VirtualClock()
        forth = Channel(link, clocks[0], clocks[1])
        back = Channel(link, clocks[1], clocks[0])
        metrics = Metrics()
        source = Source(
            [MigratingDevice("device", here.client(leg.conduct, vm_is_running=True))],
            clock=clocks[0],
            estimate=DowntimeEstimate(link=link),
            limits=_limits(leg),
            metrics=metrics,
            guest=Guest([here, twin], leg.work),
            observer=moments,
        )
        destination = Destination(
            [MigratingDevice("device", there.client(leg.conduct))],
            clock=clocks[1],
            metrics=metrics,
            observer=moments,
        )
        outgoing = _spoiled(near, leg.trouble, Side.SOURCE)
        incoming = _spoiled(far, leg.trouble, Side.DESTINATION)
        sender = Party(source.migrate(), outgoing, outgoing=forth, incoming=back)
        receiver = Party(destination.load(), incoming, outgoing=back, incoming=forth)
        exchange(sender, receiver, patience=2.0)
        endings = [sender.result(), receiver.result()]
        if isinstance(outgoing, FlipBit) and outgoing.happened:
            has_failed = all(e.outcome is not Outcome.COMPLETED for e in endings)
            assert has_failed, "a flipped bit went unnoticed"
        return endings
    finally:
        near.close()
        far.close()


def _limits(leg: Leg) -> Limits:
    return Limits(
        downtime=0 if leg.patient else SECOND,
        rounds=leg.rounds,
        switches_anyway=not isinstance(leg.trouble, NotConverging),
        cancel_at=leg.trouble.at if isinstance(leg.trouble, Cancelled) else None,
    )


def _spoiled(stream: ByteStream, trouble: Trouble, side: Side) -> ByteStream:
    """Put the trouble of the link in front of one end of it."""
    match trouble:
        case LinkCut(cut_side, byte) if cut_side is side:
            return CutLink(stream, byte)
        case BitFlipped(byte, bit) if side is Side.SOURCE:
            return FlipBit(stream, byte, bit)
        case _:
            return stream


def _conversation(here: Machine, there: Machine) -> str:
    lines = []
    for name, machine in (("source", here), ("destination", there)):
        lines.append(f"{name}, accesses and their first bytes:")
        lines += [f"  {what} {size} {data}" for what, size, data in machine.driver.log]
    return "\n".join(lines)
