"""A small conforming driver, made faulty in one point by what a test puts in its place.

Rule: it has 12 bytes of state in chunks of 4.  It sends nothing while it runs, and a
stream is bare state (`Bare`), or state in frames that say where they belong (`Framed`).
``small(Bare, data_size=f)`` is a factory of drivers with another method.
"""

from __future__ import annotations

import errno
import os
import struct
import time
import zlib
from typing import TYPE_CHECKING, Any, ClassVar, Final

from vfiomig.conformance.campaign import Plan
from vfiomig.conformance.catalogue import load_catalogue
from vfiomig.protocol.region import MigrationRegion

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.conformance.conversation.steps import Step
    from vfiomig.conformance.holding import Bench, Held
    from vfiomig.host.device_ops import TrappedDriver

STOP, RUNNING, STOP_AND_COPY, PRE_COPY, RESUMING, ERROR = 0, 1, 2, 3, 4, 6
DATA: Final = 32
BLOCK: Final = 4
SIZE: Final = 3 * BLOCK
STEP: Final = 0x01_0203_0405_0607_0809_0A0B  # one unit of work shows in every block
REGISTERS: Final = {
    (0, 4): "device_state",
    (4, 4): "reserved",
    (8, 8): "pending_bytes",
    (16, 8): "data_offset",
    (24, 8): "data_size",
}
ARCS: Final = frozenset(
    {(1, 0), (1, 2), (1, 3), (1, 4), (2, 0), (3, 2), (4, 1), (0, 1), (0, 2), (0, 4)}
    | {(2, 1), (3, 1), (0, 3), (3, 0)}
)


class Bare:
    """Its stream is its state and nothing else: whatever comes is a state."""

    migration_region: ClassVar[MigrationRegion] = MigrationRegion(96)

    def __init__(self) -> None:
        self.armed: dict[str, int] = {}
        self.power_on()

    def power_on(self) -> None:
        """Be as fresh; a fault that has not gone off stays armed."""
        self.memory = bytes(SIZE)
        self.state = RUNNING
        self.begin()

    def begin(self) -> None:
        """Have nothing sent and nothing loaded."""
        self.chunks = self.stream() if self.state == STOP_AND_COPY else []
        self.queued = b""
        self.window = bytearray(self.migration_region.size - DATA)
        self.loaded: list[bytes] = []

    # -- the contract ------------------------------------------------------------------

    def read(self, offset: int, size: int) -> bytes:
        if offset >= DATA:
            self.trip("data")
            return bytes(self.window[offset - DATA :][:size])
        name = self.register(offset, size)
        self.trip("" if name == "device_state" else name)
        value: int = getattr(self, name)()
        return value.to_bytes(size, "little")

    def write(self, offset: int, data: bytes) -> None:
        if offset >= DATA:
            self.trip("data")
            self.window[offset - DATA : offset - DATA + len(data)] = data
            return
        name = self.register(offset, len(data))
        value = int.from_bytes(data, "little")
        if name == "device_state":
            self.write_device_state(value & 7)
        elif name == "data_size" and self.state == RESUMING:
            self.trip("data_size")
            self.take(value)

    def register(self, offset: int, size: int) -> str:
        if (offset, size) not in REGISTERS:
            raise OSError(errno.EINVAL, "no register")
        return REGISTERS[offset, size]

    def reset(self) -> None:
        self.power_on()

    def close(self) -> None:
        """Hold nothing."""

    # -- the bench ---------------------------------------------------------------------

    def work(self, amount: int) -> None:
        if self.state in (RUNNING, PRE_COPY):
            self.memory = self.worked(amount)

    def worked(self, amount: int) -> bytes:
        total = int.from_bytes(self.memory, "little") + amount * STEP
        return (total % (1 << 8 * len(self.memory))).to_bytes(
            len(self.memory), "little"
        )

    def snapshot(self) -> bytes:
        return self.memory

    def fail(self, on: str, code: int) -> None:
        self.armed[on] = code

    def trip(self, on: str) -> None:
        code = self.armed.pop(on, None)
        if code is not None:
            raise OSError(code, f"fault on {on}")

    # -- registers ---------------------------------------------------------------------

    def device_state(self) -> int:
        return self.state

    def reserved(self) -> int:
        return 0

    def pending_bytes(self) -> int:
        if self.queued:
            self.chunks, self.queued = self.chunks[1:], b""
        return sum(map(len, self.chunks))

    def data_offset(self) -> int:
        if self.chunks and not self.queued:
            self.queued = self.chunks[0]
            self.window[: len(self.queued)] = self.queued
        return DATA

    def data_size(self) -> int:
        return len(self.queued)

    def write_device_state(self, target: int) -> None:
        if target == self.state:
            return
        if (self.state, target) not in ARCS:
            raise OSError(errno.EINVAL, "no such arc")
        self.trip("device_state")
        if self.state == RESUMING:
            self.finish()
        self.state = target
        self.begin()

    # -- streams -----------------------------------------------------------------------

    def stream(self) -> list[bytes]:
        return [self.memory[n : n + BLOCK] for n in range(0, len(self.memory), BLOCK)]

    def take(self, size: int) -> None:
        if size > len(self.window):
            raise OSError(errno.EINVAL, "no chunk is so large")
        self.loaded.append(bytes(self.window[:size]))

    def finish(self) -> None:
        if not self.loaded:
            raise OSError(errno.EINVAL, "no state is as small as that")
        self.memory = b"".join(self.loaded)


