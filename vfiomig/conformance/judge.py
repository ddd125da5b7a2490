"""Judging a history: each record becomes a moment, and the checks that care see it.

One pass, constant memory: a check keeps what it must remember, and nobody keeps the
history.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

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


class UnknownDeviceError(VfiomigError):
    """A record names a device that the header does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
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
        if not inspect.isgeneratorfunction(self.function):
            return self.function  # type: ignore[return-value]  # told apart above
        remembering: Generator[Ruling | None, Moment, None] = self.function()
        next(remembering)
        return remembering.send


class _Device:
    """One device's region, position, and the checks by kind of moment."""

    def __init__(self, region: RegionShape) -> None:
        self.region = region
        self.position = Position()
        self.asked: dict[Kind, list[tuple[str, _Ask]]] = {kind: [] for kind in Kind}

    def give(self, bound: Bound, ask: _Ask) -> None:
        for kind in bound.kinds:
            self.asked[kind].append((bound.rule, ask))

    def see(self, moment: Moment) -> list[tuple[str, Ruling]]:
        found = []
        for rule, ask in self.asked[moment.kind]:
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
        self._checks = [
            (bound, bound.instance() if bound.is_across else None) for bound in checks
        ]
        self._devices: dict[str, _Device] = {}
        self._index = 0
        self.opened: list[tuple[str, Ruling]] = []
        for name, region in devices.items():
            self.opened.extend(self.open(name, region))

    def open(self, name: str, region: RegionShape) -> list[tuple[str, Ruling]]:
        """Let another device take part, freshly opened."""
        device = self._devices[name] = _Device(region)
        for bound, shared in self._checks:
            device.give(bound, shared or bound.instance())
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
