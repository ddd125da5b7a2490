"""One side of a simulated migration: a host, its mdevs, and clients that hold them.

The mdevs are made as a person makes them: a type of a parent in sysfs, and a UUID
written to its ``create``.  The bench goes beside the handles: a driver's `work`,
`snapshot` and `fail` are called on the driver itself, and what they raise kills it as
surely as what an access raises.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vfiomig.client.conduct import CONDUCTS
from vfiomig.client.config_space import (
    COMMAND,
    enable_bus_master,
    read_config_space,
    write_command,
)
from vfiomig.client.recorder import HistoryWriter, Recorder
from vfiomig.client.region import FoundRegion, find_migration_region
from vfiomig.client.v1 import V1Client
from vfiomig.conformance.target import Target, load_target
from vfiomig.frontends.device_scenario import paths_of
from vfiomig.frontends.guest_dma import GuestDma
from vfiomig.frontends.mdevs import create_mdev, offer_types
from vfiomig.frontends.noted_bench import NotedBench
from vfiomig.frontends.simulated_guest import make_guest
from vfiomig.host.mdev import MdevType
from vfiomig.host.sysfs import Sysfs
from vfiomig.migration.clock import SECOND, VirtualClock
from vfiomig.migration.side import MigratingDevice, MigratingMachine
from vfiomig.migration.timed_handle import TimedHandle
from vfiomig.protocol.bench import BenchAccess, bench_of
from vfiomig.protocol.errors import DriverDiedError

if TYPE_CHECKING:
    from pathlib import Path

    from vfiomig.client.device import DeviceHandle
    from vfiomig.frontends.device_scenario import DeviceSpec
    from vfiomig.frontends.scenario import Scenario
    from vfiomig.host.device_fd import DeviceFd
    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.vm.machine import Machine


@dataclass(slots=True, kw_only=True)
class SimulatedDevice:
    """A device of one machine: how it is held, and what the bench may do to it."""

    spec: DeviceSpec
    fd: DeviceFd
    driver: TrappedDriver
    region: FoundRegion
    bench: BenchAccess
    client: V1Client
    log: HistoryWriter | None
    party: str
    path: str = ""
    config: bytearray | None = None
    _noted: NotedBench = field(init=False)
    _owed: int = field(default=0)  # work that is due, times SECOND

    def __post_init__(self) -> None:
        self._noted = NotedBench(
            self.driver,
            self.bench,
            self.label,
            self.log,
            device=(self.party, self.spec.name),
        )

    @property
    def label(self) -> str:
        """What a history calls it."""
        return label_of(self.party, self.spec)

    def work(self, amount: int) -> None:
        """Let guest traffic reach the device.

        Raises:
            DriverDiedError: the driver raised.
        """
        self._noted.work(amount)

    def digest(self) -> str | None:
        """Return the digest of the device's snapshot; ``None`` if it offers none.

        Raises:
            DriverDiedError: the driver raised, or returned something else.
        """
        taken = self._noted.snapshot()
        return None if taken is None else taken.digest

    def fail(self, on: str, code: int) -> None:
        """Arm a fault inside the device, which offers `fail`.

        Raises:
            DriverDiedError: the driver raised.
        """
        self._noted.fail(on, code)

    def take_config(self) -> None:
        """Let the device know the command register that came (vfio_pci_load_config).

        Raises:
            OSError, DriverDiedError: it does not take it.
        """
        if self.config is not None:
            write_command(self.fd, self.config[COMMAND])

    def run_for(self, duration: int, luck: random.Random) -> None:
        """Do the work of ``duration`` virtual nanoseconds, on average its rate's."""
        self._owed += self.spec.work * duration
        due = self._owed // SECOND
        if due:
            amount = luck.randint(0, 2 * due)
            self._owed -= due * SECOND
            self.work(amount)


def label_of(party: str, spec: DeviceSpec) -> str:
    """Name a device as a history does: there are two of each name."""
    return f"{party}/{spec.name}"


