"""What the bench knows of one device's session, as a user application would.

It follows what the bench itself wrote and read; what a check believes of a device is
`conformance.position`'s, and nothing here judges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.conversation.stream import Stream
from vfiomig.conformance.position import SAVING
from vfiomig.protocol.v1.registers import Register
from vfiomig.protocol.v1.states import ArcClass, DeviceState, arc_between

if TYPE_CHECKING:
    from vfiomig.conformance.conversation.damage import Damage
    from vfiomig.conformance.conversation.device import DeviceUnderTest
    from vfiomig.conformance.position import Position

RUNNING: Final = (DeviceState.RUNNING, DeviceState.PRE_COPY)

# What a stray write to a register is called, where it must make no difference.
STRAY_WRITES: Final = {
    Register.RESERVED: "write to reserved",
    Register.DATA_SIZE: "write to data_size while saving",
}

# ... and so a way to load.
_LOADED_AS: Final = {
    "filled": "window filled before",
    "interrupted": "odd access",
    "mapped": "written through the mapping",
}


_REFUSED_AS: Final = {
    ArcClass.INV: "refused request",
    ArcClass.ERRW: "refused request",
    ArcClass.OPT: "refused arc",
}


@dataclass(slots=True)
class Session:
    """One open device: its state, the buffer in hand, what it saved or was given.

    ``past`` are features that stay with the object: what it did before.
    """

    device: DeviceUnderTest
    position: Position
    power_on: str | None
    state: int | None = int(DeviceState.RUNNING)
    stream: Stream | None = None
    pending: int | None = None  # as last read in this state
    offset: int | None = None
    size: int | None = None
    chunk: bytes | None = None
    loaded: list[bytes] | None = None
    load_failed: bool = False
    damage: Damage | None = None
    before_load: str | None = None  # the snapshot on entering RESUMING
    load_features: set[str] = field(default_factory=set)
    past: set[str] = field(default_factory=set)
    has_run_since_save: bool = True
    granted: set[tuple[int | None, int | None]] = field(default_factory=set)  # arcs
    works: list[int] | None = field(default_factory=list)  # None: not all are known
    is_lost: bool = False  # a reset failed: nobody knows what it has left

    @property
    def is_saving(self) -> bool:
        """Whether it is in pre-copy or stop-and-copy."""
        return self.state in SAVING

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return self.state in RUNNING

    @property
    def is_resuming(self) -> bool:
        """Whether it is RESUMING."""
        return self.state == DeviceState.RESUMING

    @property
    def is_armed(self) -> bool:
        """Whether a fault may yet go off in it."""
        return bool(self.position.armed)

    @property
    def clean_snapshots(self) -> tuple[str | None, ...]:
        """The state of a device that no stream has touched."""
        return self.power_on, self.before_load

    def mark(self, feature: str) -> None:
        """Note what must make no difference to the session under way."""
        if self.stream is not None and self.is_saving:
            self.stream.features.add(feature)
        elif self.is_resuming:
            self.load_features.add(feature)

    def begin_buffer(self, offset: int) -> None:
        """Follow the first read of data_offset behind one of pending_bytes."""
        self.offset = offset
        if not self.pending and self.stream is not None:
            self.stream.is_tainted = True  # out of sequence: nothing was pending

    def acknowledge(self, pending: int) -> None:
        """Follow a read of pending_bytes: the buffer in hand was taken."""
        is_again = self.pending is not None
        self.pending = pending
        stream = self.stream
        if stream is None or (self.offset is None and not is_again):
            return
        if self.offset is None:
            between = "again between buffers" if stream.chunks else "more than once"
            stream.features.add(f"pending_bytes read {between}")
        elif self.chunk is not None:
            stream.append(self.chunk, running=self.is_running)
        else:
            stream.is_tainted = True  # V1-PEND-15: the user application's fault
        self.let_go_of_buffer()

    def follow(self, before: int | None, snapshot: str | None) -> None:
        """Follow a write that changed device_state; ``snapshot`` is from behind it."""
        self.pending = None
        if before == DeviceState.RESUMING:
            self.past.add("destination had resumed before")
            self.works = None
        if before in SAVING and self.is_saving:
            self.go_on_saving(snapshot)
        elif self.is_saving:
            self.begin_saving(snapshot)
        else:
            self.forget()
        if before in SAVING and not self.is_saving:
            self.past.add("session before")
            self.has_run_since_save = False
        self.has_run_since_save |= self.is_running
        if self.is_resuming:
            self.granted = set()  # what half a stream leaves may be no whole state
            self.loaded = None if self.is_lost else []
            self.before_load = snapshot

    def mark_refusal(self, state: int, asked: int) -> None:
        """Note that a state was refused, which must leave the session as it was."""
        if self.is_resuming and asked == DeviceState.RUNNING:
            self.load_failed |= self.is_armed  # it may have let go of what it had
            return
        arc_class = arc_between(state, asked).arc_class
        self.mark(_REFUSED_AS.get(arc_class, "failed request"))

    def mark_loading(self, how: str) -> None:
        """Note how a stream is loaded, where that is out of the ordinary."""
        if how != "whole" and (how != "mapped" or self.device.areas):
            self.mark(_LOADED_AS.get(how, "written in pieces"))

    def work(self, amount: int) -> None:
        """Let guest traffic reach the device: it has an effect where that runs."""
        self.device.work(amount)
        if self.is_running:
            self.past.add("destination had a state")
            self.has_run_since_save = True
            if self.works is not None:
                self.works.append(amount)

    def taint(self) -> None:
        """Give up the session under way as evidence."""
        if self.stream is not None:
            self.stream.is_tainted = True

    def let_go_of_buffer(self) -> None:
        """Forget the buffer in hand."""
        self.offset = self.size = self.chunk = None

    def forget(self) -> None:
        """Forget the session under way."""
        self.stream = None
        self.let_go_of_buffer()
        self.loaded = None
        self.load_failed = False
        self.load_features = set()
        self.damage = self.before_load = None

    def lose(self) -> None:
        """Follow a reset that failed: what comes now is no evidence of anything."""
        self.forget()
        self.state, self.is_lost = None, True

    def begin_saving(self, snapshot: str | None) -> None:
        """Follow the write that set SAVING."""
        self.forget()
        stream = self.stream = Stream(is_tainted=self.is_lost)
        before = {"session before", "reset before", "closed before"}
        stream.features |= before & self.past
        if "session before" in self.past and not self.has_run_since_save:
            stream.features.add("saved before in this stop")
        if self.is_running:
            stream.has_precopy = True
            stream.features.add("pre-copy")
        else:
            stream.snapshot = snapshot

    def go_on_saving(self, snapshot: str | None) -> None:
        """Follow a write from pre-copy to stop-and-copy, or back."""
        stream = self.stream
        if stream is None:
            return
        if self.offset is not None:
            # Read but not acknowledged, nobody can say whose it is.
            stream.is_tainted |= self.chunk is not None
            stream.features.add("buffer left unread")
            self.let_go_of_buffer()
        if self.is_running:
            stream.is_tainted = True  # AMB-14
            return
        stream.snapshot = snapshot
        stream.is_complete = False
        if stream.has_precopy and not stream.precopied:
            stream.features.add("pre-copy without a buffer")
