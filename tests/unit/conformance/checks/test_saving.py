"""Checks of the sequence of saving, on histories by hand."""

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
WHOLE = (*SIZED, "read 0x1000 32")
MAPPABLE = ((0x1000, 0x2000),)


def say(
    check: str, *lines: str, areas: tuple[tuple[int, int], ...] = ()
) -> list[Ruling]:
    """Return all rulings."""
    return rulings(f"saving:{check}", *lines, areas=areas)


def broken(check: str, *lines: str, areas: tuple[tuple[int, int], ...] = ()) -> Broken:
    """Return the one ruling that says that the rule is broken."""
    (found,) = (each for each in say(check, *lines, areas=areas) if each is not HELD)
    assert isinstance(found, Broken)
    return found


def is_kept(check: str, *lines: str, areas: tuple[tuple[int, int], ...] = ()) -> bool:
    """Tell whether the premise came true, and the rule was never broken."""
    found = say(check, *lines, areas=areas)
    return bool(found) and set(found) == {HELD}


class TestInSequence:
    check = "in_sequence"

    @pytest.mark.parametrize("state", [2, 3])
    def test_the_headers_sequence_is_in_sequence(self, state: int) -> None:
        first = (f"write device_state {state}", *WHOLE[1:])
        again = ("read pending_bytes -> 8", "read data_offset -> 0x20")
        rest = ("read data_size -> 8", "read 0x20 8", "read pending_bytes -> 0")
        assert is_kept(self.check, *first, *again, *rest)

    def test_registers_may_be_read_more_than_once(self) -> None:
        lines = (*STOP_AND_COPY, *["read pending_bytes -> 1"] * 3, *SIZED[2:])
        twice = ("read data_offset -> 0x1000", "read data_size -> 0x20")
        data = ("read 0x1010 16", "read 0x1000 16", "read 0x1000 32")
        assert is_kept(self.check, *lines, *twice, *data, "read pending_bytes -> 0")

    def test_polling_in_pre_copy_is_no_iteration(self) -> None:
        polls = ["read pending_bytes -> 0"] * 3
        assert say(self.check, "write device_state 3", *polls) == []

    def test_an_empty_buffer_has_no_data_to_read(self) -> None:
        lines = (*BUFFER, "read data_size -> 0", "read pending_bytes -> 0x100")
        assert is_kept(self.check, *lines)

    def test_a_transition_may_leave_a_buffer_unread(self) -> None:
        pre_copy = ("write device_state 3", *SIZED[1:])
        assert is_kept(self.check, *pre_copy, *WHOLE, "read pending_bytes -> 0")

    @pytest.mark.parametrize(
        ("lines", "step"),
        [
            (("write device_state 2", "read data_offset -> 0x20"), 2),
            ((*STOP_AND_COPY, "write device_state 3", "read data_offset -> 0x20"), 4),
            (("write device_state 3", "read pending_bytes -> 0", BUFFER[2]), 3),
            ((*STOP_AND_COPY, "read data_size -> 0x20"), 3),
            ((*BUFFER, "read 0x1000 16"), 4),
            ((*STOP_AND_COPY, "read 0x1000 16"), 3),
            ((*BUFFER, "read pending_bytes -> 1"), 4),
            ((*SIZED, "read pending_bytes -> 1"), 5),
            ((*SIZED, "read 0x1000 31", "read pending_bytes -> 1"), 6),
            ((*SIZED, "read 0x1000 33"), 5),
            ((*SIZED, "read 0xfff 2"), 5),
            ((*WHOLE, "read pending_bytes -> 1", "read 0x1000 32"), 7),
        ],
    )
    def test_a_step_out_of_sequence_breaks_it(
        self, lines: tuple[str, ...], step: int
    ) -> None:
        ruling = broken(self.check, *lines)
        assert [each.index for each in ruling.witnesses] == [step]

    def test_what_can_be_mapped_was_perhaps_read_unseen(self) -> None:
        lines = (*SIZED, "read pending_bytes -> 0")
        assert is_kept(self.check, *lines, areas=MAPPABLE)

    def test_the_trapped_part_of_a_split_buffer_is_owed(self) -> None:
        lines = (*STOP_AND_COPY, "read data_offset -> 0xff0", "read data_size -> 0x20")
        rest = ("unseen read 0x1000 16", "read pending_bytes -> 0")
        assert broken(self.check, *lines, *rest, areas=MAPPABLE).witnesses[0].index == 6
        trapped = (*lines, "read 0xff0 16", *rest)
        assert is_kept(self.check, *trapped, areas=MAPPABLE)

    @pytest.mark.parametrize(
        "lines",
        [
            ("read data_offset -> 0x20", "read data_size -> 1", "read 0x1000 8"),
            ("write device_state 4", "read data_offset -> 0x20", "read 0x1000 8"),
            ("write device_state 2 -> EIO", "read data_offset -> 0x20"),
            (
                "write device_state 2",
                "read 0x8 4 -> EINVAL",
                "read data_offset -> 0x20",
            ),
            ("write device_state 2", "reset", "read data_offset -> 0x20"),
        ],
    )
    def test_nothing_is_owed_elsewhere(self, lines: tuple[str, ...]) -> None:
        assert say(self.check, *lines) == []


