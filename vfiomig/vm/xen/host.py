"""A Xen guest's host, as QEMU is one under KVM: pages, event channels, the store.

Rule 1: shared_info and the store's ring are blocks of RAM of their own, which lie over
the guest's (`overlay`).  So they move as RAM does, wherever the guest has put them.

Rule 2: what else moves is `save`: four kinds of sections, the store last.  What the
guest does not see, its back ends, is made anew on the other side.

Source: hw/i386/kvm/xen_overlay.c, xen_evtchn.c, xen_xenstore.c of QEMU 10.0.
"""

from __future__ import annotations

import ctypes
import errno
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.qemu_stream.xen_state import (
    UNMAPPED,
    XenEventChannels,
    XenOverlay,
    XenPart,
    XenState,
    XenStoreDevice,
    XenVcpu,
)
from vfiomig.uapi import xen
from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.layout import ABOVE_4G, pc_slots
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.ram_block import PAGE_SIZE, RamBlock
from vfiomig.vm.xen.event_channel import EventChannels
from vfiomig.vm.xen.guest_page import WAYS
from vfiomig.vm.xen.overlay import overlaid
from vfiomig.vm.xen.ports import EventPorts, HostEnd
from vfiomig.vm.xen.shared_info import LAYOUTS, VCPU_INFO_SIZE
from vfiomig.vm.xen.vcpu_time import write_versioned
from vfiomig.vm.xen.xenstore import Quirks, XenStore
from vfiomig.vm.xen.xenstore_reader import read_events
from vfiomig.vm.xen.xenstore_service import XenStoreService
from vfiomig.vm.xen.xenstore_stream import write_events

if TYPE_CHECKING:
    from vfiomig.vm.xen.event_channel import Notifier

SHARED_INFO: Final = "xen:shared_info"
STORE_PAGE: Final = "xen:xenstore_page"
STORE_RING: Final = 0xFEFF_9000  # where that page is
DOMID: Final = 1  # xen_domid's default
TIME_INFO_SIZE: Final = ctypes.sizeof(xen.pvclock_vcpu_time_info)
_LONG_MODE: Final = 64
_ONE_TO_ONE: Final = 1 << 31  # with a shift of 1: the TSC counts nanoseconds
_NO_EVENTS: Final = write_events(())


def memory_of(size: int, machine: str = "pc", above: int = ABOVE_4G) -> GuestMemory:
    """Return a PC's RAM (`pc_slots`) with the pages of a Xen guest beside it.

    The store's ring is where it belongs; shared_info is nowhere yet.

    Raises:
        ValueError: no such machine; RAM that is not whole pages.
    """
    blocks: list[RamBlock] = []
    try:
        blocks.append(RamBlock("pc.ram", size))
        blocks += (RamBlock(name, PAGE_SIZE) for name in (SHARED_INFO, STORE_PAGE))
        slots = pc_slots(blocks[0], machine, above)
        return GuestMemory(blocks, overlaid(slots, STORE_RING, blocks[-1]))
    except BaseException:
        for block in blocks:
            block.close()
        raise


