"""What one migration would come to: the loop, run over modelled handlers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from vfiomig.migration.convergence import DowntimeEstimate, Limits
from vfiomig.migration.metrics import Metrics, Outcome
from vfiomig.migration.observer import Unobserved
from vfiomig.migration.pace import Pace, QemuPace, Unpaced
from vfiomig.migration.parameters import Parameters
from vfiomig.migration.pre_copy import EndedEarlyError, PreCopy
from vfiomig.migration.what_if.device import ModelledDevice
from vfiomig.migration.what_if.leaping import LeapingPace
from vfiomig.migration.what_if.ram import ModelledRam
from vfiomig.migration.what_if.stretches import RamMap
from vfiomig.migration.what_if.wire import Wire
from vfiomig.migration.what_if.writing import ModelledLoad
from vfiomig.protocol.qemu_stream import framing
from vfiomig.vm.ram_block import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.migration.clock import LinkModel
    from vfiomig.migration.exchange import Steps
    from vfiomig.migration.handler import SaveHandler
    from vfiomig.migration.what_if.profile import DeviceProfile
    from vfiomig.vm.workload import RamLoad

_LATE: Final = 10  # a tenth over: the link's latency and the like are no news


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelledMachine:
    """A guest as far as its migration depends on it; sizes in bytes."""

    machine_type: str
    ram: int
    filled: int
    loads: tuple[RamLoad, ...]
    parameters: Parameters
    description_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """All that a forecast is made from.

    ``begins_at`` is the source's virtual time when the migration begins.
    """

    link: LinkModel
    limits: Limits
    devices: tuple[DeviceProfile, ...]
    machine: ModelledMachine | None = None
    load_bandwidth: int | None = None
    begins_at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """How it would end; ``converges``: within the downtime limit, by the estimate.

    ``limit`` is that limit.  ``metrics`` are those of a real run, but for what only
    that can have.
    """

    outcome: Outcome
    converges: bool
    metrics: Metrics
    limit: int
    reason: str = ""

    @property
    def is_late(self) -> bool:
        """Whether the downtime is well over the limit, whatever was expected."""
        downtime = self.metrics.downtime
        return downtime is not None and downtime > self.limit + self.limit // _LATE


def forecast(setting: Setting) -> Forecast:
    """Run the migration without its bytes, in virtual time."""
    return _Model(setting).run()


@dataclass(slots=True)
class _Guest:
    """What works while the source runs: a `Guest`."""

    loads: Sequence[ModelledLoad]
    devices: list[ModelledDevice] = field(default_factory=list)

    def run_until(self, now: int) -> None:
        for load in self.loads:
            load.run_until(now)
        for device in self.devices:
            device.run_until(now)


class _Model:
    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._metrics = Metrics()
        self._wire = wire = Wire(setting.link, self._metrics)
        wire.source.now = setting.begins_at
        machine = setting.machine
        parameters = machine.parameters if machine is not None else Parameters()
        estimate = DowntimeEstimate(
            link=setting.link, load_bandwidth=setting.load_bandwidth
        )
        pace: Pace = Unpaced(estimate)
        if machine is not None:
            pace = QemuPace(
                clock=wire.source,
                metrics=self._metrics,
                link=setting.link,
                parameters=parameters,
            )
        leaping = LeapingPace(pace, wire=wire, limits=setting.limits)
        loads = [ModelledLoad(load) for load in machine.loads] if machine else []
        self._devices = [
            ModelledDevice(
                profile,
                parameters.rules,
                wire=wire,
                load_bandwidth=setting.load_bandwidth,
            )
            for profile in setting.devices
        ]
        handlers: list[SaveHandler] = []
        ram = None
        if machine is not None:
            pages = RamMap.of(
                machine.ram // PAGE_SIZE, machine.filled // PAGE_SIZE, loads
            )
            ram = ModelledRam(pages, parameters, wire=wire, pace=leaping)
            handlers.append(ram)
        handlers += self._devices
        leaping.watch(ram, self._devices)
        self._loop = PreCopy(
            handlers,
            clock=wire.source,
            pace=leaping,
            limits=setting.limits,
            metrics=self._metrics,
            guest=_Guest(loads, self._devices),
            observer=Unobserved(),
            rules=parameters.rules,
        )

    def run(self) -> Forecast:
        """Go as far as the source goes, in the order of `Source.migrate`."""
        machine, metrics = self._setting.machine, self._metrics
        limit = self._setting.limits.downtime
        self._wire.send(len(framing.STREAM_HEAD))
        if machine is not None:
            self._wire.send(len(framing.configuration(machine.machine_type)))
        _finish(self._loop.set_up())
        try:
            _finish(self._loop.iterate())
        except EndedEarlyError as end:
            metrics.ended_at = self._wire.source.now
            return Forecast(
                outcome=end.outcome,
                converges=False,
                metrics=metrics,
                limit=limit,
                reason=str(end),
            )
        self._stop_and_copy()
        return Forecast(
            outcome=Outcome.COMPLETED,
            converges=(metrics.expected_downtime or 0) <= limit,
            metrics=metrics,
            limit=limit,
        )

    def _stop_and_copy(self) -> None:
        machine, metrics, wire = self._setting.machine, self._metrics, self._wire
        metrics.stopped_at = wire.source.now
        for device in self._devices:
            device.stop()
        _finish(self._loop.complete())
        wire.send(len(framing.STREAM_END))
        if machine is not None:
            wire.send(machine.description_bytes)
            metrics.vmdesc_bytes += machine.description_bytes
        for device in self._devices:
            device.run_at_destination()
        metrics.resumed_at = wire.destination.now
        wire.answer(framing.RETURN_PATH_SIZE)
        metrics.ended_at = wire.source.now


def _finish(steps: Steps[Any]) -> None:
    """Let a handler do all it does: it sends by itself, and has no step to answer."""
    for _ in steps:
        message = "a modelled handler moves no bytes"
        raise AssertionError(message)
