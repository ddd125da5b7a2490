"""A conversation: the bench performs steps on devices, and every access is judged.

Each public method that `steps` name is one step.  Steps never fail: what a device
refuses is an answer, and a step for which there is no occasion (no stream to load, no
area to map) does nothing, so that any part of a conversation is one, too.

No loop waits for a device without a bound in buffers and in bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.conformance.conversation import moving
from vfiomig.conformance.conversation.comparison import Comparison
from vfiomig.conformance.conversation.device import DeviceUnderTest
from vfiomig.conformance.conversation.session import (
    LOADED_AS,
    SAVING,
    STRAY_WRITES,
    Session,
)
from vfiomig.conformance.conversation.stream import Stream, damaged
from vfiomig.conformance.judge import Judge
from vfiomig.protocol.v1.registers import REGISTERS_SIZE, Register
from vfiomig.protocol.v1.saving import EMPTY_BUFFERS_LIMIT
from vfiomig.protocol.v1.states import DeviceState
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from vfiomig.conformance.conversation.device import Begin
    from vfiomig.conformance.conversation.steps import Step
    from vfiomig.conformance.judge import Bound
    from vfiomig.conformance.ruling import Ruling
    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.protocol.history import Record

BUFFERS_LIMIT: Final = 4096
BYTES_LIMIT: Final = 256 << 20

# By then a check has found what there is to find in empty buffers (V1-SIZE-03).
_EMPTY_LIMIT: Final = 2 * EMPTY_BUFFERS_LIMIT


class Conversation:
    """One conversation with fresh devices; ``rulings`` grows as it goes on.

    ``begin`` is told of each access before it is made, so that a device that never
    answers is known by its last one.
    """

    def __init__(
        self,
        make_driver: Callable[[], TrappedDriver],
        checks: Iterable[Bound],
        *,
        rule_ids: Mapping[str, str],
        begin: Begin = lambda *_: None,
    ) -> None:
        self._begin = begin
        self._make_driver = make_driver
        self._judge = Judge(checks, {})
        self._sessions: dict[str, Session] = {}
        self._objects = 0
        self._fresh: set[str | None] = set()  # snapshots of devices just opened
        self._stream: Stream | None = None  # the last whole one
        self.records: list[Record] = []
        self._bench = Comparison(rule_ids, self.records)
        self.bytes_limit = BYTES_LIMIT
        self.buffers_limit = BUFFERS_LIMIT
        self.moved = 0  # bytes of data

    @property
    def rulings(self) -> list[tuple[str, Ruling, int]]:
        """What was ruled so far: rule, ruling, number of the record."""
        return self._bench.rulings

    def perform(self, steps: Iterable[Step]) -> None:
        """Perform steps; raises DriverDiedError where a driver dies."""
        for each in steps:
            getattr(self, each.name)(*each.arguments)

    def close(self) -> None:
        """Close all devices."""
        for session in self._sessions.values():
            session.device.close()

    # -- steps: device_state -----------------------------------------------------------

    def enter(self, role: str, state: int) -> None:
        """Write device_state, then read it back."""
        session = self._session(role)
        device, before = session.device, session.state
        if before is not None and not session.is_running:
            device.snapshot()  # nothing may have changed while it was stopped
        ok = device.write_register(Register.DEVICE_STATE, state)
        after = state & VFIO_DEVICE_STATE_MASK if ok else None
        snapshot = device.snapshot() if ok and before != after else None
        seen = device.read_register(Register.DEVICE_STATE)
        if seen is not None:
            after = seen & VFIO_DEVICE_STATE_MASK
        session.state = after
        if ok and after != before:
            self._follow(session, before, snapshot)
        elif ok:
            session.mark("same state written again")
        else:
            self._follow_refusal(session, before, state & VFIO_DEVICE_STATE_MASK)

    def read_device_state(self, role: str) -> None:
        """Read device_state, and ask for the region once more."""
        session = self._session(role)
        session.device.read_register(Register.DEVICE_STATE)
        self._bench.region_asked_again(session)

    def reset(self, role: str) -> None:
        """Reset the device, and compare it with a fresh one."""
        session = self._session(role)
        if not session.device.reset():
            session.state = None
            return
        snapshot = session.device.snapshot()
        session.device.read_register(Register.DEVICE_STATE)
        fresh = self._fresh_snapshot()
        if snapshot is not None and fresh:
            self._bench.was_reset(session, snapshot, fresh)
        session.forget()
        session.state = int(DeviceState.RUNNING)
        session.past = {"reset before"} | session.past & {"closed before"}

    def reopen(self, role: str) -> None:
        """Close the device in whatever state it is, and open a fresh one."""
        session = self._sessions.pop(role, None)
        if session is None:
            return
        session.device.close()
        fresh = self._fresh_snapshot()
        again = self._session(role)
        again.past.add("closed before")
        state = again.device.read_register(Register.DEVICE_STATE)
        self._bench.opened_again(again, state, fresh)

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
        if session.offset is None:
            between = "again between buffers" if stream.chunks else "more than once"
            stream.features.add(f"pending_bytes read {between}")
        elif session.chunk is not None:
            stream.append(session.chunk, running=session.is_running)
        else:
            stream.is_tainted = True  # V1-PEND-15: the user application's fault
        session.let_go_of_buffer()
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
            session.offset = offset

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
        session.chunk = moving.read_buffer(session, self._bench, how)
        if session.chunk is None:
            session.taint()
        else:
            self.moved += session.size

    def iterate(self, role: str, buffers: int, how: str = "whole") -> None:
        """Save up to so many buffers, each by the steps of the header."""
        session = self._session(role)
        stream = session.stream
        if stream is None or not session.is_saving:
            return
        if session.offset is None:
            pending = session.device.read_register(Register.PENDING_BYTES)
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

    def drain(self, role: str, how: str = "whole") -> None:
        """Save all that is left, up to a bound."""
        self.iterate(role, self.buffers_limit, how)

    # -- steps: resuming ---------------------------------------------------------------

    def load(self, role: str, how: str = "whole") -> None:
        """Load the last whole stream; ``filled`` puts rubbish in its place before."""
        if self._stream is not None:
            self._load(self._session(role), self._stream.chunks, how)

    def load_damaged(self, role: str, damage: str, place: int = 0) -> None:
        """Load what no destination may run with."""
        if self._stream is None:
            return
        chunks = damaged(self._stream.chunks, damage, place)
        if chunks is not None and chunks != self._stream.chunks:
            session = self._session(role)
            self._load(session, chunks, "whole")
            session.mark(f"damaged: {damage}")

    def overwrite_window(self, role: str) -> None:
        """Write rubbish where the last chunk was, after the driver has taken it."""
        session = self._session(role)
        if session.is_resuming and session.loaded:
            moving.spoil_window(session.device, len(session.loaded[-1]))
            session.mark("window overwritten")

    # -- steps: what may be done at any time -------------------------------------------

    def read_odd(self, role: str, offset: int, size: int) -> None:
        """Read registers at another width or place than their own."""
        session = self._session(role)
        session.device.read(offset, size)
        session.mark("odd access")
        session.device.read_register(Register.DEVICE_STATE)

    def write_odd(self, role: str, offset: int, size: int) -> None:
        """Write registers at another width or place than their own."""
        session = self._session(role)
        session.device.write(offset, bytes(size))
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
        session.device.work(amount)
        if session.is_running:
            session.past.add("destination had a state")
            session.has_run_since_save = True

    def watch_work(self, role: str, amount: int) -> None:
        """Let guest traffic reach the device, and see what it does to its state."""
        session = self._session(role)
        before = session.device.snapshot()
        self.work(role, amount)
        after = session.device.snapshot()
        if session.device.bench.work is not None and before is not None:
            session.device.read_register(Register.DEVICE_STATE)
            self._bench.worked(session, changed=before != after)

    def snapshot(self, role: str) -> None:
        """Take a snapshot."""
        self._session(role).device.snapshot()

    def fail(self, role: str, on: str, code: int) -> None:
        """Arm a fault inside the device."""
        session = self._session(role)
        if session.device.fail(on, code):
            session.taint()
            session.load_failed = True
            session.past.add("fault")

    # -- following ---------------------------------------------------------------------

    def _session(self, role: str) -> Session:
        if role not in self._sessions:
            self._objects += 1
            name = role if self._objects == 1 else f"{role}-{self._objects}"
            driver = self._make_driver()
            device = DeviceUnderTest(name, driver, self._note, self._begin)
            for rule, ruling in self._judge.open(name, device.shape):
                self.rulings.append((rule, ruling, len(self.records)))
            session = Session(device, device.snapshot())
            self._fresh.add(session.power_on)
            self._sessions[role] = session
        return self._sessions[role]

    def _note(self, record: Record) -> None:
        self.records.append(record)
        at = len(self.records)
        for rule, ruling in self._judge.see(record):
            self.rulings.append((rule, ruling, at))

    def _fresh_snapshot(self) -> str:
        """Return the state of all fresh devices; empty where they differ."""
        return next(iter(self._fresh)) or "" if len(self._fresh) == 1 else ""

    def _follow(
        self, session: Session, before: int | None, snapshot: str | None
    ) -> None:
        """Follow a write that changed device_state."""
        if before == DeviceState.RESUMING:
            if session.state == DeviceState.RUNNING:
                self._bench.resumed(session, self._stream, snapshot)
            session.past.add("destination had resumed before")
        if before in SAVING and session.is_saving:
            session.go_on_saving(snapshot)
        elif session.is_saving:
            session.begin_saving(snapshot)
        else:
            session.forget()
        if before in SAVING and not session.is_saving:
            session.past.add("session before")
            session.has_run_since_save = False
        session.has_run_since_save |= session.is_running
        if session.is_resuming:
            session.loaded = []

    def _follow_refusal(self, session: Session, before: int | None, asked: int) -> None:
        if session.state == before:
            session.mark("refused request")
        if before == DeviceState.RESUMING and asked == DeviceState.RUNNING:
            self._bench.refused(session, self._stream)
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
        is_whole = stream is not None and chunks is stream.chunks
        is_whole &= not session.loaded and not session.load_failed
        if how != "whole":
            session.mark(LOADED_AS.get(how, "written in pieces"))
        for chunk in filter(None, chunks):
            self.moved += len(chunk)
            if not moving.give_chunk(session.device, chunk, how):
                session.load_failed = True
                if is_whole:
                    self._bench.load_refused(session, stream)
                return
            session.loaded.append(chunk)
