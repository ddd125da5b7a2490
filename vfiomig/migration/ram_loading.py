"""RAM's part in the stream at the destination: ram_load_precopy of QEMU 7.2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream import ram_framing
from vfiomig.protocol.qemu_stream.framing import section_foot
from vfiomig.protocol.qemu_stream.page_batch import PAGE_SIZE, Run, decode_run
from vfiomig.vm.zero_pages import zero_pages

if TYPE_CHECKING:
    from vfiomig.migration.exchange import Steps
    from vfiomig.migration.incoming import Incoming
    from vfiomig.migration.metrics import Metrics
    from vfiomig.vm.memory import GuestMemory
    from vfiomig.vm.ram_block import RamBlock


class RamLoading:
    """All RAM of a machine, a `LoadHandler`."""

    name = ram_framing.RAM_IDSTR

    def __init__(
        self, memory: GuestMemory, incoming: Incoming, metrics: Metrics
    ) -> None:
        self._blocks = {block.idstr: block for block in memory.blocks}
        self._incoming = incoming
        self._metrics = metrics
        self._last_block = ""
        self.start_rest = ram_framing.start_rest(
            [(block.idstr, block.size) for block in memory.blocks]
        )

    def load_part(self, section: int) -> Steps[None]:
        """Take pages in, up to the end of the section.

        Raises:
            StreamError: what comes is no page of this machine.
        """
        incoming = self._incoming
        while True:
            window = incoming.window()
            run = decode_run(window, self._last_block, incoming.position)
            if run is None:
                yield from incoming.more()
            elif isinstance(run, Run):
                self._load(run)
                yield from incoming.use(run.size)
            else:
                yield from incoming.use(run)
                break
        yield from incoming.expect(section_foot(section), "a section's footer")

    load_end = load_part

    def load_state(self, section: int) -> Steps[None]:
        """Refuse: RAM has no FULL section."""
        yield from ()
        self._incoming.fail(f"section {section}, ram, has no FULL section")

    def _load(self, run: Run) -> None:
        block = self._blocks.get(run.block)
        if block is None:
            self._incoming.fail(f"no block of RAM is called {run.block!r}")
        self._last_block = run.block
        numbers = run.numbers
        if int(numbers.max()) >= block.pages:
            message = (
                f"page {int(numbers.max())} of {run.block}, which has {block.pages}"
            )
            raise StreamError(message, position=self._incoming.position)
        ram = block.bytes.reshape(-1, PAGE_SIZE)
        first, count = int(numbers[0]), len(numbers)
        if run.contents is None:
            _clear(block, numbers)
        elif int(numbers[-1]) - first == count - 1 and _rises(numbers):
            ram[first : first + count] = run.contents
        else:
            ram[numbers] = run.contents
        self._metrics.loaded_ram_pages += count


def _rises(numbers: np.ndarray[tuple[int], np.dtype[np.int64]]) -> bool:
    """Tell whether each page is the one behind the last: a hostile stream may lie."""
    return bool((numbers[1:] - numbers[:-1] == 1).all())


def _clear(
    block: RamBlock, numbers: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> None:
    """Make pages zero; one that is so already is left alone, and takes no memory."""
    low, high = int(numbers.min()), int(numbers.max()) + 1
    if high - low == len(numbers):
        is_zero = zero_pages(block, low, high - low)
        dirty = np.flatnonzero(~is_zero) + low
    else:
        flags = [zero_pages(block, int(number), 1)[0] for number in numbers]
        dirty = numbers[~np.array(flags, np.bool_)]
    if len(dirty):
        block.bytes.reshape(-1, PAGE_SIZE)[dirty] = 0
