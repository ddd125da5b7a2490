from __future__ import annotations

import pytest

from tests.unit.conformance.histories import rulings
from vfiomig.conformance.ruling import HELD, Broken

SECTION = "device_state"


def judged(check: str, *lines: str) -> list[str]:
    found = rulings(f"{SECTION}:{check}", *lines)
    return ["held" if ruling is HELD else "broken" for ruling in found]


def broken(check: str, *lines: str) -> Broken:
    (ruling,) = (
        each for each in rulings(f"{SECTION}:{check}", *lines) if each is not HELD
    )
    assert isinstance(ruling, Broken)
    return ruling


# -- running_on_open -------------------------------------------------------------------


def test_a_device_opens_in_running() -> None:
    assert judged("running_on_open", "read device_state -> 0x1") == ["held"]


@pytest.mark.parametrize("value", ["0x0", "0x2", "0x3", "0x80000001"])
def test_a_device_that_opens_otherwise_is_blamed(value: str) -> None:
    found = broken("running_on_open", f"read device_state -> {value}")
    assert found.expected == "device_state = 0x1"
    assert [each.index for each in found.witnesses] == [1]


def test_a_failed_read_leaves_the_first_one_to_come() -> None:
    lines = ("read device_state -> EIO", "read device_state -> 0x0")
    assert judged("running_on_open", *lines) == ["broken"]


@pytest.mark.parametrize(
    "before", ["write device_state 0", "write 0x0 1 00", "reset", "read 0x0 1 -> 0x1"]
)
def test_what_came_before_the_first_read_may_have_moved_it(before: str) -> None:
    assert judged("running_on_open", before, "read device_state -> 0x0") == []


def test_only_the_first_read_is_about_the_opening() -> None:
    lines = ("read device_state -> 0x1", "read device_state -> 0x0")
    assert judged("running_on_open", *lines) == ["held"]


# -- no_invalid_state_reported ---------------------------------------------------------


@pytest.mark.parametrize("value", [0, 1, 2, 3, 4, 6, 0xFFFFFFF8])
def test_values_that_have_a_meaning_may_be_reported(value: int) -> None:
    line = f"read device_state -> {value:#x}"
    assert judged("no_invalid_state_reported", line) == ["held"]


@pytest.mark.parametrize("value", [5, 7, 0x8000000D])
def test_invalid_states_may_not_be_reported(value: int) -> None:
    found = broken("no_invalid_state_reported", f"read device_state -> {value:#x}")
    assert found.because[-1].startswith(f"however, A has device_state = {value:#x}")


def test_after_an_odd_write_any_state_may_be_reported() -> None:
    lines = ("write 0x0 1 05", "read device_state -> 0x5", "read device_state -> 0x5")
    assert judged("no_invalid_state_reported", *lines) == []
    settled = (*lines, "write device_state 1", "read device_state -> 0x5")
    assert judged("no_invalid_state_reported", *settled) == ["broken"]


# -- invalid_values_refused, error_not_for_the_asking ----------------------------------

REFUSALS = [
    ("invalid_values_refused", "5"),
    ("invalid_values_refused", "7"),
    ("invalid_values_refused", "0x80000005"),
    ("error_not_for_the_asking", "6"),
    ("error_not_for_the_asking", "0x10000006"),
]


@pytest.mark.parametrize(("check", "value"), REFUSALS)
def test_a_refusal_that_changes_nothing_is_right(check: str, value: str) -> None:
    lines = (f"write device_state {value} -> EINVAL", "read device_state -> 0x1")
    assert judged(check, *lines) == ["held", "held"]


@pytest.mark.parametrize(("check", "value"), REFUSALS)
def test_a_value_that_nobody_can_ask_for_is_not_taken(check: str, value: str) -> None:
    assert broken(check, f"write device_state {value}").actual == "success"
    died = broken(check, f"write device_state {value} -> died")
    assert died.actual == "the driver died"


@pytest.mark.parametrize(("check", "value"), REFUSALS)
@pytest.mark.parametrize("after", ["0x0", "0x6"])
def test_a_refused_value_moves_nothing(check: str, value: str, after: str) -> None:
    lines = (f"write device_state {value} -> EINVAL", f"read device_state -> {after}")
    found = broken(check, *lines)
    assert found.expected == "device_state = 001b"
    assert [each.index for each in found.witnesses] == [1, 2]


@pytest.mark.parametrize("check", ["invalid_values_refused"])
@pytest.mark.parametrize(
    "between",
    ["reset", "write device_state 3", "write 0x0 1 00", "write device_state 3 -> EIO"],
)
def test_what_came_behind_a_refusal_may_have_moved_it(check: str, between: str) -> None:
    lines = ("write device_state 5 -> EINVAL", between, "read device_state -> 0x3")
    assert judged(check, *lines) == ["held"]


def test_a_fault_that_was_armed_may_go_off_at_the_refusal() -> None:
    lines = (
        "fail device_state 5",
        "write device_state 5 -> EIO",
        "read device_state -> 0x6",
    )
    assert judged("invalid_values_refused", *lines) == ["held"]


