"""Pages received to where they lie: what is expected, and what else may come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.unit.migration.feeding import feed, sent
from tests.unit.migration.guests import (
    CONTINUE,
    END_OF_STATE,
    FULL,
    PAGE,
    PC_RAM,
    ZERO,
    SmallGuest,
    content,
    footer,
    word,
)
from tests.unit.migration.test_ram_saving import Saving
from vfiomig.migration.clock import Channel, VirtualClock
from vfiomig.migration.exchange import Send
from vfiomig.migration.incoming import Incoming
from vfiomig.migration.metrics import Metrics
from vfiomig.migration.page_rows import ExpectedRows
from vfiomig.migration.ram_loading import RamLoading
from vfiomig.migration.ram_pages import BATCH, StreamPages
from vfiomig.protocol.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.migration.exchange import Steps
    from vfiomig.migration.ram_pages import Sent
    from vfiomig.protocol.qemu_stream.page_batch import Flags, PageNumbers
    from vfiomig.vm.ram_block import RamBlock

PAGES = 40
SECTION = 3
END = END_OF_STATE + footer(SECTION)
ROW = 8 + PAGE


def fulls(*pages: int) -> bytes:
    return b"".join(word(page, FULL | CONTINUE) + content(page) for page in pages)


def zeros(*pages: int) -> bytes:
    return b"".join(word(page, ZERO | CONTINUE) + b"\0" for page in pages)


NAMED = word(0, FULL) + PC_RAM + content(0)
BEGUN = NAMED + fulls(*range(1, 12))  # enough that the next page is expected


@pytest.fixture
def guest() -> Iterator[SmallGuest]:
    with SmallGuest(PAGES) as made:
        yield made


def load(guest: SmallGuest, *parts: tuple[bytes, int]) -> tuple[Incoming, RamLoading]:
    """Load sections, each in pieces of a size; all of the bytes must be used.

    The first is read ahead as a whole, so that the next begins with rows.
    """
    incoming = Incoming()
    loading = RamLoading(guest.memory, incoming, Metrics())
    for payload, piece in parts:
        section = payload + END
        taken, used = feed(loading.load_part(SECTION), section, piece, rows=True)
        assert taken == used == len(section)
    return incoming, loading


def numbers_of(guest: SmallGuest) -> list[int]:
    """Return whose content each page has, -1 for a zero page."""
    pages = [guest.page(number) for number in range(PAGES)]
    found = [int.from_bytes(page[:4], "little") - 1 for page in pages]
    for page, number in zip(pages, found, strict=True):
        assert page == (content(number) if number >= 0 else bytes(PAGE))
    return found


@pytest.mark.parametrize("piece", [1 << 20, ROW, 4095, 61, 8, 7])
def test_pages_that_were_expected_are_where_they_belong(
    guest: SmallGuest, piece: int
) -> None:
    incoming, _ = load(guest, (BEGUN, 1 << 20), (fulls(*range(12, PAGES)), piece))
    assert numbers_of(guest) == list(range(PAGES))
    assert incoming.position == len(BEGUN + fulls(*range(12, PAGES)) + END + END)


OTHERS = {
    "a zero page": (zeros(14), {14: -1}),
    "many zero pages": (zeros(*range(14, 30)), {}),
    "another page": (fulls(20), {20: 20}),
    "a page that came before": (word(3, FULL | CONTINUE) + content(77), {3: 77}),
    "a page with a name": (word(14, FULL) + PC_RAM + content(14), {14: 14}),
    "a zero page with a name": (word(14, ZERO) + PC_RAM + b"\0", {14: -1}),
    "nothing": (b"", {}),
}


@pytest.mark.parametrize("piece", [1 << 20, ROW + 3, 61, 9])
@pytest.mark.parametrize("name", list(OTHERS))
def test_anything_else_is_read_as_what_it_is(
    guest: SmallGuest, name: str, piece: int
) -> None:
    data, changes = OTHERS[name]
    load(guest, (BEGUN, 1 << 20), (fulls(12, 13) + data, piece))
    wanted = dict.fromkeys(range(PAGES), -1) | {n: n for n in range(14)} | changes
    # No page holds anything but what came for it: numbers_of looks at each whole one.
    assert numbers_of(guest) == list(wanted.values())


@pytest.mark.parametrize("behind", [1, 7, 8, 9, 4104, 4105, 12_000])
def test_what_comes_behind_the_last_page_is_in_no_page(
    guest: SmallGuest, behind: int
) -> None:
    incoming = Incoming()
    loading = RamLoading(guest.memory, incoming, Metrics())
    load_all = BEGUN + END
    feed(loading.load_part(SECTION), load_all, rows=True)

    def steps() -> Steps[None]:
        yield from loading.load_part(SECTION)
        assert (yield from incoming.take(behind)) == b"\xa5" * behind

    stream = fulls(12, 13) + END + b"\xa5" * behind
    taken, used = feed(steps(), stream, rows=True)
    assert taken == used == len(stream)
    assert numbers_of(guest) == [*range(14), *[-1] * (PAGES - 14)]


def test_a_page_that_came_is_never_received_into(guest: SmallGuest) -> None:
    # Page 20 came before 12: what is expected behind 11 would lead over it.
    early = NAMED + fulls(20) + zeros(21) + fulls(*range(1, 12))
    bad = word(12, 0x40) + b"\xa5" * (30 * PAGE)
    with pytest.raises(StreamError, match="unknown flags 0x40"):
        load(guest, (early, 1 << 20), (bad, 1 << 20))
    assert numbers_of(guest) == [
        *range(12),
        *[-1] * 8,
        20,
        *[-1] * (PAGES - 21),
    ]


@pytest.mark.parametrize("piece", [1 << 20, 100])
def test_what_is_no_page_is_refused_where_it_stands(
    guest: SmallGuest, piece: int
) -> None:
    with pytest.raises(StreamError, match="unknown flags 0x200") as error:
        load(guest, (BEGUN, 1 << 20), (fulls(12) + word(13, 0x200) + END, piece))
    assert error.value.position == len(BEGUN + END) + ROW
    assert numbers_of(guest) == [*range(13), *[-1] * (PAGES - 13)]


def test_a_page_behind_the_block_is_refused(guest: SmallGuest) -> None:
    rest = fulls(*range(12, PAGES + 1))
    with pytest.raises(StreamError, match=f"page {PAGES} of pc.ram, which") as error:
        load(guest, (BEGUN, 1 << 20), (rest, 1 << 20))
    assert error.value.position == len(BEGUN + END) + ROW * (PAGES - 12)
    assert numbers_of(guest) == list(range(PAGES))


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, ROW - 1, ROW, ROW + 5, 3 * ROW + 8])
def test_a_stream_that_ends_among_rows_tells_where(
    guest: SmallGuest, size: int
) -> None:
    incoming = Incoming()
    loading = RamLoading(guest.memory, incoming, Metrics())
    feed(loading.load_part(SECTION), BEGUN + END, rows=True)
    with pytest.raises(StreamError, match="it ends early") as error:
        feed(loading.load_part(SECTION), fulls(12, 13, 14, 15)[:size], rows=True)
    whole = size // ROW
    assert error.value.position == len(BEGUN + END) + whole * ROW
    assert numbers_of(guest) == [*range(12 + whole), *[-1] * (PAGES - 12 - whole)]


def test_pages_are_expected_only_where_none_has_come(guest: SmallGuest) -> None:
    _, loading = load(guest, (BEGUN, 1 << 20))
    places = loading._places
    assert places.expected("pc.ram", 11) is None
    expected = places.expected("pc.ram", 12)
    assert isinstance(expected, ExpectedRows)
    assert (expected.first, expected.end) == (12, PAGES)
    assert places.expected("pc.ram", PAGES) is None


class OneBatch(StreamPages):
    """Sends no more than a batch in one step."""

    def send(
        self,
        head: bytes,
        block: RamBlock,
        numbers: PageNumbers,
        zero: Flags,
        limit: int,
    ) -> Steps[Sent]:
        return super().send(head, block, numbers[:BATCH], zero[:BATCH], limit)


class Dated(Saving):
    """A `Saving` whose link dates each byte, however it is cut to pieces."""

    def __init__(self, guest: SmallGuest, **how: object) -> None:
        super().__init__(guest, **how)  # type: ignore[arg-type]
        self.channel = Channel(self.link, self.clock, VirtualClock())

    def perform(self, steps: Steps[object]) -> bytes:
        data: list[bytes] = []
        answer: int | None = None
        while True:
            try:
                step = next(steps) if answer is None else steps.send(answer)
            except StopIteration:
                return b"".join(data)
            assert isinstance(step, Send)
            data += [bytes(part) for part in (step.view, *step.more)]
            answer = step.size
            self.channel.send(answer)


class Plain(Dated):
    """The same batch by batch."""

    def __init__(self, guest: SmallGuest, **how: object) -> None:
        super().__init__(guest, **how)
        self.ram._sender = OneBatch()


@pytest.mark.parametrize("bandwidth", [1 << 24, 1 << 27, 333_333_333, 1 << 40])
@pytest.mark.parametrize("budget", [0, 1 << 20, 10_000_001, 1 << 30])
def test_many_batches_in_one_step_are_the_same_stream_at_the_same_dates(
    bandwidth: int, budget: int
) -> None:
    pages = 11 * BATCH + 5
    luck = np.random.default_rng(bandwidth + budget)
    holes = set(luck.integers(0, pages, 2).tolist())
    filled = [page for page in range(pages) if page not in holes]
    streams = []
    for kind in (Dated, Plain):
        with SmallGuest(pages, *filled) as guest:
            saving = kind(guest, bandwidth=bandwidth, max_bandwidth=10 * budget)
            parts, moments = [saving.set_up()], [saving.clock.now]
            for _ in range(12):
                parts.append(saving.turn())
                moments.append(saving.clock.now)
                saving.pace.wait()
                guest.write(7)
            parts.append(saving.complete())
            streams.append((parts, moments, saving.metrics))
    assert streams[0] == streams[1]


def test_a_zero_page_among_many_full_ones_is_sent_as_one() -> None:
    pages, holes = 5 * BATCH, (BATCH + 9, BATCH + 10, 3 * BATCH)
    with SmallGuest(pages, *(n for n in range(pages) if n not in holes)) as guest:
        saving = Saving(guest)
        saving.set_up()
        stream = saving.complete()
    wanted = [fulls(n) if n not in holes else zeros(n) for n in range(1, pages)]
    end = END_OF_STATE + footer(2)
    assert stream == b"\x03\0\0\0\x02" + NAMED + b"".join(wanted) + end
    assert saving.metrics.zero_pages == len(holes)


def test_full_pages_side_by_side_are_sent_from_where_they_are() -> None:
    pages = 5 * BATCH
    with SmallGuest(pages, *range(pages)) as guest:
        saving = Saving(guest)
        saving.set_up()
        sizes = []
        steps = saving.ram.save_complete_precopy()
        step = next(steps)
        while True:
            assert isinstance(step, Send)
            sizes.append(step.size)
            try:
                step = steps.send(step.size)
            except StopIteration:
                break
    assert sizes == [5 + 8 + 7 + 4096 + 255 * ROW, 4 * BATCH * ROW, 13]


def test_a_stream_of_rows_is_loaded() -> None:
    pages = 3 * BATCH + 9
    filled = [page for page in range(pages) if page not in (300, 301, 555)]
    with SmallGuest(pages, *filled) as guest, SmallGuest(pages, 300) as other:
        saving = Saving(guest)
        saving.set_up()
        stream = b"".join(sent(saving.ram.save_complete_precopy()))
        loading = RamLoading(other.memory, Incoming(), metrics := Metrics())
        feed(loading.load_end(2), stream[5:], 100_000, rows=True)
        assert other.memory.digest() == guest.memory.digest()
        assert metrics.loaded_ram_pages == pages
