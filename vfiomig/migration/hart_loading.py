"""A destination's harts: each has one section, by index, behind all that iterates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vfiomig.protocol.qemu_stream import riscv_cpu

if TYPE_CHECKING:
    from vfiomig.migration.exchange import Steps
    from vfiomig.migration.incoming import Incoming
    from vfiomig.protocol.qemu_stream.riscv_cpu import RiscvCpu
    from vfiomig.vm.riscv.board import VirtBoard


class HartLoading:
    """One hart of a board; a `LoadHandler` that has a FULL section alone.

    ``loaded`` is what came.
    """

    def __init__(self, board: VirtBoard, index: int, incoming: Incoming) -> None:
        self.loaded: RiscvCpu | None = None
        self._board = board
        self._index = index
        self._incoming = incoming

    @property
    def name(self) -> str:
        """What to call it."""
        return f"hart {self._index}"

    def load_start(self, section: int) -> Steps[None]:
        """Refuse what no hart has; raises StreamError."""
        yield from ()
        self._incoming.fail(f"section {section}: {self.name} has no START section")

    load_part = load_end = load_start  # nobody opens a section of it

    def load_state(self, section: int) -> Steps[None]:
        """Load the FULL section.

        Raises:
            StreamError: it is not what this hart can load.
            OSError: it brings what KVM cannot take here.
        """
        board = self._board
        reading = riscv_cpu.read_rest(
            section,
            self._index,
            board.policy.layout,
            takes_mp_state=board.has_mp_state,
            position=self._incoming.position,
        )
        try:
            wanted = next(reading)
            while True:
                data = yield from self._incoming.take(wanted)
                wanted = reading.send(data)
        except StopIteration as end:
            values: RiscvCpu = end.value
        board.load(self._index, values)
        self.loaded = values

    def description(self) -> dict[str, object]:
        """Return what the VM description says of what came."""
        assert self.loaded is not None, "all sections have come"
        layout = self._board.policy.layout
        return riscv_cpu.describe(self._index, self.loaded, layout)
