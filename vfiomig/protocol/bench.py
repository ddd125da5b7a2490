"""What a bench may do to a device behind its migration region.

Each member is optional: a driver has those that its author cared to write.  They are
handed around beside the device's handle and never go through the host, because a
real user application has none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Bench(Protocol):
    """All that a bench can use, as a driver author writes it."""

    def work(self, amount: int) -> None:
        """Let ``amount`` units of guest traffic change the device's state.

        While the device is stopped it has no effect.
        """

    def snapshot(self) -> bytes | memoryview:
        """Return all state that a migration must carry.

        Neither device_state nor the session belongs to it.  Taking it changes
        nothing: a device whose clock ticks by itself does not tick for it.
        """

    def fail(self, on: str, code: int) -> None:
        """Make the next access ``on`` fail inside the device with ``-code``.

        ``on`` is "device_state", "pending_bytes", "data_offset", "data_size" or
        "data"; ``code`` is a positive errno.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchAccess:
    """The members of `Bench` that one driver really has; ``None`` for the others."""

    work: Callable[[int], None] | None = None
    snapshot: Callable[[], bytes | memoryview] | None = None
    fail: Callable[[str, int], None] | None = None


def bench_of(driver: object) -> BenchAccess:
    """Look up what of `Bench` a driver offers."""
    return BenchAccess(
        work=getattr(driver, "work", None),
        snapshot=getattr(driver, "snapshot", None),
        fail=getattr(driver, "fail", None),
    )