class TestSameInBothStates:
    check = "same_in_both_states"

    @pytest.mark.parametrize("state", [2, 3])
    def test_registers_that_answer_keep_it(self, state: int) -> None:
        lines = (f"write device_state {state}", *WHOLE[1:], "read pending_bytes -> 0")
        assert say(self.check, *lines) == [HELD] * 4

    @pytest.mark.parametrize("state", [2, 3])
    @pytest.mark.parametrize("step", [1, 2, 3])
    def test_a_refused_step_breaks_it(self, state: int, step: int) -> None:
        refused = f"{SIZED[step].partition(' -> ')[0]} -> EINVAL"
        lines = (f"write device_state {state}", *SIZED[1:step], refused)
        ruling = broken(self.check, *lines)
        assert ruling.actual == "EINVAL"
        assert ruling.witnesses[0].index == step + 1

    @pytest.mark.parametrize(
        "lines",
        [
            ("write device_state 2", "read pending_bytes -> EIO"),
            ("write device_state 2", "read pending_bytes -> died"),
            ("write device_state 2", "fail data 22", "read pending_bytes -> EINVAL"),
            ("write device_state 2", "read 0x8 4 -> EINVAL", "read pending_bytes -> 8"),
            ("write device_state 2", "read data_offset -> EINVAL"),
            ("write device_state 2", "read data_size -> EINVAL"),
            ("read pending_bytes -> EINVAL",),
            ("write device_state 4", "read pending_bytes -> EINVAL"),
        ],
    )
    def test_nothing_is_owed_otherwise(self, lines: tuple[str, ...]) -> None:
        assert say(self.check, *lines) == []


class TestDataStays:
    check = "data_stays"

    @pytest.mark.parametrize(
        "reads",
        [
            ("read 0x1000 4 -> 01020304", "read 0x1000 4 -> 01020304"),
            ("read 0x1000 4 -> 01020304", "read 0x1002 1 -> 03"),
            ("read 0x1001 1 -> 02", "read 0x1000 4 -> 01020304"),
            ("read 0x1000 32 -> xxh3-128:1", "work 5", "read 0x1000 32 -> xxh3-128:1"),
        ],
    )
    def test_the_same_data_stays(self, reads: tuple[str, ...]) -> None:
        assert say(self.check, *SIZED, *reads) == [HELD]

    @pytest.mark.parametrize(
        "reads",
        [
            ("read 0x1000 4 -> 01020304", "read 0x1000 4 -> 01020305"),
            ("read 0x1000 4 -> 01020304", "read 0x1002 1 -> 04"),
            ("read 0x1001 1 -> 07", "read 0x1000 4 -> 01020304"),
            ("read 0x1000 32 -> xxh3-128:1", "read 0x1000 32 -> xxh3-128:2"),
        ],
    )
    def test_other_data_breaks_it(self, reads: tuple[str, ...]) -> None:
        ruling = broken(self.check, *SIZED, *reads)
        assert [each.index for each in ruling.witnesses] == [5, 6]

    def test_it_breaks_while_the_device_runs_on(self) -> None:
        lines = ("write device_state 3", *SIZED[1:], "read 0x1000 1 -> 01", "work 9")
        assert broken(self.check, *lines, "read 0x1000 1 -> 02").witnesses

    @pytest.mark.parametrize(
        "between",
        [
            ("read pending_bytes -> 8", *SIZED[2:]),
            ("write 0x1000 8",),
            ("unseen write 0x1000 8",),
            ("write data_size 1",),
            ("write device_state 2",),
            ("read 0x1000 1 -> EIO",),
            ("write pending_bytes 1",),
        ],
    )
    def test_nothing_is_owed_across_other_accesses(
        self, between: tuple[str, ...]
    ) -> None:
        lines = (*SIZED, "read 0x1000 1 -> 01", *between, "read 0x1000 1 -> 02")
        assert say(self.check, *lines) == []

    @pytest.mark.parametrize(
        "lines",
        [
            BUFFER,  # how long it is is not known
            ("write device_state 2", "read data_offset -> 0x1000", SIZED[3]),
            (*STOP_AND_COPY, "read data_offset -> 0x2000", SIZED[3]),
            ("write device_state 4", "read data_offset -> 0x1000"),
        ],
    )
    def test_nothing_is_owed_outside_the_buffer(self, lines: tuple[str, ...]) -> None:
        reads = ("read 0x1000 1 -> 01", "read 0x1000 1 -> 02")
        assert say(self.check, *lines, *reads) == []

    def test_what_nobody_saw_is_not_compared(self) -> None:
        reads = ("unseen read 0x1000 32", "read 0x1000 32 -> xxh3-128:1")
        assert say(self.check, *SIZED, *reads, "unseen read 0x1000 32") == []

    def test_the_first_reads_are_kept_however_many_follow(self) -> None:
        lines = (*BUFFER, "read data_size -> 0x2000", "read 0x1000 1 -> 01")
        many = [f"read {0x1001 + place:#x} 1 -> 00" for place in range(1000)]
        assert broken(self.check, *lines, *many, "read 0x1000 1 -> 02").witnesses


