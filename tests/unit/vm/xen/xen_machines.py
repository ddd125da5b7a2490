"""Hosts of Xen guests, each with a memory of its own; and what moves between two."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from vfiomig.protocol.xenstore import Message, Ring, message_in, missing_in
from vfiomig.vm.xen.guest import XenGuest, XenPlan
from vfiomig.vm.xen.host import SHARED_INFO, STORE_PAGE, XenHost, memory_of

if TYPE_CHECKING:
    from vfiomig.protocol.qemu_stream.xen_state import XenState
    from vfiomig.vm.memory import GuestMemory

RAM: Final = 1 << 20
INFO_AT: Final = 0xFE70_0000
UPCALL, PENDING = 0, 0x800  # of vCPU 0's vcpu_info, and of both layouts


@dataclass
class Notes:
    """A Notifier that notes which vCPUs were told, and the line's levels."""

    told: list[int] = field(default_factory=list)
    levels: list[bool] = field(default_factory=list)

    def inject(self, vcpu: int, vector: int) -> None:
        del vector
        self.told.append(vcpu)

    def kick(self, vcpu: int) -> None:
        self.told.append(vcpu)

    def set_line(self, *, is_raised: bool) -> None:
        self.levels.append(is_raised)


class HostAlone:
    """A host whose guest is the test; it is mapped at `INFO_AT` if it ``is_mapped``."""

    def __init__(self, *, is_mapped: bool = True, **plan: Any) -> None:
        self.memory = memory_of(RAM)
        self.notes = Notes()
        self.host = XenHost(self.memory, self.notes, **plan)
        if is_mapped:
            self.host.map_shared_info(INFO_AT, self.host.bits)
        page = self.memory.block(STORE_PAGE).view
        self.requests, self.responses = Ring.of_requests(page), Ring.of_responses(page)
        self.got = b""

    @property
    def page(self) -> memoryview:
        return self.memory.block(SHARED_INFO).view

    def pending(self, port: int) -> bool:
        return bool(self.page[PENDING + port // 8] >> port % 8 & 1)

    def serve(self) -> bool:
        """Tell the store to look at the ring, as the guest does, and let it."""
        self.host.store_end.is_told = True
        return self.host.serve_store()

    def put(self, data: bytes) -> None:
        """Write to the ring, as the guest does."""
        while data:
            data = data[self.requests.put(data) :]
            self.serve()

    def reply(self) -> Message:
        """Read the next message from the ring, as the guest does."""
        while missing := missing_in(self.got):
            taken = self.responses.take(missing)
            self.got += taken
            assert taken or self.serve(), "the store is silent"
        message, self.got = message_in(self.got), b""
        assert message is not None
        return message

    def __enter__(self) -> HostAlone:
        return self

    def __exit__(self, *_: object) -> None:
        self.memory.close()


class GuestAlone:
    """A guest and its memory."""

    def __init__(self, plan: XenPlan) -> None:
        self.memory = memory_of(RAM)
        self.xen = XenGuest(self.memory, plan)

    def __enter__(self) -> GuestAlone:
        return self

    def __exit__(self, *_: object) -> None:
        self.memory.close()


def copy_all(source: GuestMemory, destination: GuestMemory) -> None:
    """Copy all blocks, by name."""
    for block in source.blocks:
        destination.block(block.idstr).view[:] = block.view


def load(host: XenHost, state: XenState) -> None:
    """Let a host take in all parts, in the order in which they come."""
    host.pre_load()
    for instance, part in state.parts():
        host.load(instance, part)
