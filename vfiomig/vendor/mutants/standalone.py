"""A small driver that shares no code with the reference driver, for mutants of it.

Rule 1: `StandaloneDriver` conforms, in ways that the reference driver does not: its
data is at 64, trapped, behind a gap; chunks are a few bytes; a write to a read-only
register is ignored; most of the undrawn arcs are refused; a bad stream leaves it in
RESUMING, and a fault in a transition takes it to ERROR.

Rule 2: each step is a method of its own, so that a mutant overrides one.

The device is a memory that the guest scribbles on, with its generator in front.  A
chunk is a block of it with its place and a checksum; the last chunk has a checksum of
the whole memory, so that blocks may come twice, and none may be missing.
"""

from __future__ import annotations

import errno
import struct
import zlib
from typing import ClassVar, Final, NoReturn

from vfiomig.protocol.region import MigrationRegion

STOP: Final = 0
RUNNING: Final = 1
STOP_AND_COPY: Final = 2
PRE_COPY: Final = 3
RESUMING: Final = 4
ERROR: Final = 6

DEVICE_STATE: Final = 0
RESERVED: Final = 4
PENDING_BYTES: Final = 8
DATA_OFFSET: Final = 16
DATA_SIZE: Final = 24

WIDTHS: Final = {
    DEVICE_STATE: 4,
    RESERVED: 4,
    PENDING_BYTES: 8,
    DATA_OFFSET: 8,
    DATA_SIZE: 8,
}
REGISTERS: Final = 32
DATA: Final = 64  # of the region, where the window is
WINDOW: Final = 64
BLOCK: Final = 16

# magic, memory size, address, length, flags; then the block, then the checksum.
HEAD: Final = struct.Struct("<4sIIHH")
CHECKSUM: Final = struct.Struct("<I")
OVERHEAD: Final = HEAD.size + CHECKSUM.size
MAGIC: Final = b"BLKS"
LAST: Final = 1
TRAILER: Final = -1  # as a block: the chunk that ends the stream

SAVING: Final = (PRE_COPY, STOP_AND_COPY)
ARCS: Final = frozenset(
    {
        (RUNNING, STOP),
        (RUNNING, STOP_AND_COPY),
        (RUNNING, PRE_COPY),
        (RUNNING, RESUMING),
        (STOP_AND_COPY, STOP),
        (PRE_COPY, STOP_AND_COPY),
        (RESUMING, RUNNING),
        (STOP, RUNNING),
        (STOP, STOP_AND_COPY),
        (STOP, RESUMING),
        (STOP_AND_COPY, RUNNING),
        (PRE_COPY, RUNNING),
        (STOP, PRE_COPY),
        (PRE_COPY, STOP),
    }
)
_INTERNAL: Final = (errno.EIO, errno.ENOTRECOVERABLE)


