"""A reference driver behind a device fd, and the 8x8 table, both for its tests.

The table and the offsets are those of kernel_uapi.md (A.1 and B), not our code's.
"""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, Final, TypeAlias

import pytest

from vfiomig.host.device_fd import DeviceFd
from vfiomig.vendor.accelerator import AcceleratorModel
from vfiomig.vendor.opaque import OpaqueModel
from vfiomig.vendor.reference import ReferenceDriver
from vfiomig.vendor.scratchpad import ScratchpadModel
from vfiomig.vendor.serial import SerialModel

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterator

    from vfiomig.vendor.device_model import DeviceModel

PAGE: Final = 4096
BASE: Final = 9 << 40
RESET: Final = 0x3B6F

STOP, RUNNING, STOP_AND_COPY, PRE_COPY, RESUMING, ERROR = 0, 1, 2, 3, 4, 6
STATES: Final = (STOP, RUNNING, STOP_AND_COPY, PRE_COPY, RESUMING, ERROR)

DEVICE_STATE, RESERVED, PENDING_BYTES, DATA_OFFSET, DATA_SIZE = 0, 4, 8, 16, 24
WIDTHS: Final = {
    DEVICE_STATE: 4,
    RESERVED: 4,
    PENDING_BYTES: 8,
    DATA_OFFSET: 8,
    DATA_SIZE: 8,
}

# Rows are from, columns are to: 000 to 111.
_TABLE: Final = """
    SELF EXP  EXP  OPT  EXP  INV  ERRW INV
    REQ  SELF REQ  REQ  REQ  INV  ERRW INV
    REQ  EXP  SELF OPT  OPT  INV  ERRW INV
    OPT  EXP  REQ  SELF OPT  INV  ERRW INV
    OPT  REQ  OPT  OPT  SELF INV  ERRW INV
    UNR  UNR  UNR  UNR  UNR  UNR  UNR  UNR
    XERR XERR XERR XERR XERR XERR XERR XERR
    UNR  UNR  UNR  UNR  UNR  UNR  UNR  UNR
"""
TABLE: Final = {
    (source, target): name
    for source, row in enumerate(_TABLE.strip().splitlines())
    for target, name in enumerate(row.split())
}

Make: TypeAlias = "Callable[[], DeviceModel]"

MODELS: Final[dict[str, Make]] = {
    "scratchpad": lambda: ScratchpadModel(4 * PAGE),
    "accelerator": lambda: AcceleratorModel(3 * PAGE),
    "opaque": lambda: OpaqueModel(20_001),
    "serial": lambda: SerialModel(2),
}
KINDS: Final = ("trapped", "mapped", "split")


