"""What goes in one piece: FULL sections of a machine's parts, when all has stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vfiomig.migration.exchange import Send
from vfiomig.protocol.qemu_stream import riscv_cpu, xen_sections
from vfiomig.protocol.qemu_stream.xen_state import XenStoreDevice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vfiomig.migration.clock import VirtualClock
    from vfiomig.migration.exchange import Steps
    from vfiomig.migration.metrics import Metrics, Round, StateKind
    from vfiomig.vm.riscv.board import VirtBoard
    from vfiomig.vm.xen.guest import XenGuest


class State(NamedTuple):
    """A whole FULL section, and what the VM description says of it."""

    kind: StateKind
    section: bytes
    description: dict[str, object]


class StateSaving:
    """Sends the states that ``take`` gives; a `SaveHandler` with no other sections."""

    def __init__(
        self,
        name: str,
        take: Callable[[], Iterator[State]],
        *,
        clock: VirtualClock,
        metrics: Metrics,
    ) -> None:
        self.name = name
        self.descriptions: list[dict[str, object]] = []  # of what was sent
        self._take = take
        self._clock = clock
        self._metrics = metrics

    def save_setup(self) -> Steps[None]:
        """Begin nothing: there is no START section."""
        yield from ()

    def pending_estimate(self) -> int:
        """Return 0: what does not iterate is in no estimate of QEMU."""
        return 0

    def pending_exact(self, threshold: int) -> int:
        """Return 0 as well."""
        del threshold
        return 0

    def save_iterate(self, current: Round) -> Steps[bool]:
        """Have no turn of pre-copy."""
        del current
        yield from ()
        return True

    def save_complete_precopy(self) -> Steps[None]:
        """Have no END section."""
        yield from ()

    def save_state(self) -> Steps[None]:
        """Send all states; raises what ``take`` does."""
        for state in self._take():
            began = self._clock.now
            sent = yield Send(state.section)
            self._metrics.stream_bytes += sent
            self._metrics.count_state(state.kind, sent, self._clock.now - began)
            self.descriptions.append(state.description)


def hart_states(board: VirtBoard, first: int) -> Iterator[State]:
    """Yield the states of a board's harts, in sections from ``first`` on.

    Raises:
        OSError: KVM does not tell what a hart is.
    """
    layout = board.policy.layout
    for index, cpu in enumerate(board.save()):
        section = riscv_cpu.full_section(first + index, index, cpu, layout)
        yield State("harts", section, riscv_cpu.describe(index, cpu, layout))


def xen_states(xen: XenGuest, first: int) -> Iterator[State]:
    """Yield the states of a Xen guest, the store last, in sections from ``first`` on.

    Raises:
        CrashError: the store has QEMU's quirks, and QEMU has ended.
    """
    for number, (instance, part) in enumerate(xen.host.save().parts(), first):
        kind: StateKind = "xenstore" if isinstance(part, XenStoreDevice) else "xen"
        section = xen_sections.full_section(number, instance, part)
        yield State(kind, section, xen_sections.describe(instance, part))
