"""An object as a digest: the same for two objects that will behave alike.

Rule 1: everything that is reachable from the object is in it, or is named as opaque.
Where nothing is opaque, the digest is the whole object.

Rule 2: it may tell apart what is the same (the order of a dict), but never the other
way: what is shared and what goes round in a circle is told by where it was seen first.
"""

from __future__ import annotations

import array
import collections
import ctypes
import dataclasses
import enum
import functools
import hashlib
import io
import itertools
import mmap
import random
import threading
import types
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

BYTES_LIMIT: Final = 1 << 20  # of memory that is compared byte by byte
_OBJECTS_LIMIT: Final = 20_000
_DEPTH_LIMIT: Final = 100

_PLAIN: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
_NAMED: Final = (type, types.ModuleType, types.BuiltinFunctionType)
_CTYPES: Final = (ctypes.Structure, ctypes.Union, ctypes.Array)
_LOCKS: Final = (type(threading.Lock()),)
_COUNTED: Final = (itertools.count, itertools.repeat, range, slice)
_OWN_STATE: Final = ("__reduce__", "__reduce_ex__", "__getstate__", "__getnewargs__")


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    """The digest of an object, and why it is not all of it; "" where it is."""

    digest: bytes
    opaque: str = ""


def freeze(thing: object) -> Frozen:
    """Return an object's digest."""
    freezer = Freezer()
    freezer.add(thing)
    return freezer.frozen()


