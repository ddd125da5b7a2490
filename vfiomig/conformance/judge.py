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

from vfiomig.conformance.moment import Kind, Moment, moment_of, opening
from vfiomig.conformance.position import Position
from vfiomig.conformance.ruling import Remembering, Ruling
from vfiomig.protocol.errors import VfiomigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vfiomig.protocol.history import Record, RegionShape

Stateless: TypeAlias = Callable[[Moment], Ruling | None]
CheckFunction: TypeAlias = Stateless | Callable[[], Remembering]

_Ask: TypeAlias = Callable[[Moment], Ruling | None]
_Instances: TypeAlias = "dict[Bound, _Ask]"


class UnknownDeviceError(VfiomigError):
    """A record names a device that the header does not have."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bound:
    """A check with the rule that it decides, and the kinds of moments it is given.

    Where it ``is_across`` one instance sees all devices; otherwise each has its own.
    """

    rule: str
    function: CheckFunction
    kinds: tuple[Kind, ...]
    is_across: bool = False

    def instance(self) -> _Ask:
        """Return a fresh check to ask."""
        if not _remembers(self.function):
            return cast("Stateless", self.function)
        remembering = cast("Callable[[], Remembering]", self.function)()
        next(remembering)
        return remembering.send


@cache
def _remembers(function: CheckFunction) -> bool:
    return inspect.isgeneratorfunction(function)  # asked for each check of each device


@lru_cache(maxsize=8)
def _by_kind(checks: tuple[Bound, ...]) -> dict[Kind, list[Bound]]:
    """Sort checks by kind once for all the conversations that are held with them."""
    return {kind: [each for each in checks if kind in each.kinds] for kind in Kind}


class _Checks:
    """The checks by kind of moment, and those that see all devices."""

    def __init__(self, checks: Iterable[Bound]) -> None:
        self._of_kind = _by_kind(tuple(checks))
        self._across: _Instances = {}

    def of_kind(self, kind: Kind, own: _Instances) -> list[tuple[str, _Ask]]:
        """Return whom to ask; ``own`` are the instances that a device has so far."""
        asked: list[tuple[str, _Ask]] = []
        for bound in self._of_kind[kind]:
            instances = self._across if bound.is_across else own
            ask = instances.get(bound)
            if ask is None:
                ask = instances[bound] = bound.instance()
            asked.append((bound.rule, ask))
        return asked


class _Device:
    """One device's region, position, and its checks, made when they are needed first.

    Most devices are open for a few accesses only, and see few kinds of moments.
    """

    def __init__(self, region: RegionShape, checks: _Checks) -> None:
        self.region = region
        self.position = Position()
        self._checks = checks
        self._own: _Instances = {}
        self.asked: dict[Kind, list[tuple[str, _Ask]]] = {}

    def see(self, moment: Moment) -> list[tuple[str, Ruling]]:
        asked = self.asked.get(moment.kind)
        if asked is None:
            asked = self._checks.of_kind(moment.kind, self._own)
            self.asked[moment.kind] = asked
        found = []
        for rule, ask in asked:
            ruling = ask(moment)
            if ruling is not None:
                found.append((rule, ruling))
        self.position.follow(moment)
        return found


class Judge:
    """All checks over one history; ``opened`` is what they say of the header."""

    def __init__(
        self, checks: Iterable[Bound], devices: Mapping[str, RegionShape]
    ) -> None:
        self._checks = _Checks(checks)
        self._devices: dict[str, _Device] = {}
        self._index = 0
        self.opened: list[tuple[str, Ruling]] = []
        for name, region in devices.items():
            self.opened.extend(self.open(name, region))

    def open(self, name: str, region: RegionShape) -> list[tuple[str, Ruling]]:
        """Let another device take part, freshly opened."""
        device = self._devices[name] = _Device(region, self._checks)
        return device.see(opening(name, region, device.position))

    def position(self, name: str) -> Position:
        """Return where the conversation with a device stands."""
        return self._devices[name].position

    def see(self, record: Record) -> list[tuple[str, Ruling]]:
        """Judge the next record; return each rule that something can be said of.

        Raises:
            UnknownDeviceError: the header has no such device.
        """
        self._index += 1
        device = self._devices.get(record.device)
        if device is None:
            message = f"record {self._index}: no device {record.device!r} in the header"
            raise UnknownDeviceError(message)
        return device.see(
            moment_of(self._index, record, device.region, device.position)
        )
