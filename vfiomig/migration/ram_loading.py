"""RAM's part in the stream at the destination: ram_load_precopy of QEMU 7.2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from vfiomig.migration.exchange import Consumed, Wait
from vfiomig.migration.page_rows import ExpectedRows
from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream import ram_framing
from vfiomig.protocol.qemu_stream.framing import section_foot
from vfiomig.protocol.qemu_stream.page_batch import PAGE_SIZE, Run, decode_run
from vfiomig.vm.zero_pages import zero_pages

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vfiomig.migration.exchange import Steps
    from vfiomig.migration.incoming import Incoming
    from vfiomig.migration.metrics import Metrics
    from vfiomig.migration.ram_channels import ReceivingChannels
    from vfiomig.protocol.qemu_stream.page_batch import PageNumbers, PageTable
    from vfiomig.vm.memory import GuestMemory
    from vfiomig.vm.ram_block import RamBlock


class PagePlaces:
    """A guest's RAM, as pages that came are put into it.

    ``loaded`` counts them.
    """

    def __init__(self, memory: GuestMemory) -> None:
        self._blocks = {block.idstr: block for block in memory.blocks}
        self._untouched = dict.fromkeys(self._blocks, 0)  # no page came from there on
        self._expected: ExpectedRows | None = None
        self.loaded = 0

    def put(
        self,
        name: str,
        numbers: PageNumbers,
        contents: PageTable | None,
        position: int,
        *,
        is_run: bool,
    ) -> None:
        """Put pages, or zeros, where they belong; ``position`` is theirs in a stream.

        ``is_run`` tells whether each page is the one behind the last.

        Raises:
            StreamError: there is no such block, or no such page in it.
        """
        last = int(numbers[-1]) if is_run else int(numbers.max())
        block = self._block(name, last, position)
        first, count = int(numbers[0]), len(numbers)
        ram = block.bytes.reshape(-1, PAGE_SIZE)
        if contents is None:
            _clear(block, numbers)
        elif is_run:
            ram[first : first + count] = contents
        else:
            ram[numbers] = contents
        self._touch(name, last + 1)
        self.loaded += count

    def expected(self, name: str, page: int) -> ExpectedRows | None:
        """Return rows that ``page`` of a block can be received into, and those behind.

        None if there is no such page, or if one of them has come already.
        """
        block = self._blocks[name]
        if not self._untouched[name] <= page < block.pages:
            return None
        rows = self._expected
        if rows is None or block is not rows.block or not rows.first <= page < rows.end:
            rows = self._expected = ExpectedRows(block, page)
        return rows

    def came(self, name: str, page: int, count: int) -> None:
        """Count pages that were received where they are."""
        self._touch(name, page + count)
        self.loaded += count

    def let_go(self) -> None:
        """Hold no more of the memory than its blocks: nothing more is expected."""
        self._expected = None

    def _touch(self, name: str, end: int) -> None:
        if end > self._untouched[name]:
            self._untouched[name] = end

    def place(
        self, block: str, offsets: NDArray[np.uint64], pages: PageTable | None
    ) -> None:
        """Put pages that came by a channel of their own; raises as `put`."""
        numbers = _numbers(offsets)
        self.put(block, numbers, pages, 0, is_run=_is_run(numbers))

    def room(self, block: str, offsets: NDArray[np.uint64]) -> memoryview | None:
        """Return the memory of pages that lie side by side; raises as `put`."""
        numbers = _numbers(offsets)
        last = int(numbers.max())
        ram = self._block(block, last, 0)
        if not _is_run(numbers):
            return None
        self._touch(block, last + 1)
        self.loaded += len(numbers)
        return ram.pages_view(int(numbers[0]), len(numbers))

    def _block(self, name: str, last: int, position: int) -> RamBlock:
        block = self._blocks.get(name)
        if block is None:
            reason = f"no block of RAM is called {name!r}"
            raise StreamError(reason, position=position)
        if last >= block.pages:
            reason = f"page {last} of {name}, which has {block.pages}"
            raise StreamError(reason, position=position)
        return block


class RamLoading:
    """All RAM of a machine, a `LoadHandler`.

    With multifd the ``channels`` bring the pages that are not zero.
    """

    name = ram_framing.RAM_IDSTR

    def __init__(
        self,
        memory: GuestMemory,
        incoming: Incoming,
        metrics: Metrics,
        channels: ReceivingChannels | None = None,
        places: PagePlaces | None = None,
    ) -> None:
        self._places = places or PagePlaces(memory)
        self._incoming = incoming
        self._metrics = metrics
        self._channels = channels
        self._dated = 0  # bytes of the channels whose time has come
        self._last_block = ""
        self._next: int | None = None  # the page that is likely to come next
        self._start_rest = ram_framing.start_rest(
            [(block.idstr, block.size) for block in memory.blocks]
        )

    def load_start(self, section: int) -> Steps[None]:
        """Hold the source's blocks against those here."""
        rest = self._start_rest + section_foot(section)
        yield from self._incoming.expect(rest, "the START section of ram")
        yield from self._wait_for_channels()

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
                yield from self._receive()
            elif isinstance(run, Run):
                position = incoming.position
                self._places.put(
                    run.block, run.numbers, run.contents, position, is_run=run.is_run
                )
                self._last_block = run.block
                is_likely = run.is_run and len(run.numbers) >= _LIKELY
                has_next = is_likely and run.contents is not None
                self._next = int(run.numbers[-1]) + 1 if has_next else None
                yield from incoming.use(run.size)
            else:
                yield from incoming.use(run)
                break
        yield from self._wait_for_channels()
        self._metrics.loaded_ram_pages = self._places.loaded
        yield from incoming.expect(section_foot(section), "a section's footer")

    def load_end(self, section: int) -> Steps[None]:
        """Take the last pages in; raises as `load_part`."""
        yield from self.load_part(section)
        self._places.let_go()

    def load_state(self, section: int) -> Steps[None]:
        """Refuse: RAM has no FULL section."""
        yield from ()
        self._incoming.fail(f"section {section}, ram, has no FULL section")

    def _receive(self) -> Steps[None]:
        """Receive more, into RAM if the next pages of a block are likely to come."""
        incoming, page = self._incoming, self._next
        if (
            page is not None
            and self._channels is None
            and (yield from incoming.offers_rows())
        ):
            rows = self._places.expected(self._last_block, page)
            if rows is not None and rows.begins_with(page, incoming.window()):
                yield from self._receive_rows(rows, page)
                return
        yield from incoming.more()

    def _receive_rows(self, rows: ExpectedRows, page: int) -> Steps[None]:
        """Receive pages to where they belong, until something else comes."""
        incoming = self._incoming
        span = rows.begin(page, incoming.window())
        got = yield from incoming.read_rows(span, rows.agrees)
        count, rest = rows.end_at(got)
        if count:
            self._places.came(self._last_block, page, count)
            yield from incoming.used(count * rows.size)
        self._next = page + count
        incoming.put_back(rest)
        if got < len(span) and rows.agrees(got):
            incoming.fail("it ends early")

    def _wait_for_channels(self) -> Steps[None]:
        """Let every channel come to its SYNC, and date what they brought."""
        channels = self._channels
        if channels is None:
            return
        yield Wait(lambda: channels.is_synced)
        came = channels.received
        channels.resume()
        yield Consumed(came - self._dated)
        self._dated = came


# So many full pages side by side, and the next one is likely to come behind them.
_LIKELY: Final = 8


def _numbers(offsets: NDArray[np.uint64]) -> PageNumbers:
    return (offsets // np.uint64(PAGE_SIZE)).astype(np.int64)


def _is_run(numbers: PageNumbers) -> bool:
    """Tell whether each page is the one behind the last: a hostile stream may lie."""
    count = len(numbers)
    if int(numbers[-1]) - int(numbers[0]) != count - 1:
        return False
    return count < 3 or bool((np.diff(numbers) == 1).all())


def _clear(block: RamBlock, numbers: PageNumbers) -> None:
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
