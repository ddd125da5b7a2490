"""vmstate: the fields of a device's state, read by their description and written.

The bytes say nothing of themselves: what they are is told by an entry of the VM
description, and a value read keeps of it what writing needs.

Sources: QEMU 7.2.22 and 10.0.13, migration/vmstate.c, migration/vmstate-types.c.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import TYPE_CHECKING, Final, TypeGuard

import numpy as np

from vfiomig.protocol.qemu_stream.cursor import encode_counted
from vfiomig.protocol.qemu_stream.records import Field, VmState
from vfiomig.uapi.qemu_stream import QEMU_VM_SUBSECTION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TypeAlias

    from vfiomig.protocol.qemu_stream.cursor import Cursor
    from vfiomig.protocol.qemu_stream.records import Value, View

    # An object of the VM description: whatever JSON has there.
    Description: TypeAlias = Mapping[str, object]

# Numbers by QEMU's name of their type: are they signed?  Their width is the size.
# float64 and CPU_Double_U are the bits as they stand.
NUMBERS: Final = {
    "int8": True,
    "int16": True,
    "int32": True,
    "int32 equal": True,
    "int32 le": True,
    "int64": True,
    "int64 equal": True,
    "uint8": False,
    "uint8 equal": False,
    "uint16": False,
    "uint16 equal": False,
    "uint32": False,
    "uint32 equal": False,
    "uint64": False,
    "uint64 equal": False,
    "timer": False,
    "float64": False,
    "CPU_Double_U": False,
}
_WIDTHS: Final = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "uint8 equal": 1,
    "int16": 2,
    "uint16": 2,
    "uint16 equal": 2,
    "int32": 4,
    "int32 equal": 4,
    "int32 le": 4,
    "uint32": 4,
    "uint32 equal": 4,
    "nullptr": 1,
}
_WIDEST: Final = 8  # any other number
_NUMBER_SIZES: Final = (1, 2, 4, 8)
_NESTED: Final = ("struct", "vstruct", "tmp")
_NULL_MARKER: Final = b"0"
_BITMAP_WORD: Final = 8
_SUBSECTION_VERSION: Final = struct.Struct(">I")

# Nobody nests so deep, or has so many fields of no bytes: the limits of what a
# description may make of few bytes.
_DEEPEST = 32
_MOST_EMPTY_VALUES = 1 << 12


class VmStateReader:
    """Reads states at ``source`` by their descriptions.

    Every method raises ``StreamError`` where description and bytes do not fit.
    """

    def __init__(self, source: Cursor) -> None:
        self._source = source
        self._depth = 0
        self._empty_values = 0

    def read(self, description: Description) -> VmState:
        """Read a device, a struct, or what follows the frame of a subsection."""
        if self._depth == _DEEPEST:
            raise self._source.error("the VM description nests too deep")
        self._depth += 1
        name, version = description.get("vmsd_name"), description.get("version")
        state = VmState(
            vmsd_name=name if isinstance(name, str) else None,
            version=version if _is_count(version) else None,
            fields=tuple(self._field(each) for each in self._list(description)),
            subsections=tuple(
                self.subsection(each)
                for each in self._list(description, "subsections", optional=True)
            ),
        )
        self._depth -= 1
        return state

    def _list(
        self, description: Description, key: str = "fields", *, optional: bool = False
    ) -> list[dict[str, object]]:
        found = description.get(key, [] if optional else None)
        if not isinstance(found, list) or not all(isinstance(x, dict) for x in found):
            raise self._source.error(f"the VM description has no list of {key}")
        return found

    def subsection(self, description: Description) -> VmState:
        """Read a subsection; its frame must be the one described."""
        source = self._source
        began = source.position
        name = description.get("vmsd_name")
        if (
            source.u8("a vmstate") != QEMU_VM_SUBSECTION
            or source.counted_string("the name of a subsection") != name
        ):
            raise source.error(f"there is no subsection {name!r} here", began)
        version = source.be32("the head of a subsection")
        return dataclasses.replace(self.read(description), version=version)

    def _field(self, description: Description) -> Field:
        name, type_ = description.get("name"), description.get("type")
        size, index = description.get("size"), description.get("index")
        length = description.get("array_len")
        if (
            not isinstance(name, str)
            or not isinstance(type_, str)
            or not _is_count(size)
            or not (index is None or _is_count(index))
            or not (length is None or _is_count(length))
        ):
            raise self._source.error("the VM description has a field that is none")
        value: Value | tuple[Value, ...]
        if length is None:
            value = self._value(description, type_, size)
        else:
            value = self._array(description, type_, size, length)
        return Field(name=name, type=type_, value=value, size=size, index=index)

    def _array(
        self, description: Description, type_: str, size: int, length: int
    ) -> tuple[Value, ...]:
        source = self._source
        if length * max(size, 1) > source.remaining:
            raise source.cut("an array")
        if size == 0:
            return (self._value(description, type_, size),) * length
        if (type_, size) == ("uint8", 1):  # XenStore's may be many
            return tuple(bytes(source.take(length, "an array")))
        if type_ in NUMBERS and size in _NUMBER_SIZES:
            dtype = f">{'i' if NUMBERS[type_] else 'u'}{size}"
            values = np.frombuffer(source.take(size * length, "an array"), dtype)
            return tuple(values.tolist())
        return tuple(self._value(description, type_, size) for _ in range(length))

    def _value(self, description: Description, type_: str, size: int) -> Value:
        source = self._source
        if size == 0:
            self._empty_values += 1
            if self._empty_values > _MOST_EMPTY_VALUES:
                raise source.error("the VM description has too many empty fields")
        inner = _inner(description, type_)
        if inner is None and type_ != "capability":
            return _leaf(type_, source.take(size, f"a field of type {type_}"))
        began = source.position
        value: Value
        if inner is None:
            value = source.counted_string("the name of a capability")
        else:
            value = self.read(inner)
        if source.position - began != size:
            raise source.error(f"a field of type {type_} has not {size} bytes", began)
        return value


def encode_state(state: VmState) -> Iterator[View]:
    """Yield the bytes of a state and its subsections.

    Raises:
        ValueError: a value does not fit its type and size.
    """
    for field in state.fields:
        values = field.value if isinstance(field.value, tuple) else (field.value,)
        if field.type in NUMBERS and field.size in _NUMBER_SIZES and len(values) > 1:
            yield _numbers(field, values)
        else:
            for value in values:
                yield from _encode_value(field, value)
    for subsection in state.subsections:
        yield from encode_subsection(subsection)


def encode_subsection(state: VmState) -> Iterator[View]:
    """Yield the bytes of a subsection: its frame, and what a state has."""
    yield bytes([QEMU_VM_SUBSECTION]) + encode_counted(state.vmsd_name or "")
    yield _SUBSECTION_VERSION.pack(state.version or 0)
    yield from encode_state(state)


def size_of(state: VmState) -> int:
    """Return the bytes that a state takes in the stream."""
    return sum(len(piece) for piece in encode_state(state))


def field(
    name: str,
    type_: str,
    value: Value | tuple[Value, ...],
    *,
    index: int | None = None,
) -> Field:
    """Make a field of its value; an array that is written whole is a tuple."""
    first = value[0] if isinstance(value, tuple) else value
    size = _natural_size(type_, first)
    return Field(name=name, type=type_, value=value, size=size, index=index)


def find(state: VmState, path: Sequence[str | int]) -> Value | tuple[Value, ...]:
    """Return the value at a path.

    A path is names of fields and subsections; behind the name of an array stands the
    index of an element.

    Raises:
        KeyError: there is no such field.
    """
    field_, rest, subsection = _step(state, path)
    if subsection is not None:
        return find(subsection, rest) if rest else subsection
    assert field_ is not None
    value = field_.value
    if isinstance(value, tuple) and rest:
        value, rest = value[_element(rest[0])], rest[1:]
    if not rest:
        return value
    if not isinstance(value, VmState):
        raise KeyError(rest[0])
    return find(value, rest)


def replace(
    state: VmState, path: Sequence[str | int], value: Value | tuple[Value, ...]
) -> VmState:
    """Return the state with another value at a path (see ``find``).

    Raises:
        KeyError: there is no such field.
    """
    old, rest, subsection = _step(state, path)
    if subsection is not None:
        changed = replace(subsection, rest, value)
        return dataclasses.replace(
            state,
            subsections=tuple(
                changed if each is subsection else each for each in state.subsections
            ),
        )
    assert old is not None
    new = dataclasses.replace(old, value=_replaced(old.value, rest, value))
    return dataclasses.replace(
        state, fields=tuple(new if each is old else each for each in state.fields)
    )


def _replaced(
    old: Value | tuple[Value, ...],
    path: Sequence[str | int],
    value: Value | tuple[Value, ...],
) -> Value | tuple[Value, ...]:
    if not path:
        return value
    if isinstance(old, tuple):
        at = _element(path[0])
        new = _replaced(old[at], path[1:], value)
        assert not isinstance(new, tuple)
        return (*old[:at], new, *old[at + 1 :])
    if not isinstance(old, VmState):
        raise KeyError(path[0])
    return replace(old, path, value)


def _element(step: str | int) -> int:
    if not isinstance(step, int):
        raise KeyError(step)
    return step


def _step(
    state: VmState, path: Sequence[str | int]
) -> tuple[Field | None, Sequence[str | int], VmState | None]:
    """Find what the first step of a path leads to, and what is left of the path."""
    for subsection in state.subsections:
        if subsection.vmsd_name == path[0]:
            return None, path[1:], subsection
    for each in state.fields:
        if each.name != path[0]:
            continue
        if each.index is None:
            return each, path[1:], None
        if len(path) > 1 and each.index == path[1]:
            return each, path[2:], None
    raise KeyError(path[0])


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _inner(description: Description, type_: str) -> Description | None:
    """Return the description of what a field nests: apart, or among its own keys."""
    inner = description.get("struct")
    if isinstance(inner, dict):
        return inner
    return description if type_ in _NESTED and "fields" in description else None


def _leaf(type_: str, data: memoryview) -> Value:
    size = len(data)
    if type_ in NUMBERS and size in _NUMBER_SIZES:
        return int.from_bytes(data, "big", signed=NUMBERS[type_])
    if type_ == "bool" and size == 1:
        return data[0] if data[0] > 1 else bool(data[0])
    if type_ == "nullptr" and bytes(data) == _NULL_MARKER:
        return None
    if type_ == "bitmap" and size % _BITMAP_WORD == 0:
        words = np.frombuffer(data, ">u8").astype("<u8")
        return int.from_bytes(words.tobytes(), "little")
    return data


def _encode_value(field_: Field, value: Value) -> Iterator[View]:
    if isinstance(value, VmState):
        yield from encode_state(value)
    elif value is None:
        yield _NULL_MARKER
    elif isinstance(value, str):
        yield encode_counted(value)
    elif isinstance(value, int):
        yield _number(field_, value)
    elif len(value) != field_.size:
        reason = f"{field_.name} has {field_.size} bytes, not {len(value)}"
        raise ValueError(reason)
    else:
        yield value


def _number(field_: Field, value: int) -> bytes:
    try:
        if field_.type == "bitmap":
            words = np.frombuffer(value.to_bytes(field_.size, "little"), "<u8")
            return words.astype(">u8").tobytes()
        signed = NUMBERS.get(field_.type, False)
        return value.to_bytes(field_.size, "big", signed=signed)
    except OverflowError:
        reason = f"{field_.name}: {value} is no {field_.type} of {field_.size} bytes"
        raise ValueError(reason) from None


def _numbers(field_: Field, values: tuple[Value, ...]) -> bytes:
    dtype = f">{'i' if NUMBERS[field_.type] else 'u'}{field_.size}"
    try:
        return np.array(values, dtype).tobytes()
    except (OverflowError, TypeError) as error:
        raise ValueError(f"{field_.name}: {error}") from None


def _natural_size(type_: str, value: Value) -> int:
    if isinstance(value, VmState):
        return size_of(value)
    if isinstance(value, str):
        return len(encode_counted(value))
    if isinstance(value, bytes | memoryview):
        return len(value)
    if type_ == "bitmap":
        raise ValueError("a bitmap does not tell its size: make a Field of it")
    return _WIDTHS.get(type_, _WIDEST)
