"""Xen's layouts are those of reference/qemu_stream_and_xen.md, E1, and of Linux 6.1.

No installed header has shared_info; <asm/kvm_para.h> has kvm_steal_time, and is asked.
"""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from vfiomig.uapi import xen

if TYPE_CHECKING:
    from pathlib import Path

# Size, then (name, offset, width) of what a guest or a host looks at.
LAYOUTS: Final = {
    "pvclock_vcpu_time_info": (
        32,
        [
            ("version", 0, 4),
            ("tsc_timestamp", 8, 8),
            ("system_time", 16, 8),
            ("tsc_to_system_mul", 24, 4),
            ("tsc_shift", 28, 1),
            ("flags", 29, 1),
            ("pad", 30, 2),
        ],
    ),
    "pvclock_wall_clock": (12, [("version", 0, 4), ("sec", 4, 4), ("nsec", 8, 4)]),
    "arch_vcpu_info": (16, [("cr2", 0, 8)]),
    "vcpu_info": (
        64,
        [
            ("evtchn_upcall_pending", 0, 1),
            ("evtchn_upcall_mask", 1, 1),
            ("evtchn_pending_sel", 8, 8),
            ("arch", 16, 16),
            ("time", 32, 32),
        ],
    ),
    "arch_shared_info": (48, [("nmi_reason", 16, 8), ("p2m_generation", 40, 8)]),
    "shared_info": (
        3136,
        [
            ("vcpu_info", 0, 2048),
            ("evtchn_pending", 0x800, 512),
            ("evtchn_mask", 0xA00, 512),
            ("wc", 0xC00, 12),
            ("wc_sec_hi", 0xC0C, 4),
            ("arch", 0xC10, 48),
        ],
    ),
    "compat_arch_vcpu_info": (24, [("cr2", 0, 4), ("pad", 4, 20)]),
    "compat_vcpu_info": (
        64,
        [
            ("evtchn_upcall_pending", 0, 1),
            ("evtchn_upcall_mask", 1, 1),
            ("evtchn_pending_sel", 4, 4),
            ("arch", 8, 24),
            ("time", 32, 32),
        ],
    ),
    # 0x924 in the page
    "compat_arch_shared_info": (28, [("wc_sec_hi", 0x924 - 0x90C, 4)]),
    "compat_shared_info": (
        2344,
        [
            ("vcpu_info", 0, 2048),
            ("evtchn_pending", 0x800, 128),
            ("evtchn_mask", 0x880, 128),
            ("wc", 0x900, 12),
            ("arch", 0x90C, 28),
        ],
    ),
    # KVM asserts 0x30 and 0x2c, and that the times begin at 8 and 4.
    "vcpu_runstate_info": (
        0x30,
        [("state", 0, 4), ("state_entry_time", 8, 8), ("time", 16, 32)],
    ),
    "compat_vcpu_runstate_info": (
        0x2C,
        [("state", 0, 4), ("state_entry_time", 4, 8), ("time", 12, 32)],
    ),
    "kvm_steal_time": (
        64,
        [("steal", 0, 8), ("version", 8, 4), ("flags", 12, 4), ("preempted", 16, 1)],
    ),
}


def structures() -> dict[str, type[ctypes.Structure]]:
    return {
        name: value
        for name, value in vars(xen).items()
        if isinstance(value, type) and issubclass(value, ctypes.Structure)
    }


def test_every_structure_is_held_against_its_layout() -> None:
    assert structures().keys() == LAYOUTS.keys()


@pytest.mark.parametrize("name", LAYOUTS)
def test_fields_lie_where_xen_and_linux_have_them(name: str) -> None:
    structure, (size, fields) = structures()[name], LAYOUTS[name]
    found = [(field, getattr(structure, field)) for field, *_ in fields]
    assert [(field, at.offset, at.size) for field, at in found] == fields
    assert ctypes.sizeof(structure) == size


def test_the_system_s_header_has_steal_time_alike(tmp_path: Path) -> None:
    if shutil.which("cc") is None or platform.machine() != "x86_64":
        pytest.skip("no cc, or no x86")
    fields = [name for name, *_ in xen.kvm_steal_time._fields_]
    lines = ["#include <stddef.h>", "#include <stdio.h>", "#include <asm/kvm_para.h>"]
    lines += ["int main(void)", "{"]
    lines += ['\tprintf("%zu\\n", sizeof(struct kvm_steal_time));']
    lines += [
        f'\tprintf("%zu\\n", offsetof(struct kvm_steal_time, {name}));'
        for name in fields
    ]
    lines += [f'\tprintf("%d\\n", {name});' for name in ("KVM_VCPU_PREEMPTED",)]
    source, binary = tmp_path / "steal.c", tmp_path / "steal"
    source.write_text("\n".join([*lines, "\treturn 0;", "}", ""]))
    subprocess.run(["cc", "-O0", "-o", str(binary), str(source)], check=True)
    printed = [int(each) for each in subprocess.check_output([binary]).split()]
    ours = [getattr(xen.kvm_steal_time, name).offset for name in fields]
    assert printed == [64, *ours, xen.KVM_VCPU_PREEMPTED]


def test_numbers_have_their_values() -> None:
    states = (
        xen.RUNSTATE_running,
        xen.RUNSTATE_runnable,
        xen.RUNSTATE_blocked,
        xen.RUNSTATE_offline,
    )
    assert states == (0, 1, 2, 3)
    assert xen.XEN_RUNSTATE_UPDATE == 0x8000_0000_0000_0000
    assert (xen.PVCLOCK_TSC_STABLE_BIT, xen.PVCLOCK_GUEST_STOPPED) == (1, 2)
    assert (
        xen.HVM_PARAM_CALLBACK_TYPE_GSI,
        xen.HVM_PARAM_CALLBACK_TYPE_PCI_INTX,
        xen.HVM_PARAM_CALLBACK_TYPE_VECTOR,
        xen.HVM_PARAM_CALLBACK_TYPE_SHIFT,
    ) == (0, 1, 2, 56)
