"""RAM over streams that move rows and over ones that do not: nothing may tell which."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfiomig.migration.clock import Channel, LinkModel, VirtualClock
from vfiomig.migration.convergence import DowntimeEstimate, Limits
from vfiomig.migration.destination import Destination
from vfiomig.migration.exchange import Party, exchange
from vfiomig.migration.metrics import Metrics, Outcome
from vfiomig.migration.parameters import Parameters
from vfiomig.migration.side import MigratingMachine
from vfiomig.migration.source import Source
from vfiomig.migration.transport import make_memory_pair, make_unix_pair
from vfiomig.vm.layout import Slot
from vfiomig.vm.machine import Machine, RunState
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.ram_block import PAGE_SIZE, RamBlock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vfiomig.migration.transport import ByteStream, Pair
    from vfiomig.migration.transport.rows import RowStream, Span

BLOCKS = {"pc.ram": 700, "vga.vram": 90, "pc.bios": 3}
PAGES = sum(BLOCKS.values())


class Bytes:
    """A stream that moves no rows, so many bytes at a time; it notes what it sent."""

    def __init__(self, stream: ByteStream, sizes: Sequence[int], sent: bytearray):
        self._stream = stream
        self._sizes = itertools.cycle(sizes)
        self._most = next(self._sizes)
        self._sent = sent

    def send(self, data: memoryview) -> int:
        taken = self._stream.send(data[: self._most])
        self._sent += data[:taken]
        return self._next(taken)

    def receive_into(self, buffer: memoryview) -> int | None:
        # The same buffer until it is answered.
        count = self._stream.receive_into(buffer[: self._most])
        return count if count is None else self._next(count)

    def finish(self) -> None:
        self._stream.finish()

    def close(self) -> None:
        self._stream.close()

    def fileno(self) -> int | None:
        return self._stream.fileno()

    def _next(self, moved: int) -> int:
        if moved:
            self._most = next(self._sizes)
        return moved


class WithRows(Bytes):
    """The same, and it moves rows."""

    _stream: RowStream  # type: ignore[assignment]  # and a ByteStream

    def send_rows(self, span: Span) -> int:
        taken = self._stream.send_rows(span[: self._most])
        self._sent += bytes(span[:taken])
        return self._next(taken)

    def receive_rows(self, span: Span) -> int | None:
        count = self._stream.receive_rows(span[: self._most])
        return count if count is None else self._next(count)


class Run(NamedTuple):
    """What a migration did, and nothing of how."""

    stream: bytes
    metrics: Metrics
    ended: tuple[int, int]
    digest: str


class Writer:
    """A guest that writes a few pages whenever it may run."""

    def __init__(self, memory: GuestMemory, seed: int) -> None:
        self._memory = memory
        self._luck = np.random.default_rng(seed)

    def run_until(self, now: int) -> None:
        for _ in range(int(self._luck.integers(0, 4))):
            first = int(self._luck.integers(0, PAGES - 4))
            data = self._luck.integers(0, 2, dtype=np.uint8).tobytes() * PAGE_SIZE
            self._memory.write(first * PAGE_SIZE, data * int(self._luck.integers(1, 4)))


def guest(kinds: Sequence[int], seed: int) -> GuestMemory:
    """Return a guest whose runs of pages are zero, full, or never written."""
    blocks = [RamBlock(name, pages * PAGE_SIZE) for name, pages in BLOCKS.items()]
    starts = [0, *itertools.accumulate(BLOCKS.values())]
    slots = [
        Slot(start * PAGE_SIZE, block.size, block, 0)
        for start, block in zip(starts, blocks, strict=False)
    ]
    memory = GuestMemory(blocks, slots)
    luck = np.random.default_rng(seed)
    edges = np.sort(luck.integers(0, PAGES, len(kinds) - 1)).tolist()
    for first, end, kind in zip([0, *edges], [*edges, PAGES], kinds, strict=True):
        if kind and first < end:
            low = 0 if kind == 1 else 1
            data = luck.integers(low, low + 1 + kind, (end - first) * PAGE_SIZE)
            memory.write(first * PAGE_SIZE, (data * (kind > 1)).astype(np.uint8))
    return memory


def migrate(
    make_pair: Callable[[], Pair],
    kind: type[Bytes],
    sizes: Sequence[int],
    kinds: Sequence[int],
    seed: int,
    link: LinkModel,
) -> Run:
    """Migrate a guest; it must arrive."""
    near, far = make_pair()
    here, there, metrics = VirtualClock(), VirtualClock(), Metrics()
    forth, back = Channel(link, here, there), Channel(link, there, here)
    stream = bytearray()
    with guest(kinds, seed) as source, guest([2], seed + 1) as destination:
        leaving = Source(
            (),
            clock=here,
            estimate=DowntimeEstimate(link=link),
            limits=Limits(rounds=3),
            metrics=metrics,
            guest=Writer(source, seed),
            machine=MigratingMachine(
                Machine("pc-i440fx-7.2", source, (), RunState.RUNNING),
                Parameters(max_bandwidth=1 << 25),
            ),
        )
        arriving = Destination(
            (),
            clock=there,
            metrics=metrics,
            machine=MigratingMachine(Machine("pc-i440fx-7.2", destination)),
        )
        first = Party(
            leaving.migrate(),
            kind(near, sizes, stream),
            outgoing=forth,
            incoming=back,
        )
        second = Party(
            arriving.load(),
            kind(far, sizes[::-1], bytearray()),
            outgoing=back,
            incoming=forth,
        )
        exchange(first, second)
        near.close()
        far.close()
        assert first.result().outcome is Outcome.COMPLETED, first.result().error
        assert second.result().outcome is Outcome.COMPLETED
        assert source.digest() == destination.digest()
        return Run(bytes(stream), metrics, (here.now, there.now), source.digest())


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    kinds=st.lists(st.sampled_from([0, 1, 2, 2, 2]), min_size=1, max_size=7),
    sizes=st.lists(
        st.one_of(
            st.integers(3000, 300_000),
            st.sampled_from([4096, 4103, 4104, 4105, 4112, 1 << 22]),
        ),
        min_size=1,
        max_size=6,
    ),
    seed=st.integers(0, 1 << 30),
    bandwidth=st.sampled_from([30_000_000, 1 << 28, 1 << 36]),
)
def test_rows_are_the_same_stream_at_the_same_dates(
    kinds: list[int], sizes: list[int], seed: int, bandwidth: int
) -> None:
    link = LinkModel(bandwidth, 1000)
    plain = migrate(make_memory_pair, Bytes, [1 << 22], kinds, seed, link)
    for make_pair in (make_memory_pair, make_unix_pair):
        assert plain == migrate(make_pair, WithRows, sizes, kinds, seed, link)
