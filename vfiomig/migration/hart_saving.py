"""The harts of a machine: each sends its state in one piece, when all have stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.migration.exchange import Send
from vfiomig.protocol.qemu_stream import riscv_cpu

if TYPE_CHECKING:
    from vfiomig.migration.exchange import Steps
    from vfiomig.migration.metrics import Metrics, Round
    from vfiomig.protocol.qemu_stream.riscv_cpu import RiscvCpu
    from vfiomig.vm.riscv.board import VirtBoard

HARTS: Final = "harts"


class HartSaving:
    """All harts of a board; a `SaveHandler` that has nothing to say before the end.

    Their sections are numbered from ``first`` on.  ``sent`` is what was.
    """

    def __init__(self, board: VirtBoard, first: int, metrics: Metrics) -> None:
        self.sent: tuple[RiscvCpu, ...] = ()
        self._board = board
        self._first = first
        self._metrics = metrics

    @property
    def name(self) -> str:
        """What to call them."""
        return HARTS

    def save_setup(self) -> Steps[None]:
        """Begin nothing: a CPU has no START section."""
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
        """Send a FULL section of each hart.

        Raises:
            OSError: KVM does not tell what a hart is.
        """
        self.sent = self._board.save()
        layout = self._board.policy.layout
        for index, cpu in enumerate(self.sent):
            section = riscv_cpu.full_section(self._first + index, index, cpu, layout)
            sent = yield Send(section)
            self._metrics.stream_bytes += sent
            self._metrics.hart_bytes += sent

    def descriptions(self) -> list[dict[str, object]]:
        """Return what the VM description says of what was sent."""
        layout = self._board.policy.layout
        return [riscv_cpu.describe(at, cpu, layout) for at, cpu in enumerate(self.sent)]
