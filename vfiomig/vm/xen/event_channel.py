"""Event channels, two levels: how a host tells a guest, and how the guest finds out.

A port is a bit of shared_info's evtchn_pending; a word of those with something in it is
a bit of the vCPU's evtchn_pending_sel; a selector with something in it is the vCPU's
evtchn_upcall_pending.  Only a step from 0 to 1 goes on to the next level: one word that
is lost, or stale, blocks all that comes after it.

Rule 1: a level is changed by test-and-set, and what was below it is set before.  The
guest clears from the top.  So each event is seen, at times by an upcall too many.

Rule 2: when vcpu_info cannot be reached the selector's bit waits with the host
(``waiting``), until `enter` finds the page again.  When shared_info cannot, nothing
has happened and the sender is told (EFAULT).
"""

from __future__ import annotations

import enum
import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from vfiomig.uapi import xen
from vfiomig.vm.ram_block import PAGE_SIZE
from vfiomig.vm.xen.guest_page import CachedPage
from vfiomig.vm.xen.shared_info import VCPU_INFO_SIZE, default_vcpu_info

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.vm.memory import GuestMemory
    from vfiomig.vm.xen.guest_page import Frame, GuestPage, Way
    from vfiomig.vm.xen.shared_info import Layout

_LOWEST_VECTOR: Final = 0x10  # those below are the processor's own
_LINE_VCPU: Final = 0  # who alone is told by a line


class Outcome(enum.Enum):
    """How far an event came."""

    ALREADY_PENDING = "already pending"  # one that was not handled yet covers it
    MASKED = "masked"  # it stays pending until it is unmasked
    ALREADY_SELECTED = "already selected"
    ALREADY_UPCALLED = "already upcalled"
    NOTIFIED = "notified"
    WAITING = "waiting"  # vcpu_info cannot be reached: see rule 2
    NOT_PENDING = "not pending"  # of `unmask`: nothing was missed


class Notifier(Protocol):
    """What tells a vCPU that it has an upcall to serve."""

    def inject(self, vcpu: int, vector: int) -> None:
        """Send the vCPU's own vector to its APIC, as an MSI."""
        ...

    def kick(self, vcpu: int) -> None:
        """Let it enter anew: its upcall is looked at then."""
        ...

    def set_line(self, *, is_raised: bool) -> None:
        """Set the level of the callback's interrupt line."""
        ...


@dataclass(slots=True)
class _Vcpu:
    """A vCPU to the host: where its vcpu_info is, and how it is told."""

    page: GuestPage
    offset: int  # of vcpu_info in its page
    vector: int = 0  # its own; 0 is none
    waiting: int = 0  # bits of the selector that could not be set


class _Bound(NamedTuple):
    """A port: where its bit is, and whom it tells."""

    pending: int
    mask: int
    word: int
    bit: int
    vcpu: int