class OpenDevice:
    """An open device, with a word for each thing that a user application does to it.

    Data goes through the areas where there are some; not, if ``maps`` is false.
    """

    def __init__(
        self,
        model: DeviceModel | None = None,
        *,
        kind: str = "mapped",
        section: int = 2 * PAGE,
        maps: bool = True,
    ) -> None:
        self.driver = ReferenceDriver(
            model or MODELS["scratchpad"](), section=section, data_section=kind
        )
        self.region = self.driver.migration_region
        self.fd = DeviceFd(self.driver)
        self._mappings: dict[int, mmap.mmap] = {}
        for area in self.region.areas if maps else ():
            self._mappings[area.offset] = self.fd.mmap(area.size, BASE + area.offset)

    def __enter__(self) -> OpenDevice:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for mapping in self._mappings.values():
            mapping.close()
        self._mappings.clear()
        with contextlib.suppress(OSError):  # it is closed
            self.fd.close()

    # -- registers

    def read(self, register: int) -> int:
        width = WIDTHS[register]
        data = self.fd.pread(width, BASE + register)
        assert len(data) == width  # V1-ACC-04
        return int.from_bytes(data, "little")

    def write(self, register: int, value: int) -> None:
        width = WIDTHS[register]
        data = value.to_bytes(width, "little")
        assert self.fd.pwrite(data, BASE + register) == width  # V1-TRANS-01

    @property
    def state(self) -> int:
        return self.read(DEVICE_STATE)

    @state.setter
    def state(self, value: int) -> None:
        self.write(DEVICE_STATE, value)

    def bring_to(self, state: int) -> None:
        """Bring a device from RUNNING to any state, ERROR included."""
        if state == ERROR:
            self.driver.fail("device_state", errno.ENOTRECOVERABLE)
            assert self.refusal_of(STOP) == errno.ENOTRECOVERABLE
        elif state != RUNNING:
            self.state = state
        assert self.state == state

    def refusal_of(self, state: int) -> int:
        """Write device_state and return the errno that comes of it."""
        return refusal(lambda: self.write(DEVICE_STATE, state))

    def reset(self) -> None:
        assert self.fd.ioctl(RESET) == 0

    # -- data

    def fetch(self, offset: int, size: int) -> bytes:
        """Read from the data section, a page at a time, by the shortest way."""
        pieces = []
        for start, end, mapping, at in self._pieces(offset, size):
            if mapping is not None:
                pieces.append(mapping[at : at + end - start])
            else:
                pieces.append(self.fd.pread(end - start, BASE + start))
        return b"".join(pieces)

    def put(self, offset: int, data: bytes) -> None:
        """Write to the data section."""
        for start, end, mapping, at in self._pieces(offset, len(data)):
            piece = data[start - offset : end - offset]
            if mapping is not None:
                mapping[at : at + len(piece)] = piece
            else:
                assert self.fd.pwrite(piece, BASE + start) == len(piece)

    def _pieces(
        self, offset: int, size: int
    ) -> Iterator[tuple[int, int, mmap.mmap | None, int]]:
        end = offset + size
        while offset < end:
            stop = min(end, (offset // PAGE + 1) * PAGE)
            for first, mapping in self._mappings.items():
                if first <= offset < first + len(mapping):
                    yield offset, stop, mapping, offset - first
                    break
            else:
                yield offset, stop, None, 0
            offset = stop

    # -- sequences, with the letters of the header

    def prepare(self) -> tuple[int, int]:
        """Make a buffer ready and return where it is: (b), (c)."""
        return self.read(DATA_OFFSET), self.read(DATA_SIZE)

    def take(self) -> bytes:
        """Make a buffer ready and read it: (b), (c), (d)."""
        return self.fetch(*self.prepare())

    def save(self, at_most: int = 1000) -> list[bytes]:
        """Read buffers until nothing is pending: (a) to (f)."""
        chunks: list[bytes] = []
        while self.read(PENDING_BYTES) and len(chunks) < at_most:
            chunks.append(self.take())
        assert at_most < 1000 or len(chunks) < 1000  # V1-PEND-13
        return chunks

    def give(self, chunk: bytes) -> None:
        """Let the driver consume a buffer: (a), (b), (c) of resuming."""
        self.put(self.read(DATA_OFFSET), chunk)
        self.write(DATA_SIZE, len(chunk))

    def load(self, chunks: list[bytes]) -> None:
        """Resume with these buffers: RESUMING to RUNNING."""
        self.state = RESUMING
        for chunk in chunks:
            self.give(chunk)
        self.state = RUNNING

    # -- the bench

    def work(self, amount: int = 25) -> None:
        self.driver.work(amount)

    @property
    def snapshot(self) -> bytes:
        return bytes(self.driver.snapshot())


def refusal(call: Callable[[], object]) -> int:
    """Make a call that fails, and return its errno."""
    with pytest.raises(OSError) as refused:  # noqa: PT011 - the errno is what counts
        call()
    assert refused.value.errno is not None
    return refused.value.errno


def saved(make: Make, *, work: int = 25) -> tuple[list[bytes], bytes]:
    """Return the stream of a device that worked and stopped, and its snapshot."""
    with OpenDevice(make()) as source:
        source.work(work)
        source.state = STOP_AND_COPY
        return source.save(), source.snapshot


def assert_restores(make: Make, chunks: list[bytes], snapshot: bytes) -> None:
    """Hold a stream to what it is for: another device continues with that state."""
    with OpenDevice(make()) as destination:
        destination.load(chunks)
        assert destination.state == RUNNING
        assert destination.snapshot == snapshot