def test_a_refusal_in_an_unknown_state_says_nothing_of_the_state() -> None:
    lines = (
        "write device_state 3 -> EIO",
        "write device_state 5 -> EINVAL",
        "read device_state -> 0x6",
    )
    assert judged("invalid_values_refused", *lines) == ["held"]


def test_valid_values_are_no_matter_of_the_refusals() -> None:
    lines = ("write device_state 4", "write device_state 2 -> EINVAL")
    assert judged("invalid_values_refused", *lines) == []
    assert judged("error_not_for_the_asking", *lines) == []


# -- reserved_bits_preserved -----------------------------------------------------------


def test_reserved_bits_are_written_as_they_were_read() -> None:
    lines = ("read device_state -> 0x80000001", "write device_state 0x80000003")
    assert judged("reserved_bits_preserved", *lines) == ["held"]


@pytest.mark.parametrize("written", ["0x3", "0xc0000003"])
def test_reserved_bits_are_neither_cleared_nor_set(written: str) -> None:
    lines = ("read device_state -> 0x80000001", f"write device_state {written}")
    found = broken("reserved_bits_preserved", *lines)
    assert found.expected == "bits 3 to 31 = 0x80000000"


def test_a_write_without_any_read_is_no_read_modify_write() -> None:
    assert judged("reserved_bits_preserved", "write device_state 3") == ["broken"]


@pytest.mark.parametrize("between", ["reset", "write 0x0 2 0000"])
def test_reserved_bits_may_be_new_and_are_then_read_anew(between: str) -> None:
    lines = ("read device_state -> 0x80000001", between, "write device_state 3")
    assert judged("reserved_bits_preserved", *lines) == []


def test_who_could_not_read_the_bits_cannot_preserve_them() -> None:
    lines = ("read device_state -> EIO", "write device_state 3")
    assert judged("reserved_bits_preserved", *lines) == []


# -- reserved_bits_accepted_back -------------------------------------------------------


def test_reserved_bits_are_accepted_back() -> None:
    lines = ("read device_state -> 0x80000001", "write device_state 0x80000003")
    assert judged("reserved_bits_accepted_back", *lines) == ["held"]


def test_reserved_bits_are_no_reason_to_fail() -> None:
    lines = (
        "read device_state -> 0x80000001",
        "write device_state 0x80000003 -> EINVAL",
    )
    found = broken("reserved_bits_accepted_back", *lines)
    assert found.because[0] == "device_state was last read as 0x80000001"


@pytest.mark.parametrize(
    "lines",
    [
        ("read device_state -> 0x1", "write device_state 3 -> EINVAL"),
        ("read device_state -> 0x1", "write device_state 0x80000003 -> EINVAL"),
        ("read device_state -> 0x80000001", "write device_state 0x80000001 -> EINVAL"),
        ("read device_state -> 0x80000001", "write device_state 3 -> EINVAL"),
        (
            "write device_state 3",
            "read device_state -> 0x80000003",
            "write device_state 0x80000004 -> EINVAL",
        ),
        (
            "write device_state 4",
            "read device_state -> 0x80000004",
            "write device_state 0x80000001 -> EINVAL",
        ),
        (
            "read device_state -> 0x80000001",
            "fail device_state 5",
            "write device_state 0x80000003 -> EIO",
        ),
        ("write device_state 0x80000003 -> EINVAL",),
    ],
    ids=[
        "no bits to echo",
        "not an echo",
        "the same state",
        "bits cleared",
        "undrawn arc",
        "data may be refused",
        "armed fault",
        "never read",
    ],
)
def test_another_reason_to_fail_is_not_the_bits(lines: tuple[str, ...]) -> None:
    assert judged("reserved_bits_accepted_back", *lines) == []


# -- reads_as_written ------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 1, 2, 3, 4])
def test_what_was_written_is_read(value: int) -> None:
    lines = (f"write device_state {value}", f"read device_state -> {value:#x}")
    assert judged("reads_as_written", *lines) == ["held"]


def test_reserved_bits_of_a_read_do_not_count() -> None:
    lines = ("write device_state 3", "read device_state -> 0x80000003")
    assert judged("reads_as_written", *lines) == ["held"]


def test_another_state_than_what_was_written_is_blamed() -> None:
    lines = ("write device_state 2", "read 0x1000 8", "read device_state -> 0x0")
    found = broken("reads_as_written", *lines)
    assert found.expected == "device_state = 010b"
    assert found.actual == "device_state = 0x0 (000b)"
    assert [each.index for each in found.witnesses] == [1, 3]


@pytest.mark.parametrize(
    "between",
    [
        "reset",
        "reset -> EIO",
        "write device_state 0 -> EIO",
        "write 0x0 1 00",
        "read 0x0 1 -> 0x2",
    ],
)
def test_what_came_behind_a_write_may_have_moved_it(between: str) -> None:
    lines = ("write device_state 2", between, "read device_state -> 0x1")
    assert judged("reads_as_written", *lines) == []


