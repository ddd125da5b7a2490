"""The host's side of a real QEMU: devices in sysfs, and their files in /dev/vfio.

The mdevs are made as a person makes them, by a UUID written to ``create``; QEMU is
told of their folders.  Each has an IOMMU group of its own.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.target import TargetStartError, load_target
from vfiomig.frontends.attached_device import AttachedDevice
from vfiomig.frontends.device_names import derived_names
from vfiomig.frontends.mdevs import create_mdev, offer_types
from vfiomig.host.dev_vfio import DevVfio
from vfiomig.host.mdev import MdevType
from vfiomig.host.sysfs import Sysfs
from vfiomig.protocol.history import RegionShape
from vfiomig.serve.broker.device_file import DeviceFile
from vfiomig.serve.mapped_areas import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vfiomig.client.recorder import HistoryWriter
    from vfiomig.frontends.fail_steps import FailStep
    from vfiomig.host.device_fd import DeviceFd
    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.host.user_process import HostFile

_SEED: Final = 1  # of the UUIDs: they tell nothing


class AttachedMachine:
    """Targets as devices that a QEMU can open, in a tree of sysfs at ``folder``.

    ``devices`` are those that it has opened, in that order; ``sysfsdevs`` the folders
    to tell it of, one a target.
    """

    def __init__(
        self,
        targets: Sequence[str],
        folder: Path,
        log: HistoryWriter,
        *,
        party: str = "",
        fault: FailStep | None = None,
        snapshots: Path | None = None,
    ) -> None:
        self.devices: list[AttachedDevice] = []
        self.sysfsdevs: list[Path] = []
        self._log = log
        self._fault = fault
        self._snapshots = snapshots
        sysfs = Sysfs(folder)
        names = list(derived_names(targets, taken=()))
        factories = [load_target(target).make_driver for target in targets]
        types = [
            MdevType(name=name, make_driver=make, description=target, instances=1)
            for name, make, target in zip(names, factories, targets, strict=True)
        ]
        offer_types(sysfs, types)
        luck = random.Random(_SEED)
        groups: dict[int, dict[str, Callable[[], TrappedDriver]]] = {}
        self._names: dict[str, str] = {}
        called = labels(targets, party)
        for name, label, make in zip(names, called, factories, strict=True):
            device = create_mdev(sysfs, name, luck)
            known = str(device.uuid)
            self.sysfsdevs.append(sysfs.device_path(device))
            self._names[known] = label
            groups[device.iommu_group] = {known: make}
        self.dev_vfio = DevVfio(groups, wrap=self._attach)

    def _attach(self, known: str, fd: DeviceFd, driver: TrappedDriver) -> HostFile:
        """Let a device that was opened be seen, and its data section be mapped."""
        name = self._names[known]
        device = AttachedDevice(
            name,
            fd,
            driver,
            self._log,
            fault=self._fault,
            snapshots=self._snapshots,
        )
        self.devices.append(device)
        places = [Place(area, *fd.area_file(area)) for area in device.region.areas]
        return DeviceFile(device, driver.migration_region, places, unseen=device.unseen)


def labels(targets: Sequence[str], party: str) -> list[str]:
    """Return what a history calls the devices."""
    prefix = f"{party}/" if party else ""
    return [prefix + name for name in derived_names(targets, taken=())]


def probe_targets(targets: Sequence[str]) -> tuple[RegionShape, ...]:
    """Make one driver of each target, and let it go; return their regions.

    What cannot be started is known so before QEMU is.

    Raises:
        TargetError: there is no such target.
        TargetStartError: its module, or the driver, does not start.
    """
    shapes = []
    for target in targets:
        loaded = load_target(target)
        try:
            driver = loaded.make_driver()
            region = driver.migration_region
            driver.close()
        except TargetStartError:
            raise
        except Exception as error:
            message = f"{target}: {type(error).__name__}: {error}"
            raise TargetStartError(message) from error
        shapes.append(RegionShape.of(region))
    return tuple(shapes)
