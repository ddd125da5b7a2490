"""Checks of data_size, on histories by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.conformance.histories import rulings
from vfiomig.conformance.ruling import HELD, Broken

if TYPE_CHECKING:
    from vfiomig.conformance.ruling import Ruling

STOP_AND_COPY = ("write device_state 2", "read pending_bytes -> 0x100")
BUFFER = (*STOP_AND_COPY, "read data_offset -> 0x1000")
SIZED = (*BUFFER, "read data_size -> 0x20")
RESUMING = ("write device_state 4",)
ROOM = (*RESUMING, "read data_offset -> 0x1000")
MAPPABLE = ((0x1000, 0x2000),)


def broken(check: str, *lines: str, areas: tuple[tuple[int, int], ...] = ()) -> Broken:
    """Return the one ruling, which is that the rule is broken."""
    found = [
        ruling
        for ruling in rulings(f"data_size:{check}", *lines, areas=areas)
        if ruling is not HELD
    ]
    assert len(found) == 1
    assert isinstance(found[0], Broken)
    return found[0]


def say(
    check: str, *lines: str, areas: tuple[tuple[int, int], ...] = ()
) -> list[Ruling]:
    """Return all rulings."""
    return rulings(f"data_size:{check}", *lines, areas=areas)


class TestIsTheBuffersLength:
    check = "is_the_buffers_length"

    def test_a_buffer_that_reads_to_its_end_is_as_long_as_it_says(self) -> None:
        assert say(self.check, *SIZED, "read 0x1000 32") == [HELD]

    @pytest.mark.parametrize("outcome", ["EINVAL", "EFAULT", "0 bytes"])
    def test_a_whole_read_that_is_refused_breaks_it(self, outcome: str) -> None:
        ruling = broken(self.check, *SIZED, f"read 0x1000 32 -> {outcome}")
        assert ruling.expected == "32 bytes"
        assert ruling.actual == outcome
        assert [each.index for each in ruling.witnesses] == [4, 5]

    def test_the_last_piece_breaks_it_where_one_as_wide_was_taken(self) -> None:
        lines = (*SIZED, "read 0x1000 16", "read 0x1010 16 -> EINVAL")
        assert broken(self.check, *lines).expected == "16 bytes"

    def test_the_last_piece_of_another_width_may_have_failed_for_its_width(
        self,
    ) -> None:
        lines = (*SIZED, "read 0x1000 24", "read 0x1018 8 -> EINVAL")
        assert say(self.check, *lines) == []

    @pytest.mark.parametrize(
        "lines",
        [
            (*SIZED, "read 0x1000 32 -> EIO"),  # an error of the device
            (*SIZED, "read 0x1000 33 -> EINVAL"),  # more than the buffer
            (*SIZED, "read 0x1000 32 -> 31 bytes"),
            (*SIZED, "read 0x1000 16", "read 0x1008 16 -> EINVAL"),  # not its end
            (*SIZED, "fail data 5", "read 0x1000 32 -> EINVAL"),
            (*BUFFER, "read 0x1000 32 -> EINVAL"),  # no size yet
            (*SIZED, "write data_offset 0", "read 0x1000 32 -> EINVAL"),
            (*SIZED, "read 0x8 4 -> EINVAL", "read 0x1000 32 -> EINVAL"),
            (*SIZED, "read pending_bytes -> 0", "read 0x1000 32 -> EINVAL"),
        ],
    )
    def test_nothing_is_owed_for_other_reads(self, lines: tuple[str, ...]) -> None:
        assert say(self.check, *lines) == []

    def test_a_mappable_buffer_is_another_rules_matter(self) -> None:
        lines = (*SIZED, "read 0x1000 32 -> EINVAL")
        assert say(self.check, *lines, areas=MAPPABLE) == []


class TestStableWithinIteration:
    check = "stable_within_iteration"

    def test_the_same_size_twice_is_stable(self) -> None:
        lines = (*SIZED, "read data_offset -> 0x1000", "read data_size -> 0x20")
        assert say(self.check, *lines) == [HELD]

    def test_another_size_in_the_same_iteration_breaks_it(self) -> None:
        ruling = broken(self.check, *SIZED, "read data_size -> 0x10")
        assert ruling.expected == "data_size = 0x20"
        assert ruling.actual == "data_size = 0x10"
        assert [each.index for each in ruling.witnesses] == [4, 5]

    def test_it_breaks_behind_the_data_and_in_pre_copy_too(self) -> None:
        lines = ("write device_state 3", *SIZED[1:], "read 0x1000 32", "work 3")
        assert broken(self.check, *lines, "read data_size -> 0x21").witnesses

    def test_the_next_iteration_has_a_size_of_its_own(self) -> None:
        lines = (*SIZED, "read pending_bytes -> 8", "read data_offset -> 0x1000")
        assert say(self.check, *lines, "read data_size -> 8") == []

    @pytest.mark.parametrize(
        "lines",
        [
            ("write device_state 2", "read data_offset -> 0x20"),  # nothing was pending
            (
                "write device_state 2",
                "read pending_bytes -> 0",
                "read data_offset -> 0x20",
            ),
            (*STOP_AND_COPY,),  # no data_offset
            (*STOP_AND_COPY, "read data_offset -> EIO"),
            ("write device_state 4", "read data_offset -> 0x1000"),
            ("read pending_bytes -> 1", "read data_offset -> 0x1000"),
            (*BUFFER, "write data_offset 1"),
            (*BUFFER, "write device_state 7 -> EINVAL"),
        ],
    )
    def test_nothing_is_owed_out_of_sequence(self, lines: tuple[str, ...]) -> None:
        sizes = ("read data_size -> 1", "read data_size -> 2")
        assert say(self.check, *lines, *sizes) == []

    @pytest.mark.parametrize(
        "between",
        ["write data_size 16", "write 0x1000 8", "write device_state 2", "reset"],
    )
    def test_nothing_is_owed_across_a_write(self, between: str) -> None:
        assert say(self.check, *SIZED, between, "read data_size -> 0x10") == []

    def test_stop_and_copy_may_begin_with_another_buffer(self) -> None:
        pre_copy = ("write device_state 3", *SIZED[1:])
        assert say(self.check, *pre_copy, *BUFFER, "read data_size -> 0x10") == []

    def test_a_failed_read_says_nothing(self) -> None:
        lines = (*SIZED, "read data_size -> EIO", "read data_size -> 0x10")
        assert say(self.check, *lines) == []


def empty_buffers(count: int, pending: str = "1") -> tuple[str, ...]:
    """Return the accesses that save empty buffers."""
    one = (
        f"read pending_bytes -> {pending}",
        "read data_offset -> 0x1000",
        "read data_size -> 0",
    )
    return one * count


class TestMakesProgress:
    check = "makes_progress"

    def test_sixteen_empty_buffers_are_too_many(self) -> None:
        ruling = broken(self.check, "write device_state 2", *empty_buffers(16))
        assert ruling.actual == "16 buffers with data_size = 0x0"
        assert [each.index for each in ruling.witnesses] == [4, 49]

    def test_fifteen_are_not(self) -> None:
        lines = ("write device_state 3", *empty_buffers(15), *SIZED[1:])
        assert say(self.check, *lines, *empty_buffers(15)) == [HELD]

    def test_a_size_that_is_read_again_counts_once(self) -> None:
        again = ("read data_size -> 0",) * 20
        assert say(self.check, *BUFFER, *again) == []

    def test_another_state_begins_anew(self) -> None:
        lines = ("write device_state 3", *empty_buffers(15), "write device_state 2")
        assert say(self.check, *lines, *empty_buffers(15)) == []

    def test_nothing_is_owed_with_nothing_pending(self) -> None:
        lines = ("write device_state 3", *empty_buffers(20, pending="0"))
        assert say(self.check, *lines) == []

    def test_a_buffer_whose_size_was_not_read_is_not_counted_as_empty(self) -> None:
        unknown = ("read pending_bytes -> 1", "read data_offset -> 0x1000")
        lines = (*empty_buffers(15), *unknown, *empty_buffers(15))
        assert say(self.check, "write device_state 2", *lines) == []


class TestNotWrittenWhileSaving:
    check = "not_written_while_saving"

    @pytest.mark.parametrize("outcome", ["", " -> EINVAL", " -> EPERM"])
    def test_an_error_is_as_good_as_silence(self, outcome: str) -> None:
        lines = (*SIZED, f"write data_size 5{outcome}", "read data_size -> 0x20")
        assert say(self.check, *lines) == [HELD]

    @pytest.mark.parametrize("outcome", ["", " -> EINVAL"])
    def test_a_write_with_effect_breaks_it(self, outcome: str) -> None:
        lines = (*SIZED, f"write data_size 5{outcome}", "read data_size -> 5")
        ruling = broken(self.check, *lines)
        assert ruling.actual == "data_size = 0x5"
        assert [each.index for each in ruling.witnesses] == [4, 5, 6]

    def test_data_may_be_read_in_between(self) -> None:
        lines = (*SIZED, "write data_size 5", "read 0x1000 5", "read data_size -> 5")
        assert broken(self.check, *lines).expected == "data_size = 0x20"

    @pytest.mark.parametrize(
        "lines",
        [
            (*BUFFER, "write data_size 5", "read data_size -> 5"),  # not known before
            (*SIZED, "read data_size -> 5"),  # no write
            (
                *SIZED,
                "write data_size 5",
                "read pending_bytes -> 1",
                "read data_size -> 5",
            ),
            (*SIZED, "write data_size 5", "write 0x1000 8", "read data_size -> 5"),
            (
                *SIZED,
                "write data_size 5",
                "read 0x0 8 -> EINVAL",
                "read data_size -> 5",
            ),
            (*SIZED, "write data_size 5 -> died", "read data_size -> 5"),
            (*ROOM, "read data_size -> 9", "write data_size 5", "read data_size -> 5"),
            ("read data_size -> 9", "write data_size 5", "read data_size -> 5"),
        ],
    )
    def test_nothing_is_owed_elsewhere(self, lines: tuple[str, ...]) -> None:
        assert say(self.check, *lines) == []


class TestTellsWhatWasWritten:
    check = "tells_what_was_written"

    @pytest.mark.parametrize(
        "writes",
        [
            ("write 0x1000 32",),
            ("write 0x1000 16", "write 0x1010 16"),
            ("write 0x1010 16", "write 0x1000 16"),
            ("write 0x1000 32", "write 0x1000 32"),
            ("unseen write 0x1000 32",),
        ],
    )
    def test_as_many_as_were_written_is_right(self, writes: tuple[str, ...]) -> None:
        assert say(self.check, *ROOM, *writes, "write data_size 32") == [HELD]

    @pytest.mark.parametrize("size", [0, 31, 33, 4096])
    def test_any_other_number_breaks_it(self, size: int) -> None:
        lines = (*ROOM, "write 0x1000 32", f"write data_size {size}")
        assert broken(self.check, *lines).actual == f"data_size = {size:#x}"

    def test_it_is_broken_even_if_the_driver_refuses(self) -> None:
        lines = (*ROOM, "write 0x1000 8", "write data_size 9 -> EINVAL")
        assert broken(self.check, *lines).witnesses[0].index == 4

    def test_each_buffer_is_counted_anew(self) -> None:
        lines = (*ROOM, "write 0x1000 32", "write data_size 32")
        next_one = ("read data_offset -> 0x1000", "write data_size 32")
        assert broken(self.check, *lines, *next_one).witnesses[0].index == 6

    def test_what_can_be_mapped_was_perhaps_written_unseen(self) -> None:
        lines = (*ROOM, "write data_size 32")
        assert say(self.check, *lines, areas=MAPPABLE) == [HELD]

    def test_the_trapped_part_of_a_split_buffer_is_owed(self) -> None:
        lines = (*RESUMING, "read data_offset -> 0xff0", "write data_size 32")
        assert broken(self.check, *lines, areas=MAPPABLE).witnesses
        trapped = (*lines[:2], "write 0xff0 16", lines[2])
        assert say(self.check, *trapped, areas=MAPPABLE) == [HELD]

    @pytest.mark.parametrize(
        "lines",
        [
            (*RESUMING, "write 0x1000 8"),  # no data_offset
            (*ROOM, "write 0x1000 8", "read data_offset -> 0x2000"),  # it moved
            (*ROOM, "write 0x1000 32 -> EIO"),
            ("read data_offset -> 0x1000", "write 0x1000 8"),
            (*BUFFER, "write 0x1000 8"),
        ],
    )
    def test_nothing_is_owed_where_it_is_not_sure(self, lines: tuple[str, ...]) -> None:
        assert say(self.check, *lines, "write data_size 32") == []

    def test_bytes_in_many_places_are_not_said_to_be_missing(self) -> None:
        even = [f"write {0x1000 + 2 * place:#x} 1" for place in range(200)]
        odd = [f"write {0x1001 + 2 * place:#x} 1" for place in range(200)]
        found = say(self.check, *ROOM, *even, *odd, "write data_size 400")
        assert found == [HELD]


class TestRefusedIfImpossible:
    check = "refused_if_impossible"

    @pytest.mark.parametrize("size", [0x2001, 0x3000, (1 << 64) - 1])
    def test_more_than_there_is_room_for_is_refused(self, size: int) -> None:
        refused = f"write data_size {size} -> EINVAL"
        assert say(self.check, *ROOM, refused) == [HELD]
        ruling = broken(self.check, *ROOM, f"write data_size {size}")
        assert ruling.actual == "success"

    def test_to_die_is_no_refusal(self) -> None:
        ruling = broken(self.check, *ROOM, "write data_size 0x2001 -> died")
        assert ruling.actual == "the driver died"

    def test_without_data_offset_the_room_is_all_of_the_data_section(self) -> None:
        room = 0x3000 - 32
        assert say(self.check, *RESUMING, f"write data_size {room}") == []
        assert broken(self.check, *RESUMING, f"write data_size {room + 1}").witnesses

    @pytest.mark.parametrize(
        "lines",
        [
            (*ROOM, "write data_size 0x2000"),  # just what fits
            (*ROOM, "write 0x1000 8 -> EIO", "write data_size 0x2001"),
            (*BUFFER, "write data_size 0x2001"),
            ("write data_size 0x2001",),
        ],
    )
    def test_nothing_is_owed_elsewhere(self, lines: tuple[str, ...]) -> None:
        assert say(self.check, *lines) == []


class TestReadableWhileResuming:
    check = "readable_while_resuming"

    @pytest.mark.parametrize("outcome", ["0", "0xffffffffffffffff", "EINVAL", "EIO"])
    def test_anything_may_come_of_it(self, outcome: str) -> None:
        assert say(self.check, *ROOM, f"read data_size -> {outcome}") == [HELD]

    def test_a_driver_that_dies_breaks_it(self) -> None:
        ruling = broken(self.check, *ROOM, "read data_size -> died")
        assert ruling.actual == "the driver died"

    def test_elsewhere_it_is_another_matter(self) -> None:
        assert say(self.check, *BUFFER, "read data_size -> died") == []