class EventChannels:
    """The host's side: it sends to ports of the page at ``gpa``, which ``way`` opens.

    Raises:
        OSError: as ``way`` does for that address.
        ValueError: no vCPU, or more than have a vcpu_info in shared_info: the others
            are registered (`register_vcpu_info`), not made here.
    """

    def __init__(
        self,
        memory: GuestMemory,
        gpa: int,
        layout: Layout,
        notifier: Notifier,
        *,
        vcpus: int = 1,
        way: Way = CachedPage,
    ) -> None:
        if not 0 < vcpus <= xen.XEN_LEGACY_MAX_VCPUS:
            message = f"{vcpus} vCPUs: shared_info has 1 to {xen.XEN_LEGACY_MAX_VCPUS}"
            raise ValueError(message)
        self.layout = layout
        self.page = way(memory, gpa)
        self._memory, self._way, self._notifier = memory, way, notifier
        self._callback = 0
        self._bound: dict[int, _Bound] = {}
        self._vcpus = {
            each: _Vcpu(self.page, default_vcpu_info(each)) for each in range(vcpus)
        }

    # -- what the guest asks for

    def bind(self, port: int, vcpu: int = 0) -> None:
        """Let a port tell a vCPU; one that is bound is bound anew.

        Raises ``OSError``: EINVAL for no such port, ENOENT for no such vCPU.
        """
        self._vcpu(vcpu)
        if not 0 < port < self.layout.ports:
            message = f"port {port} is none of 1 to {self.layout.ports - 1}"
            raise OSError(errno.EINVAL, message)
        word, bit = divmod(port, self.layout.bits)
        at = word * self.layout.word
        self._bound[port] = _Bound(
            self.layout.pending + at, self.layout.mask + at, word, bit, vcpu
        )

    def close(self, port: int) -> None:
        """Unbind a port, and forget what is pending; raises as `deliver`."""
        bound = self._port(port)
        self.page.frame().test_and_clear(bound.pending, self.layout.word, bound.bit)
        del self._bound[port]

    def register_vcpu_info(self, vcpu: int, gpa: int) -> None:
        """Have a vCPU's vcpu_info at an address (VCPUOP_register_vcpu_info).

        All of its words are selected: what was told at the old place would be lost.
        Raises as `set_vcpu_info`.
        """
        self.set_vcpu_info(vcpu, gpa)
        words = self.layout.ports // self.layout.bits
        self._vcpus[vcpu].waiting |= (1 << words) - 1
        self.enter(vcpu)

    def set_vcpu_info(self, vcpu: int, gpa: int) -> None:
        """Look for a vCPU's vcpu_info at an address (KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO).

        A vCPU that is not known yet becomes so.  What is there stays as it is.

        Raises:
            OSError: EINVAL for an address that is no multiple of a word, or from where
                on vcpu_info does not fit in the page; EFAULT for no RAM.
        """
        offset = gpa % PAGE_SIZE
        if vcpu < 0 or offset > PAGE_SIZE - VCPU_INFO_SIZE or gpa % self.layout.word:
            message = f"no vcpu_info of vCPU {vcpu} can be at {gpa:#x}"
            raise OSError(errno.EINVAL, message)
        base = gpa - offset
        page = self.page if base == self.page.gpa else self._way(self._memory, base)
        page.frame()
        target = self._vcpus.setdefault(vcpu, _Vcpu(page, offset))
        target.page, target.offset = page, offset

    def move(self, gpa: int) -> None:
        """Take shared_info from another address: the guest had it put there.

        What is in vCPUs' places in the page goes along.  Raises as the constructor.
        """
        old, self.page = self.page, self._way(self._memory, gpa)
        for each in self._vcpus.values():
            if each.page is old:
                each.page = self.page

    def set_vector(self, vcpu: int, vector: int) -> None:
        """Tell a vCPU by a vector of its own; 0 is none.

        Raises ``OSError``: EINVAL for a vector below 16 or over 255, ENOENT for no
        such vCPU.
        """
        if vector and not _LOWEST_VECTOR <= vector <= 0xFF:
            message = f"vector {vector:#x} is none of {_LOWEST_VECTOR:#x} to 0xff"
            raise OSError(errno.EINVAL, message)
        self._vcpu(vcpu).vector = vector

    def set_callback(self, parameter: int) -> None:
        """Take HVM_PARAM_CALLBACK_IRQ; raises ``OSError(ENOSYS)`` for no such type."""
        kind = parameter >> xen.HVM_PARAM_CALLBACK_TYPE_SHIFT
        if not 0 <= kind <= xen.HVM_PARAM_CALLBACK_TYPE_VECTOR:
            message = f"a callback of type {kind} is not known"
            raise OSError(errno.ENOSYS, message)
        self._callback = parameter

    # -- events

    def deliver(self, port: int) -> Outcome:
        """Send an event; return how far it came.

        Raises:
            OSError: EINVAL for a port that is not bound; EFAULT if shared_info cannot
                be reached (nothing has happened then); EAGAIN as `Frame`.
        """
        bound = self._bound.get(port) or self._port(port)
        size = self.layout.word
        frame = self.page.frame()
        if frame.test_and_set(bound.pending, size, bound.bit):
            return Outcome.ALREADY_PENDING
        if frame.load(bound.mask, size) >> bound.bit & 1:
            return Outcome.MASKED
        return self._select(bound)

    def mask(self, port: int) -> bool:
        """Mask a port; return whether it was so; raises as `deliver`."""
        bound = self._port(port)
        return self.page.frame().test_and_set(bound.mask, self.layout.word, bound.bit)

    def unmask(self, port: int) -> Outcome:
        """Unmask a port, and tell of what came meanwhile; raises as `deliver`."""
        bound, size = self._port(port), self.layout.word
        frame = self.page.frame()
        if not frame.test_and_clear(bound.mask, size, bound.bit):
            return Outcome.NOT_PENDING
        if not frame.load(bound.pending, size) >> bound.bit & 1:
            return Outcome.NOT_PENDING
        return self._select(bound)

    def upcall_pending(self, vcpu: int) -> bool:
        """Whether a vCPU has an upcall to serve: asked before each entry.

        Raises ``OSError``: ENOENT for no such vCPU, EFAULT as `GuestPage.frame`.
        """
        target = self._vcpus.get(vcpu) or self._vcpu(vcpu)
        return target.page.byte(target.offset + self.layout.upcall) != 0

    def reaches_guest(self) -> bool:
        """Whether what is sent goes to memory that the guest sees; raises EFAULT."""
        frame = self.page.frame()
        block, offset, _ = self._memory.pieces(self.page.gpa, PAGE_SIZE)[0]
        return frame.block is block and frame.offset == offset

    def waiting(self, vcpu: int) -> int:
        """Return the selector's bits that wait for the page (rule 2)."""
        return self._vcpu(vcpu).waiting

    def enter(self, vcpu: int) -> bool:
        """Give a vCPU what waits for it; return whether nothing waits any more.

        Before it runs, and before a migration reads its state.
        """
        target = self._vcpu(vcpu)
        if not target.waiting:
            return True
        frame = _frame_or_none(target.page)
        if frame is None:
            return False
        layout = self.layout
        frame.set_bits(target.offset + layout.selector, layout.word, target.waiting)
        target.waiting = 0
        self._upcall(vcpu, target, frame)
        return True

    def check_line(self) -> None:
        """Lower the callback's line if vCPU 0 has nothing to serve."""
        if self._has_line() and not self.upcall_pending(_LINE_VCPU):
            self._notifier.set_line(is_raised=False)

    # -- the upper levels

    def _select(self, bound: _Bound) -> Outcome:
        target, layout = self._vcpus[bound.vcpu], self.layout
        frame = _frame_or_none(target.page)
        if frame is None:
            target.waiting |= 1 << bound.word
            self._notifier.kick(bound.vcpu)
            return Outcome.WAITING
        if target.waiting:
            self.enter(bound.vcpu)
        selector = target.offset + layout.selector
        if frame.look_and_set(selector, layout.word, bound.word):
            return Outcome.ALREADY_SELECTED
        return self._upcall(bound.vcpu, target, frame)

    def _upcall(self, vcpu: int, target: _Vcpu, frame: Frame) -> Outcome:
        if frame.look_and_set(target.offset + self.layout.upcall, 1, 0):
            return Outcome.ALREADY_UPCALLED
        if target.vector:
            self._notifier.inject(vcpu, target.vector)
        elif not self._has_line():
            self._notifier.kick(vcpu)
        elif vcpu == _LINE_VCPU:
            self._notifier.set_line(is_raised=True)
        return Outcome.NOTIFIED

    def _has_line(self) -> bool:
        kind = self._callback >> xen.HVM_PARAM_CALLBACK_TYPE_SHIFT
        return bool(self._callback) and kind != xen.HVM_PARAM_CALLBACK_TYPE_VECTOR

    def _port(self, port: int) -> _Bound:
        try:
            return self._bound[port]
        except KeyError:
            message = f"port {port} is not bound"
            raise OSError(errno.EINVAL, message) from None

    def _vcpu(self, vcpu: int) -> _Vcpu:
        try:
            return self._vcpus[vcpu]
        except KeyError:
            message = f"there is no vCPU {vcpu}"
            raise OSError(errno.ENOENT, message) from None


