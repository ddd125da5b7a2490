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

_Instances: TypeAlias = "dict[Bound, Asked]"


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

    Most devices are open for a few accesses only, and see few kinds of moments.
    """

    __slots__ = ("_begin", "ask", "is_asleep", "rule")

    def __init__(self, bound: Bound) -> None:
        self.rule = bound.rule
        self.is_asleep = isinstance(bound.kinds, Watch)
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

    def _ask_first(self, moment: Moment) -> Ruling | Rest | None:
        check = self._begin()
        next(check)
        self.ask = check.send
        return self.ask(moment)


@cache
def _remembers(function: CheckFunction) -> bool:
    return inspect.isgeneratorfunction(function)  # asked for each check of each device


# Each check, whether it wakes there, and whom to ask if it remembers nothing.
_ByKind: TypeAlias = dict[Kind, list[tuple[Bound, bool, Asked | None]]]


@lru_cache(maxsize=8)
def _by_kind(checks: tuple[Bound, ...]) -> _ByKind:
    """Sort checks by kind once for all the conversations that are held with them."""
    by_kind: _ByKind = {kind: [] for kind in Kind}
    for each in checks:
        shared = None if _remembers(each.function) else Asked(each)
        watched = each.kinds
        kinds = watched.kinds if isinstance(watched, Watch) else watched
        waking = watched.woken_by if isinstance(watched, Watch) else watched
        for kind in kinds:
            by_kind[kind].append((each, kind in waking, shared))
    return by_kind


class _Checks:
    """The checks by kind of moment, and those that see all devices."""

    def __init__(self, checks: Iterable[Bound]) -> None:
        self._of_kind = _by_kind(tuple(checks))
        self._across: _Instances = {}

    def of_kind(self, kind: Kind, own: _Instances) -> list[tuple[Asked, bool]]:
        """Return whom to ask; ``own`` are the instances that a device has so far."""
        asked: list[tuple[Asked, bool]] = []
        for bound, wakes, shared in self._of_kind[kind]:
            each = shared
            if each is None:
                instances = self._across if bound.is_across else own
                each = instances.get(bound)
                if each is None:
                    each = instances[bound] = Asked(bound)
            asked.append((each, wakes))
        return asked


class _Device:
    """One device's region, position, and its checks by kind of moment."""

    def __init__(self, region: RegionShape, checks: _Checks) -> None:
        self.region = region
        self.position = Position()
        self._checks = checks
        self._own: _Instances = {}
        self.asked: dict[Kind, list[tuple[Asked, bool]]] = {}

    def see(self, moment: Moment, kept: set[str]) -> list[tuple[str, Broken]]:
        asked = self.asked.get(moment.kind)
        if asked is None:
            asked = self._checks.of_kind(moment.kind, self._own)
            self.asked[moment.kind] = asked
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
        self.position.follow(moment)
        return broken


class Judge:
    """All checks over one history; ``opened`` are rules that the header breaks.

    ``kept`` are the rules whose premise came true, and that were kept.
    """

    def __init__(
        self, checks: Iterable[Bound], devices: Mapping[str, RegionShape]
    ) -> None:
        self._checks = _Checks(checks)
        self._devices: dict[str, _Device] = {}
        self._index = 0
        self.kept: set[str] = set()
        self.opened: list[tuple[str, Broken]] = []
        for name, region in devices.items():
            self.opened.extend(self.open(name, region))

    def open(self, name: str, region: RegionShape) -> list[tuple[str, Broken]]:
        """Let another device take part, freshly opened; return what that breaks."""
        device = self._devices[name] = _Device(region, self._checks)
        return device.see(opening(name, region, device.position), self.kept)

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
        return device.see(moment, self.kept)
