"""A device behind a vfio-user socket, as a vendor driver: what is asked of it is sent.

So it is migrated, checked and replayed as any other.  A server that ends, hangs or
talks garbage is a `DriverLostError`, with the access that it did not answer.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vfiomig.client.region import find_migration_region
from vfiomig.conformance.target_errors import TargetStartError
from vfiomig.conformance.vfio_user.rehearsal import rehearse
from vfiomig.protocol.errors import DriverLostError, VendorDriverError
from vfiomig.protocol.region import MigrationRegion
from vfiomig.uapi.ioctl import VFIO_DEVICE_RESET

if TYPE_CHECKING:
    from vfiomig.client.region import FoundRegion
    from vfiomig.client.vfio_user import VfioUserDevice
    from vfiomig.conformance.vfio_user.bench_file import BlackBox
    from vfiomig.conformance.vfio_user.servers import Servers
    from vfiomig.protocol.region import SparseMmapArea


class VfioUserDriver:
    """One session with a server; ``close`` ends it.

    With a `BlackBox` it has ``work`` and ``snapshot``.
    """

    def __init__(
        self,
        servers: Servers,
        device: VfioUserDevice,
        region: FoundRegion,
        black_box: BlackBox | None,
    ) -> None:
        self._servers = servers
        self._device = device
        self._index = region.index
        self._base = region.offset
        if black_box is not None and black_box.work:
            self.work = black_box.worker(device)
        if black_box is not None and black_box.state:
            self.snapshot = black_box.observer(device)

    @property
    def migration_region(self) -> MigrationRegion:
        """Ask for it again: a server may have changed its mind."""
        self._device.forget_region(self._index)
        region = find_migration_region(self._device, first=self._index)
        self._index, self._base = region.index, region.offset
        return MigrationRegion(size=region.size, areas=region.listed)

    def read(self, offset: int, size: int) -> bytes:
        """REGION_READ."""
        return self._device.pread(size, self._base + offset)

    def write(self, offset: int, data: bytes) -> None:
        """REGION_WRITE; OSError(EIO) where not all of it was taken."""
        taken = self._device.pwrite(data, self._base + offset)
        if taken != len(data):
            raise OSError(errno.EIO, f"{taken} bytes of {len(data)} were taken")

    def mmap(self, area: SparseMmapArea) -> tuple[int, int]:
        """Return the file that came with the region, and the area's offset in it."""
        return self._device.backing(area.size, self._base + area.offset)

    def reset(self) -> None:
        """DEVICE_RESET."""
        self._device.ioctl(VFIO_DEVICE_RESET())

    def close(self) -> None:
        """Disconnect."""
        self._servers.let_go(self._device)


def new_driver(
    servers: Servers, limit: float, black_box: BlackBox | None
) -> VfioUserDriver:
    """Begin a session, and find the migration region.

    Raises:
        TargetStartError: there is no server, it refuses, or has no such region.
    """
    if black_box is not None and black_box not in servers.rehearsed:
        _rehearse(servers, limit, black_box)
        servers.rehearsed.append(black_box)
    device, region = _found(servers, limit)
    return VfioUserDriver(servers, device, region, black_box)


def _found(servers: Servers, limit: float) -> tuple[VfioUserDevice, FoundRegion]:
    device = servers.connect(limit)
    try:
        region = find_migration_region(device, first=servers.index)
    except (OSError, VendorDriverError) as error:
        servers.let_go(device)
        if isinstance(error, DriverLostError):
            raise
        raise TargetStartError(f"{servers.name}: {error}") from error
    servers.index = region.index
    return device, region


def _rehearse(servers: Servers, limit: float, black_box: BlackBox) -> None:
    """Try a bench file, in a session of its own."""
    device, region = _found(servers, limit)
    try:
        rehearse(black_box, device, region.offset)
    except TargetStartError as error:
        raise TargetStartError(f"{servers.name}: {error}") from error
    except DriverLostError:
        return  # of what killed it the rules tell
    finally:
        servers.let_go(device)
