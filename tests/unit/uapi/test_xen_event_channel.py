"""Event channels' numbers are those of Xen's public headers, which nobody installs."""

from __future__ import annotations

from typing import Final

from vfiomig.uapi import xen_event_channel

# Typed in from event_channel.h (EVTCHNOP_status) and xen.h of Xen 4.17.
NUMBERS: Final = {
    **{
        f"EVTCHNSTAT_{name}": number
        for number, name in enumerate(
            ("closed", "unbound", "interdomain", "pirq", "virq", "ipi")
        )
    },
    **{
        f"VIRQ_{name}": number
        for name, number in (
            ("TIMER", 0),
            ("DEBUG", 1),
            ("CONSOLE", 2),
            ("DOM_EXC", 3),
            ("TBUF", 4),
            ("DEBUGGER", 6),
            ("XENOPROF", 7),
            ("CON_RING", 8),
            ("PCPU_STATE", 9),
            ("MEM_EVENT", 10),
            ("ARGO", 11),
            ("ENOMEM", 12),
            ("XENPMU", 13),
            ("ARCH_0", 16),
        )
    },
    "NR_VIRQS": 24,
    "DOMID_QEMU": 0,
    "DOMID_SELF": 0x7FF0,
}


def test_numbers_have_their_values() -> None:
    ours = {
        name: value
        for name, value in vars(xen_event_channel).items()
        if isinstance(value, int)
    }
    assert ours == NUMBERS
