"""Judging a history: each record becomes a moment, and the checks that care see it.

One pass, constant memory: a check keeps what it must remember, and nobody keeps the
history.  Whom a moment concerns is looked up by its kind, the device_state before it
and whether it succeeded, so that a check costs nothing where its premise cannot be.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

from vfiomig.conformance.moment import (
    Kind,
    Moment,
    Occasions,
    State,
    Watch,
    When,
    by_kind,
    moment_of,
    opening,
)
from vfiomig.conformance.position import Position
from vfiomig.conformance.ruling import (
    ASLEEP,
    HELD,
    Broken,
    Remembering,
    Rest,
    Ruling,
)
from vfiomig.protocol.errors import VfiomigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vfiomig.protocol.history import Record, RegionShape

Stateless: TypeAlias = Callable[[Moment], Ruling | None]
CheckFunction: TypeAlias = Stateless | Callable[[], Remembering]


class UnknownDeviceError(VfiomigError):
    """A record names a device that the header does not have."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bound:
    """A check with the rule that it decides, and the moments that it is given.

    Where it ``is_across`` one instance sees all devices; otherwise each has its own.
    """

    rule: str
    function: CheckFunction
    kinds: Occasions | Watch
    is_across: bool = False


class Asked:
    """A check of one device; it begins when it is asked first.

    ``begun`` is told of it then: it is one of those that have to forget.
    """

    __slots__ = ("_begin", "_begun", "_is_sleeper", "ask", "is_asleep", "rule")

    def __init__(self, bound: Bound, begun: list[Asked]) -> None:
        self.rule = bound.rule
        self._is_sleeper = isinstance(bound.kinds, Watch)
        self._begun = begun
        self.is_asleep = self._is_sleeper
        self.ask: Callable[[Moment], Ruling | Rest | None]
        if _remembers(bound.function):
            self._begin = cast("Callable[[], Remembering]", bound.function)
            self.ask = self._ask_first
        else:
            self.ask = cast("Stateless", bound.function)

    @property
    def remembering(self) -> Remembering | None:
        """The check, if it has begun and remembers anything."""
        check = getattr(self.ask, "__self__", None)
        return cast("Remembering", check) if inspect.isgenerator(check) else None

    def forget(self) -> None:
        """Be as if it had never been asked."""
        self.ask, self.is_asleep = self._ask_first, self._is_sleeper

    def _ask_first(self, moment: Moment) -> Ruling | Rest | None:
        check = self._begin()
        next(check)
        self.ask = check.send
        self._begun.append(self)
        return self.ask(moment)


@cache
def _remembers(function: CheckFunction) -> bool:
    return inspect.isgeneratorfunction(function)  # asked for each check of each device


# A kind of moment, the device_state before it, and whether it succeeded.
_Here: TypeAlias = "tuple[Kind, State, bool]"


class _Bindings:
    """Checks, sorted by where they are asked as soon as any moment is there.

    This is done once for all the conversations that are held with them.
    """

    def __init__(self, checks: Iterable[Bound]) -> None:
        self._of_kind: dict[Kind, list[tuple[Bound, list[When], list[When]]]] = {}
        for each in checks:
            watch = _watch_of(each)
            given, waking = by_kind(watch.kinds), by_kind(watch.woken_by)
            for kind in given | waking:
                whens = (each, given.get(kind, []), waking.get(kind, []))
                self._of_kind.setdefault(kind, []).append(whens)
        self._sorted: dict[_Here, list[tuple[Bound, bool]]] = {}

    def __bool__(self) -> bool:
        return bool(self._of_kind)

    def at(self, here: _Here) -> list[tuple[Bound, bool]]:
        """Return whom to ask, each with whether that wakes it."""
        found = self._sorted.get(here)
        if found is None:
            found = self._sorted[here] = []
            kind, state, ok = here
            for each, given, waking in self._of_kind.get(kind, ()):
                wakes = any(when.admits(state, ok=ok) for when in waking)
                if wakes or any(when.admits(state, ok=ok) for when in given):
                    found.append((each, wakes))
        return found


def _watch_of(bound: Bound) -> Watch:
    """Return when to ask a check; whatever one sees that never sleeps wakes it."""
    kinds = bound.kinds
    return kinds if isinstance(kinds, Watch) else Watch(kinds=kinds, woken_by=kinds)


class _Concerned(NamedTuple):
    """Checks by what a moment is to them: it wakes them, or they see it when awake.

    ``order`` is that in which they are bound: what is broken is told so.
    """

    woken: list[Asked]
    awake_only: list[Asked]
    order: dict[Asked, int]