class TestDataInAnyPieces:
    check = "data_in_any_pieces"

    @pytest.mark.parametrize("place", ["0x1000 1", "0x1001 3", "0x1008 8", "0x1001 31"])
    def test_a_piece_that_is_read_keeps_it(self, place: str) -> None:
        assert say(self.check, *SIZED, f"read {place}") == [HELD]

    @pytest.mark.parametrize("place", ["0x1000 1", "0x1001 3", "0x1008 8", "0x1001 31"])
    @pytest.mark.parametrize("outcome", ["EINVAL", "0 bytes"])
    def test_a_piece_that_is_refused_breaks_it(self, place: str, outcome: str) -> None:
        ruling = broken(self.check, *SIZED, f"read {place} -> {outcome}")
        assert ruling.actual == outcome

    @pytest.mark.parametrize(
        "lines",
        [
            (*SIZED, "read 0x1000 32 -> EINVAL"),  # the whole
            (*SIZED, "read 0x1000 1 -> EIO"),
            (*SIZED, "read 0x101f 2 -> EINVAL"),
            (*SIZED, "fail data 22", "read 0x1000 1 -> EINVAL"),
            (*SIZED, "read 0x1000 8 -> 4 bytes"),
            (*SIZED, "unseen read 0x1000 1"),
            (*BUFFER, "read 0x1000 1 -> EINVAL"),
            ("write device_state 2", BUFFER[2], SIZED[3], "read 0x1000 1 -> EINVAL"),
            (*WHOLE, "read pending_bytes -> 0", "read 0x1000 1 -> EINVAL"),
        ],
    )
    def test_nothing_is_owed_for_other_reads(self, lines: tuple[str, ...]) -> None:
        assert say(self.check, *lines) == []

    def test_a_mappable_piece_is_another_rules_matter(self) -> None:
        lines = (*SIZED, "read 0x1000 1 -> EINVAL")
        assert say(self.check, *lines, areas=MAPPABLE) == []


