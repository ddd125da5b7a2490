"""What the suite itself remembers of a conversation, as digests.

What comes next depends on three parties: the driver, the user application, and the
check that looks on.  No check knows of another, so that it is enough to have met each
check's memory together with the first two, and not all memories with each other.

Rule 1: numbers of records and of sessions grow for ever, and mean only "this one" or
"an earlier one".  They are counted with types of their own, and compared by order.

Rule 2: what an argument quotes (a witness) decides nothing, and is left out.
"""

from __future__ import annotations

import enum
import marshal
import types
from collections import deque
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from vfiomig.conformance import standing
from vfiomig.conformance.exploration.needed_locals import needed_behind
from vfiomig.conformance.exploration.vocabulary import ROLE
from vfiomig.conformance.judge import Judge
from vfiomig.conformance.moment import Moment
from vfiomig.conformance.position import Position
from vfiomig.conformance.ruling import Broken, Witness

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from vfiomig.conformance.conversation.conversation import Conversation
    from vfiomig.conformance.conversation.session import Session
    from vfiomig.conformance.judge import Bound
    from vfiomig.protocol.history import Record, RegionShape

Plain: TypeAlias = Any  # what marshal writes

_ROLES: Final = (ROLE, "control")
# What stands compares values and places; when it was seen is only quoted.
_STANDING: Final = standing.__name__

# Whose checks compare with what the device showed last.
_COMPARING: Final = "v1/register-access/"

_FAR: Final = 2  # a buffer that is no neighbour of the current one
_MOMENT: Final = (
    "kind",
    "index",
    "offset",
    "size",
    "value",
    "data",
    "errno",
    "died",
    "unseen",
    "moved",
    "amount",
    "digest",
    "on",
)
_POSITION: Final = (
    "state",
    "state_before_failure",
    "attempted",
    "raw_state",
    "pending",
    "drained",
    "load_offset",
    "load_written",
    "armed",
    "due",
    "owed",
    "has_failed",
    "has_died",
    "mapped",
)


# Of a session and a stream: what names a rule, what only grows, and what is taken by
# itself.
_LEFT_OUT: Final = frozenset(
    (
        "chunks",
        "device",
        "features",
        "has_precopy",
        "has_run_since_save",
        "load_features",
        "past",
        "position",
        "precopied",
        "precopied_size",
        "stream",
        "works",
    )
)


class Index(int):
    """The number of a record."""

    def __add__(self, other: int) -> Index:
        return Index(int(self) + other)


class SessionNumber(int):
    """The number of a session of one device."""

    def __add__(self, other: int) -> SessionNumber:
        return SessionNumber(int(self) + other)


class BufferNumber(int):
    """The number of a buffer in its session."""

    def __add__(self, other: int) -> BufferNumber:
        return BufferNumber(int(self) + other)


class Opened(NamedTuple):
    """A device that was opened, by its role."""

    role: str
    region: RegionShape


def role_of(name: str) -> str:
    """Return the role of a device, by what a conversation calls it."""
    return name.partition("-")[0]


class WatchedJudge(Judge):
    """A judge whose checks can be asked what they remember."""

    def __init__(self, checks: Iterable[Bound]) -> None:
        checks = tuple(checks)
        super().__init__(checks, {})
        self._index = Index(0)
        self.rules = tuple(each.rule for each in checks)
        self.events: list[Record | Opened] = []

    def open(self, name: str, region: RegionShape) -> list[tuple[str, Broken]]:
        """Let another device take part, and count its sessions."""
        self.events.append(Opened(role_of(name), region))
        found = super().open(name, region)
        self.position(name).session = SessionNumber(0)
        return found

    def see(self, record: Record) -> list[tuple[str, Broken]]:
        """Judge the next record, and keep it."""
        self.events.append(record)
        return super().see(record)

    def memories(self, name: str) -> Iterator[tuple[str, Generator[Any, Any, Any]]]:
        """Yield each check that remembers something of a device, by its rule."""
        told: set[int] = set()
        for concerned in self._devices[name].asking.of_kind.values():
            for each in concerned.order:
                check = each.remembering
                if check is not None and id(check) not in told:
                    told.add(id(check))
                    yield each.rule, check