class _Asking:
    """The checks of one device by where they are asked, once it has been there.

    Most devices are open for a few accesses only.  What was made for one serves the
    next, of another conversation: to make it takes longer than to ask.
    """

    def __init__(self, bindings: _Bindings) -> None:
        self._bindings = bindings
        self._made: dict[Bound, Asked] = {}
        self._begun: list[Asked] = []
        self.of_kind: dict[_Here, _Concerned] = {}

    def make(self, here: _Here) -> _Concerned:
        """Return whom such moments concern."""
        concerned = _Concerned([], [], {})
        for bound, wakes in self._bindings.at(here):
            each = self._made.get(bound)
            if each is None:
                each = self._made[bound] = Asked(bound, self._begun)
            (concerned.woken if wakes else concerned.awake_only).append(each)
            concerned.order[each] = len(concerned.order)
        self.of_kind[here] = concerned
        return concerned

    def ask(self, moment: Moment, kept: set[str]) -> list[tuple[str, Broken]]:
        """Ask all whom a moment concerns; return what it breaks, add what it keeps."""
        here = (moment.kind, moment.position.state, moment.ok)
        concerned = self.of_kind.get(here) or self.make(here)
        woken, awake_only, order = concerned
        found: list[tuple[Asked, Broken]] = []
        # Those that it wakes are asked first, for what they were does not matter then.
        for some in (woken, [each for each in awake_only if not each.is_asleep]):
            for each in some:
                ruling = each.ask(moment)
                if ruling is ASLEEP:
                    each.is_asleep = True
                    continue
                each.is_asleep = False
                if ruling is HELD:
                    kept.add(each.rule)
                elif ruling is not None:
                    found.append((each, ruling))
        if not found:
            return []
        found.sort(key=lambda one: order[one[0]])
        return [(each.rule, ruling) for each, ruling in found]

    def forget(self) -> None:
        """Be as if nothing had ever been asked."""
        for each in self._begun:
            each.forget()
        self._begun.clear()


class _Checks:
    """Checks of each device and across devices, and what was made of them."""

    def __init__(self, checks: tuple[Bound, ...]) -> None:
        self._own = _Bindings(each for each in checks if not each.is_across)
        self._across = _Bindings(each for each in checks if each.is_across)
        self._free: list[_Asking] = []

    def of_a_device(self) -> _Asking:
        """Return those that each device has for itself."""
        return self._free.pop() if self._free else _Asking(self._own)

    def across_devices(self) -> _Asking | None:
        """Return those that see all devices of a history, if there are any."""
        return _Asking(self._across) if self._across else None

    def give_back(self, asking: _Asking) -> None:
        """Take back those of a device that is done with."""
        asking.forget()
        self._free.append(asking)


@lru_cache(maxsize=8)
def _checks(bound: tuple[Bound, ...]) -> _Checks:
    return _Checks(bound)


class _Device:
    """One device's region, position and checks."""

    def __init__(self, region: RegionShape, asking: _Asking) -> None:
        self.region = region
        self.position = Position()
        self.asking = asking


class Judge:
    """All checks over one history; ``opened`` are rules that the header breaks.

    ``kept`` are the rules whose premise came true, and that were kept.
    """

    def __init__(
        self, checks: Iterable[Bound], devices: Mapping[str, RegionShape]
    ) -> None:
        self._checks = _checks(tuple(checks))
        self._across = self._checks.across_devices()
        self._devices: dict[str, _Device] = {}
        self._index = 0
        self.kept: set[str] = set()
        self.opened: list[tuple[str, Broken]] = []
        for name, region in devices.items():
            self.opened.extend(self.open(name, region))

    def open(self, name: str, region: RegionShape) -> list[tuple[str, Broken]]:
        """Let another device take part, freshly opened; return what that breaks."""
        device = self._devices[name] = _Device(region, self._checks.of_a_device())
        return self._see(device, opening(name, region, device.position))

    def position(self, name: str) -> Position:
        """Return where the conversation with a device stands."""
        return self._devices[name].position

    def see(self, record: Record) -> list[tuple[str, Broken]]:
        """Judge the next record; return each rule that it breaks.

        Raises:
            UnknownDeviceError: the header has no such device.
        """
        self._index += 1
        device = self._devices.get(record.device)
        if device is None:
            message = f"record {self._index}: no device {record.device!r} in the header"
            raise UnknownDeviceError(message)
        moment = moment_of(self._index, record, device.region, device.position)
        return self._see(device, moment)

    def close(self) -> None:
        """Let go of the devices: there is no other record."""
        for device in self._devices.values():
            self._checks.give_back(device.asking)
        self._devices.clear()

    def _see(self, device: _Device, moment: Moment) -> list[tuple[str, Broken]]:
        broken = device.asking.ask(moment, self.kept)
        if self._across is not None:
            broken += self._across.ask(moment, self.kept)
        device.position.follow(moment)
        return broken
