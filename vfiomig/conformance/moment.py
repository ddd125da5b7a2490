"""One record of a history, with what it means and where the conversation stood.

A moment is all that a check is given.  What kind it is decides which checks see it.
"""

from __future__ import annotations

import enum
import errno as _errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.history import Access, BenchEvent, RegionShape
from vfiomig.protocol.v1.registers import REGISTER_AT, REGISTERS_SIZE, Register

if TYPE_CHECKING:
    from vfiomig.conformance.position import Position


class Kind(enum.Enum):
    """What happened at a moment."""

    OPEN = "open"
    READ_DEVICE_STATE = "read device_state"
    WRITE_DEVICE_STATE = "write device_state"
    READ_RESERVED = "read reserved"
    WRITE_RESERVED = "write reserved"
    READ_PENDING_BYTES = "read pending_bytes"
    WRITE_PENDING_BYTES = "write pending_bytes"
    READ_DATA_OFFSET = "read data_offset"
    WRITE_DATA_OFFSET = "write data_offset"
    READ_DATA_SIZE = "read data_size"
    WRITE_DATA_SIZE = "write data_size"
    READ_ODD = "odd read"  # of registers, not one of them at its width and place
    WRITE_ODD = "odd write"
    READ_DATA = "read"
    WRITE_DATA = "write"
    MMAP = "mmap"
    RESET = "reset"
    CLOSE = "close"
    WORK = "work"
    SNAPSHOT = "snapshot"
    FAIL = "fail"

    __hash__ = object.__hash__


EVERY_KIND: Final = tuple(Kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """The kinds of moments that a check is given, and those that wake it.

    While it is asleep, as it is at first, all others are nothing to it.
    """

    kinds: tuple[Kind, ...]
    woken_by: tuple[Kind, ...]


_REGISTER_KIND: Final = {
    (access, register): Kind(f"{access} {register.value}")
    for access in ("read", "write")
    for register in Register
}
_REGISTER_KINDS: Final = frozenset(_REGISTER_KIND.values())


# Not frozen: one is made of each access, and frozen fields take five times as long.
@dataclass(slots=True, kw_only=True)
class Moment:
    """A record of one device, or its opening; fields that it has no use for are empty.

    Nobody changes one.  ``value`` is that of a register that was read, or was to be
    written; ``None`` where it is not known.  ``ok`` says whether an access did all that
    was asked for.  ``position`` is where the device's conversation stood before.
    """

    index: int
    device: str
    kind: Kind
    position: Position
    region: RegionShape
    offset: int = 0
    size: int = 0
    value: int | None = None
    data: str = ""
    errno: int = 0
    died: bool = False
    unseen: bool = False
    moved: int = 0
    amount: int = 0
    digest: str = ""
    on: str = ""
    ok: bool = True

    @property
    def text(self) -> str:
        """The moment in one line for a person."""
        return f"{self._what()}{self._outcome()}"

    def _what(self) -> str:
        kind = self.kind
        unseen = "unseen " if self.unseen else ""
        if kind in _REGISTER_KINDS:
            if kind.value.startswith("write"):
                value = hex(self.value) if self.value is not None else "?"
                return f"{kind.value} {value}"
            return str(kind.value)
        if kind in _TEXT_OF:
            return f"{unseen}{_TEXT_OF[kind]} {self.offset:#x} {self.size}"
        if kind is Kind.WORK:
            return f"work {self.amount}"
        if kind is Kind.SNAPSHOT:
            return f"snapshot {self.digest}"
        if kind is Kind.FAIL:
            return f"fail {self.on} {self.errno}"
        return str(kind.value)

    def _outcome(self) -> str:
        if self.kind is Kind.FAIL:
            return ""
        if self.died:
            return " -> died"
        if self.errno:
            return f" -> {_errno.errorcode.get(self.errno, self.errno)}"
        if self.moved != self.size and not self.unseen:
            return f" -> {self.moved} bytes"
        if self.kind in _REGISTER_KINDS and self.kind.value.startswith("read"):
            return f" -> {self.value:#x}" if self.value is not None else ""
        return ""


_TEXT_OF: Final[dict[Kind, str]] = {
    Kind.READ_ODD: "read",
    Kind.WRITE_ODD: "write",
    Kind.READ_DATA: "read",
    Kind.WRITE_DATA: "write",
    Kind.MMAP: "mmap",
}


def opening(device: str, region: RegionShape, position: Position) -> Moment:
    """Return the moment in which a device was opened."""
    return Moment(
        index=0, device=device, kind=Kind.OPEN, position=position, region=region
    )


def moment_of(
    index: int, record: Access | BenchEvent, region: RegionShape, position: Position
) -> Moment:
    """Return what a record of a history means."""
    if isinstance(record, BenchEvent):
        return Moment(
            index=index,
            device=record.device,
            kind=Kind(record.bench),
            position=position,
            region=region,
            errno=record.errno if record.bench == "fail" else 0,
            amount=record.amount,
            digest=record.digest,
            on=record.on,
            ok=record.bench != "fail" or not record.errno,
        )
    failed = record.errno or record.died
    moved = 0 if failed else record.moved if record.moved is not None else record.size
    kind = _kind_of(record)
    value = None
    if kind in _REGISTER_KINDS and record.value and moved <= record.size:
        is_whole = moved == record.size or kind.value.startswith("write")
        value = _number(record.value) if is_whole else None
    return Moment(
        index=index,
        device=record.device,
        kind=kind,
        position=position,
        region=region,
        offset=record.offset,
        size=record.size,
        value=value,
        data="" if record.unseen else record.value,
        errno=record.errno,
        died=record.died,
        unseen=record.unseen,
        moved=moved,
        ok=not failed and moved == record.size,
    )


def _kind_of(record: Access) -> Kind:
    if record.access not in ("read", "write"):
        return Kind(record.access)
    register = REGISTER_AT.get((record.offset, record.size))
    if register is not None:
        return _REGISTER_KIND[record.access, register]
    if record.offset < REGISTERS_SIZE:
        return Kind.READ_ODD if record.access == "read" else Kind.WRITE_ODD
    return Kind.READ_DATA if record.access == "read" else Kind.WRITE_DATA


def _number(text: str) -> int | None:
    try:
        return int(text, 16)
    except ValueError:
        return None
