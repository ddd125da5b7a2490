"""Where two states, or two buffers, differ, in words."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple, TypeGuard

import numpy as np

from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.stream_tree import value_text
from vfiomig.protocol.qemu_stream.records import VmState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from vfiomig.protocol.qemu_stream.records import Field, Value, View

NOTHING: Final = "-"
_SHOWN: Final = 16  # bytes, from the first that differs
_MOST_ELEMENTS: Final = 64  # of an array of bytes, told one by one
_PIECE: Final = 1 << 20


def states_differ(one: VmState, other: VmState) -> Iterator[tuple[str, str, str]]:
    """Yield where two states differ: a path, and the value of each."""
    if (one.vmsd_name, one.version) != (other.vmsd_name, other.version):
        yield "version", _version(one), _version(other)
    mine, theirs = _by_name(one), _by_name(other)
    for name in dict.fromkeys([*mine, *theirs]):
        yield from _fields_differ(name, mine.get(name), theirs.get(name))
    of_one, of_other = _subsections(one), _subsections(other)
    for name in dict.fromkeys([*of_one, *of_other]):
        a, b = of_one.get(name), of_other.get(name)
        if a is None or b is None:
            yield f"subsection {name}", _presence(a), _presence(b)
        else:
            for where, x, y in states_differ(a, b):
                yield f"{name}: {where}", x, y


def _fields_differ(
    name: str, one: Field | None, other: Field | None
) -> Iterator[tuple[str, str, str]]:
    if one is None or other is None:
        yield name, _field_text(one), _field_text(other)
        return
    if one.type != other.type:
        yield f"{name} (type)", plain(one.type), plain(other.type)
    if isinstance(one.value, tuple) and isinstance(other.value, tuple):
        if one.value == other.value:
            return
        if _is_long(one) and _is_long(other):
            mine, theirs = bytes(one.value), bytes(other.value)  # type: ignore[arg-type]
            yield from _values_differ(name, mine, theirs)
            return
        if len(one.value) != len(other.value):
            yield f"{name} (elements)", str(len(one.value)), str(len(other.value))
        for index, (a, b) in enumerate(zip(one.value, other.value, strict=False)):
            yield from _values_differ(f"{name}[{index}]", a, b)
    elif not isinstance(one.value, tuple) and not isinstance(other.value, tuple):
        yield from _values_differ(name, one.value, other.value)
    else:
        yield name, _field_text(one), _field_text(other)


def _values_differ(
    name: str, one: Value, other: Value
) -> Iterator[tuple[str, str, str]]:
    if isinstance(one, VmState) and isinstance(other, VmState):
        for where, a, b in states_differ(one, other):
            yield f"{name}.{where}", a, b
    elif _is_buffer(one) and _is_buffer(other):
        if one != other:
            told = buffers_differ([one], [other])
            yield f"{name}: {told.where}", told.one, told.other
    elif one != other or type(one) is not type(other):
        yield name, value_text(one), value_text(other)


def _is_long(field: Field) -> bool:
    """Tell whether a field is an array of bytes that nobody reads one by one."""
    return (
        field.type == "uint8"
        and isinstance(field.value, tuple)
        and len(field.value) > _MOST_ELEMENTS
    )


def _is_buffer(value: Value) -> TypeGuard[View]:
    return isinstance(value, bytes | memoryview)


def _by_name(state: VmState) -> dict[str, Field]:
    """Return the fields by name and index; of one that comes again, its turn."""
    found: dict[str, Field] = {}
    turns: Counter[str] = Counter()
    for field in state.fields:
        name = plain(field.name) + ("" if field.index is None else f"[{field.index}]")
        turns[name] += 1
        found[name if turns[name] == 1 else f"{name}#{turns[name]}"] = field
    return found


def _subsections(state: VmState) -> dict[str, VmState]:
    return {plain(each.vmsd_name or ""): each for each in state.subsections}


def _field_text(field: Field | None) -> str:
    if field is None:
        return NOTHING
    if isinstance(field.value, tuple):
        return f"{len(field.value):,} of {plain(field.type)}"
    return value_text(field.value)


def _version(state: VmState) -> str:
    return f"{plain(state.vmsd_name or 'no name')} {state.version}"


def _presence(state: VmState | None) -> str:
    return NOTHING if state is None else f"{len(state.fields)} fields"


# -- buffers -----------------------------------------------------------------------


class BuffersDiffer(NamedTuple):
    """Where two buffers differ, in words, and what each has there."""

    where: str
    one: str
    other: str


def buffers_differ(one: Iterable[View], other: Iterable[View]) -> BuffersDiffer:
    """Compare two buffers that come in pieces, each cut as it likes.

    Bytes that only one of them has count as different.
    """
    first, count, sizes, position = None, 0, [0, 0], 0
    shown = (b"", b"")
    for a, b in itertools.zip_longest(_chunks(one), _chunks(other), fillvalue=b""):
        at = _first_difference(a, b)
        if at is not None:
            count += _differing(a, b)
            if first is None:
                first = position + at
                shown = a[at : at + _SHOWN], b[at : at + _SHOWN]
        sizes[0] += len(a)
        sizes[1] += len(b)
        position += _PIECE
    where = "1 byte differs" if count == 1 else f"{count:,} bytes differ"
    where += "" if first is None else f", the first at {first:#x}"
    told = (
        f"{data.hex(' ') or NOTHING} ({size:,} bytes)"
        for data, size in zip(shown, sizes, strict=True)
    )
    return BuffersDiffer(where, *told)


def _first_difference(a: bytes, b: bytes) -> int | None:
    if a == b:
        return None
    common = min(len(a), len(b))
    unequal = np.flatnonzero(_array(a, common) != _array(b, common))
    return int(unequal[0]) if len(unequal) else common


def _differing(a: bytes, b: bytes) -> int:
    common = min(len(a), len(b))
    unequal = np.count_nonzero(_array(a, common) != _array(b, common))
    return int(unequal) + abs(len(a) - len(b))


def _array(data: bytes, size: int) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8, size) if size else np.empty(0, np.uint8)


def _chunks(pieces: Iterable[View]) -> Iterator[bytes]:
    """Cut what comes in pieces of any size into pieces of 1 MiB."""
    held = bytearray()
    for piece in pieces:
        rest = memoryview(piece)
        while len(rest):
            taken = _PIECE - len(held)
            held += rest[:taken]
            rest = rest[taken:]
            if len(held) == _PIECE:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)
