"""The folder /dev/vfio: what opening a path of it gives."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.host.container import Container
from vfiomig.host.group import Group
from vfiomig.host.iommu import DEFAULT_LIMITS, IommuLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.host.group import Wrap
    from vfiomig.host.user_process import HostFile

_FOLDER: Final = "/dev/vfio/"
_CONTAINER: Final = "vfio"


class DevVfio:
    """All groups by number, each with factories of drivers by the device's name.

    ``LocalProcess(dev_vfio.open)`` is a process that has them.  Every container is a
    new one, with the same ``limits``; for ``wrap`` see `Group`.
    """

    def __init__(
        self,
        groups: Mapping[int, Mapping[str, Callable[[], TrappedDriver]]],
        limits: IommuLimits = DEFAULT_LIMITS,
        *,
        wrap: Wrap | None = None,
    ) -> None:
        self._limits = limits
        self._groups = {
            str(number): Group(devices, wrap=wrap) for number, devices in groups.items()
        }

    def open(self, path: str) -> HostFile:
        """Open a path.

        Raises:
            OSError: ENOENT for a path that is not there, EBUSY for a group in use.
        """
        folder, name = path[: len(_FOLDER)], path[len(_FOLDER) :]
        if folder == _FOLDER and name == _CONTAINER:
            return Container(self._limits)
        if folder == _FOLDER and name in self._groups:
            return self._groups[name].open()
        raise OSError(errno.ENOENT, f"there is no {path}")
