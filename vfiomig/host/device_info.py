"""What ioctls on a device fd answer that change nothing: values in, bytes out.

Rule: an argument begins with the bytes that its structure had in the first kernels,
argsz among them.  Each function is given those and returns what is to be copied back
to the start of the argument, never more than argsz.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, NoReturn

from vfiomig.host.region import (
    MIGRATION_INDEX,
    NUM_REGIONS,
    absent_region_info,
    plain_region_info,
)
from vfiomig.uapi.ioctl import (
    VFIO_DEVICE_FEATURE,
    VFIO_DEVICE_GET_INFO,
    VFIO_DEVICE_GET_IRQ_INFO,
    VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
    VFIO_DEVICE_GET_REGION_INFO,
    VFIO_DEVICE_PCI_HOT_RESET,
    VFIO_DEVICE_RESET,
    VFIO_DEVICE_SET_IRQS,
)
from vfiomig.uapi.pci import PCI_CFG_SPACE_SIZE
from vfiomig.uapi.vfio import (
    VFIO_DEVICE_FEATURE_GET,
    VFIO_DEVICE_FEATURE_MASK,
    VFIO_DEVICE_FEATURE_PROBE,
    VFIO_DEVICE_FEATURE_SET,
    VFIO_DEVICE_FLAGS_PCI,
    VFIO_DEVICE_FLAGS_RESET,
    VFIO_PCI_CONFIG_REGION_INDEX,
    VFIO_PCI_NUM_IRQS,
    VFIO_PCI_ROM_REGION_INDEX,
    VFIO_PCI_VGA_REGION_INDEX,
    vfio_device_feature,
    vfio_device_info,
    vfio_irq_info,
    vfio_irq_set,
    vfio_pci_hot_reset,
    vfio_pci_hot_reset_info,
    vfio_region_info,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vfiomig.host.interrupts import Interrupts
    from vfiomig.host.pci import Bar

# The numbers once: an ioctl compares with them.
GET_INFO: Final = VFIO_DEVICE_GET_INFO()
GET_REGION_INFO: Final = VFIO_DEVICE_GET_REGION_INFO()
GET_IRQ_INFO: Final = VFIO_DEVICE_GET_IRQ_INFO()
SET_IRQS: Final = VFIO_DEVICE_SET_IRQS()
RESET: Final = VFIO_DEVICE_RESET()
GET_HOT_RESET_INFO: Final = VFIO_DEVICE_GET_PCI_HOT_RESET_INFO()
HOT_RESET: Final = VFIO_DEVICE_PCI_HOT_RESET()
FEATURE: Final = VFIO_DEVICE_FEATURE()

# How much of its structure each request needs: "minsz", up to the end of this field.
MINIMUM: Final[Mapping[int, int]] = {
    request: field.offset + field.size
    for request, field in (
        (GET_INFO, vfio_device_info.num_irqs),  # cap_offset came later
        (GET_REGION_INFO, vfio_region_info.offset),
        (GET_IRQ_INFO, vfio_irq_info.count),
        (SET_IRQS, vfio_irq_set.count),
        (GET_HOT_RESET_INFO, vfio_pci_hot_reset_info.count),
        (HOT_RESET, vfio_pci_hot_reset.count),
        (FEATURE, vfio_device_feature.flags),
    )
}

_INDEX: Final = slice(vfio_region_info.index.offset, vfio_region_info.cap_offset.offset)
_CAP_OFFSET: Final = slice(
    vfio_region_info.cap_offset.offset, vfio_region_info.size.offset
)
_REGION_INFO_SIZE: Final = MINIMUM[GET_REGION_INFO]
_FEATURE_FLAGS: Final = (
    VFIO_DEVICE_FEATURE_MASK
    | VFIO_DEVICE_FEATURE_GET
    | VFIO_DEVICE_FEATURE_SET
    | VFIO_DEVICE_FEATURE_PROBE
)


def argsz_of(head: bytes | bytearray) -> int:
    """Return how large an argument says it is."""
    return int.from_bytes(head[:4], "little")


def device_info(head: bytes) -> bytes:
    """Answer VFIO_DEVICE_GET_INFO."""
    info = vfio_device_info(
        argsz=argsz_of(head),
        flags=VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI,
        num_regions=NUM_REGIONS,
        num_irqs=VFIO_PCI_NUM_IRQS,
    )
    return bytes(info)[: argsz_of(head)]  # ABI-INFO-06


def region_info(
    head: bytes, migration: Callable[[], bytes], bar: Callable[[int], Bar]
) -> bytes:
    """Answer VFIO_DEVICE_GET_REGION_INFO; OSError(EINVAL) for an unknown index.

    ``migration`` makes the info of that region, with its whole capability chain.
    """
    index = int.from_bytes(head[_INDEX], "little")
    if index >= NUM_REGIONS or index == VFIO_PCI_VGA_REGION_INDEX:
        _refuse(f"no region has the index {index}")
    if index == MIGRATION_INDEX:
        return _fitted(migration(), head)
    if index == VFIO_PCI_CONFIG_REGION_INDEX:
        size = PCI_CFG_SPACE_SIZE
    else:
        size = 0 if index == VFIO_PCI_ROM_REGION_INDEX else bar(index).size
    info = plain_region_info(index, size) if size else absent_region_info(index)
    return head[:4] + info[4:]


def _fitted(answer: bytes, head: bytes) -> bytes:
    if len(answer) > argsz_of(head):
        # ABI-INFO-03: say how much it takes, and give no chain.
        short = bytearray(answer[:_REGION_INFO_SIZE])
        short[_CAP_OFFSET] = bytes(4)
        return bytes(short)
    return head[:4] + answer[4:]


def irq_info(head: bytes, interrupts: Interrupts) -> bytes:
    """Answer VFIO_DEVICE_GET_IRQ_INFO; OSError(EINVAL) for an unknown index."""
    info = vfio_irq_info.from_buffer_copy(head)
    info.flags, info.count = interrupts.info(info.index)
    return bytes(info)


def refuse_hot_reset(request: int, head: bytes) -> NoReturn:
    """Answer both ioctls of hot resets: there is no slot or bus to reset (ENODEV).

    linux/vfio.h: "-enodev = unsupported for device".  QEMU then says so and goes on.
    """
    if request == HOT_RESET and vfio_pci_hot_reset.from_buffer_copy(head).flags:
        _refuse("a hot reset has no flags")
    raise OSError(errno.ENODEV, "neither a slot nor a bus can be reset")


def refuse_feature(head: bytes) -> NoReturn:
    """Answer VFIO_DEVICE_FEATURE: there is no feature (V2-FEAT-02, -03, -06)."""
    flags = vfio_device_feature.from_buffer_copy(head).flags
    both = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET
    if flags & ~_FEATURE_FLAGS:
        _refuse(f"unknown flags {flags & ~_FEATURE_FLAGS:#x}")
    if flags & both == both and not flags & VFIO_DEVICE_FEATURE_PROBE:
        _refuse("GET and SET at once")
    feature = flags & VFIO_DEVICE_FEATURE_MASK
    raise OSError(errno.ENOTTY, f"no feature has the index {feature}")


def _refuse(why: str) -> NoReturn:
    raise OSError(errno.EINVAL, why)