class XenHost:
    """What the host has for one guest; ``memory`` is one of `memory_of`.

    ``way`` is a key of `WAYS`, ``bits`` one of `LAYOUTS` until the guest says which.
    ``notifier`` is told when a vCPU has an upcall.  ``channels`` is None until
    shared_info is somewhere.
    """

    def __init__(
        self,
        memory: GuestMemory,
        notifier: Notifier,
        *,
        vcpus: int = 1,
        bits: int = 64,
        way: str = "cached",
        quirks: Quirks = None,
    ) -> None:
        self.memory = memory
        self.vcpus = vcpus
        self.bits = bits
        self.ports = EventPorts()
        self.store = XenStore(DOMID, quirks)
        self.channels: EventChannels | None = None
        self.shared_info = UNMAPPED
        self.vcpu_infos = [UNMAPPED] * vcpus  # where they are registered
        self.time_infos = [UNMAPPED] * vcpus
        self.store_end = HostEnd()
        self._notifier = notifier
        self._way = WAYS[way]
        self._beneath = memory.slots
        self._callback = 0
        self._vectors = [0] * vcpus
        self._page = memory.block(STORE_PAGE)
        self._service = XenStoreService(self.store, self._page.view)

    # -- what the guest asks for

    def map_shared_info(self, gpa: int, bits: int) -> None:
        """Put shared_info at an address (XENMAPSPACE_shared_info), in a layout.

        What was registered before, and every port, stays.

        Raises ``OSError``, and nothing changes: EINVAL for an address that is not a
        page's, or a port that the layout does not have; as `register_vcpu_info` for
        where vCPUs have theirs.
        """
        if gpa % PAGE_SIZE:
            raise OSError(errno.EINVAL, f"{gpa:#x} is not the address of a page")
        self.settle()  # what waits is known to the old channels alone
        shown = self.memory.slots
        block = self.memory.block(SHARED_INFO)
        self.memory.set_slots(overlaid(self._beneath, gpa, block))
        try:
            channels = self._channels_at(gpa, bits)
            self.ports.use(channels)
        except OSError:
            self.memory.set_slots(shown)
            raise
        self.channels, self.shared_info, self.bits = channels, gpa, bits

    def register_vcpu_info(self, vcpu: int, gpa: int) -> None:
        """Have a vCPU's vcpu_info there; raises as `EventChannels`, and ENOENT."""
        channels = self._require_channels()
        channels.waiting(vcpu)  # raises for a vCPU that is not there
        channels.register_vcpu_info(vcpu, gpa)
        self.vcpu_infos[vcpu] = gpa

    def register_time_info(self, vcpu: int, gpa: int) -> None:
        """Have a vCPU's time there (VCPUOP_register_vcpu_time_memory_area).

        Raises ``OSError``: EFAULT for no RAM, EINVAL if it is not in one page.
        """
        self._check_time_info(gpa)
        self.time_infos[vcpu] = gpa

    def set_vector(self, vcpu: int, vector: int) -> None:
        """Tell a vCPU by a vector of its own; raises as `EventChannels`."""
        self._require_channels().set_vector(vcpu, vector)
        self._vectors[vcpu] = vector

    def set_callback(self, parameter: int) -> None:
        """Take HVM_PARAM_CALLBACK_IRQ; raises as `EventChannels`."""
        self._require_channels().set_callback(parameter)
        self._callback = parameter

    # -- what the host does

    def open_store(self, guest_port: int) -> None:
        """Let the store's end of the ring have a port of the guest's."""
        self.ports.bind(self.store_end, guest_port)

    def serve_store(self) -> bool:
        """Read requests from the ring and write replies to it; tell if a byte moved.

        It looks there when the guest has told it to, or a watch has fired.
        """
        if not (self.store_end.is_told or self.store.events(self.store.domid)):
            return False
        self.store_end.is_told = False
        if not self._service.process():
            return False
        # QEMU itself wrote there: no vCPU's log has it.
        self.memory.mark(LogUser.MIGRATION, self._page, 0, PAGE_SIZE)
        self.ports.notify(self.store_end)
        return True

    def replace_shared_info(self) -> None:
        """Move the memory behind the page, as a host does that merges or frees pages.

        The guest sees no difference: address and contents are the same.
        """
        self.memory.replace_block(SHARED_INFO)

    def tell_time(self, now: int) -> None:
        """Write the time to where vCPUs want it, while they may read it."""
        for gpa in self.time_infos:
            if gpa != UNMAPPED:
                frame = self._way(self.memory, gpa - gpa % PAGE_SIZE).frame()
                time = xen.pvclock_vcpu_time_info(
                    tsc_timestamp=now,
                    system_time=now,
                    tsc_to_system_mul=_ONE_TO_ONE,
                    tsc_shift=1,
                    flags=xen.PVCLOCK_TSC_STABLE_BIT,
                )
                write_versioned(frame, gpa % PAGE_SIZE, time)

    def settle(self) -> None:
        """Put into the guest's memory what waits for it there: it stops now."""
        if self.channels is not None:
            for vcpu in range(self.vcpus):
                self.channels.enter(vcpu)

    # -- what moves

    def save(self) -> XenState:
        """Return what is sent beside RAM; nothing changes by it."""
        service = self._service
        store = XenStoreDevice(
            request=service.request,
            response=service.response,
            sent=service.sent,
            guest_port=self.store_end.guest_port,
            fatal_error=bool(service.fatal),
            impl_state=self.store.serialize(),
            events=self._saved_events(),
        )
        default = [self._default_info(vcpu) for vcpu in range(self.vcpus)]
        return XenState(
            XenOverlay(self.shared_info, self.bits == _LONG_MODE),
            XenEventChannels(self._callback, self.ports.save()),
            tuple(
                XenVcpu(
                    info,
                    default[vcpu],
                    self.time_infos[vcpu],
                    callback_vector=self._vectors[vcpu],
                )
                for vcpu, info in enumerate(self.vcpu_infos)
            ),
            store,
        )

    def pre_load(self) -> None:
        """Let no end have a port: the table comes (QEMU: evtchn_pre_load)."""
        self.ports.forget(self.store_end)

    def load(self, instance: int, part: XenPart) -> None:
        """Take in a part of what came, in the order of `XenState`.

        Raises:
            OSError: it is nothing that this host can have.
            StreamError: the store is none; it is then as it was.
        """
        match part:
            case XenOverlay():
                self._load_overlay(part)
            case XenEventChannels():
                self._load_event_channels(part)
            case XenVcpu():
                self._load_vcpu(instance, part)
            case XenStoreDevice():
                self._load_store(part)

    def _load_overlay(self, part: XenOverlay) -> None:
        bits = _LONG_MODE if part.long_mode else 32
        if part.shinfo_gpa != UNMAPPED:
            self.map_shared_info(part.shinfo_gpa, bits)
        self.bits = bits

    def _load_event_channels(self, part: XenEventChannels) -> None:
        _require(part, XenEventChannels(part.callback_param, part.ports))
        if part.callback_param:
            self.set_callback(part.callback_param)
        if len(part.ports) > 1:
            self.ports.load(part.ports)

    def _load_vcpu(self, vcpu: int, part: XenVcpu) -> None:
        info, vector = part.vcpu_info_gpa, part.callback_vector
        default, time = self._default_info(vcpu), part.vcpu_time_info_gpa
        _require(part, XenVcpu(info, default, time, callback_vector=vector))
        if time != UNMAPPED:
            self._check_time_info(time)
        if self.channels is None and (info != UNMAPPED or vector):
            self._require_channels()
        if self.channels is not None:
            _have_vcpu(self.channels, vcpu, info, vector)
        self.vcpu_infos[vcpu], self._vectors[vcpu] = info, vector
        self.time_infos[vcpu] = time

    def _load_store(self, part: XenStoreDevice) -> None:
        """Bind the guest's port, and be the store that came.

        What is refused is so before anything has changed.
        """
        events = part.events or _NO_EVENTS
        read_events(events)
        if part.guest_port:
            self.ports.check_bindable(self.store_end, part.guest_port)
        self.store.load(part.impl_state)
        self.store.load_events(events)
        if part.guest_port:
            self.ports.bind(self.store_end, part.guest_port)
        service = self._service
        service.request, service.response = part.request, part.response
        service.sent = part.sent
        self.store_end.is_told = True  # as the guest may have done before it moved
        service.fatal = "as at the source" if part.fatal_error else ""

    def _saved_events(self) -> bytes:
        waiting = self.store.serialize_events()
        return waiting if waiting != _NO_EVENTS else b""

    def _channels_at(self, gpa: int, bits: int) -> EventChannels:
        channels = EventChannels(
            self.memory,
            gpa,
            LAYOUTS[bits],
            self._notifier,
            vcpus=self.vcpus,
            way=self._way,
        )
        channels.set_callback(self._callback)
        for vcpu, info in enumerate(self.vcpu_infos):
            _have_vcpu(channels, vcpu, info, self._vectors[vcpu])
        return channels

    def _check_time_info(self, gpa: int) -> None:
        if gpa % 4 or gpa % PAGE_SIZE > PAGE_SIZE - TIME_INFO_SIZE:
            raise OSError(errno.EINVAL, f"no time of a vCPU can be at {gpa:#x}")
        self.memory.pieces(gpa, TIME_INFO_SIZE)

    def _default_info(self, vcpu: int) -> int:
        if self.shared_info == UNMAPPED:
            return UNMAPPED
        return self.shared_info + vcpu * VCPU_INFO_SIZE

    def _require_channels(self) -> EventChannels:
        if self.channels is None:
            raise OSError(errno.ENOTCONN, "the guest has put shared_info nowhere")
        return self.channels


def _have_vcpu(channels: EventChannels, vcpu: int, info: int, vector: int) -> None:
    channels.set_vector(vcpu, vector)
    if info != UNMAPPED:
        channels.set_vcpu_info(vcpu, info)


def _require(part: XenPart, known: XenPart) -> None:
    """Raise ``OSError(EINVAL)`` if a part has what this host does not."""
    for name, got, own in zip(part._fields, part, known, strict=True):
        if got != own:
            message = f"{name} is {_shown(got)}: this host has but {_shown(own)}"
            raise OSError(errno.EINVAL, message)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    return f"{value:#x}" if isinstance(value, int) else str(value)
