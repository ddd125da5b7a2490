"""What the bench knows of one device's session, as a user application would.

It follows what the bench itself wrote and read; what a check believes of a device is
`conformance.position`'s, and nothing here judges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.conversation.stream import Stream
from vfiomig.protocol.v1.registers import Register
from vfiomig.protocol.v1.states import DeviceState

if TYPE_CHECKING:
    from vfiomig.conformance.conversation.device import DeviceUnderTest

SAVING: Final = (DeviceState.PRE_COPY, DeviceState.STOP_AND_COPY)
RUNNING: Final = (DeviceState.RUNNING, DeviceState.PRE_COPY)

# What a stray write to a register is called, where it must make no difference.
STRAY_WRITES: Final = {
    Register.RESERVED: "write to reserved",
    Register.DATA_SIZE: "write to data_size while saving",
}

# ... and so a way to load.
LOADED_AS: Final = {"filled": "window filled before"}


@dataclass(slots=True)
class Session:
    """One open device: its state, the buffer in hand, what it saved or was given.

    ``past`` are features that stay with the object: what it did before.
    """

    device: DeviceUnderTest
    power_on: str | None
    state: int | None = int(DeviceState.RUNNING)
    stream: Stream | None = None
    offset: int | None = None
    size: int | None = None
    chunk: bytes | None = None
    loaded: list[bytes] | None = None
    load_failed: bool = False
    load_features: set[str] = field(default_factory=set)
    past: set[str] = field(default_factory=set)
    has_run_since_save: bool = True

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

    def mark(self, feature: str) -> None:
        """Note what must make no difference to the session under way."""
        if self.stream is not None and self.is_saving:
            self.stream.features.add(feature)
        elif self.is_resuming:
            self.load_features.add(feature)

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

    def begin_saving(self, snapshot: str | None) -> None:
        """Follow the write that set SAVING."""
        self.forget()
        stream = self.stream = Stream()
        stream.is_tainted = "fault" in self.past
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