class Framed(Bare):
    """Each chunk has a magic number, its place among how many, and a checksum."""

    FRAME: ClassVar[struct.Struct] = struct.Struct("<2sBBI")

    def stream(self) -> list[bytes]:
        blocks = super().stream()
        return [self.framed(n, len(blocks), block) for n, block in enumerate(blocks)]

    def framed(self, number: int, count: int, block: bytes) -> bytes:
        return self.FRAME.pack(b"SD", number, count, zlib.crc32(block)) + block

    def take(self, size: int) -> None:
        super().take(size)
        self.check(self.loaded[-1])

    def check(self, chunk: bytes) -> None:
        number = len(self.loaded) - 1
        block = chunk[self.FRAME.size :]
        if chunk != self.framed(number, SIZE // BLOCK, block) or len(block) != BLOCK:
            self.loaded = [b""] * (SIZE + 1)  # too many, whatever comes
            raise OSError(errno.EBADMSG, "not the next chunk")

    def finish(self) -> None:
        if len(self.loaded) != SIZE // BLOCK:
            raise OSError(errno.EINVAL, "not all of it has come")
        self.memory = b"".join(chunk[self.FRAME.size :] for chunk in self.loaded)


class Gullible(Framed):
    """It has all that would tell it of damage, and does not look."""

    def check(self, chunk: bytes) -> None:
        """Believe it."""

    def finish(self) -> None:
        came = b"".join(chunk[self.FRAME.size :] for chunk in self.loaded)
        self.memory = came.ljust(SIZE, b"\0")[:SIZE]


class Lossy(Framed):
    """It loses a byte of its state in every migration."""

    def finish(self) -> None:
        super().finish()
        self.memory = b"\xee" + self.memory[1:]


class Ticks(Framed):
    """It has a clock that ticks by itself, while it runs."""

    RESOLUTION: ClassVar[int] = 1  # ns
    began: int | None = None

    def power_on(self) -> None:
        self.began = None
        super().power_on()

    def begin(self) -> None:
        super().begin()
        if self.state in (RUNNING, PRE_COPY):
            self.began = self.began or self.now()
        else:
            self.memory, self.began = self.snapshot(), None

    def now(self) -> int:
        return time.monotonic_ns() // self.RESOLUTION

    def snapshot(self) -> bytes:
        if self.began is None:
            return self.memory
        ticks = int.from_bytes(self.memory, "little") + self.now() - self.began
        return ticks.to_bytes(SIZE, "little")

    def work(self, amount: int) -> None:
        """Leave it to the clock."""


class TicksOnceUsed(Ticks):
    """Its clock stands still until the first access, so that fresh ones are alike."""

    def __init__(self) -> None:
        super().__init__()
        self.began = None

    def read(self, offset: int, size: int) -> bytes:
        if self.state in (RUNNING, PRE_COPY):
            self.began = self.began or self.now()
        return super().read(offset, size)


class RefusesLooseData(Framed):
    """It does not run where data was written that no data_size followed."""

    is_loose = False

    def write(self, offset: int, data: bytes) -> None:
        super().write(offset, data)
        self.is_loose |= offset >= DATA

    def begin(self) -> None:
        super().begin()
        self.is_loose = False

    def take(self, size: int) -> None:
        super().take(size)
        self.is_loose = False

    def finish(self) -> None:
        if self.is_loose:
            raise OSError(errno.EINVAL, "a chunk without a size")
        super().finish()


class Dies(Framed):
    """It raises at every read of data_size."""

    def data_size(self) -> int:
        raise RuntimeError("no size")


class Leaves(Framed):
    """It ends its process at every read of data_size."""

    def data_size(self) -> int:
        os._exit(7)


def small(driver: type[Bare] = Framed, /, **methods: Any) -> Callable[[], Bare]:
    """Return a factory of drivers in which these methods are others."""
    return type("Small", (driver,), methods)


def bench_for(
    make_driver: Callable[[], TrappedDriver], *, data: int = 1 << 30
) -> Bench:
    """Return a bench with every rule, and so many bytes of data to move."""
    rules = tuple(rule.id for rule in load_catalogue())
    return Plan(rules=rules, accesses=1 << 30, data=data).bench(make_driver)


def hold(make_driver: Callable[[], TrappedDriver], *steps: Step) -> Held:
    """Hold one conversation."""
    return bench_for(make_driver).hold(steps)


def origins_broken(make_driver: Callable[[], TrappedDriver], *steps: Step) -> set[str]:
    """Return the rules, by origin, that a conversation shows as broken and failing."""
    broken = hold(make_driver, *steps).broken
    return {r.origin for r in load_catalogue() if r.id in broken and r.fails}
