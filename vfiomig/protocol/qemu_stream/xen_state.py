"""What of a Xen guest moves beside its RAM: the values of four sections.

============== ======== ===================================================
section        instance
============== ======== ===================================================
xen_overlay    0        where shared_info is, and in which layout
xen_evtchn     0        the event channels' table
xen_vcpu       of vCPU  what QEMU has in ``cpu/xen_vcpu``, a subsection of x86's
                        ``cpu``: the guest here has no x86 vCPUs, so it is a
                        section of its own, with QEMU's fields
xen_xenstore   0        the store, and what is on its way to and from the guest
============== ======== ===================================================

Names of fields are QEMU's.  From hw/i386/kvm/xen_overlay.c, xen_evtchn.c,
xen_xenstore.c and target/i386/machine.c, 10.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

UNMAPPED: Final = (1 << 64) - 1  # an address that is none (INVALID_GPA)

GSIS: Final = 24
PIRQ_WORDS: Final = 4  # of the bitmap: pirqs below 256, QEMU's default
VIRQS: Final = 24

MOST_PORTS: Final = 4096  # of 64-bit 2-level; port 0 is none, but counts here
DATA_SIZE: Final = 4112  # req_data, rsp_data: a header and a payload
# A store that was filled up to its quotas, each of ten transactions once more, has
# some 22 MiB; of the longest names and permissions, some 57.
IMPL_STATE_MOST: Final = 64 << 20
EVENTS_MOST: Final = 16 << 20


class XenOverlay(NamedTuple):
    """``xen_overlay``: where shared_info lies, or `UNMAPPED`."""

    shinfo_gpa: int = UNMAPPED
    long_mode: bool = False


class XenPort(NamedTuple):
    """A row of the table of event channels: ``type`` is one of EVTCHNSTAT_*.

    ``val`` of an interdomain one is the port at the other end, and `REMOTE_QEMU` if
    that is QEMU; of an unbound one that bit alone; of a VIRQ or PIRQ its number.
    """

    vcpu: int
    type: int
    val: int


REMOTE_QEMU: Final = 0x8000


class XenEventChannels(NamedTuple):
    """``xen_evtchn``; ``ports`` are by number, the first of them none."""

    callback_param: int = 0
    ports: tuple[XenPort, ...] = ()
    gsi_pirq: tuple[int, ...] = (0,) * GSIS
    pirq_inuse_bitmap: tuple[int, ...] = (0,) * PIRQ_WORDS
    pirq_gsi_set: int = 0


class XenVcpu(NamedTuple):
    """``xen_vcpu``: where a vCPU's structures are, and how it is told of events."""

    vcpu_info_gpa: int = UNMAPPED
    vcpu_info_default_gpa: int = UNMAPPED
    vcpu_time_info_gpa: int = UNMAPPED
    runstate_gpa: int = UNMAPPED
    callback_vector: int = 0
    virq: tuple[int, ...] = (0,) * VIRQS
    singleshot_timer_ns: int = 0
    periodic_timer_period: int = 0


class XenStoreDevice(NamedTuple):
    """``xen_xenstore``: QEMU's end of the ring, and the store itself.

    ``request`` is what was read of a request, ``response`` a message of which
    ``sent`` bytes are in the ring, or nothing.  ``impl_state`` is the store
    (`XenStore.serialize`).  ``events`` are watch events that wait for the guest
    (`XenStore.serialize_events`), or nothing: QEMU loses them, so they are a
    subsection ``xen_xenstore/watch_events`` of ours, which is sent if there are some.
    """

    request: bytes = b""
    response: bytes = b""
    sent: int = 0
    guest_port: int = 0
    fatal_error: bool = False
    impl_state: bytes = b""
    events: bytes = b""


XenPart: TypeAlias = XenOverlay | XenEventChannels | XenVcpu | XenStoreDevice


class XenState(NamedTuple):
    """All of it, in the order in which it goes: the store last."""

    overlay: XenOverlay
    event_channels: XenEventChannels
    vcpus: tuple[XenVcpu, ...]
    store: XenStoreDevice

    def parts(self) -> Iterator[tuple[int, XenPart]]:
        """Yield each with its instance."""
        yield 0, self.overlay
        yield 0, self.event_channels
        yield from enumerate(self.vcpus)
        yield 0, self.store
