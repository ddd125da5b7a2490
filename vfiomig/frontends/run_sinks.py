"""Where a run leaves what it was asked for, and who looks on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class View(Protocol):
    """Who looks on while it goes on."""

    def round_began(self, number: int, pending_bytes: int) -> None:
        """Tell of a round."""

    def sent(self, stream_bytes: int, now: int) -> None:
        """Tell how many bytes were sent so far, and the virtual time."""

    def state_changed(self, party: str, device: str, state: str, now: int) -> None:
        """Tell of a device_state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sinks:
    """Where a run leaves what it was asked for: lines of history, the stream itself."""

    history: Callable[[bytes], object] | None = None
    stream: Callable[[memoryview], object] | None = None
    view: View | None = None
