"""Where the fields of shared_info and vcpu_info are: two layouts, as data.

Which one a guest has is the VM's, not a vCPU's: whether it was in long mode when it set
up its hypercall page (KVM_XEN_ATTR_TYPE_LONG_MODE).
"""

from __future__ import annotations

import ctypes
import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.uapi import xen

if TYPE_CHECKING:
    from collections.abc import Mapping

VCPU_INFO_SIZE: Final = ctypes.sizeof(xen.vcpu_info)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Offsets in bytes: of shared_info in its page, the last ones in vcpu_info."""

    word: int  # bytes of xen_ulong_t
    ports: int  # 2-level: a word of words; port 0 is none
    size: int  # of shared_info
    pending: int
    mask: int
    wall_clock: int
    wall_clock_high: int  # wc_sec_hi
    runstate: type[ctypes.Structure]
    selector: int  # evtchn_pending_sel
    time: int
    upcall: int = xen.vcpu_info.evtchn_upcall_pending.offset

    @property
    def bits(self) -> int:
        """Bits of a word."""
        return 8 * self.word


_ARCH_32: Final = xen.compat_shared_info.arch.offset
LAYOUTS: Final[Mapping[int, Layout]] = {
    64: Layout(
        word=8,
        ports=64 * 64,
        size=ctypes.sizeof(xen.shared_info),
        pending=xen.shared_info.evtchn_pending.offset,
        mask=xen.shared_info.evtchn_mask.offset,
        wall_clock=xen.shared_info.wc.offset,
        wall_clock_high=xen.shared_info.wc_sec_hi.offset,
        runstate=xen.vcpu_runstate_info,
        selector=xen.vcpu_info.evtchn_pending_sel.offset,
        time=xen.vcpu_info.time.offset,
    ),
    32: Layout(
        word=4,
        ports=32 * 32,
        size=ctypes.sizeof(xen.compat_shared_info),
        pending=xen.compat_shared_info.evtchn_pending.offset,
        mask=xen.compat_shared_info.evtchn_mask.offset,
        wall_clock=xen.compat_shared_info.wc.offset,
        wall_clock_high=_ARCH_32 + xen.compat_arch_shared_info.wc_sec_hi.offset,
        runstate=xen.compat_vcpu_runstate_info,
        selector=xen.compat_vcpu_info.evtchn_pending_sel.offset,
        time=xen.compat_vcpu_info.time.offset,
    ),
}


def default_vcpu_info(vcpu: int) -> int:
    """Return where in shared_info a vCPU's vcpu_info is that was not registered.

    Raises ``OSError(EINVAL)`` for one that has none there.
    """
    if not 0 <= vcpu < xen.XEN_LEGACY_MAX_VCPUS:
        message = f"vCPU {vcpu} has no vcpu_info in shared_info: register one"
        raise OSError(errno.EINVAL, message)
    return VCPU_INFO_SIZE * vcpu
