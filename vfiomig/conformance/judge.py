"""Judging a history: each record becomes a moment, and the checks that care see it.

One pass, constant memory: a check keeps what it must remember, and nobody keeps the
history.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, TypeAlias, cast

from vfiomig.conformance.moment import Kind, Moment, Watch, moment_of, opening
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
    """A check with the rule that it decides, and the kinds of moments it is given.

    Where it ``is_across`` one instance sees all devices; otherwise each has its own.
    """

    rule: str
    function: CheckFunction
    kinds: tuple[Kind, ...] | Watch
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


# Each check, and whether it wakes there.
_ByKind: TypeAlias = "dict[Kind, list[tuple[Bound, bool]]]"


class _Asking:
    """The checks of one device by kind of moment; those of its kinds, once it has any.

    Most devices are open for a few accesses only.  What was made for one serves the
    next, of another conversation: to make it takes longer than to ask.
    """

    def __init__(self, by_kind: _ByKind) -> None:
        self._by_kind = by_kind
        self._made: dict[Bound, Asked] = {}
        self._begun: list[Asked] = []
        self.of_kind: dict[Kind, list[tuple[Asked, bool]]] = {}

    def make(self, kind: Kind) -> list[tuple[Asked, bool]]:
        """Return whom to ask at a kind of moment, each with whether that wakes it."""
        asked: list[tuple[Asked, bool]] = []
        for bound, wakes in self._by_kind[kind]:
            each = self._made.get(bound)
            if each is None:
                each = self._made[bound] = Asked(bound, self._begun)
            asked.append((each, wakes))
        self.of_kind[kind] = asked
        return asked

    def ask(self, moment: Moment, kept: set[str]) -> list[tuple[str, Broken]]:
        """Ask all whom a moment concerns; return what it breaks, add what it keeps."""
        asked = self.of_kind.get(moment.kind)
        if asked is None:
            asked = self.make(moment.kind)
        broken: list[tuple[str, Broken]] = []
        for each, wakes in asked:
            if each.is_asleep:
                if not wakes:
                    continue
                each.is_asleep = False
            ruling = each.ask(moment)
            if ruling is None:
                continue
            if ruling is ASLEEP:
                each.is_asleep = True
            elif ruling is HELD:
                kept.add(each.rule)
            else:
                broken.append((each.rule, ruling))
        return broken

    def forget(self) -> None:
        """Be as if nothing had ever been asked."""
        for each in self._begun:
            each.forget()
        self._begun.clear()


class _Checks:
    """Checks, sorted by kind once for all the conversations that are held with them."""

    def __init__(self, checks: Iterable[Bound]) -> None:
        own: _ByKind = {kind: [] for kind in Kind}
        across: _ByKind = {kind: [] for kind in Kind}
        for each in checks:
            by_kind, watched = across if each.is_across else own, each.kinds
            kinds = watched.kinds if isinstance(watched, Watch) else watched
            waking = watched.woken_by if isinstance(watched, Watch) else watched
            for kind in kinds:
                by_kind[kind].append((each, kind in waking))
        self._own, self._across = own, across
        self._free: list[_Asking] = []

    def of_a_device(self) -> _Asking:
        """Return those that each device has for itself."""
        return self._free.pop() if self._free else _Asking(self._own)

    def across_devices(self) -> _Asking | None:
        """Return those that see all devices of a history, if there are any."""
        return _Asking(self._across) if any(self._across.values()) else None

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