def number_buffers(position: Position) -> None:
    """Count the session's buffers; the position itself begins anew with plain 0."""
    position.buffers = BufferNumber(position.buffers)


class _Plain:
    """Makes plain values of what the suite remembers of one device.

    ``name`` is the device's, ``position`` where it stands.
    """

    def __init__(self, name: str, position: Position) -> None:
        self._name = name
        self._position = position
        self._is_standing = False
        self._numbers: list[list[Plain]] = []  # places that wait for their rank

    def digest(self, thing: object) -> bytes:
        """Return the digest of one thing; numbers of records count by their order."""
        self._numbers = []
        plain = self.of(thing)
        for kind in _RANKED:
            values = sorted({each[1] for each in self._numbers if each[0] == kind})
            ranks = {value: rank for rank, value in enumerate(values)}
            for each in self._numbers:
                if each[0] == kind:
                    each[1] = ranks[each[1]]
        # Version 2 writes no references, so that equal values are equal bytes.
        return blake2b(marshal.dumps(plain, 2), digest_size=16).digest()

    def of(self, thing: Any) -> Plain:
        """Return a value that `marshal` can write."""
        kind = type(thing)
        if kind in _ATOMS:
            return thing if kind is not str else self._text(thing)
        way = _WAYS.get(kind)
        if way is not None:
            return way(self, thing)
        return self._of_any(thing)

    def _text(self, text: str) -> Plain:
        if role_of(text) not in _ROLES:
            return text
        return ("device", text == self._name)

    def _of_sequence(self, thing: Any) -> Plain:
        return ("sequence", [self.of(each) for each in thing])

    def _of_set(self, thing: Any) -> Plain:
        parts = [marshal.dumps(self.of(each), 2) for each in thing]
        return ("set", sorted(parts))

    def _of_dict(self, thing: Any) -> Plain:
        pairs = [(self.of(key), self.of(value)) for key, value in thing.items()]
        return ("dict", pairs)

    def _of_number(self, thing: Any) -> Plain:
        place: list[Plain] = [type(thing).__name__, int(thing)]
        self._numbers.append(place)
        return place

    def _of_buffer_number(self, thing: Any) -> Plain:
        return ("ago", min(int(self._position.buffers) - int(thing), _FAR))

    def _of_quoted(self, _: Any) -> Plain:
        return "quoted"

    def _of_moment(self, moment: Moment) -> Plain:
        if self._is_standing:
            return ("place", moment.kind.name, moment.offset, moment.size)
        is_here = moment.position is self._position
        fields = [self.of(getattr(moment, name)) for name in _MOMENT]
        return ("moment", is_here, fields)

    def _of_position(self, position: Position) -> Plain:
        fields = [self.of(getattr(position, name)) for name in _POSITION]
        has = (bool(position.buffers), bool(position.loaded))
        return ("position", has, fields, self.of(position.buffer))

    def _of_check(self, check: Any) -> Plain:
        """Return where a check waits for its next moment, and its locals."""
        frame = check.gi_frame
        if frame is None:
            return "ended"
        needed = needed_behind(frame.f_code, frame.f_lasti)
        kept = [
            (name, self.of(value))
            for name, value in frame.f_locals.items()
            if name in needed
        ]
        inner = check.gi_yieldfrom
        return (frame.f_lasti, kept, self.of(inner) if inner is not None else None)

    def _of_any(self, thing: Any) -> Plain:
        if isinstance(thing, enum.Enum):
            return ("enum", thing.name)
        if isinstance(thing, types.FunctionType):
            return ("function", thing.__qualname__)
        if isinstance(thing, tuple):
            return self._of_sequence(thing)
        names = _attributes(type(thing)) or tuple(sorted(vars(thing)))
        outside = self._is_standing
        self._is_standing |= type(thing).__module__ == _STANDING
        fields = [self.of(getattr(thing, name)) for name in names]
        self._is_standing = outside
        return (type(thing).__qualname__, fields)


