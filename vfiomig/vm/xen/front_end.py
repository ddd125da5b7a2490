"""A disk's front end: the guest's program, which speaks to the store and does I/O.

Rule 1: it is a table of steps (`_STEPS`), each a request to the store or a wait for the
back end's state; behind the last one it closes the connection and makes it anew.

Rule 2: all that it knows is in `Registers`, plain numbers and bytes.  A guest that is
stopped anywhere, within a message too, goes on from them elsewhere.

Rule 3: a message is written to the ring in two pieces, as Linux does: its head, then
the rest.  So a host may have half of it.
"""

from __future__ import annotations

import enum
import errno
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.protocol.errors import ProtocolError
from vfiomig.protocol.xenstore import (
    HEADER_SIZE,
    Message,
    Ring,
    decode_texts,
    message_in,
    missing_in,
    request,
)
from vfiomig.uapi.xen_xs_wire import (
    XS_READ,
    XS_TRANSACTION_END,
    XS_TRANSACTION_START,
    XS_WATCH,
    XS_WATCH_EVENT,
    XS_WRITE,
)
from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.ram_block import PAGE_SIZE
from vfiomig.vm.xen.disk import DiskRing, XenbusState
from vfiomig.vm.xen.guest_registers import Registers
from vfiomig.vm.xen.toolstack import DISK, back_end_of

if TYPE_CHECKING:
    from vfiomig.vm.memory import GuestMemory
    from vfiomig.vm.xen.host import XenHost

DEPTH: Final = 32  # requests on their way: a ring of one page has as many
_TOKEN: Final = "front-end"
_SLEEPS: Final = 1_000_000  # virtual nanoseconds, where it can have no transaction
_PROTOCOLS: Final = {64: b"x86_64-abi", 32: b"x86_32-abi"}


class _Asked(enum.IntEnum):
    """Whose reply is to come."""

    NOTHING = 0
    STEP = 1
    HELD = 2


class _Kind(enum.Enum):
    WATCH = enum.auto()
    WRITE = enum.auto()
    START = enum.auto()
    COMMIT = enum.auto()
    AWAIT = enum.auto()
    RUN = enum.auto()


class _Step(NamedTuple):
    """A step; ``node`` is one of the disk's, ``state`` what is written or awaited."""

    kind: _Kind
    node: str = "state"
    state: XenbusState = XenbusState.UNKNOWN


_STEPS: Final = (
    _Step(_Kind.WATCH),
    _Step(_Kind.WRITE, state=XenbusState.INITIALISING),
    _Step(_Kind.AWAIT, state=XenbusState.INIT_WAIT),
    _Step(_Kind.START),
    _Step(_Kind.WRITE, "ring-ref"),
    _Step(_Kind.WRITE, "event-channel"),
    _Step(_Kind.WRITE, "protocol"),
    _Step(_Kind.WRITE, state=XenbusState.INITIALISED),
    _Step(_Kind.COMMIT),
    _Step(_Kind.AWAIT, state=XenbusState.CONNECTED),
    _Step(_Kind.WRITE, state=XenbusState.CONNECTED),
    _Step(_Kind.RUN),
    _Step(_Kind.WRITE, state=XenbusState.CLOSING),
    _Step(_Kind.AWAIT, state=XenbusState.CLOSED),
    _Step(_Kind.WRITE, state=XenbusState.CLOSED),
)
_ANEW: Final = 1
_START: Final = next(n for n, step in enumerate(_STEPS) if step.kind is _Kind.START)
_RUN: Final = next(n for n, step in enumerate(_STEPS) if step.kind is _Kind.RUN)