class StandaloneDriver:
    """A vendor driver with ``memory_size`` bytes of state, whole blocks."""

    violates: ClassVar[frozenset[str]] = frozenset()
    memory_size: ClassVar[int] = 12 * BLOCK

    def __init__(self) -> None:
        self.migration_region = MigrationRegion(DATA + WINDOW)
        self.window = bytearray(WINDOW)
        self.armed: dict[str, int] = {}
        self.power_on()

    # -- the contract ----------------------------------------------------------------

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read; EINVAL for what is neither register nor data."""
        if offset >= REGISTERS:
            self.trip("data")
            return self.read_data(self.place(offset, size), size)
        if WIDTHS.get(offset) != size:
            refuse(f"no register of {size} bytes is at {offset}")
        return self.read_register(offset).to_bytes(size, "little")

    def write(self, offset: int, data: bytes) -> None:
        """Take a trapped write; EINVAL for what is neither register nor data."""
        if offset >= REGISTERS:
            self.trip("data")
            self.write_data(self.place(offset, len(data)), data)
            return
        if WIDTHS.get(offset) != len(data):
            refuse(f"no register of {len(data)} bytes is at {offset}")
        self.write_register(offset, int.from_bytes(data, "little"))

    def reset(self) -> None:
        """Go back to power-on and RUNNING."""
        self.power_on()

    def close(self) -> None:
        """Have nothing to let go of."""

    # -- the bench -------------------------------------------------------------------

    def work(self, amount: int) -> None:
        """Write ``amount`` pseudo-random bytes, if the device runs."""
        if self.is_running():
            for _ in range(amount):
                self.scribble()

    def snapshot(self) -> bytes:
        """Return the memory."""
        return bytes(self.memory)

    def fail(self, on: str, code: int) -> None:
        """Arm a fault; EIO and ENOTRECOVERABLE in a transition lead to ERROR."""
        self.armed[on] = code

    # -- the device ------------------------------------------------------------------

    def power_on(self) -> None:
        """Take the state of a device that was just switched on."""
        self.memory = bytearray(self.memory_size)
        self.state = RUNNING
        self.armed.clear()
        self.end_session()

    def is_running(self) -> bool:
        """Tell whether guest traffic has an effect."""
        return self.state in (RUNNING, PRE_COPY)

    def scribble(self) -> None:
        """Write one byte, and the generator."""
        generator = int.from_bytes(self.memory[:4], "little")
        generator = (generator * 1664525 + 1013904223) % (1 << 32)
        address = 4 + (generator >> 8) % (self.memory_size - 4)
        self.memory[:4] = generator.to_bytes(4, "little")
        self.memory[address] ^= 1 + (generator >> 24) % 255
        self.note(0)
        self.note(address // BLOCK)

    def note(self, block: int) -> None:
        """Remember that a block has changed."""
        if self.state == PRE_COPY:
            self.dirty.add(block)

    def trip(self, on: str) -> None:
        """Set off the fault that is armed on an access."""
        code = self.armed.pop(on, None)
        if code is not None:
            raise OSError(code, f"fault injected on {on}")

    # -- registers -------------------------------------------------------------------

    def read_register(self, register: int) -> int:
        """Return what a register reads."""
        if register == DEVICE_STATE:
            return self.state
        if register == PENDING_BYTES:
            self.trip("pending_bytes")
            return self.pending_bytes()
        if register == DATA_OFFSET:
            self.trip("data_offset")
            return self.data_offset()
        if register == DATA_SIZE:
            self.trip("data_size")
            return self.data_size()
        return 0

    def write_register(self, register: int, value: int) -> None:
        """Take a value for a register; those that are read-only ignore it."""
        if register == DEVICE_STATE:
            self.write_device_state(value)
        elif register == DATA_SIZE:
            self.write_data_size(value)

    def write_device_state(self, value: int) -> None:
        """Go to another state, stay in this one, or refuse."""
        target = value & 7
        if target == self.state and target != ERROR:
            return
        if (self.state, target) not in ARCS:
            refuse(f"{self.state:03b}b to {target:03b}b is not supported")
        self.enter(target)

    def pending_bytes(self) -> int:
        """End the iteration, if one is under way, and return what is left."""
        if self.state not in SAVING:
            return 0
        self.acknowledge()
        return self.left()

    def data_offset(self) -> int:
        """Begin an iteration when saving, and return where the window is."""
        if self.state in SAVING and self.queued is None:
            self.queue()
        return DATA

    def data_size(self) -> int:
        """Return the size of the chunk in the window."""
        return self.size

    def write_data_size(self, size: int) -> None:
        """Take the chunk in the window."""
        if self.state != RESUMING:
            refuse("data_size is written in RESUMING")
        self.trip("data_size")
        if not OVERHEAD <= size <= WINDOW:
            refuse(f"no chunk has {size} bytes")
        self.take(bytes(self.window[:size]))

    # -- transitions -----------------------------------------------------------------

    def enter(self, target: int) -> None:
        """Make a transition that is supported."""
        try:
            self.trip("device_state")
        except OSError as failure:
            if failure.errno in _INTERNAL:
                self.end_session()
                self.state = ERROR
            raise
        if self.state == RESUMING:
            self.finish()
        if target not in SAVING:
            self.end_session()
        elif self.state in SAVING:
            self.switch_over()
        else:
            self.begin_saving()
        if target == RESUMING:
            self.begin_resuming()
        self.state = target

    def end_session(self) -> None:
        """Forget what was to be sent, and what came."""
        self.dirty: set[int] = set()
        self.queued: int | None = None
        self.size = 0
        self.has_ended = False
        self.staged = bytearray()
        self.expected: int | None = None
        self.is_spoiled = False
        self.window[:] = bytes(WINDOW)

    # -- saving ----------------------------------------------------------------------

    def begin_saving(self) -> None:
        """Have everything to send."""
        self.end_session()
        self.dirty.update(range(self.memory_size // BLOCK))

    def switch_over(self) -> None:
        """Go on in stop-and-copy: the chunk in the window may be unread."""
        if self.queued is not None:
            self.dirty.add(self.queued)
            self.queued = None
            self.size = 0

    def acknowledge(self) -> None:
        """Take the chunk in the window as read."""
        self.has_ended |= self.queued == TRAILER
        self.queued = None
        self.size = 0

    def left(self) -> int:
        """Return the bytes of blocks to send, and one for the end of the stream."""
        is_open = self.state == STOP_AND_COPY and not self.has_ended
        return len(self.dirty) * BLOCK + is_open

    def queue(self) -> None:
        """Put the next chunk into the window."""
        if self.dirty:
            self.queued = min(self.dirty)
            self.dirty.discard(self.queued)
            start = self.queued * BLOCK
            self.put(start, self.memory[start : start + BLOCK])
        elif self.left():
            self.queued = TRAILER
            self.put(0, CHECKSUM.pack(zlib.crc32(self.memory)), LAST)

    def put(self, address: int, payload: bytes | bytearray, flags: int = 0) -> None:
        """Make the chunk around a payload."""
        head = HEAD.pack(MAGIC, self.memory_size, address, len(payload), flags)
        chunk = head + payload
        chunk += CHECKSUM.pack(zlib.crc32(chunk))
        self.size = len(chunk)
        self.window[: self.size] = chunk

    # -- resuming --------------------------------------------------------------------

    def begin_resuming(self) -> None:
        """Get ready for a memory of blocks."""
        self.staged = bytearray(self.memory_size)

    def take(self, chunk: bytes) -> None:
        """Check and apply a chunk; a stream that was wrong once stays refused."""
        try:
            self.check(chunk)
        except OSError:
            self.is_spoiled = True
            raise
        self.apply(chunk)

    def check(self, chunk: bytes) -> None:
        """Refuse a chunk that is damaged or does not belong here."""
        (checksum,) = CHECKSUM.unpack(chunk[-CHECKSUM.size :])
        if zlib.crc32(chunk[: -CHECKSUM.size]) != checksum:
            raise OSError(errno.EBADMSG, "the checksum is wrong")
        magic, memory_size, address, length, flags = HEAD.unpack_from(chunk)
        if (magic, memory_size) != (MAGIC, self.memory_size):
            refuse("a chunk of another device")
        is_inside = address + length <= self.memory_size
        if length != len(chunk) - OVERHEAD or flags & ~LAST or not is_inside:
            refuse("a chunk that no device sends")

    def apply(self, chunk: bytes) -> None:
        """Keep what a chunk says until the stream has ended."""
        _, _, address, length, flags = HEAD.unpack_from(chunk)
        payload = chunk[HEAD.size : HEAD.size + length]
        if flags & LAST:
            self.expected = int.from_bytes(payload, "little")
        else:
            self.staged[address : address + length] = payload
            self.expected = None

    def finish(self) -> None:
        """Make what came the device's memory, if it is whole."""
        if self.is_spoiled or zlib.crc32(self.staged) != self.expected:
            refuse("the stream is not whole")
        self.memory = self.staged

    # -- data ------------------------------------------------------------------------

    def place(self, offset: int, size: int) -> int:
        """Return where in the window an access of data begins."""
        start = offset - DATA
        if start < 0 or start + size > WINDOW:
            refuse(f"{size} bytes at {offset:#x} leave the data section")
        return start

    def read_data(self, start: int, size: int) -> bytes:
        """Return bytes of the window."""
        return bytes(self.window[start : start + size])

    def write_data(self, start: int, data: bytes) -> None:
        """Put bytes into the window, in RESUMING."""
        if self.state != RESUMING:
            refuse("data is written in RESUMING")
        self.window[start : start + len(data)] = data


def refuse(why: str) -> NoReturn:
    """Raise ``OSError(EINVAL)``."""
    raise OSError(errno.EINVAL, why)
