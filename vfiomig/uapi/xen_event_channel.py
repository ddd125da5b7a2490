"""Numbers of Xen's event channels: what a port is, the virtual interrupts, domains.

Source: Xen's public event_channel.h and xen.h, 4.17.  ``DOMID_QEMU`` is QEMU's own name
(include/hw/xen/xen.h, 10.0) for the domain that it stands for.
"""

from __future__ import annotations

from typing import Final

# What a port is.
EVTCHNSTAT_closed: Final = 0
EVTCHNSTAT_unbound: Final = 1
EVTCHNSTAT_interdomain: Final = 2
EVTCHNSTAT_pirq: Final = 3
EVTCHNSTAT_virq: Final = 4
EVTCHNSTAT_ipi: Final = 5

# Virtual interrupts: of each vCPU (V), or of the guest (G).
VIRQ_TIMER: Final = 0  # V
VIRQ_DEBUG: Final = 1  # V
VIRQ_CONSOLE: Final = 2  # G
VIRQ_DOM_EXC: Final = 3  # G
VIRQ_TBUF: Final = 4  # G
VIRQ_DEBUGGER: Final = 6  # G
VIRQ_XENOPROF: Final = 7  # V
VIRQ_CON_RING: Final = 8  # G
VIRQ_PCPU_STATE: Final = 9  # G
VIRQ_MEM_EVENT: Final = 10  # G
VIRQ_ARGO: Final = 11  # G
VIRQ_ENOMEM: Final = 12  # G
VIRQ_XENPMU: Final = 13  # V
VIRQ_ARCH_0: Final = 16  # and seven more
NR_VIRQS: Final = 24

DOMID_QEMU: Final = 0
DOMID_SELF: Final = 0x7FF0  # of the caller
