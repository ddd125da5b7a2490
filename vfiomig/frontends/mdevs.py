"""Making mdevs as a person makes them: a type of a parent, a UUID to its ``create``."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from vfiomig.host.mdev import MdevParent

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from vfiomig.host.mdev import MdevDevice, MdevType
    from vfiomig.host.sysfs import Sysfs

_PARENT: Final = "vfiomig"


def offer_types(sysfs: Sysfs, types: Sequence[MdevType]) -> None:
    """Register a parent with these types."""
    sysfs.register_parent(MdevParent(_PARENT, types))


def create_mdev(sysfs: Sysfs, name: str, luck: random.Random) -> MdevDevice:
    """Make an mdev of the type of that name, with the next UUID that luck gives."""
    known = str(uuid.UUID(int=luck.getrandbits(128), version=4))
    create = f"mdev_supported_types/{_PARENT}-{name}/create"
    sysfs.write(f"/devices/virtual/{_PARENT}/{create}", known)
    return sysfs.device(known)
