"""What is owed of transitions, told by histories written by hand.

The expected rulings come from linux/vfio.h and from the table of arcs: each check is
shown one history that keeps its rule, one that breaks it, and what is not its business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.conformance.histories import rulings
from vfiomig.conformance.ruling import HELD, Broken

if TYPE_CHECKING:
    from vfiomig.conformance.ruling import Ruling

ARCS = "transitions"
FAILED = "failed_transitions"
ERROR = "error_state"
SESSIONS = "undisturbed_sessions"


def _broken(found: list[Ruling]) -> list[Broken]:
    return [each for each in found if isinstance(each, Broken)]


def _is_kept(check: str, *lines: str) -> bool:
    return set(rulings(check, *lines)) == {HELD}


def _is_broken(check: str, *lines: str) -> bool:
    return len(_broken(rulings(check, *lines))) == 1


def _says_nothing(check: str, *lines: str) -> bool:
    return not rulings(check, *lines)


# -- arcs that succeed ---------------------------------------------------------------

DRAWN = [
    ("running_to_stop", (), 0),
    ("running_to_stop_and_copy", (), 2),
    ("stop_and_copy_to_stop", (2,), 0),
    ("pre_copy_without_data", (), 3),
    ("pre_copy_to_stop_and_copy", (3,), 2),
    ("running_to_resuming", (), 4),
]
UNDRAWN = [((0,), 1), ((0,), 2), ((0,), 4), ((2,), 1), ((3,), 1)]


def _writes(*states: int) -> list[str]:
    return [f"write device_state {state}" for state in states]


@pytest.mark.parametrize(("check", "way", "target"), DRAWN)
class TestDrawnArcs:
    def test_success_keeps_the_rule(
        self, check: str, way: tuple[int, ...], target: int
    ) -> None:
        assert _is_kept(f"{ARCS}:{check}", *_writes(*way, target))

    def test_a_refusal_breaks_it(
        self, check: str, way: tuple[int, ...], target: int
    ) -> None:
        refused = f"write device_state {target} -> EINVAL"
        assert _is_broken(f"{ARCS}:{check}", *_writes(*way), refused)

    def test_a_fault_excuses_a_refusal(
        self, check: str, way: tuple[int, ...], target: int
    ) -> None:
        refused = f"write device_state {target} -> EIO"
        fault = "fail device_state 5"
        assert _says_nothing(f"{ARCS}:{check}", *_writes(*way), fault, refused)

    def test_an_earlier_failure_excuses_a_refusal(
        self, check: str, way: tuple[int, ...], target: int
    ) -> None:
        refused = f"write device_state {target} -> EIO"
        earlier = "read pending_bytes -> EIO"
        found = rulings(f"{ARCS}:{check}", *_writes(*way), earlier, refused)
        assert not any("write" in each.witnesses[-1].text for each in _broken(found))

    def test_reserved_bits_never_reported_may_be_refused(
        self, check: str, way: tuple[int, ...], target: int
    ) -> None:
        refused = f"write device_state {target | 1 << 31} -> EINVAL"
        assert _says_nothing(f"{ARCS}:{check}", *_writes(*way), refused)

    def test_a_death_is_not_judged(
        self, check: str, way: tuple[int, ...], target: int
    ) -> None:
        died = f"write device_state {target} -> died"
        assert _says_nothing(f"{ARCS}:{check}", *_writes(*way), died)

    def test_an_unknown_state_is_not_judged(
        self, check: str, way: tuple[int, ...], target: int
    ) -> None:
        lines = ["write 0x0 2 0x3", f"write device_state {target} -> EINVAL"]
        assert _says_nothing(f"{ARCS}:{check}", *_writes(*way), *lines)


@pytest.mark.parametrize(("way", "target"), UNDRAWN)
def test_an_arc_that_an_abort_or_qemu_needs_is_missed(
    way: tuple[int, ...], target: int
) -> None:
    refused = f"write device_state {target} -> EINVAL"
    assert _is_kept(f"{ARCS}:abort_without_reset", *_writes(*way, target))
    assert _is_broken(f"{ARCS}:abort_without_reset", *_writes(*way), refused)


@pytest.mark.parametrize(
    ("way", "target"),
    [((0,), 3), ((2,), 3), ((2,), 4), ((3,), 0), ((3,), 4), ((4,), 0), ((4,), 2)],
)
@pytest.mark.parametrize("check", [name for name, _, _ in DRAWN])
def test_nobody_demands_an_optional_arc(
    check: str, way: tuple[int, ...], target: int
) -> None:
    refused = f"write device_state {target} -> EINVAL"
    found = rulings(f"{ARCS}:{check}", *_writes(*way), refused)
    assert not _broken(found)
    assert _says_nothing(f"{ARCS}:abort_without_reset", *_writes(*way), refused)


def test_reported_reserved_bits_have_to_be_taken_back() -> None:
    check = f"{ARCS}:running_to_stop"
    read = "read device_state -> 0x11"
    assert _is_broken(check, read, "write device_state 0x10 -> EINVAL")
    assert _says_nothing(check, read, "write device_state 0x0 -> EINVAL")


def test_no_check_demands_that_resuming_ends() -> None:
    lines = ["write device_state 4", "write device_state 1 -> EINVAL"]
    for check, _, _ in DRAWN:
        assert not _broken(rulings(f"{ARCS}:{check}", *lines))


class TestStateIsOffered:
    @pytest.mark.parametrize(
        ("check", "way"),
        [
            ("running_to_stop_and_copy", (2,)),
            ("running_to_pre_copy", (3,)),
            ("pre_copy_to_stop_and_copy", (3, 2)),
        ],
    )
    @pytest.mark.parametrize(
        "reads",
        [
            ["read pending_bytes -> EINVAL"],
            ["read pending_bytes -> 0x10", "read data_offset -> EINVAL"],
            [
                "read pending_bytes -> 0x10",
                "read data_offset -> 0x1000",
                "read data_size -> EINVAL",
            ],
        ],
    )
    def test_a_register_that_cannot_be_read_breaks_the_rule(
        self, check: str, way: tuple[int, ...], reads: list[str]
    ) -> None:
        assert _is_broken(f"{ARCS}:{check}", *_writes(*way), *reads)
        assert not _broken(
            rulings(f"{ARCS}:{check}", *_writes(*way), "fail data 5", *reads)
        )

    def test_no_data_in_pre_copy_is_enough(self) -> None:
        lines = [*_writes(3), "read pending_bytes -> 0x0"]
        assert _is_kept(f"{ARCS}:running_to_pre_copy", *lines)

    def test_data_offset_is_not_owed_while_nothing_is_pending(self) -> None:
        lines = ["read pending_bytes -> 0x0", "read data_offset -> EINVAL"]
        found = rulings(f"{ARCS}:running_to_stop_and_copy", *_writes(2), *lines)
        assert not _broken(found)

    def test_a_buffer_given_up_unread_ends_what_is_owed(self) -> None:
        lines = [
            "read pending_bytes -> 0x10",
            "read data_offset -> 0x1000",
            "read pending_bytes -> EIO",
        ]
        found = rulings(f"{ARCS}:running_to_stop_and_copy", *_writes(2), *lines)
        assert not _broken(found)
        lines[-1] = "read pending_bytes -> 0x8"
        onward = "read data_offset -> EIO"
        found = rulings(f"{ARCS}:running_to_stop_and_copy", *_writes(2), *lines, onward)
        assert not _broken(found)

    def test_the_arc_of_pre_copy_is_another_rule(self) -> None:
        refused = "write device_state 3 -> EINVAL"
        assert _says_nothing(f"{ARCS}:running_to_pre_copy", refused)


class TestNoDrainingRequired:
    CHECK = f"{ARCS}:no_draining_required"

    @pytest.mark.parametrize(
        "reads",
        [
            [],
            ["read pending_bytes -> 0x10"],
            ["read pending_bytes -> 0x10", "read data_offset -> 0x1000"],
        ],
    )
    @pytest.mark.parametrize(("state", "target"), [(3, 2), (2, 0)])
    def test_data_that_is_left_is_no_reason_to_refuse(
        self, reads: list[str], state: int, target: int
    ) -> None:
        lines = [*_writes(state), *reads]
        assert _is_kept(self.CHECK, *lines, *_writes(target))
        assert _is_broken(self.CHECK, *lines, f"write device_state {target} -> EBUSY")

    def test_a_drained_device_is_not_its_business(self) -> None:
        lines = [*_writes(3), "read pending_bytes -> 0x0"]
        assert _says_nothing(self.CHECK, *lines, "write device_state 2 -> EBUSY")


class TestShutdown:
    CHECK = f"{ARCS}:shutdown_without_stop"

    def test_a_running_device_can_be_closed(self) -> None:
        assert _is_kept(self.CHECK, "close")
        assert _is_broken(self.CHECK, "close -> EBUSY")

    def test_a_stopped_one_is_not_its_business(self) -> None:
        assert _says_nothing(self.CHECK, *_writes(0), "close -> EBUSY")


class TestResumingWithoutReset:
    CHECK = f"{ARCS}:resuming_without_reset"
    REFUSED = "write device_state 4 -> EBUSY"

    @pytest.mark.parametrize("use", [["work 3"], _writes(3, 1), _writes(4, 1)])
    def test_a_used_device_resumes(self, use: list[str]) -> None:
        assert _is_kept(self.CHECK, *use, *_writes(4))
        assert _is_broken(self.CHECK, *use, self.REFUSED)

    @pytest.mark.parametrize("use", [[], ["work 0"], ["work 3", "reset"], _writes(1)])
    def test_a_fresh_one_is_not_its_business(self, use: list[str]) -> None:
        assert _says_nothing(self.CHECK, *use, self.REFUSED)


# -- transitions that fail -----------------------------------------------------------


class TestSuccessIsReturned:
    CHECK = f"{FAILED}:success_is_returned"
    REFUSED = "write device_state 2 -> EIO"

    def test_the_target_behind_a_failure_breaks_the_rule(self) -> None:
        assert _is_broken(self.CHECK, self.REFUSED, "read device_state -> 0x2")

    @pytest.mark.parametrize("state", [1, 6])
    def test_the_old_state_or_error_keeps_it(self, state: int) -> None:
        assert _is_kept(self.CHECK, self.REFUSED, f"read device_state -> {state:#x}")

    def test_a_refused_write_of_the_same_state_is_not_its_business(self) -> None:
        lines = ["write device_state 1 -> EINVAL", "read device_state -> 0x1"]
        assert _says_nothing(self.CHECK, *lines)


class TestFailureIsAnErrno:
    CHECK = f"{FAILED}:failure_is_an_errno"

    def test_a_short_write_breaks_the_rule(self) -> None:
        assert _is_broken(self.CHECK, "write device_state 3 -> 0 bytes")
        assert _is_broken(self.CHECK, "write device_state 3 -> 2 bytes")

    def test_an_errno_keeps_it(self) -> None:
        assert _is_kept(self.CHECK, "write device_state 3 -> EINVAL")

    @pytest.mark.parametrize("state", [1, 6])
    def test_success_of_a_transition_that_failed_breaks_it(self, state: int) -> None:
        found = rulings(self.CHECK, *_writes(3), f"read device_state -> {state:#x}")
        assert len(_broken(found)) == 1

    @pytest.mark.parametrize(
        "between", ["reset", "write 0x0 1 0x0", "write device_state 1"]
    )
    def test_a_read_behind_something_else_does_not_count(self, between: str) -> None:
        lines = [*_writes(3), between, "read device_state -> 0x1"]
        assert _says_nothing(self.CHECK, *lines)

    def test_success_and_death_are_not_its_business(self) -> None:
        assert _says_nothing(self.CHECK, *_writes(3), "write device_state 2 -> died")


class TestPreviousStateOrError:
    CHECK = f"{FAILED}:previous_state_or_error"
    REFUSED = "write device_state 0 -> EIO"

    @pytest.mark.parametrize("state", [3, 6, 3 | 1 << 8])
    def test_the_old_state_or_error_keeps_the_rule(self, state: int) -> None:
        lines = [*_writes(3), self.REFUSED, f"read device_state -> {state:#x}"]
        assert _is_kept(self.CHECK, *lines)

    @pytest.mark.parametrize("state", [0, 1, 2, 4, 5, 7])
    def test_any_other_state_breaks_it_even_with_a_fault(self, state: int) -> None:
        lines = [self.REFUSED, f"read device_state -> {state:#x}"]
        assert _is_broken(self.CHECK, *_writes(3), *lines)
        assert _is_broken(self.CHECK, *_writes(3), "fail device_state 5", *lines)

    def test_of_two_failures_the_state_before_the_first_counts(self) -> None:
        lines = [self.REFUSED, "write device_state 2 -> EIO"]
        assert _is_kept(self.CHECK, *_writes(3), *lines, "read device_state -> 0x3")
        assert _is_broken(self.CHECK, *_writes(3), *lines, "read device_state -> 0x0")

    @pytest.mark.parametrize("between", ["reset", "reset -> EIO", "write 0x0 1 0x0"])
    def test_nothing_is_owed_behind_a_reset_or_an_odd_write(self, between: str) -> None:
        lines = [*_writes(3), self.REFUSED, between, "read device_state -> 0x1"]
        assert _says_nothing(self.CHECK, *lines)

    def test_a_finding_names_write_and_read(self) -> None:
        lines = [*_writes(3), self.REFUSED, "read device_state -> 0x1"]
        (broken,) = _broken(rulings(self.CHECK, *lines))
        assert [each.index for each in broken.witnesses] == [2, 3]
        assert broken.expected == "device_state = PRE_COPY or ERROR"
        assert broken.actual == "device_state = RUNNING"


class TestReadAgainAfterFailure:
    CHECK = f"{FAILED}:read_again_after_failure"
    REFUSED = "write device_state 0 -> EIO"

    @pytest.mark.parametrize(
        "onward",
        ["write device_state 1", "read data_offset -> 0x20", "write data_size 4"],
    )
    def test_going_on_unread_breaks_the_rule(self, onward: str) -> None:
        assert _is_broken(self.CHECK, self.REFUSED, onward)

    def test_a_read_keeps_it(self) -> None:
        lines = [self.REFUSED, "read device_state -> 0x1", *_writes(1)]
        assert _is_kept(self.CHECK, *lines)

    @pytest.mark.parametrize("end", ["reset", "close"])
    def test_nobody_has_to_go_on(self, end: str) -> None:
        assert _says_nothing(self.CHECK, self.REFUSED, end)


class TestErrorIsTheLastResort:
    CHECK = f"{FAILED}:error_is_the_last_resort"

    @pytest.mark.parametrize("target", [5, 6, 7])
    def test_an_invalid_request_leaves_the_old_state_in_reach(
        self, target: int
    ) -> None:
        refused = f"write device_state {target} -> EINVAL"
        assert _is_broken(self.CHECK, refused, "read device_state -> 0x6")
        assert _is_kept(self.CHECK, refused, "read device_state -> 0x1")

    def test_a_fault_or_a_real_transition_may_lead_to_error(self) -> None:
        lines = ["write device_state 5 -> EINVAL", "read device_state -> 0x6"]
        assert _says_nothing(self.CHECK, "fail device_state 5", *lines)
        lines[0] = "write device_state 3 -> EIO"
        assert _says_nothing(self.CHECK, *lines)


class TestSeveralBitsUnwound:
    CHECK = f"{FAILED}:several_bits_unwound"
    FAULT = "fail device_state 5"

    @pytest.mark.parametrize("state", [0, 5, 3])
    def test_a_state_in_between_breaks_the_rule(self, state: int) -> None:
        lines = ["write device_state 2 -> EIO", f"read device_state -> {state:#x}"]
        assert _is_broken(self.CHECK, self.FAULT, *lines)

    @pytest.mark.parametrize("state", [1, 6])
    def test_the_old_state_or_error_keeps_it(self, state: int) -> None:
        lines = ["write device_state 2 -> EIO", f"read device_state -> {state:#x}"]
        assert _is_kept(self.CHECK, self.FAULT, *lines)

    def test_a_change_of_one_bit_is_not_its_business(self) -> None:
        lines = ["write device_state 3 -> EIO", "read device_state -> 0x0"]
        assert _says_nothing(self.CHECK, self.FAULT, *lines)


class TestUndrawnArcRefusedCleanly:
    CHECK = f"{FAILED}:undrawn_arc_refused_cleanly"

    def test_a_clean_refusal_keeps_the_rule(self) -> None:
        lines = ["write device_state 0 -> EINVAL", "read device_state -> 0x3"]
        assert _is_kept(self.CHECK, *_writes(3), *lines)

    @pytest.mark.parametrize("state", [0, 1, 6])
    def test_a_refusal_that_moves_the_device_breaks_it(self, state: int) -> None:
        lines = ["write device_state 0 -> EINVAL", f"read device_state -> {state:#x}"]
        assert _is_broken(self.CHECK, *_writes(3), *lines)

    def test_a_fault_excuses_error(self) -> None:
        lines = ["write device_state 0 -> EIO", "read device_state -> 0x6"]
        assert _says_nothing(self.CHECK, *_writes(3), "fail device_state 5", *lines)

    def test_damaged_data_may_lead_out_of_resuming_into_error(self) -> None:
        lines = ["write device_state 0 -> EINVAL", "read device_state -> 0x6"]
        assert _is_kept(self.CHECK, *_writes(4), *lines)

    def test_drawn_arcs_are_not_its_business(self) -> None:
        lines = ["write device_state 3 -> EINVAL", "read device_state -> 0x6"]
        assert _says_nothing(self.CHECK, *lines)


# -- ERROR ---------------------------------------------------------------------------

ENTERED = ["write device_state 3 -> EIO", "read device_state -> 0x6"]


class TestErrorOnlyByFailedTransition:
    CHECK = f"{ERROR}:error_only_by_failed_transition"

    def test_a_failed_write_may_lead_there(self) -> None:
        assert _is_kept(self.CHECK, *ENTERED)

    @pytest.mark.parametrize(
        "before",
        [
            [],
            _writes(3),
            ["reset"],
            ["write device_state 3", "read pending_bytes -> EIO"],
        ],
    )
    def test_nothing_else_may(self, before: list[str]) -> None:
        assert _is_broken(self.CHECK, *before, "read device_state -> 0x6")

    @pytest.mark.parametrize(
        "before", ["reset -> EIO", "write 0x0 1 0x6", "read data_offset -> died"]
    )
    def test_what_leaves_the_state_open_is_not_judged(self, before: str) -> None:
        assert _says_nothing(self.CHECK, before, "read device_state -> 0x6")

    def test_error_that_stays_is_reported_once(self) -> None:
        assert _is_broken(self.CHECK, *["read device_state -> 0x6"] * 3)


class TestNoWriteLeavesError:
    CHECK = f"{ERROR}:no_write_leaves_error"

    def test_a_write_that_succeeds_breaks_the_rule(self) -> None:
        assert _is_broken(self.CHECK, *ENTERED, *_writes(1))

    def test_a_failed_write_leaves_error(self) -> None:
        lines = [*ENTERED, "write device_state 1 -> EIO"]
        assert _is_kept(self.CHECK, *lines, "read device_state -> 0x6")
        assert _is_broken(self.CHECK, *lines, "read device_state -> 0x1")

    @pytest.mark.parametrize("exit_", ["reset", "reset -> EIO"])
    def test_a_reset_ends_it(self, exit_: str) -> None:
        assert _says_nothing(self.CHECK, *ENTERED, exit_, *_writes(3))

    def test_a_write_that_got_out_is_reported_once(self) -> None:
        assert _is_broken(self.CHECK, *ENTERED, *_writes(1, 3, 2))

    def test_error_that_was_only_asked_for_is_not_believed(self) -> None:
        assert _says_nothing(self.CHECK, *_writes(6, 1))


class TestLeaveErrorByReset:
    CHECK = f"{ERROR}:leave_error_by_reset"

    @pytest.mark.parametrize("exit_", ["reset", "close"])
    def test_a_reset_or_close_keeps_the_rule(self, exit_: str) -> None:
        assert _is_kept(self.CHECK, *ENTERED, exit_)

    def test_a_write_breaks_it(self) -> None:
        assert _is_broken(self.CHECK, *ENTERED, "write device_state 1 -> EIO")

    def test_error_that_was_not_seen_is_not_its_business(self) -> None:
        assert _says_nothing(self.CHECK, ENTERED[0], *_writes(1))


# -- what a write must not touch -----------------------------------------------------

BUFFER = [
    "write device_state 2",
    "read pending_bytes -> 0x20",
    "read data_offset -> 0x1000",
    "read data_size -> 0x10",
]
END = ["write device_state 2", "read pending_bytes -> 0x0"]


@pytest.mark.parametrize(
    ("check", "write"),
    [
        (f"{SESSIONS}:same_state_again", "write device_state 2"),
        (
            f"{SESSIONS}:rejection_without_side_effects",
            "write device_state 5 -> EINVAL",
        ),
        (
            f"{SESSIONS}:rejection_without_side_effects",
            "write device_state 6 -> EINVAL",
        ),
    ],
)
class TestSessionGoesOn:
    @pytest.mark.parametrize(
        ("before", "read"),
        [
            (END, "read pending_bytes -> 0x20"),
            (END, "read pending_bytes -> EINVAL"),
            (BUFFER, "read data_offset -> 0x1010"),
            (BUFFER, "read data_offset -> EINVAL"),
            (BUFFER, "read data_size -> 0x20"),
            (BUFFER, "read data_size -> EINVAL"),
            (BUFFER[:3], "read data_size -> EINVAL"),
            (BUFFER, "read 0x1008 8 -> EINVAL"),
        ],
    )
    def test_a_session_that_was_disturbed_breaks_the_rule(
        self, check: str, write: str, before: list[str], read: str
    ) -> None:
        assert _is_broken(check, *before, write, read)
        seen = "read device_state -> 0x2"
        assert _is_broken(check, *before, write, seen, read)

    @pytest.mark.parametrize(
        ("before", "reads"),
        [
            (END, ["read pending_bytes -> 0x0"]),
            (BUFFER, ["read data_offset -> 0x1000", "read data_size -> 0x10"]),
        ],
    )
    def test_a_session_that_goes_on_keeps_it(
        self, check: str, write: str, before: list[str], reads: list[str]
    ) -> None:
        assert _is_kept(check, *before, write, *reads)

    @pytest.mark.parametrize(
        "between",
        [
            "reset",
            "fail data 5",
            "read device_state -> 0x1",
            "write pending_bytes 0 -> EINVAL",
            "read 0x10 4 -> 0x0",
            "read pending_bytes -> 0x10",
        ],
    )
    def test_nothing_is_owed_once_something_else_came_between(
        self, check: str, write: str, between: str
    ) -> None:
        found = rulings(check, *BUFFER, write, between, "read data_offset -> 0x1800")
        assert not _broken(found)

    @pytest.mark.parametrize(
        "read", ["read 0x1008 9 -> EINVAL", "read 0x40 8 -> EINVAL"]
    )
    def test_data_behind_the_buffer_is_not_owed(
        self, check: str, write: str, read: str
    ) -> None:
        assert not _broken(rulings(check, *BUFFER, write, read))

    def test_a_new_buffer_may_lie_elsewhere(self, check: str, write: str) -> None:
        lines = ["read 0x1000 16", "read pending_bytes -> 0x10"]
        onward = ["read data_offset -> 0x1800", "read data_size -> 0x8"]
        assert not _broken(rulings(check, *BUFFER, write, *lines, *onward))

    def test_more_may_be_pending_in_pre_copy(self, check: str, write: str) -> None:
        before = ["write device_state 3", "read pending_bytes -> 0x0"]
        write = write.replace("state 2", "state 3")
        assert not _broken(rulings(check, *before, write, "read pending_bytes -> 0x9"))

    @pytest.mark.parametrize("pending", [[], ["read pending_bytes -> 0x0"]])
    def test_a_buffer_that_nothing_announced_is_none(
        self, check: str, write: str, pending: list[str]
    ) -> None:
        said = ["read data_offset -> 0x1800", "read data_size -> 0x8"]
        lines = [*_writes(2), *pending, *said, write]
        assert not _broken(rulings(check, *lines, "read data_size -> 0x9"))
        assert not _broken(rulings(check, *lines, "read data_offset -> 0x1900"))

    def test_a_device_in_trouble_is_not_judged(self, check: str, write: str) -> None:
        lines = [*BUFFER, "read 0x1000 16 -> EIO", write, "read data_size -> 0x20"]
        assert not _broken(rulings(check, *lines))


class TestSameStateAgain:
    CHECK = f"{SESSIONS}:same_state_again"

    @pytest.mark.parametrize("state", [0, 1, 2, 3, 4])
    def test_it_succeeds_in_every_valid_state(self, state: int) -> None:
        way = [] if state == 1 else _writes(state)
        refused = f"write device_state {state} -> EINVAL"
        assert _is_kept(self.CHECK, *way, *_writes(state))
        assert _is_broken(self.CHECK, *way, refused)

    @pytest.mark.parametrize(
        "loaded", ["write 0x1000 16", "write data_size 0x10", "mmap 0x1000 0x1000"]
    )
    def test_what_was_loaded_may_be_damaged(self, loaded: str) -> None:
        refused = "write device_state 4 -> EINVAL"
        assert _says_nothing(self.CHECK, *_writes(4), loaded, refused)

    def test_error_again_is_not_its_business(self) -> None:
        assert _says_nothing(self.CHECK, *ENTERED, "write device_state 6 -> EINVAL")


class TestRejection:
    CHECK = f"{SESSIONS}:rejection_without_side_effects"
    REJECTED = "write device_state 7 -> EINVAL"

    @pytest.mark.parametrize(("state", "target"), [(2, 0), (3, 2)])
    def test_the_drawn_way_on_stays_open(self, state: int, target: int) -> None:
        lines = [*_writes(state), self.REJECTED]
        assert _is_kept(self.CHECK, *lines, *_writes(target))
        assert _is_broken(self.CHECK, *lines, f"write device_state {target} -> EIO")

    def test_the_way_out_of_resuming_is_not_demanded(self) -> None:
        lines = [*_writes(4), self.REJECTED, "write device_state 1 -> EINVAL"]
        assert _says_nothing(self.CHECK, *lines)

    def test_a_second_rejection_changes_nothing_either(self) -> None:
        lines = [*END, self.REJECTED, self.REJECTED]
        assert _is_broken(self.CHECK, *lines, "read pending_bytes -> 0x4")

    def test_a_refused_arc_is_no_rejection(self) -> None:
        lines = [*BUFFER, "write device_state 3 -> EINVAL", "read data_size -> 0x20"]
        assert _says_nothing(self.CHECK, *lines)


# -- the order of a save -------------------------------------------------------------


class TestNormalSaveOrder:
    CHECK = f"{ARCS}:normal_save_order"
    PRE_COPY = "source: write device_state 3"
    LOADED = ("destination: write device_state 4", "destination: write data_size 0x10")
    RUNS = "destination: write device_state 1"

    def test_a_destination_on_pre_copy_data_alone_breaks_the_rule(self) -> None:
        assert _is_broken(self.CHECK, self.PRE_COPY, *self.LOADED, self.RUNS)
        skipped = "source: write device_state 0"
        assert _is_broken(self.CHECK, self.PRE_COPY, skipped, *self.LOADED, self.RUNS)

    @pytest.mark.parametrize(
        "way", [(3, 2), (3, 2, 0), (2,), (0, 2), (3, 2, 2)], ids=str
    )
    def test_every_way_through_stop_and_copy_keeps_it(
        self, way: tuple[int, ...]
    ) -> None:
        saved = [f"source: write device_state {state}" for state in way]
        assert _is_kept(self.CHECK, *saved, *self.LOADED, self.RUNS)

    @pytest.mark.parametrize("end", ["write device_state 1", "reset", "close"])
    def test_a_save_given_up_is_not_its_business(self, end: str) -> None:
        lines = [self.PRE_COPY, f"source: {end}", *self.LOADED, self.RUNS]
        assert _says_nothing(self.CHECK, *lines)

    def test_a_destination_that_loaded_nothing_is_not_its_business(self) -> None:
        assert _says_nothing(self.CHECK, self.PRE_COPY, self.LOADED[0], self.RUNS)