class SimulatedMachine:
    """All devices of one side, opened; the guest's traffic, while it runs."""

    def __init__(
        self,
        party: str,
        scenario: Scenario,
        *,
        folder: Path,
        clock: VirtualClock,
        log: HistoryWriter | None,
    ) -> None:
        self.party = party
        self.clock = clock
        self.sysfs = Sysfs(folder)
        self.devices: list[SimulatedDevice] = []
        self.guest: Machine | None = None
        self.harts = scenario.machine.harts if scenario.machine is not None else None
        self.xen = scenario.machine.xen if scenario.machine is not None else None
        self._dma: GuestDma | None = None
        self._scenario = scenario
        self._log = log
        self._luck = random.Random(scenario.seed)
        self._ran_until = 0
        try:
            if scenario.machine is not None:
                self.guest = make_guest(scenario.machine, party, scenario.seed)
                self._dma = GuestDma(self.guest.memory)
            self._open_all()
        except BaseException:
            self.close()
            raise

    def run_until(self, now: int) -> None:
        """Let the guest's traffic reach the devices; the `Guest` of a migration."""
        duration, self._ran_until = now - self._ran_until, now
        if self.guest is not None:
            self.guest.run_until(now)
        for device in self.devices:
            device.run_for(duration, self._luck)

    def participants(self) -> list[MigratingDevice]:
        """Return the devices as migration knows them."""
        return [
            MigratingDevice(device.spec.name, device.client, device.path, device.config)
            for device in self.devices
        ]

    def migrating(self) -> MigratingMachine | None:
        """Return the guest as migration knows it; ``None`` without one."""
        if self.guest is None or self._dma is None:
            return None
        return MigratingMachine(
            self.guest,
            self._scenario.parameters,
            sync_dma=self._dma.sync,
            start_dma=self._dma.start,
            stop_dma=self._dma.stop,
        )

    def config(self, name: str) -> bytearray | None:
        """Return the configuration space that moves with a device, if one does."""
        return self.device(name).config

    def has(self, name: str) -> bool:
        """Tell whether there is a device of that name."""
        return any(device.spec.name == name for device in self.devices)

    def device(self, name: str) -> SimulatedDevice:
        """Return the device of that name."""
        return next(device for device in self.devices if device.spec.name == name)

    def close(self) -> list[tuple[str, Exception]]:
        """Close all devices; return which of them failed at it, and how."""
        failures: list[tuple[str, Exception]] = []
        while self.devices:
            device = self.devices.pop()
            try:
                device.fd.close()
            except (OSError, DriverDiedError) as failure:
                failures.append((device.spec.name, failure))
        if self._dma is not None:
            self._dma.close()
        if self.guest is not None:
            self.guest.close()
        return failures

    def _open_all(self) -> None:
        targets = [
            load_target(_target_of(spec, self.party), folder=spec.folder)
            for spec in self._scenario.devices
        ]
        made: list[TrappedDriver] = []
        types = [
            _mdev_type(spec, target, made)
            for spec, target in zip(self._scenario.devices, targets, strict=True)
        ]
        offer_types(self.sysfs, types)
        paths = [""] * len(targets)
        if self.guest is not None:
            paths = paths_of(self._scenario.devices)
        for spec, path in zip(self._scenario.devices, paths, strict=True):
            fd = create_mdev(self.sysfs, spec.name, self._luck).open(dma=self._dma)
            self.devices.append(self._hold(spec, path, fd, made[-1]))

    def _hold(
        self, spec: DeviceSpec, path: str, fd: DeviceFd, driver: TrappedDriver
    ) -> SimulatedDevice:
        """Find the device's region and give a client the handle that it drives."""
        handle: DeviceHandle = fd
        cost = (
            self._scenario.source_access_cost
            if self.party == "source"
            else self._scenario.destination_access_cost
        )
        try:
            region = find_migration_region(fd)
            config = None
            if self.guest is not None:
                # The source's guest has a driver for it, which sets it up.
                if self.party == "source" and hasattr(driver, "connect"):
                    enable_bus_master(fd)
                config = bytearray(read_config_space(fd))
        except BaseException:
            fd.close()
            raise
        recorder = None
        if self._log is not None:
            label = label_of(self.party, spec)
            handle = recorder = Recorder(handle, region, self._log, device=label)
        if cost:
            handle = TimedHandle(handle, self.clock, cost)
        client = V1Client(
            handle,
            region,
            conduct=CONDUCTS[self._scenario.conduct],
            unseen=recorder.unseen if recorder is not None else None,
        )
        return SimulatedDevice(
            spec=spec,
            fd=fd,
            driver=driver,
            region=region,
            bench=bench_of(driver),
            client=client,
            log=self._log,
            party=self.party,
            path=path,
            config=config,
        )


def _target_of(spec: DeviceSpec, party: str) -> str:
    other = spec.destination if party == "destination" else None
    return spec.target if other is None else other


def _mdev_type(spec: DeviceSpec, target: Target, made: list[TrappedDriver]) -> MdevType:
    """Offer a target as a type; the drivers that it makes are kept for the bench."""

    def make_driver() -> TrappedDriver:
        made.append(target.make_driver())
        return made[-1]

    return MdevType(
        name=spec.name,
        make_driver=make_driver,
        pretty_name=target.name,
        description=spec.target,
        instances=1,
    )