class TestErrorAtTheNextAccess:
    check = "error_at_the_next_access"

    CASES = (
        ("pending_bytes", STOP_AND_COPY[:1], "read pending_bytes"),
        ("data_offset", STOP_AND_COPY, "read data_offset"),
        ("data_size", BUFFER, "read data_size"),
        ("data", SIZED, "read 0x1000 8"),
    )

    @pytest.mark.parametrize(("on", "before", "access"), CASES)
    def test_an_errno_tells_of_the_fault(
        self, on: str, before: tuple[str, ...], access: str
    ) -> None:
        assert say(self.check, *before, f"fail {on} 5", f"{access} -> EIO") == [HELD]

    @pytest.mark.parametrize(("on", "before", "access"), CASES)
    def test_success_hides_it(
        self, on: str, before: tuple[str, ...], access: str
    ) -> None:
        lines = (*before, f"fail {on} 5", f"{access} -> 0x1")
        assert broken(self.check, *lines).actual == "success"

    @pytest.mark.parametrize(
        "lines",
        [
            (*SIZED, "fail data_size 5", "read 0x1000 8"),  # another access
            (*SIZED, "read data_size -> 0x20"),  # no fault
            ("fail pending_bytes 5", "read pending_bytes -> 0"),  # not SAVING
            ("write device_state 2", "fail data_offset 5", "read data_offset -> 0x20"),
            (*STOP_AND_COPY, "fail data_size 5", "read data_size -> 0x20"),
            (*BUFFER, "fail data 5", "read 0x1000 8"),
            (*STOP_AND_COPY[:1], "fail pending_bytes 5", "read pending_bytes -> died"),
            (
                *STOP_AND_COPY[:1],
                "fail pending_bytes 5",
                "reset",
                *STOP_AND_COPY,
            ),
        ],
    )
    def test_nothing_is_said_of_other_accesses(self, lines: tuple[str, ...]) -> None:
        assert say(self.check, *lines) == []

    def test_a_fault_goes_off_once(self) -> None:
        lines = (
            *STOP_AND_COPY[:1],
            "fail pending_bytes 5",
            "read pending_bytes -> EIO",
        )
        assert say(self.check, *lines, "read pending_bytes -> 8") == [HELD]

    def test_a_fault_in_mapped_data_shows_later(self) -> None:
        lines = (*SIZED, "fail data 5", "read 0x1000 8")
        assert say(self.check, *lines, areas=MAPPABLE) == []


class TestEndsAtAnError:
    check = "ends_at_an_error"
    FAILURES = (
        (*STOP_AND_COPY[:1], "read pending_bytes -> EIO"),
        (*STOP_AND_COPY, "read data_offset -> EIO"),
        (*BUFFER, "read data_size -> EIO"),
        (*SIZED, "read 0x1000 8 -> EIO"),
    )

    @pytest.mark.parametrize("lines", FAILURES)
    @pytest.mark.parametrize(
        "end",
        ["write device_state 0", "write device_state 1 -> EIO", "reset", "close"],
    )
    def test_who_leaves_saving_keeps_it(self, lines: tuple[str, ...], end: str) -> None:
        assert say(self.check, *lines, "read device_state -> 2", end) == [HELD]

    @pytest.mark.parametrize("lines", FAILURES)
    @pytest.mark.parametrize(
        "next_step",
        ["read data_offset -> 0x20", "read data_size -> 1", "read 0x1000 8"],
    )
    def test_who_goes_on_breaks_it(
        self, lines: tuple[str, ...], next_step: str
    ) -> None:
        ruling = broken(self.check, *lines, "read pending_bytes -> 1", next_step)
        count = len(lines)
        assert [each.index for each in ruling.witnesses] == [count, count + 2]

    def test_entering_stop_and_copy_is_going_on(self) -> None:
        lines = ("write device_state 3", "read pending_bytes -> EIO")
        assert broken(self.check, *lines, *BUFFER).witnesses[1].index == 5

    @pytest.mark.parametrize(
        "lines",
        [
            (
                *STOP_AND_COPY[:1],
                "read pending_bytes -> EIO",
                "read pending_bytes -> 0",
            ),
            (*STOP_AND_COPY[:1], "read pending_bytes -> EINTR", *BUFFER[1:]),
            (*SIZED, "read 0x1030 8 -> EINVAL", "read 0x1000 8"),  # its own mistake
            ("write device_state 2", "read data_offset -> EIO", *BUFFER[1:]),
            (*STOP_AND_COPY, "write data_offset 1 -> EINVAL", BUFFER[2]),
            (
                *STOP_AND_COPY,
                "write device_state 5 -> EINVAL",
                "read device_state -> 2",
            ),
            ("read pending_bytes -> EIO", *BUFFER),
        ],
    )
    def test_nothing_is_owed_otherwise(self, lines: tuple[str, ...]) -> None:
        assert say(self.check, *lines) == []

    def test_the_next_session_begins_without_it(self) -> None:
        lines = (*STOP_AND_COPY, "read data_offset -> EIO", "write device_state 1")
        assert say(self.check, *lines, *WHOLE) == [HELD]

    def test_a_device_that_left_saving_by_itself_ends_it_too(self) -> None:
        lines = (*STOP_AND_COPY, "read data_offset -> EIO", "read device_state -> 0x1")
        assert say(self.check, *lines, *WHOLE) == []