class FrontEnd:
    """The program of the guest of ``host``, whose disk's ring is at ``ring``.

    ``renegotiates`` is how long a connection is kept, in virtual nanoseconds; 0 is for
    ever.  ``page`` is the store's ring.
    """

    def __init__(
        self,
        memory: GuestMemory,
        host: XenHost,
        page: str,
        ring: int,
        renegotiates: int,
    ) -> None:
        self.registers = Registers()
        self._host = host
        self._memory = memory
        self._page = memory.block(page)
        self._requests = Ring.of_requests(self._page.view)
        self._responses = Ring.of_responses(self._page.view)
        self._frame = ring // PAGE_SIZE
        self._ring = DiskRing(memory, ring, LogUser.KERNEL)
        self._now = 0
        self.renegotiates = renegotiates
        self._watched = f"{back_end_of(host.store.domid)}/state"

    # -- what the guest's CPU does

    def act(self, now: int) -> bool:
        """Do the next thing; tell whether there was one."""
        self._now = now
        try:
            return self._act(now)
        except (OSError, ProtocolError, ValueError, IndexError) as error:
            # A hypercall was refused, or RAM came damaged: the guest panics.
            self.registers.error = getattr(error, "errno", None) or errno.EPROTO
            return False

    def _act(self, now: int) -> bool:
        own = self.registers
        if own.out_at < own.out_size:
            return self._put()
        if own.is_told and self._take():
            return True
        if own.asked or own.error:
            return False
        message = self._next_held() or self._next(now)
        if message is None:
            return False
        data = message.encode()
        own.out[: len(data)] = data
        own.out_at, own.out_size = 0, len(data)
        return self._put()

    def take_event(self, port: int) -> None:
        """Handle an event."""
        own = self.registers
        own.handled += 1
        if port == own.disk_port:
            self._take_responses()
        else:
            own.is_told = 1

    @property
    def wakes_at(self) -> int | None:
        """When it has something to do of its own accord; None for never."""
        own = self.registers
        if own.error or own.asked:
            return None
        if own.step == _START:
            return int(own.sleeps_until)
        if own.step != _RUN or not self.renegotiates:
            return None
        return int(own.renegotiates_at)

    @property
    def is_connected(self) -> bool:
        """Whether it has met the back end, and does I/O."""
        return bool(self.registers.step == _RUN)

    @property
    def stuck(self) -> int:
        """How many responses are there that it was not told of."""
        if self.registers.step != _RUN:
            return 0
        return int(self._ring.responses - self.registers.rsp_cons) % (1 << 32)

    # -- the ring

    def _put(self) -> bool:
        own = self.registers
        end = HEADER_SIZE if own.out_at < HEADER_SIZE else own.out_size
        put = self._requests.put(bytes(own.out[own.out_at : end]))
        own.out_at += put
        return self._moved(put)

    def _take(self) -> bool:
        """Take what is there of a message; follow it if it is whole."""
        own = self.registers
        came = bytes(own.in_[: own.in_size])
        taken = self._responses.take(missing_in(came))
        if not taken:
            own.is_told = 0
            return False
        came += taken
        message = message_in(came)
        own.in_[own.in_size : own.in_size + len(taken)] = taken
        own.in_size += len(taken)
        if message is not None:
            own.in_size = 0
            self._follow(message)
        return self._moved(len(taken))

    def _moved(self, count: int) -> bool:
        if not count:
            return False
        self._memory.mark(LogUser.KERNEL, self._page, 0, PAGE_SIZE)
        self._send(self.registers.store_port)
        return True

    # -- steps

    def _next(self, now: int) -> Message | None:
        """Return the request of this step, if it is due."""
        own = self.registers
        step = _STEPS[own.step]
        match step.kind:
            case _Kind.RUN:
                if not self.renegotiates or now < own.renegotiates_at:
                    return None
                own.step += 1
                return self._next(now)
            case _Kind.AWAIT:
                if not own.has_changed:
                    return None
                own.has_changed = 0
                return self._ask(XS_READ, self._watched)
            case _Kind.WATCH:
                return self._ask(XS_WATCH, self._watched, _TOKEN)
            case _Kind.START if now < own.sleeps_until:
                return None
            case _Kind.START:
                return self._ask(XS_TRANSACTION_START, "")
            case _Kind.COMMIT:
                return self._ask(XS_TRANSACTION_END, "T", tx=own.tx)
            case _Kind.WRITE:
                value = self._value(step)
                # A wait that follows looks at least once: it may be so already.
                own.has_changed = 1
                own.renegotiates_at = now + self.renegotiates
                return self._ask(
                    XS_WRITE, f"{DISK}/{step.node}", value=value, tx=own.tx
                )

    def _value(self, step: _Step) -> bytes:
        """Return what a step writes; the port is opened for it."""
        own = self.registers
        if step.node == "event-channel" and not own.disk_port:
            own.disk_port = self._host.ports.alloc_unbound(self._host.vcpus - 1)
            own.rsp_cons = 0
            self._ring.clear()
        values = {
            "state": step.state,
            "ring-ref": self._frame,
            "event-channel": own.disk_port,
        }
        if step.node in values:
            return b"%d" % values[step.node]
        return _PROTOCOLS[self._host.bits]

    def _next_held(self) -> Message | None:
        """Return what ends a transaction that was moved."""
        own = self.registers
        if not (own.ends_held and own.held_count):
            return None
        tx = own.held[own.held_count - 1]
        return self._ask(XS_TRANSACTION_END, "T", tx=tx, whose=_Asked.HELD)

    def _ask(
        self,
        kind: int,
        *texts: str,
        value: bytes = b"",
        tx: int = 0,
        whose: _Asked = _Asked.STEP,
    ) -> Message:
        own = self.registers
        own.asked = whose
        own.req_id = (own.req_id + 1) % (1 << 32)
        return request(kind, *texts, value=value, req_id=own.req_id, tx_id=tx)

    # -- what came

    def _follow(self, message: Message) -> None:
        own = self.registers
        if message.type == XS_WATCH_EVENT:
            own.watch_events += 1
            own.has_changed |= decode_texts(message.payload)[-1] == _TOKEN
        elif message.req_id == own.req_id:
            whose, own.asked = own.asked, _Asked.NOTHING
            if whose == _Asked.HELD:
                self._ended_held(message.code)
            else:
                self._answered(_STEPS[own.step], message)

    def _answered(self, step: _Step, reply: Message) -> None:
        own = self.registers
        code = reply.code
        if step.kind is _Kind.COMMIT:
            own.tx = 0
            if code == errno.EAGAIN:
                own.step = _START
                return
        if step.kind is _Kind.START and code == errno.ENOSPC:
            own.sleeps_until = self._now + _SLEEPS  # until another one has ended
            return
        if code:
            own.error = code
            return
        if step.kind is _Kind.AWAIT and reply.payload != b"%d" % step.state:
            return  # the watch tells when to look again
        if step.kind is _Kind.START:
            own.tx = int(decode_texts(reply.payload)[0])
        self._step_on(step)

    def _step_on(self, step: _Step) -> None:
        own = self.registers
        own.step += 1
        if own.step == _RUN:
            own.connections += 1
            self._make_requests(DEPTH)
        elif step.state is XenbusState.CLOSED and step.kind is _Kind.WRITE:
            self._host.ports.close(own.disk_port)
            own.disk_port, own.step = 0, _ANEW

    def _ended_held(self, code: int) -> None:
        own = self.registers
        own.held_count -= 1
        match code:
            case 0:
                own.committed += 1
            case errno.EAGAIN:
                own.conflicted += 1
            case _:
                own.unknown += 1

    # -- I/O

    def _take_responses(self) -> None:
        own = self.registers
        count = (self._ring.responses - own.rsp_cons) % (1 << 32)
        own.rsp_cons = (own.rsp_cons + count) % (1 << 32)
        own.completed += count
        if own.step == _RUN:
            self._make_requests(count)

    def _make_requests(self, count: int) -> None:
        self._ring.add_requests(count)
        self._send(self.registers.disk_port)

    def _send(self, port: int) -> None:
        try:
            self._host.ports.send(port)
        except OSError as error:
            self.registers.error = error.errno or errno.EPROTO