class Freezer:
    """Takes objects one after another, and remembers which it has seen."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._seen: dict[int, int] = {}
        self._kept: list[object] = []  # so that no id is given twice
        self._bytes = 0
        self._depth = 0
        self.opaque = ""

    def frozen(self) -> Frozen:
        """Return the digest of all that was added."""
        digest = hashlib.blake2b(b"".join(self._parts), digest_size=16).digest()
        return Frozen(digest, self.opaque)

    def add(self, thing: object) -> None:
        """Take one more object."""
        kind = type(thing)
        if kind in _PLAIN:
            self._put(kind.__name__, repr(thing).encode("utf-8", "surrogatepass"))
        elif isinstance(thing, enum.Enum):
            self._put("enum", f"{_name(kind)}.{thing.name}".encode())
        elif id(thing) in self._seen:
            self._put("seen", str(self._seen[id(thing)]).encode())
        elif len(self._seen) >= _OBJECTS_LIMIT or self._depth >= _DEPTH_LIMIT:
            self._hide("it has too many parts to compare them all", kind)
        else:
            self._seen[id(thing)] = len(self._seen)
            self._kept.append(thing)
            self._depth += 1
            self._put("object", _name(kind).encode())
            self._add_object(thing)
            self._depth -= 1

    def hide(self, why: str) -> None:
        """Note that something is not in the digest."""
        self.opaque = self.opaque or why

    def _hide(self, why: str, kind: type) -> None:
        self.hide(why)
        self._put("opaque", _name(kind).encode())

    def _put(self, kind: str, value: bytes) -> None:
        self._parts.append(b"%s %d:%s" % (kind.encode(), len(value), value))

    def _add_object(self, thing: object) -> None:
        for known, add in _WAYS:
            if isinstance(thing, known):
                add(self, thing)
                return
        self._add_any(thing)

    # -- kinds of objects --------------------------------------------------------------

    def add_all(self, things: Iterable[object]) -> None:
        """Take several in their order."""
        several = list(things)
        self._put("many", str(len(several)).encode())
        for each in several:
            self.add(each)

    def _add_sequence(self, thing: Any) -> None:
        self.add_all(thing)
        self._add_attributes(thing)

    def _add_deque(self, thing: Any) -> None:
        self.add(thing.maxlen)
        self._add_sequence(thing)

    def _add_set(self, thing: Any) -> None:
        parts = []
        for each in thing:
            inner = freeze(each)
            self.opaque = self.opaque or inner.opaque
            parts.append(inner.digest)
        self._put("set", b"".join(sorted(parts)))
        self._add_attributes(thing)

    def _add_dict(self, thing: Any) -> None:
        self.add_all(itertools.chain.from_iterable(dict.items(thing)))
        self.add(getattr(thing, "default_factory", None))
        self._add_attributes(thing)

    def _add_memory(self, thing: Any) -> None:
        size = memoryview(thing).nbytes
        self._bytes += size
        if self._bytes > BYTES_LIMIT:
            self._hide("it has more than 1 MiB of memory", type(thing))
            return
        self._put("memory", memoryview(thing).tobytes())
        self._add_attributes(thing)

    def _add_map(self, thing: Any) -> None:
        if thing.closed:
            self._put("closed", b"")
            return
        self._put("at", str(thing.tell()).encode())
        self._add_memory(thing)

    def _add_named(self, thing: Any) -> None:
        self._put("named", _name(thing).encode())
        owner = getattr(thing, "__self__", None)
        if owner is not None and not isinstance(owner, types.ModuleType):
            self.add(owner)

    def _add_function(self, thing: Any) -> None:
        code = thing.__code__
        self._put("code", f"{code.co_filename}:{code.co_firstlineno}".encode())
        self.add_all([thing.__defaults__, thing.__kwdefaults__])
        self.add_all(thing.__closure__ or ())
        self._add_attributes(thing)

    def _add_cell(self, thing: Any) -> None:
        try:
            self.add(thing.cell_contents)
        except ValueError:
            self._put("empty", b"")

    def _add_method(self, thing: Any) -> None:
        self.add_all([thing.__func__, thing.__self__])

    def _add_partial(self, thing: Any) -> None:
        self.add_all([thing.func, thing.args, thing.keywords])

    def _add_dice(self, thing: Any) -> None:
        self.add(thing.getstate())

    def _add_lock(self, thing: Any) -> None:
        self.add(thing.locked())

    def _add_buffer_file(self, thing: Any) -> None:
        self.add_all([] if thing.closed else [thing.getvalue(), thing.tell()])
        self._add_attributes(thing)

    def _add_counted(self, thing: Any) -> None:
        self._put("shown", repr(thing).encode())

    def _add_struct(self, thing: Any) -> None:
        self.add_all(getattr(thing, name, None) for name in thing.__struct_fields__)
        self._add_attributes(thing)

    def _add_any(self, thing: object) -> None:
        kind = type(thing)
        if hasattr(kind, "__struct_fields__"):
            self._add_struct(thing)
        elif _is_of_python(thing):
            self._add_attributes(thing)
        else:
            self._hide(f"it holds {_a(kind)}, which cannot be compared", kind)

    def _add_attributes(self, thing: object) -> None:
        """Take ``__dict__`` and slots, by name."""
        named = dict(getattr(thing, "__dict__", {}))
        for name in _slots(type(thing)):
            if name not in named and hasattr(thing, name):
                named[name] = getattr(thing, name)
        for name in sorted(named):
            self._put("name", name.encode())
            self.add(named[name])


_WAYS: Final[tuple[tuple[Any, Callable[[Freezer, Any], None]], ...]] = (
    ((list, tuple), Freezer._add_sequence),
    (collections.deque, Freezer._add_deque),
    ((set, frozenset), Freezer._add_set),
    (dict, Freezer._add_dict),
    (_CTYPES, Freezer._add_memory),
    (ctypes._SimpleCData, Freezer._add_memory),
    ((bytearray, memoryview, array.array), Freezer._add_memory),
    (mmap.mmap, Freezer._add_map),
    (types.FunctionType, Freezer._add_function),
    (types.CellType, Freezer._add_cell),
    (types.MethodType, Freezer._add_method),
    (_NAMED, Freezer._add_named),
    (functools.partial, Freezer._add_partial),
    (random.Random, Freezer._add_dice),
    (_LOCKS, Freezer._add_lock),
    (io.BytesIO, Freezer._add_buffer_file),
    (_COUNTED, Freezer._add_counted),
)


def _name(thing: Any) -> str:
    module = getattr(thing, "__module__", "")
    return f"{module}.{getattr(thing, '__qualname__', getattr(thing, '__name__', ''))}"


def _a(kind: type) -> str:
    name = kind.__qualname__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


_SLOTS: Final[dict[type, tuple[str, ...]]] = {}


def _slots(kind: type) -> tuple[str, ...]:
    """Return the names of slots, as attributes are called in the object."""
    if kind not in _SLOTS:
        _SLOTS[kind] = tuple(_slots_of(kind))
    return _SLOTS[kind]


def _slots_of(kind: type) -> Iterator[str]:
    for owner in kind.__mro__:
        slots = owner.__dict__.get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if name in ("__dict__", "__weakref__"):
                continue
            is_private = name.startswith("__") and not name.endswith("__")
            yield f"_{owner.__name__.lstrip('_')}{name}" if is_private else name


def _is_of_python(thing: object) -> bool:
    """Tell whether all of an object is in its attributes and slots.

    The object's own copying asks the same: it refuses what a type in C keeps beside.
    """
    kind = type(thing)
    has_own = any(
        name in owner.__dict__ and owner is not object
        for owner in kind.__mro__
        for name in _OWN_STATE
    )
    if has_own and not dataclasses.is_dataclass(kind):
        return _has_only_python_bases(kind)
    if has_own:
        return True
    try:
        object.__reduce_ex__(thing, 2)
    except TypeError:
        return False
    except Exception:
        return _has_only_python_bases(kind)
    return True


def _has_only_python_bases(kind: type) -> bool:
    """Tell whether every class was made by a class statement."""
    return all(
        "__firstlineno__" in owner.__dict__ or _has_code(owner)
        for owner in kind.__mro__
        if owner is not object
    )


def _has_code(owner: type) -> bool:
    return any(isinstance(value, types.FunctionType) for value in vars(owner).values())
