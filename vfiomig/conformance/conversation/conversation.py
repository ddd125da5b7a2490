"""A conversation: the bench performs steps on devices, and every access is judged.

Each public method that `steps` name is one step.  Steps never fail: what a device
refuses is an answer, and a step for which there is no occasion (no stream to load, no
area to map) does nothing, so that any part of a conversation is one, too.

No loop waits for a device without a bound in buffers and in bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from vfiomig.conformance.conversation import moving
from vfiomig.conformance.conversation.comparison import Comparison
from vfiomig.conformance.conversation.damage import damaged
from vfiomig.conformance.conversation.devices import Devices
from vfiomig.conformance.conversation.session import STRAY_WRITES, Session
from vfiomig.conformance.conversation.ticking import Ticking
from vfiomig.protocol.v1.registers import REGISTERS_SIZE, Register
from vfiomig.protocol.v1.saving import EMPTY_BUFFERS_LIMIT
from vfiomig.protocol.v1.states import DeviceState
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from vfiomig.conformance.conversation.device import Begin
    from vfiomig.conformance.conversation.steps import Step
    from vfiomig.conformance.conversation.stream import Stream
    from vfiomig.conformance.judge import Bound
    from vfiomig.host.device_ops import TrappedDriver

_Answer = TypeVar("_Answer")

BUFFERS_LIMIT: Final = 4096
BYTES_LIMIT: Final = 256 << 20
_LEAST: Final = (64 << 10, 64)  # bytes, buffers

_EMPTY_LIMIT: Final = 2 * EMPTY_BUFFERS_LIMIT  # V1-SIZE-03 was judged by then


class Conversation:
    """One conversation with fresh devices; ``broken`` grows as it goes on.

    ``begin`` is told of each access before it is made, so that a device that never
    answers is known by its last one.  ``is_alone`` is told to `Devices`.
    """

    def __init__(
        self,
        make_driver: Callable[[], TrappedDriver],
        checks: Iterable[Bound],
        *,
        rule_ids: Mapping[str, str],
        begin: Begin = lambda *_: None,
        ticking: Ticking | None = None,
        is_alone: bool = False,
    ) -> None:
        self._stream: Stream | None = None  # the last whole one
        ticking = ticking or Ticking()
        self._devices = devices = Devices(
            make_driver, checks, begin, ticking, is_alone=is_alone
        )
        self.records = devices.records
        self.broken = devices.broken  # rule, ruling, number of the record
        self._bench = Comparison(rule_ids, devices, ticking)
        self.bytes_limit = BYTES_LIMIT
        self.buffers_limit = BUFFERS_LIMIT
        self.moved = 0  # bytes of data

    @property
    def measured(self) -> tuple[int, int]:
        """How many devices were opened, and the bytes of state of one."""
        return self._devices.opened, self._devices.state_size

    @property
    def kept(self) -> set[str]:
        """The rules whose premise came true, and that were kept."""
        return self._devices.kept

    def perform(self, steps: Iterable[Step]) -> None:
        """Perform steps; raises DriverDiedError where a driver dies."""
        for each in steps:
            getattr(self, each.name)(*each.arguments)

    def close(self) -> None:
        """Close all devices."""
        self._devices.close()

    def keep_short(self) -> None:
        """From now on move and look at little: the budget of the suite is spent."""
        self.bytes_limit, self.buffers_limit = _LEAST
        self._devices.is_frugal = True

    # -- steps: device_state -----------------------------------------------------------

    def enter(self, role: str, state: int) -> None:
        """Write device_state, then read it back."""
        self._ask_for(role, state, is_read_back=True)

    def request(self, role: str, state: int) -> None:
        """Write device_state, and read it back only where that failed."""
        self._ask_for(role, state, is_read_back=False)

    def request_as_read(self, role: str, state: int) -> None:
        """Read device_state, and write it with other state bits, as QEMU does."""
        seen = self._session(role).device.read_register(Register.DEVICE_STATE) or 0
        self.enter(role, seen & ~VFIO_DEVICE_STATE_MASK | state)

    def read_device_state(self, role: str) -> None:
        """Read device_state, and ask for the region once more."""
        session = self._session(role)
        session.device.read_register(Register.DEVICE_STATE)
        self._bench.region_asked_again(session)

    def reset(self, role: str) -> None:
        """Reset the device, and compare it with a fresh one."""
        session = self._session(role)
        if not session.device.reset():
            session.lose()
            return
        snapshot = session.device.snapshot()
        session.device.read_register(Register.DEVICE_STATE)
        session.forget()
        session.state, session.is_lost = int(DeviceState.RUNNING), False
        fresh = self._devices.fresh_snapshot()
        if snapshot is not None and fresh:
            self._bench.was_reset(session, snapshot, fresh)
        session.past = {"reset before"} | session.past & {"closed before"}
        session.works = []

    def reopen(self, role: str) -> None:
        """Close the device in whatever state it is, and open a fresh one."""
        is_closed = self._devices.let_go(role)
        if is_closed is None:
            return
        fresh = self._devices.fresh_snapshot()
        again = self._session(role)
        again.past.add("closed before")
        state = again.device.read_register(Register.DEVICE_STATE)
        self._bench.opened_again(again, state, fresh, is_closed=is_closed)

    # -- steps: saving -----------------------------------------------------------------

    def read_pending_bytes(self, role: str) -> int | None:
        """Read pending_bytes: what was read of the current buffer is acknowledged."""
        session = self._session(role)
        pending = session.device.read_register(Register.PENDING_BYTES)
        stream = session.stream
        if stream is None or not session.is_saving:
            return pending
        if pending is None:
            stream.is_tainted = True
            return None
        session.acknowledge(pending)
        if not pending:
            self._nothing_pending(session, stream)
        return pending

    def read_data_offset(self, role: str) -> None:
        """Read data_offset: in SAVING the driver makes a buffer ready."""
        session = self._session(role)
        offset = session.device.read_register(Register.DATA_OFFSET)
        if session.stream is None or not session.is_saving:
            return
        if offset is None:
            session.taint()
        elif session.offset is not None:
            session.mark("data_offset read again")
        else:
            session.begin_buffer(offset)

    def read_data_size(self, role: str) -> None:
        """Read data_size."""
        session = self._session(role)
        size = session.device.read_register(Register.DATA_SIZE)
        if session.stream is None or not session.is_saving:
            return
        if size is None:
            session.taint()
        elif session.offset is not None and session.size is None:
            session.size = size

    def read_data(self, role: str, how: str = "whole") -> None:
        """Read the current buffer: whole, in pieces, or through the mapping."""
        session = self._session(role)
        if session.offset is None or session.size is None:
            return
        room = session.device.size - session.offset
        if session.offset < REGISTERS_SIZE or session.size > min(room, BYTES_LIMIT):
            session.taint()  # a check has said so
            return
        before, chunk = session.chunk, moving.read_buffer(session, self._bench, how)
        session.chunk = chunk
        if chunk is None:
            session.taint()
            return
        self.moved += session.size
        if before is not None:
            self._bench.read_again(session, how, is_same=chunk == before)

    def iterate(self, role: str, buffers: int, how: str = "whole") -> None:
        """Save up to so many buffers, each by the steps of the header."""
        session = self._session(role)
        stream = session.stream
        if stream is None or not session.is_saving:
            return
        if session.offset is None:
            pending = session.device.read_register(Register.PENDING_BYTES)
            session.pending = pending
            if not pending:
                stream.is_tainted |= pending is None
                self._nothing_pending(session, stream)
                return
        empty = 0
        for _ in range(min(buffers, self.buffers_limit)):
            self.read_data_offset(role)
            self.read_data_size(role)
            empty = 0 if session.size else empty + 1
            self.read_data(role, how)
            if not self.read_pending_bytes(role) or stream.is_tainted:
                return
            is_enough = empty > _EMPTY_LIMIT or self.moved > self.bytes_limit
            if is_enough or self._bench.has_no_end(session):
                return
        self._bench.went_on(session, buffers)

    def drain(self, role: str, how: str = "whole") -> None:
        """Save all that is left, up to a bound."""
        self.iterate(role, self.buffers_limit, how)

    # -- steps: resuming ---------------------------------------------------------------

    def load(self, role: str, how: str = "whole") -> None:
        """Load the last whole stream; ``filled`` puts rubbish in its place before."""
        if self._stream is not None and self.moved <= 2 * self.bytes_limit:
            self._load(self._session(role), self._stream.chunks, how)

    def load_damaged(self, role: str, how: str, place: int = 0) -> None:
        """Load what no destination may run with."""
        damage = damaged(self._stream.chunks, how, place) if self._stream else None
        session = self._session(role)
        is_due = session.is_resuming and not session.loaded
        if damage is not None and is_due and self.moved <= self.bytes_limit:
            session.damage = damage
            self._load(session, damage.chunks, "whole")

    def load_rest(self, role: str) -> None:
        """Give the chunk that was held back, to a driver that waits for it."""
        session = self._session(role)
        is_waiting = session.is_resuming and not session.load_failed
        if is_waiting and session.damage and session.damage.how == "without its end":
            session.mark("late data")
            self._load(session, session.damage.held_back, "whole")
            session.damage = None

    def announce(self, role: str, how: str) -> None:
        """Give a chunk, and say that it is larger than can be."""
        session = self._session(role)
        if session.is_resuming and self._stream is not None and self._stream.chunks:
            session.load_failed = True
            moving.give_impossible(session.device, self._stream.chunks[0], how)

    def overwrite_window(self, role: str) -> None:
        """Write rubbish where the last chunk was, after the driver has taken it."""
        session = self._session(role)
        if session.is_resuming and session.loaded:
            moving.spoil_window(session.device)
            session.mark("window overwritten")

    # -- steps: what may be done at any time -------------------------------------------

    def read_odd(self, role: str, offset: int, size: int) -> None:
        """Read registers at another width or place than their own."""
        session = self._session(role)
        session.device.read(offset, size)
        if offset < REGISTERS_SIZE:
            session.mark("odd access")
        session.device.read_register(Register.DEVICE_STATE)

    def write_odd(self, role: str, offset: int, size: int) -> None:
        """Write registers at another width or place than their own."""
        session = self._session(role)
        byte = b"\xa5" if offset >= Register.RESERVED.offset else b"\0"
        session.device.write(offset, byte * size)
        session.mark("odd access")
        session.device.read_register(Register.DEVICE_STATE)

    def write_register(self, role: str, register: str, value: int) -> None:
        """Write a register that is not there to be written now."""
        session = self._session(role)
        known = Register(register)
        # In RESUMING it would be a size that no chunk has.
        session.load_failed |= session.is_resuming and known is Register.DATA_SIZE
        session.device.write_register(known, value % (1 << 8 * known.width))
        session.mark(STRAY_WRITES.get(known, "write to a read-only register"))

    def read_register(self, role: str, register: str) -> None:
        """Read a register, whatever the state."""
        session = self._session(role)
        if session.is_saving and register != Register.RESERVED.value:
            getattr(self, f"read_{register}")(role)
        else:
            session.device.read_register(Register(register))

    def work(self, role: str, amount: int) -> None:
        """Let guest traffic reach the device."""
        session = self._session(role)
        with self._bench.no_harm(session):
            session.work(amount)

    def watch_work(self, role: str, amount: int) -> None:
        """Let guest traffic reach the device, and see what it does to its state."""
        session = self._session(role)
        before = session.device.snapshot()
        self.work(role, amount)
        after = session.device.snapshot()
        if session.device.bench.work is None or before is None:
            return
        session.device.read_register(Register.DEVICE_STATE)
        self._bench.worked(session, changed=before != after)

    def snapshot(self, role: str) -> None:
        """Take a snapshot."""
        self._session(role).device.snapshot()

    def fail(self, role: str, on: str, code: int) -> None:
        """Arm a fault inside the device."""
        self._session(role).device.fail(on, code)

    # -- following ---------------------------------------------------------------------

    def _ask_for(self, role: str, state: int, *, is_read_back: bool) -> None:
        session = self._session(role)
        device, before = session.device, session.state
        is_frugal = self._devices.is_frugal
        if before is not None and not session.is_running and not is_frugal:
            device.snapshot()  # nothing may have changed while it was stopped
        ok = device.write_register(Register.DEVICE_STATE, state)
        after = state & VFIO_DEVICE_STATE_MASK if ok else None
        is_due = after == DeviceState.STOP_AND_COPY or session.is_resuming
        is_due = ok and before != after and (is_due or not is_frugal)
        snapshot = device.snapshot() if is_due else None
        is_read_back |= not ok  # a refusal leaves it open where it is
        seen = device.read_register(Register.DEVICE_STATE) if is_read_back else None
        session.state = after if seen is None else seen & VFIO_DEVICE_STATE_MASK
        if not ok:
            self._follow_refusal(session, before, state & VFIO_DEVICE_STATE_MASK)
        elif session.state != before:
            self._follow(session, before, snapshot)
        else:
            session.mark("same state written again")

    def _session(self, role: str) -> Session:
        return self._devices.session(role)

    def _follow(
        self, session: Session, before: int | None, snapshot: str | None
    ) -> None:
        """Follow a write that changed device_state."""
        if before == DeviceState.RESUMING and session.state == DeviceState.RUNNING:
            self._bench.resumed(session, self._stream, snapshot)
        if session.is_saving and before in (DeviceState.STOP, DeviceState.RUNNING):
            session.granted.add((before, session.state))
        session.follow(before, snapshot)

    def _follow_refusal(self, session: Session, before: int | None, asked: int) -> None:
        if session.state == before and before is not None:
            session.mark_refusal(before, asked)
        if before == DeviceState.RESUMING and asked == DeviceState.RUNNING:
            self._bench.refused(session, self._stream)
        elif (before, asked) in session.granted and not session.is_armed:
            self._bench.not_again(session)
        if session.state != before:
            session.forget()

    def _nothing_pending(self, session: Session, stream: Stream) -> None:
        if session.is_running:
            stream.features.add("pre-copy had read 0")
        elif not stream.is_tainted:
            stream.is_complete = True
            self._stream = stream
            self._bench.saved(session, has_ended=True)

    def _load(self, session: Session, chunks: list[bytes], how: str) -> None:
        if not session.is_resuming or session.loaded is None:
            return
        stream = self._stream
        is_whole = session.damage is None
        is_whole &= not session.loaded and not session.load_failed
        session.mark_loading(how)
        for chunk in filter(None, chunks):
            self.moved += len(chunk)
            if not moving.give_chunk(session.device, chunk, how):
                session.load_failed = True
                if is_whole:
                    self._bench.load_refused(session, stream)
                return
            session.loaded.append(chunk)