_ATOMS: Final = frozenset({type(None), bool, int, float, str, bytes})
_RANKED: Final = ("Index", "SessionNumber")
_WAYS: Final[dict[type, Callable[[_Plain, Any], Plain]]] = {
    list: _Plain._of_sequence,
    tuple: _Plain._of_sequence,
    deque: _Plain._of_sequence,
    set: _Plain._of_set,
    frozenset: _Plain._of_set,
    dict: _Plain._of_dict,
    Index: _Plain._of_number,
    SessionNumber: _Plain._of_number,
    BufferNumber: _Plain._of_buffer_number,
    Witness: _Plain._of_quoted,
    Broken: _Plain._of_quoted,
    Moment: _Plain._of_moment,
    Position: _Plain._of_position,
    types.GeneratorType: _Plain._of_check,
}


_SLOTS: Final[dict[type, tuple[str, ...]]] = {}


def _attributes(kind: type) -> tuple[str, ...]:
    """Return the slots of a class; none where it has a ``__dict__``."""
    if kind not in _SLOTS:
        owners = () if kind.__dictoffset__ else kind.__mro__
        slots = [owner.__dict__.get("__slots__", ()) for owner in owners]
        _SLOTS[kind] = tuple(name for names in slots for name in names)
    return _SLOTS[kind]


def digest_of_bench(conversation: Conversation, session: Session) -> bytes:
    """Return what the user application knows, and where the protocol stands.

    What is merely unusual about a session (its features, what it did before) is not in
    it: that decides which rule is named, not whether one is broken.
    """
    name = session.device.name
    position, devices = session.position, conversation._devices
    own, last = session.stream, conversation._stream
    known: list[object] = [_coarse(position), own is last, "fault" in session.past]
    known += [_fields_of(session), devices._fresh]
    for stream in (own, last):
        known.append(None if stream is None else stream.is_tainted)
        # A tainted stream is no evidence; but the last one may still be loaded.
        if stream is not None and (stream is last or not stream.is_tainted):
            known.append(_fields_of(stream))
            known.append([chunk for chunk in stream.chunks if chunk])  # as it is loaded
    return _Plain(name, position).digest(known)


def _coarse(position: Position) -> list[object]:
    """Return where the protocol stands, without what only checks ask for.

    A premise that something failed before, or an answer that has no meaning in this
    state, is theirs to remember.
    """
    names = [name for name in _POSITION if name not in ("has_failed", "pending")]
    facts: list[object] = [getattr(position, name) for name in names]
    facts.append(position.pending if position.is_saving else None)
    return [*facts, position.buffer, bool(position.buffers), bool(position.loaded)]


def _fields_of(thing: object) -> list[object]:
    """Return all attributes but those that decide nothing, or are taken elsewhere."""
    names = _attributes(type(thing)) or tuple(sorted(vars(thing)))
    return [getattr(thing, name) for name in names if name not in _LEFT_OUT]


def digests_of_checks(judge: WatchedJudge, name: str) -> dict[str, bytes]:
    """Return what each check remembers of a device, by its rule."""
    position = judge.position(name)
    plain = _Plain(name, position)
    now = position.buffer.index if position.buffer is not None else None
    known = (position.session, now, position)
    # Those that compare depend on what was shown even where they have not begun.
    comparing = {rule for rule in judge.rules if rule.startswith(_COMPARING)}
    memories = dict.fromkeys(comparing) | dict(judge.memories(name))
    return {
        rule: plain.digest(
            (*known, position.shown if rule in comparing else None, memory)
        )
        for rule, memory in memories.items()
    }
