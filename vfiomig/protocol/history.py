"""A history: what crossed the fds of a migration's devices, in order, as JSON lines.

The first line is a `Header`; each other line is an `Access` or a `BenchEvent`, told
apart by the key ``access`` or ``bench``.  Offsets are those of the migration region.
What is not there has its default: an access without ``errno`` succeeded, one with
``unseen`` went through a mapping, where nobody could see its bytes, and the driver
raised what is no errno at one that ``died``.

Register values are numbers; data is hex, and beyond 64 bytes a digest of it, so that
a history stays small whatever was migrated.  ``moved`` is there only where fewer bytes
were moved than ``size``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal, Protocol

import msgspec
import xxhash

from vfiomig.protocol.errors import VfiomigError
from vfiomig.protocol.v1.registers import REGISTERS_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vfiomig.protocol.region import SparseMmapArea

SCHEMA: Final = 1
_SHOWN: Final = 64  # bytes of data that are written out

AccessKind = Literal["read", "write", "mmap", "reset", "close"]
BenchKind = Literal["work", "snapshot", "fail"]
Count = Annotated[int, msgspec.Meta(ge=0)]


class HistoryError(VfiomigError):
    """A history that cannot be read; the message names the line."""


class Region(Protocol):
    """Whatever has a size and areas: a driver's region, or one that was found."""

    @property
    def size(self) -> int:
        """Its bytes."""

    @property
    def areas(self) -> Sequence[SparseMmapArea]:
        """What of it can be mapped."""


class RegionShape(msgspec.Struct, frozen=True, kw_only=True):
    """A device's migration region: bytes, and the areas as [offset, size]."""

    size: Count
    areas: tuple[tuple[Count, Count], ...] = ()

    @classmethod
    def of(cls, region: Region) -> RegionShape:
        """Return the shape of a region, whoever told of it."""
        areas = tuple((area.offset, area.size) for area in region.areas)
        return cls(size=region.size, areas=areas)


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: what the lines after it mean, and who wrote them."""

    schema: int = SCHEMA
    protocol: str = "v1"
    recorded_by: str
    devices: dict[str, RegionShape]


class Access(msgspec.Struct, frozen=True, omit_defaults=True):
    """One access that crossed a device's fd, or went through its mapping."""

    device: str
    access: AccessKind
    offset: Count = 0
    size: Count = 0
    value: str = ""
    errno: Count = 0
    unseen: bool = False
    moved: Count | None = None
    died: bool = False


class BenchEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something done to a device from behind: guest traffic, a snapshot, a fault."""

    device: str
    bench: BenchKind
    amount: Count = 0
    digest: str = ""
    on: str = ""
    errno: Count = 0


Record = Access | BenchEvent

_ENCODER: Final = msgspec.json.Encoder()
_HEADER: Final = msgspec.json.Decoder(Header)
_KEYS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ACCESS: Final = msgspec.json.Decoder(Access)
_BENCH_EVENT: Final = msgspec.json.Decoder(BenchEvent)


def shown(offset: int, data: bytes | memoryview) -> str:
    """Write a value down as a history has it.

    Registers are numbers (``0x1``), data is hex bytes, much data is a digest.
    """
    if offset < REGISTERS_SIZE and len(data) <= 8:
        return hex(int.from_bytes(data, "little"))
    if len(data) <= _SHOWN:
        return data.hex()
    return f"xxh3-128:{xxhash.xxh3_128_hexdigest(data)}"


def encode(record: Header | Record) -> bytes:
    """Return one line, its end included."""
    return _ENCODER.encode(record) + b"\n"


def encode_all(records: list[Record]) -> bytes:
    """Return the lines of many records at once."""
    return _ENCODER.encode_lines(records)


def decode(lines: Iterator[bytes]) -> Iterator[Header | Record]:
    """Yield the header and then each record of a history.

    Raises:
        HistoryError: a line that is none, with its number counted from 1; a header
            of another schema, or none at all.
    """
    number = 0
    for number, line in enumerate(lines, 1):
        try:
            yield _decode_header(line) if number == 1 else _decode_record(line)
        # msgspec's own errors are ValueErrors, as are those of bad UTF-8.
        except (ValueError, RecursionError) as error:
            message = f"line {number}: {error}"
            raise HistoryError(message) from None
    if not number:
        message = "line 1: there is no header"
        raise HistoryError(message)


def _decode_header(line: bytes) -> Header:
    header = _HEADER.decode(line)
    if header.schema != SCHEMA:
        message = f"schema {header.schema}, and only {SCHEMA} can be read"
        raise ValueError(message)
    return header


def _decode_record(line: bytes) -> Record:
    # A look at the bytes spares most lines the second decoding.
    if b'"bench"' in line and "bench" in _KEYS.decode(line):
        return _BENCH_EVENT.decode(line)
    return _ACCESS.decode(line)