def _frame_or_none(page: GuestPage) -> Frame | None:
    try:
        return page.frame()
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise
        return None


class GuestChannels:
    """The guest's side, of one vCPU: ``page`` is shared_info, ``info`` vcpu_info's.

    Both may be replaced between two steps of `upcall`: so a guest comes to another
    memory with all that it had in its registers.
    """

    def __init__(
        self, layout: Layout, page: GuestPage, info: GuestPage, info_offset: int
    ) -> None:
        self.layout, self.page, self.info = layout, page, info
        self._upcall = info_offset + layout.upcall
        self._selector = info_offset + layout.selector

    def is_called(self) -> bool:
        """Whether there is an upcall to serve."""
        return self.info.byte(self._upcall) != 0

    def upcall(self) -> Iterator[int | None]:
        """Serve an upcall: give each port whose event was just taken.

        None is given after every other change, so that one can stop anywhere.
        """
        layout = self.layout
        size = layout.word
        self.info.frame().exchange(self._upcall, 1, 0)
        yield None
        words = self.info.frame().exchange(self._selector, size, 0)
        yield None
        for word in _set_bits(words):
            at = word * size
            frame = self.page.frame()
            masked = frame.load(layout.mask + at, size)
            for bit in _set_bits(frame.load(layout.pending + at, size) & ~masked):
                if self.page.frame().test_and_clear(layout.pending + at, size, bit):
                    yield word * layout.bits + bit

    def mask(self, port: int) -> None:
        """Mask a port; what comes then waits for `unmask`."""
        word, bit = divmod(port, self.layout.bits)
        at, size = word * self.layout.word, self.layout.word
        self.page.frame().test_and_set(self.layout.mask + at, size, bit)

    def unmask(self, port: int) -> bool:
        """Unmask a port; return whether what came meanwhile is now told of."""
        layout = self.layout
        word, bit = divmod(port, layout.bits)
        at, size = word * layout.word, layout.word
        frame = self.page.frame()
        frame.test_and_clear(layout.mask + at, size, bit)
        if not frame.load(layout.pending + at, size) >> bit & 1:
            return False
        self.info.frame().test_and_set(self._selector, size, word)
        self.info.frame().test_and_set(self._upcall, 1, 0)
        return True


def _set_bits(word: int) -> Iterator[int]:
    while word:
        lowest = word & -word
        yield lowest.bit_length() - 1
        word ^= lowest
