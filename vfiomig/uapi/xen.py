"""What a Xen guest shares with its host: shared_info, vcpu_info, times.

Source: Xen's public xen.h, arch-x86/xen.h, vcpu.h and hvm/params.h; Linux 6.1's
<asm/pvclock-abi.h>, arch/x86/kvm/xen.h for what a 32-bit guest has (``compat_``), and
<asm/kvm_para.h>.

A 32-bit x86 guest aligns 64-bit numbers to 4 bytes.
"""

from __future__ import annotations

import ctypes
from typing import Final

XEN_LEGACY_MAX_VCPUS: Final = 32  # those that have a vcpu_info in shared_info
XEN_PAGE_SIZE: Final = 4096

# Flags of pvclock_vcpu_time_info.
PVCLOCK_TSC_STABLE_BIT: Final = 1 << 0
PVCLOCK_GUEST_STOPPED: Final = 1 << 1

# States of vcpu_runstate_info; the bit of state_entry_time that says: being written.
RUNSTATE_running: Final = 0
RUNSTATE_runnable: Final = 1
RUNSTATE_blocked: Final = 2
RUNSTATE_offline: Final = 3
XEN_RUNSTATE_UPDATE: Final = 1 << 63

KVM_VCPU_PREEMPTED: Final = 1 << 0  # of kvm_steal_time.preempted

# HVM_PARAM_CALLBACK_IRQ: the type is in the uppermost byte, what follows is its value.
HVM_PARAM_CALLBACK_TYPE_SHIFT: Final = 56
HVM_PARAM_CALLBACK_TYPE_GSI: Final = 0
HVM_PARAM_CALLBACK_TYPE_PCI_INTX: Final = 1
HVM_PARAM_CALLBACK_TYPE_VECTOR: Final = 2


class pvclock_vcpu_time_info(ctypes.Structure):
    """The time of a vCPU; an odd version is being written."""

    _fields_ = (
        ("version", ctypes.c_uint32),
        ("pad0", ctypes.c_uint32),
        ("tsc_timestamp", ctypes.c_uint64),
        ("system_time", ctypes.c_uint64),
        ("tsc_to_system_mul", ctypes.c_uint32),
        ("tsc_shift", ctypes.c_int8),
        ("flags", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 2),
    )


class pvclock_wall_clock(ctypes.Structure):
    """The wall clock when the machine's system_time was 0; odd as above."""

    _fields_ = (
        ("version", ctypes.c_uint32),
        ("sec", ctypes.c_uint32),
        ("nsec", ctypes.c_uint32),
    )


class arch_vcpu_info(ctypes.Structure):
    """x86's part of a 64-bit guest's vcpu_info."""

    _fields_ = (("cr2", ctypes.c_uint64), ("pad", ctypes.c_uint64))


class vcpu_info(ctypes.Structure):
    """What a 64-bit guest's vCPU has for itself."""

    _fields_ = (
        ("evtchn_upcall_pending", ctypes.c_uint8),
        ("evtchn_upcall_mask", ctypes.c_uint8),
        ("evtchn_pending_sel", ctypes.c_uint64),
        ("arch", arch_vcpu_info),
        ("time", pvclock_vcpu_time_info),
    )


class arch_shared_info(ctypes.Structure):
    """x86's part of a 64-bit guest's shared_info."""

    _fields_ = (
        ("max_pfn", ctypes.c_uint64),
        ("pfn_to_mfn_frame_list_list", ctypes.c_uint64),
        ("nmi_reason", ctypes.c_uint64),
        ("p2m_cr3", ctypes.c_uint64),
        ("p2m_vaddr", ctypes.c_uint64),
        ("p2m_generation", ctypes.c_uint64),
    )


class shared_info(ctypes.Structure):
    """The page that a 64-bit guest and its host share."""

    _fields_ = (
        ("vcpu_info", vcpu_info * XEN_LEGACY_MAX_VCPUS),
        ("evtchn_pending", ctypes.c_uint64 * 64),
        ("evtchn_mask", ctypes.c_uint64 * 64),
        ("wc", pvclock_wall_clock),
        ("wc_sec_hi", ctypes.c_uint32),
        ("arch", arch_shared_info),
    )


class compat_arch_vcpu_info(ctypes.Structure):
    """x86's part of a 32-bit guest's vcpu_info."""

    _fields_ = (("cr2", ctypes.c_uint32), ("pad", ctypes.c_uint32 * 5))


class compat_vcpu_info(ctypes.Structure):
    """What a 32-bit guest's vCPU has for itself."""

    _fields_ = (
        ("evtchn_upcall_pending", ctypes.c_uint8),
        ("evtchn_upcall_mask", ctypes.c_uint8),
        ("pad", ctypes.c_uint16),
        ("evtchn_pending_sel", ctypes.c_uint32),
        ("arch", compat_arch_vcpu_info),
        ("time", pvclock_vcpu_time_info),
    )


class compat_arch_shared_info(ctypes.Structure):
    """x86's part of a 32-bit guest's shared_info."""

    _fields_ = (
        ("max_pfn", ctypes.c_uint32),
        ("pfn_to_mfn_frame_list_list", ctypes.c_uint32),
        ("nmi_reason", ctypes.c_uint32),
        ("p2m_cr3", ctypes.c_uint32),
        ("p2m_vaddr", ctypes.c_uint32),
        ("p2m_generation", ctypes.c_uint32),
        ("wc_sec_hi", ctypes.c_uint32),
    )


class compat_shared_info(ctypes.Structure):
    """The page that a 32-bit guest and its host share."""

    _fields_ = (
        ("vcpu_info", compat_vcpu_info * XEN_LEGACY_MAX_VCPUS),
        ("evtchn_pending", ctypes.c_uint32 * 32),
        ("evtchn_mask", ctypes.c_uint32 * 32),
        ("wc", pvclock_wall_clock),
        ("arch", compat_arch_shared_info),
    )


class vcpu_runstate_info(ctypes.Structure):
    """How long a 64-bit guest's vCPU was in which state: nanoseconds."""

    _fields_ = (
        ("state", ctypes.c_int32),
        ("state_entry_time", ctypes.c_uint64),
        ("time", ctypes.c_uint64 * 4),
    )


class compat_vcpu_runstate_info(ctypes.Structure):
    """A 32-bit guest's: the same without the gap."""

    _pack_ = 4
    _fields_ = vcpu_runstate_info._fields_


class kvm_steal_time(ctypes.Structure):
    """Nanoseconds in which a vCPU wanted to run and did not; odd as above."""

    _fields_ = (
        ("steal", ctypes.c_uint64),
        ("version", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("preempted", ctypes.c_uint8),
        ("u8_pad", ctypes.c_uint8 * 3),
        ("pad", ctypes.c_uint32 * 11),
    )
