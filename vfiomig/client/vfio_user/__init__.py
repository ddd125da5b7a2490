"""Devices of vfio-user servers: a device handle over a unix socket."""

from vfiomig.client.vfio_user.connecting import BusyError, ConnectError, connect
from vfiomig.client.vfio_user.device import VfioUserDevice

__all__ = ["BusyError", "ConnectError", "VfioUserDevice", "connect"]
