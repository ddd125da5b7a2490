from __future__ import annotations

import pytest

from tests.unit.conformance.histories import rulings
from vfiomig.conformance.ruling import HELD, Broken

RECOVERS = "errors_and_reset:reset_recovers_from_error"
RUNNING = "errors_and_reset:reset_enters_running"
VALID = "errors_and_reset:only_valid_states_written"

INTO_ERROR = ("write device_state 2 -> EIO", "read device_state -> 0x6")


def test_a_reset_in_error_that_leads_to_running_is_kept() -> None:
    lines = (*INTO_ERROR, "reset", "read device_state -> 0x1")
    assert rulings(RECOVERS, *lines) == [HELD]


@pytest.mark.parametrize("value", ["0x5", "0x6", "0x7", "0x80000006"])
def test_a_reset_in_error_that_leads_to_no_valid_state_is_broken(value: str) -> None:
    lines = (*INTO_ERROR, "reset", f"read device_state -> {value}")
    (found,) = rulings(RECOVERS, *lines)
    assert isinstance(found, Broken)
    assert [each.index for each in found.witnesses] == [2, 3, 4]


def test_a_reset_in_error_that_fails_is_broken() -> None:
    (found,) = rulings(RECOVERS, *INTO_ERROR, "reset -> EIO")
    assert isinstance(found, Broken)


@pytest.mark.parametrize("code", ["EINVAL", "ENOTTY", "EOPNOTSUPP"])
def test_a_device_without_a_reset_is_another_rules_matter(code: str) -> None:
    assert rulings(RECOVERS, *INTO_ERROR, f"reset -> {code}") == []


def test_a_device_that_was_reset_before_has_a_reset() -> None:
    (found,) = rulings(RECOVERS, "reset", *INTO_ERROR, "reset -> EINVAL")
    assert isinstance(found, Broken)


def test_a_reset_outside_error_recovers_from_nothing() -> None:
    lines = ("write device_state 2", "reset -> EIO", "reset", "read device_state -> 6")
    assert rulings(RECOVERS, *lines) == []


def test_a_device_that_left_error_by_itself_recovers_from_nothing() -> None:
    assert rulings(RECOVERS, *INTO_ERROR, "write device_state 1", "reset -> EIO") == []


def test_error_that_nobody_read_is_not_known() -> None:
    assert rulings(RECOVERS, "write device_state 2 -> EIO", "reset -> EIO") == []


@pytest.mark.parametrize(
    "write",
    ["write device_state 2 -> EIO", "write device_state 2", "write 0x0 1 06"],
)
def test_a_write_behind_the_reset_may_lead_back_to_error(write: str) -> None:
    lines = (*INTO_ERROR, "reset", write, "read device_state -> 0x6")
    assert rulings(RECOVERS, *lines) == []


def test_only_the_first_read_behind_a_reset_is_judged() -> None:
    lines = (*INTO_ERROR, "reset", "read device_state -> 1", "read device_state -> 6")
    assert rulings(RECOVERS, *lines) == [HELD]


def test_a_read_that_fails_leaves_the_reset_to_be_judged() -> None:
    lines = (
        *INTO_ERROR,
        "reset",
        "read device_state -> EIO",
        "read device_state -> 0x6",
    )
    assert len(rulings(RECOVERS, *lines)) == 1


@pytest.mark.parametrize("state", [0, 1, 2, 3, 4])
def test_a_reset_in_any_state_that_leads_elsewhere_is_broken(state: int) -> None:
    lines = (f"write device_state {state}", "reset", "read device_state -> 0x0")
    (found,) = rulings(RUNNING, *lines)
    assert isinstance(found, Broken)
    assert found.actual == "device_state = 0x0, STOP"


@pytest.mark.parametrize("state", [0, 1, 2, 3, 4])
def test_a_reset_in_any_state_that_leads_to_running_is_kept(state: int) -> None:
    lines = (f"write device_state {state}", "reset", "read device_state -> 0x1")
    assert rulings(RUNNING, *lines) == [HELD]


def test_reserved_bits_do_not_count_after_a_reset() -> None:
    assert rulings(RUNNING, "reset", "read device_state -> 0x80000001") == [HELD]


@pytest.mark.parametrize(
    "between",
    [
        "write device_state 0",
        "write device_state 0 -> EIO",
        "write 0x0 1 00",
    ],
)
def test_what_came_behind_the_reset_may_have_moved_the_device(between: str) -> None:
    assert rulings(RUNNING, "reset", between, "read device_state -> 0x0") == []


@pytest.mark.parametrize("state", [0, 1, 2, 3, 4])
def test_a_reset_that_works_in_some_states_alone_is_broken(state: int) -> None:
    lines = ("reset", f"write device_state {state}", "reset -> EBUSY")
    (found,) = rulings(RUNNING, *lines)
    assert isinstance(found, Broken)
    assert [each.index for each in found.witnesses] == [1, 3]


@pytest.mark.parametrize(
    "lines",
    [
        ("reset -> ENOTTY", "write device_state 2", "reset -> ENOTTY"),
        ("reset", "fail device_state 5", "reset -> EIO"),
        ("reset", *INTO_ERROR, "reset -> EIO"),  # V1-RST-01
        ("reset", "write device_state 2 -> EIO", "reset -> EIO"),
    ],
)
def test_a_reset_that_had_another_reason_to_fail_is_not(lines: tuple[str, ...]) -> None:
    assert rulings(RUNNING, *lines) == []


def test_a_reset_that_failed_owes_no_running() -> None:
    lines = ("write device_state 2", "reset -> EINVAL", "read device_state -> 0x2")
    assert rulings(RUNNING, *lines) == []


def test_a_second_reset_is_judged_anew() -> None:
    lines = ("reset", "write device_state 4", "reset", "read device_state -> 0x4")
    (found,) = rulings(RUNNING, *lines)
    assert isinstance(found, Broken)
    assert found.witnesses[0].index == 3


@pytest.mark.parametrize("state", [0, 1, 2, 3, 4, 0x80000003])
def test_a_valid_state_may_be_asked_for(state: int) -> None:
    assert rulings(VALID, f"write device_state {state}") == [HELD]


@pytest.mark.parametrize("state", [5, 6, 7, 0x80000006])
@pytest.mark.parametrize("outcome", ["", " -> EINVAL"])
def test_no_other_state_may_be_asked_for(state: int, outcome: str) -> None:
    (found,) = rulings(VALID, f"write device_state {state}{outcome}")
    assert isinstance(found, Broken)


def test_a_write_of_an_unknown_value_says_nothing() -> None:
    assert rulings(VALID, "read device_state -> 0x5", "write 0x0 1 05") == []
