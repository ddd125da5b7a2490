"""RAM at the source: the bytes of its sections, turns, and what is dirty again."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from vfiomig.migration.clock import LinkModel, VirtualClock
from vfiomig.migration.incoming import Incoming
from vfiomig.migration.loop_rules import LOOP_RULES
from vfiomig.migration.metrics import Metrics, Round
from vfiomig.migration.pace import QemuPace
from vfiomig.migration.ram_loading import RamLoading
from vfiomig.migration.ram_pages import BATCH
from vfiomig.migration.ram_saving import RamSaving
from vfiomig.vm.dirty_pages import LogUser

if TYPE_CHECKING:
    from vfiomig.migration.exchange import Steps

MS = 1_000_000
SECTION = 2
START = b"\x01" + SECTION.to_bytes(4, "big")
PART = b"\x02" + SECTION.to_bytes(4, "big")
END = b"\x03" + SECTION.to_bytes(4, "big")
FOOT = END_OF_STATE + footer(SECTION)


class Saving:
    """A `RamSaving` of a small guest, with a link that takes its time."""

    def __init__(
        self, guest: SmallGuest, *, bandwidth: int = 1 << 40, **parameters: object
    ) -> None:
        self.clock, self.metrics = VirtualClock(), Metrics()
        self.link = LinkModel(bandwidth, 0)
        migrating = guest.migrating(**{"max_bandwidth": 0, **parameters})
        self.pace = QemuPace(
            clock=self.clock,
            metrics=self.metrics,
            link=self.link,
            parameters=migrating.parameters,
        )
        self.ram = RamSaving(
            migrating,
            SECTION,
            clock=self.clock,
            pace=self.pace,
            metrics=self.metrics,
        )
        self.round = Round(number=1, began_at=0, pending_bytes=0)
        self.is_done = False

    def perform(self, steps: Steps[object]) -> bytes:
        return b"".join(sent(steps, self.clock, self.link))

    def set_up(self) -> bytes:
        return self.perform(self.ram.save_setup())

    def turn(self) -> bytes:
        def steps() -> Steps[None]:
            self.is_done = yield from self.ram.save_iterate(self.round)

        return self.perform(steps())

    def complete(self) -> bytes:
        return self.perform(self.ram.save_complete_precopy())


def zeros(*pages: int) -> bytes:
    return b"".join(word(page, ZERO | CONTINUE) + b"\0" for page in pages)


def fulls(*pages: int) -> bytes:
    return b"".join(word(page, FULL | CONTINUE) + content(page) for page in pages)


def test_the_sections_of_a_small_guest_byte_for_byte() -> None:
    with SmallGuest(8, 1, 2, 6) as guest:
        saving = Saving(guest)
        size = 8 * PAGE
        assert saving.set_up() == b"".join(
            [
                START + b"\x03ram" + bytes(4) + b"\0\0\0\x04",
                (size | 0x04).to_bytes(8, "big") + PC_RAM + size.to_bytes(8, "big"),
                FOOT,
            ]
        )
        first = word(0, ZERO) + PC_RAM + b"\0"
        pages = first + fulls(1, 2) + zeros(3, 4, 5) + fulls(6) + zeros(7)
        assert saving.turn() == PART + pages + FOOT
        assert saving.is_done
        assert saving.turn() == PART + FOOT
        guest.write(4)
        assert saving.complete() == END + fulls(4) + FOOT
        assert sent(saving.ram.save_state()) == []


def test_what_it_counts() -> None:
    with SmallGuest(8, 1, 2, 6) as guest:
        saving = Saving(guest)
        stream = saving.set_up() + saving.turn()
        guest.write(3)
        stream += saving.complete()
        metrics = saving.metrics
        assert metrics.stream_bytes == len(stream)
        assert (metrics.normal_pages, metrics.zero_pages) == (4, 5)
        assert metrics.dirty_syncs == guest.syncs == 2  # at setup, and at the end
        assert saving.round.ram_bytes == 8 * PAGE
        assert metrics.stop_and_copy_ram_bytes == len(END + fulls(3))


def test_pages_written_meanwhile_are_sent_again_after_a_sync() -> None:
    with SmallGuest(8, *range(8)) as guest:
        saving = Saving(guest)
        saving.set_up()
        saving.turn()
        guest.write(5, 50)
        guest.write(2, 20)
        assert saving.ram.pending_estimate() == 0  # nobody has looked
        assert saving.ram.pending_exact(1) == 2 * PAGE
        data = saving.turn()
        expected = [word(page, FULL | CONTINUE) + content(page * 10) for page in (2, 5)]
        assert data == PART + b"".join(expected) + FOOT


def test_a_page_that_became_zero_is_sent_as_zero() -> None:
    with SmallGuest(4, 0, 1, 2, 3) as guest:
        saving = Saving(guest)
        saving.set_up()
        saving.turn()
        guest.memory.write(2 * PAGE, bytes(PAGE))
        assert saving.complete() == END + zeros(2) + FOOT


def test_it_looks_for_dirty_pages_only_below_the_threshold() -> None:
    # save_live_pending of 7.2: `remaining < threshold`.
    with SmallGuest(4, 0, 1) as guest:
        saving = Saving(guest)
        saving.set_up()
        assert saving.ram.pending_exact(4 * PAGE) == 4 * PAGE
        assert saving.metrics.dirty_syncs == 1
        saving.ram.pending_exact(4 * PAGE + 1)
        assert saving.metrics.dirty_syncs == 2


def test_since_8_0_who_asks_exactly_has_estimated_before() -> None:
    with SmallGuest(4, 0, 1) as guest:
        saving = Saving(guest, rules=LOOP_RULES["8.0"])
        saving.set_up()
        saving.ram.pending_exact(0)
        assert saving.metrics.dirty_syncs == 2


def test_a_turn_ends_with_the_budget_and_the_next_goes_on_behind() -> None:
    # A byte less than 3 pages: the third is sent, and goes beyond it.
    with SmallGuest(8, *range(8)) as guest:
        saving = Saving(guest, max_bandwidth=10 * (3 * (PAGE + 8) - 1))
        head = len(saving.set_up())
        saving.metrics.stream_bytes -= head  # so that the window begins here
        first = word(0, FULL) + PC_RAM + content(0)
        assert saving.turn() == PART + first + fulls(1, 2) + FOOT
        assert not saving.is_done
        assert saving.pace.is_exceeded()
        saving.pace.wait()
        assert saving.turn() == PART + fulls(3, 4, 5) + FOOT


def test_a_turn_takes_no_longer_than_50_ms() -> None:
    # 4104 bytes a page; so many a second that 50 ms are 100 of them.
    pages = 400
    with SmallGuest(pages, *range(pages)) as guest:
        saving = Saving(guest, bandwidth=4104 * 100 * 20)
        saving.set_up()
        began = saving.clock.now
        data = saving.turn()
        assert not saving.is_done
        assert 50 * MS <= saving.clock.now - began <= 51 * MS
        assert 100 <= len(data) // 4104 <= 101


def test_it_goes_round_from_where_it_was() -> None:
    with SmallGuest(8, *range(8)) as guest:
        saving = Saving(guest, max_bandwidth=10 * (3 * (PAGE + 8) - 1))
        head = len(saving.set_up())
        saving.metrics.stream_bytes -= head
        saving.turn()
        guest.write(1)
        saving.pace.wait()
        saving.ram.pending_exact(1 << 40)
        data = saving.complete()
        assert data == END + fulls(3, 4, 5, 6, 7, 1) + FOOT


def test_many_pages_go_in_batches() -> None:
    pages = 2 * BATCH + 1
    with SmallGuest(pages, *range(pages)) as guest:
        saving = Saving(guest)
        saving.set_up()
        pieces = sent(saving.ram.save_complete_precopy())
        assert [len(piece) // PAGE for piece in pieces] == [BATCH, BATCH, 1, 0]


def test_when_it_is_over_nothing_is_logged() -> None:
    with SmallGuest(4) as guest:
        saving = Saving(guest)
        saving.set_up()
        block = guest.memory.block("pc.ram")
        assert all(guest.memory.log(user, block) for user in LogUser)
        saving.ram.stop_logs()
        assert not any(guest.memory.log(user, block) for user in LogUser)


@pytest.mark.parametrize("budget", [1, 9000, 1 << 30])
def test_what_is_saved_is_loaded(budget: int) -> None:
    filled = [*range(30), 40, 42, 44, 63]
    with SmallGuest(64, *filled) as guest, SmallGuest(64, 35, 41) as other:
        saving = Saving(guest, max_bandwidth=10 * budget)
        incoming, metrics = Incoming(), Metrics()
        loading = RamLoading(other.memory, incoming, metrics)
        saving.set_up()
        number = 0
        while not saving.is_done:
            feed(loading.load_part(SECTION), saving.turn()[5:], 777)
            saving.pace.wait()
            guest.write(number % 64, 1000 + number)
            number += 1
        feed(loading.load_end(SECTION), saving.complete()[5:])
        assert other.memory.digest() == guest.memory.digest()
        assert metrics.loaded_ram_pages == (
            saving.metrics.normal_pages + saving.metrics.zero_pages
        )
