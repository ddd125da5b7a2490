"""One record of a history, with what it means and where the conversation stood.

A moment is all that a check is given.  What kind it is, in which device_state, and
whether it succeeded decide which checks see it: most of the cost of judging was that of
checks that were asked where they had nothing to say.
"""

from __future__ import annotations

import enum
import errno as _errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from vfiomig.protocol.history import Access, BenchEvent, RegionShape
from vfiomig.protocol.v1.registers import REGISTERS_SIZE, Register

if TYPE_CHECKING:
    from collections.abc import Iterable

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

State: TypeAlias = "int | None"  # of a device before a moment; None where unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """Moments of one kind: of those device_states, and of that success, if it says so.

    ``states`` are those that a device can be in before the moment.
    """

    kind: Kind
    states: frozenset[State] | None = None
    ok: bool | None = None

    def admits(self, state: State, *, ok: bool) -> bool:
        """Tell whether it is about such moments of its kind."""
        if self.ok is not None and ok is not self.ok:
            return False
        return self.states is None or state in self.states


# What a check is bound to; a kind alone means all moments of it.
Occasions: TypeAlias = "tuple[Kind | When, ...]"


def during(states: Iterable[State], *kinds: Kind, ok: bool | None = None) -> Occasions:
    """Return moments in which the device is in one of those states."""
    among = frozenset(states)
    return tuple(When(kind=kind, states=among, ok=ok) for kind in kinds)


def outside(states: Iterable[State], *kinds: Kind) -> Occasions:
    """Return moments in which the device is in none of those states."""
    return during(_EVERY_STATE - frozenset(states), *kinds)


def failing(*kinds: Kind) -> Occasions:
    """Return moments that did not do all that was asked for."""
    return tuple(When(kind=kind, ok=False) for kind in kinds)


def succeeding(*kinds: Kind) -> Occasions:
    """Return moments that did all that was asked for."""
    return tuple(When(kind=kind, ok=True) for kind in kinds)


def by_kind(occasions: Occasions) -> dict[Kind, list[When]]:
    """Return what is said of each kind; any of it is enough."""
    said: dict[Kind, list[When]] = {}
    for each in occasions:
        when = When(kind=each) if isinstance(each, Kind) else each
        said.setdefault(when.kind, []).append(when)
    return said


_EVERY_STATE: Final[frozenset[State]] = frozenset((*range(8), None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """The moments that a check is given while it is awake, and those that wake it.

    While it is asleep, as it is at first, only these are anything to it.
    """

    kinds: Occasions
    woken_by: Occasions


# By access, offset and size.
_KIND_OF_REGISTER: Final = {
    (access, register.offset, register.width): Kind(f"{access} {register.value}")
    for access in ("read", "write")
    for register in Register
}
_KIND_NAMED: Final = {kind.value: kind for kind in EVERY_KIND}
_REGISTER_KINDS: Final = frozenset(_KIND_OF_REGISTER.values())
_REGISTER_WRITES: Final = frozenset(
    kind for (access, _, _), kind in _KIND_OF_REGISTER.items() if access == "write"
)


# A struct: one is made of each access, and a dataclass takes five times as long.
class Moment(msgspec.Struct, eq=False):
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
            if kind in _REGISTER_WRITES:
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
        if self.kind in _REGISTER_KINDS - _REGISTER_WRITES:
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
    return Moment(0, device, Kind.OPEN, position, region)


def moment_of(
    index: int, record: Access | BenchEvent, region: RegionShape, position: Position
) -> Moment:
    """Return what a record of a history means."""
    if isinstance(record, BenchEvent):
        return _of_bench(index, record, region, position)
    offset, size, errno, died = record.offset, record.size, record.errno, record.died
    text, unseen = record.value, record.unseen
    moved = record.moved
    if errno or died:
        moved, ok = 0, False
    else:
        moved = size if moved is None else moved
        ok = moved == size
    kind = _KIND_OF_REGISTER.get((record.access, offset, size)) or _kind_of(record)
    value = None
    is_whole = moved == size or (kind in _REGISTER_WRITES and moved < size)
    if text and is_whole and kind in _REGISTER_KINDS:
        value = _number(text)
    # By place: names take twice as long.
    return Moment(
        index,
        record.device,
        kind,
        position,
        region,
        offset,
        size,
        value,
        "" if unseen else text,
        errno,
        died,
        unseen,
        moved,
        0,
        "",
        "",
        ok,
    )


def _of_bench(
    index: int, record: BenchEvent, region: RegionShape, position: Position
) -> Moment:
    return Moment(
        index=index,
        device=record.device,
        kind=_KIND_NAMED[record.bench],
        position=position,
        region=region,
        errno=record.errno if record.bench == "fail" else 0,
        amount=record.amount,
        digest=record.digest,
        on=record.on,
        ok=record.bench != "fail" or not record.errno,
    )


def _kind_of(record: Access) -> Kind:
    """Return the kind of an access that is not of one whole register."""
    if record.access not in ("read", "write"):
        return _KIND_NAMED[record.access]
    if record.offset < REGISTERS_SIZE:
        return Kind.READ_ODD if record.access == "read" else Kind.WRITE_ODD
    return Kind.READ_DATA if record.access == "read" else Kind.WRITE_DATA


def _number(text: str) -> int | None:
    try:
        return int(text, 16)
    except ValueError:
        return None