def test_error_behind_a_failed_access_is_judged_elsewhere() -> None:
    lines = (
        "write device_state 2",
        "read data_offset -> EIO",
        "read device_state -> 0x6",
    )
    assert judged("reads_as_written", *lines) == []
    without = (lines[0], "read data_offset -> 0x1000", lines[2])
    assert judged("reads_as_written", *without) == ["broken"]


def test_a_failed_write_promises_nothing() -> None:
    lines = ("write device_state 2 -> EBUSY", "read device_state -> 0x1")
    assert judged("reads_as_written", *lines) == []


# -- moves_only_when_asked -------------------------------------------------------------


def test_a_state_stays_until_it_is_written() -> None:
    lines = (
        "read device_state -> 0x1",
        "work 3",
        "read device_state -> 0x1",
        "write device_state 2",
        "read device_state -> 0x2",
        "read pending_bytes -> 0x0",
        "read device_state -> 0x2",
    )
    assert judged("moves_only_when_asked", *lines) == ["held", "held"]


@pytest.mark.parametrize(
    "between", ["work 3", "read pending_bytes -> 0x0", "write reserved 7", "snapshot a"]
)
def test_a_state_that_moves_by_itself_is_blamed(between: str) -> None:
    lines = (
        "write device_state 2",
        "read device_state -> 0x2",
        between,
        "read device_state -> 0x0",
    )
    found = broken("moves_only_when_asked", *lines)
    assert [each.index for each in found.witnesses] == [2, 4]


@pytest.mark.parametrize(
    "between",
    ["reset", "write device_state 0", "write device_state 0 -> EIO", "write 0x0 1 00"],
)
def test_a_state_may_move_when_asked(between: str) -> None:
    lines = ("read device_state -> 0x1", between, "read device_state -> 0x0")
    assert judged("moves_only_when_asked", *lines) == []


def test_a_move_to_error_behind_a_failed_access_is_judged_elsewhere() -> None:
    lines = (
        "write device_state 2",
        "read device_state -> 0x2",
        "read data_offset -> EIO",
        "read device_state -> 0x6",
    )
    assert judged("moves_only_when_asked", *lines) == []


# -- complete_when_the_write_returns ---------------------------------------------------


def test_a_transition_that_was_made_at_once_is_complete() -> None:
    lines = ("write device_state 2", "read device_state -> 0x2")
    assert judged("complete_when_the_write_returns", *lines) == ["held"]


def test_a_transition_that_comes_later_is_too_late() -> None:
    lines = (
        "write device_state 2",
        "read device_state -> 0x1",
        "work 1",
        "read device_state -> 0x2",
    )
    found = broken("complete_when_the_write_returns", *lines)
    assert [each.index for each in found.witnesses] == [1, 2, 4]
    assert found.because[-1] == "however, B still has device_state = 001b"


@pytest.mark.parametrize("between", ["reset", "write 0x0 1 02", "read 0x0 1 -> 0x1"])
def test_what_came_between_excuses_the_delay(between: str) -> None:
    lines = ("write device_state 2", "read device_state -> 0x1", between)
    found = judged("complete_when_the_write_returns", *lines, "read device_state -> 2")
    assert found == []


def test_a_second_write_begins_anew() -> None:
    lines = ("write device_state 2", "read device_state -> 0x1")
    more = ("write device_state 2", "read device_state -> 0x2")
    assert judged("complete_when_the_write_returns", *lines, *more) == ["held"]


def test_a_transition_that_never_comes_is_no_matter_of_time() -> None:
    lines = ("write device_state 2", *["read device_state -> 0x1"] * 3)
    assert judged("complete_when_the_write_returns", *lines) == []


# -- error_is_110b ---------------------------------------------------------------------


def test_error_reads_110b() -> None:
    lines = ("write device_state 2 -> EIO", "read device_state -> 0x6")
    assert judged("error_is_110b", *lines) == ["held"]


@pytest.mark.parametrize("value", ["0x7", "0x5"])
def test_another_value_for_error_is_blamed(value: str) -> None:
    lines = ("write device_state 2 -> EIO", f"read device_state -> {value}")
    assert broken("error_is_110b", *lines).expected == "device_state = 110b"


@pytest.mark.parametrize(
    "lines",
    [
        ("write device_state 2 -> EIO", "read device_state -> 0x1"),
        ("write device_state 2 -> EIO", "read device_state -> 0x0"),
        ("write device_state 2", "read device_state -> 0x7"),
        ("write device_state 2 -> EIO", "reset", "read device_state -> 0x7"),
        ("write device_state 2 -> EIO", "write 0x0 1 07", "read device_state -> 0x7"),
    ],
    ids=["the old state", "a third state", "no failure", "reset", "odd write"],
)
def test_without_a_failure_nobody_speaks_of_error(lines: tuple[str, ...]) -> None:
    assert judged("error_is_110b", *lines) == []
