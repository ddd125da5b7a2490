"""Mediated devices: parents, the types they offer, and the mdevs made of them.

Rule 1: the names are those of linux/mdev.h, and a refusal is an ``OSError`` with the
errno that the mdev core or its driver would return.

Rule 2: nothing here knows sysfs.  ``host/sysfs.py`` shows all this as text and reads
what is written there.

Rule 3: a driver object is one session.  Creating an mdev makes none; each open makes a
fresh one, which closing the device fd ends.
"""

from __future__ import annotations

import errno
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.host.device_fd import DeviceFd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from uuid import UUID

    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.host.pci import Dma

# VFIO_DEVICE_API_*_STRING of linux/vfio.h
DEVICE_APIS: Final = ("vfio-pci", "vfio-platform", "vfio-amba", "vfio-ccw", "vfio-ap")

# What can be a name of one directory in sysfs and needs no quoting in a shell.
_NAME: Final = re.compile(r"(?!\.\.?$)[A-Za-z0-9._:+-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class MdevType:
    """A kind of mdev that a parent offers (``struct mdev_type``).

    ``name`` is the part of the type id that is the type's own; ``pretty_name`` is for
    people and falls back to it.  ``make_driver`` gives the driver of one session.

    How many can be made is up to ``instances`` and to the parent's units, whichever
    is less.  A number is counted down by the core, which answers EUSERS at zero.  A
    callable is the vendor driver's ``get_available``: how many more can be made now;
    the driver's own refusal is ENOSPC.  ``units`` is what one instance takes of the
    parent's units.

    ``probe`` is the vendor driver's part in creating an mdev: it is handed the new
    device, which is not active yet, and raises ``OSError`` to refuse it.

    ``ValueError`` for what sysfs cannot show or linux/vfio.h does not know.
    """

    name: str
    make_driver: Callable[[], TrappedDriver]
    pretty_name: str | None = None
    description: str | None = None
    device_api: str = "vfio-pci"
    instances: int | Callable[[], int] | None = None
    units: int = 1
    probe: Callable[[MdevDevice], None] | None = None

    def __post_init__(self) -> None:
        _require_name(self.name)
        if self.device_api not in DEVICE_APIS:
            message = f"{self.device_api!r} is none of {', '.join(DEVICE_APIS)}"
            raise ValueError(message)
        if isinstance(self.instances, int) and self.instances < 0:
            message = f"instances is {self.instances}, less than none"
            raise ValueError(message)
        if self.units < 1:
            message = f"units is {self.units}; an instance takes one at least"
            raise ValueError(message)


class MdevParent:
    """A device that can be divided into mdevs (``struct mdev_parent``).

    ``driver`` is what type ids begin with; it is ``name`` unless given.  ``units`` is
    a budget that all types share: mtty has 24 ports, its types take one or two, and
    each type's available_instances is what is free divided by what one takes.

    ``ValueError`` if two types have one name, or a type has no limit at all.
    """

    def __init__(
        self,
        name: str,
        types: Iterable[MdevType],
        *,
        driver: str | None = None,
        units: int | None = None,
    ) -> None:
        self.name: Final = name
        self.types: Final = tuple(types)
        self.driver: Final = name if driver is None else driver
        self.units: Final = units
        self._devices: list[MdevDevice] = []
        self._is_registered = False
        _require_name(self.name)
        _require_name(self.driver)
        names = [mdev_type.name for mdev_type in self.types]
        if len(set(names)) < len(names):
            message = f"parent {name}: two types have one name: {', '.join(names)}"
            raise ValueError(message)
        for mdev_type in self.types:
            if units is None and mdev_type.instances is None:
                message = f"type {mdev_type.name} has neither instances nor units"
                raise ValueError(message)

    @property
    def is_registered(self) -> bool:
        """Tell whether mdevs can be made of it now."""
        return self._is_registered

    @property
    def devices(self) -> tuple[MdevDevice, ...]:
        """Return the mdevs made of it, the oldest first."""
        return tuple(self._devices)

    def type_id(self, mdev_type: MdevType) -> str:
        """Return the name of the type's directory in sysfs, such as ``mtty-1``."""
        return f"{self.driver}-{mdev_type.name}"

    def available_instances(self, mdev_type: MdevType) -> int:
        """Return how many more of a type can be made now; never less than 0.

        Whatever ``instances`` raises, if it is a callable, comes through.
        """
        limits = []
        if isinstance(mdev_type.instances, int):
            limits.append(mdev_type.instances - self._made(mdev_type))
        elif mdev_type.instances is not None:
            limits.append(mdev_type.instances())
        if self.units is not None:
            taken = sum(device.type.units for device in self._devices)
            limits.append((self.units - taken) // mdev_type.units)
        return max(0, min(limits))

    def _made(self, mdev_type: MdevType) -> int:
        return sum(device.type is mdev_type for device in self._devices)

    def _require_free(self, mdev_type: MdevType) -> None:
        """Raise EUSERS where the core's counter ends, ENOSPC where the driver's does.

        The core's counter comes first: the driver's probe is not asked any more.
        """
        name = self.type_id(mdev_type)
        instances = mdev_type.instances
        if isinstance(instances, int) and self._made(mdev_type) >= instances:
            raise OSError(errno.EUSERS, f"all {instances} instances of {name} are made")
        if self.available_instances(mdev_type) == 0:
            raise OSError(errno.ENOSPC, f"nothing is left for one more {name}")


class MdevDevice:
    """One mdev (``struct mdev_device``): a UUID, a type, an IOMMU group of its own.

    ``MdevBus.create`` makes them.
    """

    def __init__(
        self, uuid: UUID, parent: MdevParent, mdev_type: MdevType, iommu_group: int
    ) -> None:
        self.uuid: Final = uuid
        self.parent: Final = parent
        self.type: Final = mdev_type
        self.iommu_group: Final = iommu_group
        self._is_active = False
        self._is_open = False

    @property
    def is_active(self) -> bool:
        """Tell whether it can be opened and removed: it was probed, and is there."""
        return self._is_active

    @property
    def is_open(self) -> bool:
        """Tell whether somebody holds its device fd."""
        return self._is_open

    def open(self, *, dma: Dma | None = None) -> DeviceFd:
        """Open the device fd around a fresh driver object, which reaches ``dma``.

        One opener at a time: EBUSY while an earlier device fd is not closed.  ENODEV
        if the mdev is not active.  Whatever the factory raises comes through, and
        the mdev can then be opened again.
        """
        if not self._is_active:
            raise OSError(errno.ENODEV, f"mdev {self.uuid} is not active")
        if self._is_open:
            raise OSError(errno.EBUSY, f"mdev {self.uuid} is open already")
        self._is_open = True
        try:
            return self._open_fresh(dma)
        except BaseException:
            self._is_open = False
            raise

    def _open_fresh(self, dma: Dma | None) -> DeviceFd:
        driver = self.type.make_driver()
        try:
            return DeviceFd(driver, on_close=self._closed, dma=dma)
        except BaseException:
            driver.close()
            raise

    def _closed(self) -> None:
        self._is_open = False


class MdevBus:
    """All parents and all mdevs of one system (``mdev_bus_type``)."""

    def __init__(self) -> None:
        self._parents: dict[str, MdevParent] = {}
        self._devices: dict[UUID, MdevDevice] = {}

    @property
    def parents(self) -> tuple[MdevParent, ...]:
        """Return the registered parents, the oldest first."""
        return tuple(self._parents.values())

    @property
    def devices(self) -> tuple[MdevDevice, ...]:
        """Return all mdevs, the oldest first."""
        return tuple(self._devices.values())

    def register_parent(self, parent: MdevParent) -> None:
        """Let mdevs be made of a parent (``mdev_register_parent``).

        EEXIST if its name is taken, EBUSY if it is registered elsewhere.
        """
        if parent.name in self._parents:
            raise OSError(errno.EEXIST, f"parent {parent.name} is registered already")
        if parent.is_registered:
            raise OSError(errno.EBUSY, f"parent {parent.name} is on another bus")
        self._parents[parent.name] = parent
        parent._is_registered = True

    def unregister_parent(self, parent: MdevParent) -> tuple[MdevDevice, ...]:
        """Take a parent away and return its mdevs, which go with it.

        ENODEV if it is not registered here.  EBUSY, and nothing changes, while one
        of its mdevs is open: see ``remove``.
        """
        if self._parents.get(parent.name) is not parent:
            raise OSError(errno.ENODEV, f"parent {parent.name} is not registered")
        devices = parent.devices
        for device in devices:
            require_closed(device)
        for device in devices:
            self.drop(device)
        del self._parents[parent.name]
        parent._is_registered = False
        return devices

    def create(self, parent: MdevParent, mdev_type: MdevType, uuid: UUID) -> MdevDevice:
        """Make an mdev that is not active yet; ``activate`` completes it.

        ENODEV if the parent is not registered here, EEXIST if any mdev of the system
        has the UUID, EUSERS or ENOSPC if no more can be made (see ``MdevType``).
        """
        if self._parents.get(parent.name) is not parent:
            raise OSError(errno.ENODEV, f"parent {parent.name} is not registered")
        if uuid in self._devices:
            raise OSError(errno.EEXIST, f"an mdev {uuid} exists already")
        parent._require_free(mdev_type)
        device = MdevDevice(uuid, parent, mdev_type, self._free_group())
        self._devices[uuid] = device
        parent._devices.append(device)
        return device

    def activate(self, device: MdevDevice) -> None:
        """Have the vendor driver probe a created mdev, then let it be opened.

        Whatever the probe raises comes through; the caller drops the mdev then.
        """
        if device.type.probe is not None:
            device.type.probe(device)
        device._is_active = True

    def remove(self, device: MdevDevice) -> None:
        """Remove an mdev on a user's behalf (``mdev_device_remove``).

        ENODEV if it is not there any more, EAGAIN if it is not active yet.

        EBUSY while it is open.  The kernel asks the user application to let go and
        blocks until it has; here one thread is everybody, so a wait would never end.
        """
        if self._devices.get(device.uuid) is not device:
            raise OSError(errno.ENODEV, f"mdev {device.uuid} is not there")
        require_closed(device)
        if not device.is_active:
            raise OSError(errno.EAGAIN, f"mdev {device.uuid} is not active yet")
        self.drop(device)

    def drop(self, device: MdevDevice) -> None:
        """Forget an mdev, active or not; its UUID, group and units are free again."""
        device._is_active = False
        del self._devices[device.uuid]
        device.parent._devices.remove(device)

    def device(self, uuid: UUID) -> MdevDevice:
        """Return the mdev with a UUID; ENODEV if there is none."""
        try:
            return self._devices[uuid]
        except KeyError:
            raise OSError(errno.ENODEV, f"there is no mdev {uuid}") from None

    def _free_group(self) -> int:
        taken = {device.iommu_group for device in self._devices.values()}
        return next(number for number in itertools.count() if number not in taken)


def require_closed(device: MdevDevice) -> None:
    """Raise EBUSY if a device fd of the mdev is open."""
    if device.is_open:
        raise OSError(errno.EBUSY, f"mdev {device.uuid} is open")


def _require_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        message = f"{name!r} cannot be the name of a directory in sysfs"
        raise ValueError(message)
