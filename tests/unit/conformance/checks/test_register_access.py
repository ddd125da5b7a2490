from __future__ import annotations

import pytest

from tests.unit.conformance.histories import all_broken as broken
from tests.unit.conformance.histories import rulings
from vfiomig.conformance.ruling import HELD, Broken

NATIVE = "register_access:native_width"
REFUSED = "register_access:other_widths_refused"
MANY = "register_access:many_registers_at_once_refused"
NOTHING = "register_access:other_widths_change_nothing"
WHOLE = "register_access:whole_or_error"
TRAPPED = "register_access:registers_trapped"
READABLE = "register_access:device_state_always_readable"
ZERO = "register_access:reserved_reads_zero"
IGNORED = "register_access:reserved_writes_ignored"
READ_ONLY = "register_access:read_only_registers_stay"
DEAD_SPACE = "register_access:dead_space_harmless"

# Stop-and-copy with a buffer that was seen to be steady.
STEADY = (
    "write device_state 2",
    "read pending_bytes -> 0x2000",
    "read data_offset -> 0x1000",
    "read data_size -> 0x800",
    "read data_size -> 0x800",
    "read data_offset -> 0x1000",
)

# The list of V1-ACC-02, without the reads of several whole registers.
ODD = [
    *((0, 1), (0, 2), (8, 4), (12, 4), (4, 8), (12, 8), (3, 1), (20, 12)),
    *((31, 1), (24, 16), (30, 100)),
]


# V1-ACC-01


@pytest.mark.parametrize(
    "line",
    [
        "read device_state -> 0x1",
        "read reserved -> 0x0",
        "read pending_bytes -> EIO",
        "write data_offset 5 -> EINVAL",
        "write data_size 5",
    ],
)
def test_a_register_at_its_own_width_is_kept(line: str) -> None:
    assert rulings(NATIVE, line) == [HELD]


@pytest.mark.parametrize(("offset", "size"), [*ODD, (0, 8), (0, 32)])
@pytest.mark.parametrize("outcome", ["", " -> EINVAL"])
def test_any_other_width_or_place_is_the_users_fault(
    offset: int, size: int, outcome: str
) -> None:
    assert len(broken(NATIVE, f"write {offset} {size} 00{outcome}")) == 1


def test_data_has_no_native_width() -> None:
    assert rulings(NATIVE, "read 0x20 3", "write 0x21 1 00") == []


def test_an_access_of_no_bytes_has_no_width() -> None:
    assert rulings(NATIVE, "read 0x0 0") == []


# V1-ACC-02 and AMB-31


@pytest.mark.parametrize(("offset", "size"), ODD)
@pytest.mark.parametrize("kind", ["read", "write"])
def test_any_other_width_or_place_that_succeeds_is_broken(
    kind: str, offset: int, size: int
) -> None:
    value = " 00" if kind == "write" else ""
    assert len(broken(REFUSED, f"{kind} {offset} {size}{value}")) == 1


@pytest.mark.parametrize("code", ["EINVAL", "EIO", "EPERM"])
def test_any_errno_refuses_another_width(code: str) -> None:
    assert rulings(REFUSED, f"read 0x0 2 -> {code}") == [HELD]


def test_a_short_answer_to_another_width_is_no_error() -> None:
    assert len(broken(REFUSED, "read 0x9 8 -> 4 bytes")) == 1


def test_what_a_mapping_hid_is_not_judged() -> None:
    assert rulings(REFUSED, "unseen read 0x0 2") == []


@pytest.mark.parametrize(("offset", "size"), [(0, 8), (0, 32), (8, 16), (16, 48)])
def test_a_read_of_whole_registers_is_only_observed(offset: int, size: int) -> None:
    line = f"read {offset} {size}"
    assert rulings(REFUSED, line) == []
    assert len(broken(MANY, line)) == 1
    assert rulings(MANY, f"{line} -> EINVAL") == [HELD]


@pytest.mark.parametrize(("offset", "size"), [(0, 8), (0, 32)])
def test_a_write_of_whole_registers_is_to_be_refused(offset: int, size: int) -> None:
    line = f"write {offset} {size} 00"
    assert len(broken(REFUSED, line)) == 1
    assert rulings(MANY, line) == []


@pytest.mark.parametrize(("offset", "size"), ODD)
def test_a_read_with_a_part_of_a_register_is_none_of_whole_ones(
    offset: int, size: int
) -> None:
    assert rulings(MANY, f"read {offset} {size}") == []


# V1-ACC-03


@pytest.mark.parametrize("odd", ["read 0x8 4", "write 0x0 1 00", "read 0x0 2 -> EIO"])
def test_a_state_that_another_width_moved_is_broken(odd: str) -> None:
    lines = ("read device_state -> 0x1", odd, "read device_state -> 0x0")
    (found,) = broken(NOTHING, *lines)
    assert [each.index for each in found.witnesses] == [1, 2, 3]
    assert (found.expected, found.actual) == (
        "device_state = 0x1",
        "device_state = 0x0",
    )


def test_a_state_that_another_width_left_is_kept() -> None:
    lines = ("read device_state -> 1", "write 0 2 00", "read device_state -> 1")
    assert rulings(NOTHING, *lines) == [HELD]


@pytest.mark.parametrize("register", ["data_offset", "data_size"])
def test_a_buffer_that_another_width_moved_is_broken(register: str) -> None:
    lines = (*STEADY, "read 0x8 4", f"read {register} -> 0x10")
    (found,) = broken(NOTHING, *lines)
    assert found.actual == f"{register} = 0x10"


def test_a_buffer_that_moves_at_every_read_is_another_rules_matter() -> None:
    lines = (
        "write device_state 2",
        "read data_offset -> 0x1000",
        "read 0x8 4",
        "read data_offset -> 0x2000",
    )
    assert rulings(NOTHING, *lines) == []


def test_a_buffer_that_moved_by_itself_before_is_another_rules_matter() -> None:
    lines = (*STEADY, "read data_size -> 0x400", "read 0x8 4", "read data_size -> 0x10")
    assert rulings(NOTHING, *lines) == []


def test_a_register_that_agreed_in_an_earlier_buffer_is_steady() -> None:
    lines = (
        *STEADY,
        "read pending_bytes -> 0x1000",
        "read data_offset -> 0x1000",
        "read 0x8 4",
        "read data_offset -> 0x2000",
    )
    assert len(broken(NOTHING, *lines)) == 1


@pytest.mark.parametrize(
    "move",
    [
        "read pending_bytes -> 0x1000",
        "read pending_bytes -> EIO",
        "write device_state 2",
        "reset",
        "write data_size 0x10",
        "write data_offset 0x20",
        "fail data_offset 5",
        "read data_size -> EIO",
    ],
)
def test_a_buffer_that_may_have_moved_is_not_judged(move: str) -> None:
    lines = (*STEADY, "read 0x8 4 -> EINVAL", move, "read data_offset -> 0x2000")
    assert rulings(NOTHING, *lines) == []


def test_an_armed_fault_may_go_off_at_any_width() -> None:
    lines = (
        "fail device_state 5",
        "read device_state -> 0x1",
        "write 0x0 2 00 -> EIO",
        "read device_state -> 0x6",
    )
    assert rulings(NOTHING, *lines) == []


def test_a_driver_that_dies_of_another_width_is_broken() -> None:
    assert len(broken(NOTHING, "read 0x3 1 -> died")) == 1


def test_a_driver_that_dies_of_its_own_width_is_no_matter_of_widths() -> None:
    assert rulings(NOTHING, "read pending_bytes -> died") == []


def test_reserved_that_a_part_was_written_to_is_broken() -> None:
    lines = ("read reserved -> 0x0", "write 0x4 1 ff", "read reserved -> 0xff")
    assert len(broken(NOTHING, *lines)) == 1


DATA = (*STEADY, "read 0x1000 4 -> 0x00000001", "read 0x1000 4 -> 0x00000001")


@pytest.mark.parametrize(
    ("check", "suspect"),
    [
        (NOTHING, "read 0x8 4 -> EINVAL"),
        (READABLE, "read device_state -> 0x2"),
        (IGNORED, "write reserved 0"),
        (READ_ONLY, "write pending_bytes 0"),
        (DEAD_SPACE, "read 0x20 4"),
    ],
)
def test_data_that_is_another_buffers_afterwards_is_broken(
    check: str, suspect: str
) -> None:
    again = ("read data_offset -> 0x1000", "read data_size -> 0x800")
    lines = (*DATA, suspect, *again, "read 0x1000 4 -> 0x00000002")
    (found,) = broken(check, *lines)
    assert found.expected == "the data at 0x1000 as it was"


@pytest.mark.parametrize(
    "then",
    [
        ("read 0x1000 4 -> 0x00000001",),  # as it was
        ("read 0x1004 4 -> 0x00000002",),  # other data
        ("read 0x1800 4 -> 0x00000002",),  # behind the buffer
        ("unseen read 0x1000 4",),
        ("write 0x1000 4 00000002", "read 0x1000 4 -> 0x00000002"),
        ("read pending_bytes -> 8", "read 0x1000 4 -> 0x00000002"),
    ],
)
def test_data_that_may_differ_is_not_judged(then: tuple[str, ...]) -> None:
    assert broken(NOTHING, *DATA, "read 0x8 4 -> EINVAL", *then) == []


def test_data_behind_the_buffer_is_not_judged() -> None:
    behind = "read 0x1800 4 -> 0x00000001"
    lines = (*STEADY, behind, behind, "read 0x8 4 -> EINVAL")
    assert broken(NOTHING, *lines, "read 0x1800 4 -> 0x00000002") == []


def test_data_stays_in_question_while_other_data_is_read() -> None:
    lines = (*DATA, "read 0x8 4 -> EINVAL", "read 0x1004 4 -> 0x00000001")
    assert len(broken(NOTHING, *lines, "read 0x1000 4 -> 0x00000002")) == 1


def test_data_that_changes_at_every_read_is_another_rules_matter() -> None:
    lines = (*DATA, "read 0x1000 4 -> 0x00000002", "read 0x8 4 -> EINVAL")
    assert broken(NOTHING, *lines, "read 0x1000 4 -> 0x00000003") == []


def test_an_error_behind_a_failure_is_a_matter_of_transitions() -> None:
    lines = (
        "write device_state 2",
        "read device_state -> 0x2",
        "read 0x0 2 -> EINVAL",
        "read pending_bytes -> EIO",
    )
    assert broken(NOTHING, *lines, "read device_state -> 0x6") == []
    assert len(broken(NOTHING, *lines, "read device_state -> 0x1")) == 1


# V1-ACC-04


@pytest.mark.parametrize("line", ["read data_size -> 0x8", "read data_size -> EIO"])
def test_a_whole_register_or_an_error_is_kept(line: str) -> None:
    assert rulings(WHOLE, line) == [HELD]


@pytest.mark.parametrize("moved", [0, 4])
def test_a_short_register_is_broken(moved: int) -> None:
    (found,) = broken(WHOLE, f"read data_size -> {moved} bytes")
    assert found.actual == f"{moved} bytes"


def test_a_driver_that_died_moved_nothing() -> None:
    assert rulings(WHOLE, "read data_size -> died") == []


# V1-ACC-05


@pytest.mark.parametrize("areas", [(), ((0x1000, 0x1000),), ((0x1000, 1), (32, 1))])
def test_areas_behind_the_registers_are_kept(
    areas: tuple[tuple[int, int], ...],
) -> None:
    assert rulings(TRAPPED, areas=areas) == [HELD]


@pytest.mark.parametrize("area", [(0, 0x1000), (31, 1)])
def test_an_area_over_the_registers_is_broken(area: tuple[int, int]) -> None:
    (found,) = rulings(TRAPPED, areas=((0x1000, 0x1000), area))
    assert isinstance(found, Broken)


# V1-ACC-06


@pytest.mark.parametrize("state", [0, 1, 2, 3, 4])
def test_device_state_that_is_read_is_kept(state: int) -> None:
    lines = (f"write device_state {state}", f"read device_state -> {state:#x}")
    assert rulings(READABLE, *lines) == [HELD]


@pytest.mark.parametrize("state", [0, 1])
def test_device_state_refused_outside_a_session_is_broken(state: int) -> None:
    lines = (f"write device_state {state}", "read device_state -> EIO")
    assert len(broken(READABLE, *lines)) == 1


def test_device_state_refused_in_error_is_broken() -> None:
    lines = ("write device_state 2 -> EIO", "read device_state -> 6")
    assert len(broken(READABLE, *lines, "read device_state -> EIO")) == 1


@pytest.mark.parametrize("state", [2, 3, 4])
def test_a_session_may_report_one_error_at_device_state(state: int) -> None:
    lines = (f"write device_state {state}", "read device_state -> EIO")
    assert rulings(READABLE, *lines) == []
    (found,) = broken(READABLE, *lines, "read device_state -> EIO")
    assert [each.index for each in found.witnesses] == [2, 3]


def test_an_armed_fault_may_go_off_at_device_state() -> None:
    lines = ("fail device_state 5", "read device_state -> EIO")
    assert rulings(READABLE, *lines) == []


def test_a_closed_device_answers_nothing() -> None:
    lines = ("close", "read device_state -> EBADF")
    assert rulings(READABLE, *lines) == []


def test_a_buffer_that_reading_device_state_moves_is_broken() -> None:
    lines = (*STEADY, "read device_state -> 2", "read data_offset -> 0x2000")
    assert len(broken(READABLE, *lines)) == 1


# V1-ACC-07


def test_reserved_that_reads_zero_is_kept() -> None:
    assert rulings(ZERO, "read reserved -> 0x0") == [HELD]


def test_reserved_that_reads_otherwise_is_broken() -> None:
    lines = ("write reserved 0xffffffff", "read reserved -> 0xffffffff")
    assert len(broken(ZERO, *lines)) == 1


def test_reserved_that_is_refused_is_broken() -> None:
    assert len(broken(ZERO, "read reserved -> EINVAL")) == 1


def test_reserved_refused_once_in_a_session_is_excused() -> None:
    assert rulings(ZERO, "write device_state 3", "read reserved -> EIO") == []


@pytest.mark.parametrize("odd", ["write 0x0 8 00", "write 0x7 1 ff -> EINVAL"])
def test_reserved_that_was_written_in_part_is_not_judged(odd: str) -> None:
    assert rulings(ZERO, odd, "read reserved -> 0x1") == []


@pytest.mark.parametrize("odd", ["write 0x0 2 00", "write 0x9 1 ff"])
def test_odd_writes_beside_reserved_excuse_nothing(odd: str) -> None:
    assert len(broken(ZERO, odd, "read reserved -> 0x1")) == 1


def test_a_driver_that_dies_of_a_read_of_reserved_answers_no_zero() -> None:
    (found,) = broken(ZERO, "read reserved -> died")
    assert found.actual == "read reserved -> died"


# V1-ACC-08


def test_a_write_to_reserved_that_succeeds_is_kept() -> None:
    lines = ("read reserved -> 0", "write reserved 0xffffffff", "read reserved -> 0")
    assert rulings(IGNORED, *lines) == [HELD, HELD]


def test_a_write_to_reserved_that_is_refused_is_broken() -> None:
    assert len(broken(IGNORED, "write reserved 0 -> EINVAL")) == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("read reserved -> 0x0", "read reserved -> 0x5"),
        ("read device_state -> 0x1", "read reserved -> 0x5"),
        ("read device_state -> 0x1", "read device_state -> 0x5"),
    ],
)
def test_a_write_to_reserved_with_an_effect_is_broken(before: str, after: str) -> None:
    assert len(broken(IGNORED, before, "write reserved 5", after)) == 1


@pytest.mark.parametrize("between", ["write 0x4 1 05", "write reserved 0"])
def test_reserved_that_may_show_another_write_is_not_judged(between: str) -> None:
    lines = ("write reserved 5", between, "read reserved -> 0x5")
    assert broken(IGNORED, *lines) == []


def test_reserved_that_shows_something_else_is_another_rules_matter() -> None:
    lines = ("write reserved 5", "read reserved -> 0x7")
    assert rulings(IGNORED, *lines) == [HELD]


# V1-ACC-09


@pytest.mark.parametrize("outcome", ["", " -> EINVAL", " -> EPERM"])
@pytest.mark.parametrize("register", ["pending_bytes", "data_offset"])
def test_a_read_only_register_may_refuse_or_ignore(register: str, outcome: str) -> None:
    lines = (*STEADY, f"write {register} 0x777{outcome}", "read data_offset -> 0x1000")
    assert rulings(READ_ONLY, *lines) == [HELD]


def test_a_data_offset_that_was_written_is_broken() -> None:
    lines = (
        "write device_state 3",
        "read data_offset -> 0x1000",
        "write data_offset 0x2000",
        "read data_offset -> 0x2000",
    )
    (found,) = broken(READ_ONLY, *lines)
    assert [each.index for each in found.witnesses] == [2, 3, 4]


def test_a_pending_bytes_that_was_written_is_broken() -> None:
    lines = (
        "write device_state 2",
        "read pending_bytes -> 0x1000",
        "write pending_bytes 0x777",
        "read pending_bytes -> 0x777",
    )
    assert len(broken(READ_ONLY, *lines)) == 1


def test_a_state_that_a_write_to_a_read_only_register_moved_is_broken() -> None:
    lines = ("read device_state -> 1", "write data_offset 7", "read device_state -> 7")
    assert len(broken(READ_ONLY, *lines)) == 1


def test_pending_bytes_may_come_to_anything_in_pre_copy() -> None:
    lines = (
        "write device_state 3",
        "read pending_bytes -> 0x1000",
        "write pending_bytes 0x777",
        "read pending_bytes -> 0x777",
    )
    assert rulings(READ_ONLY, *lines) == []


def test_pending_bytes_that_changes_to_something_else_is_an_estimate() -> None:
    lines = (
        "write device_state 2",
        "read pending_bytes -> 0x1000",
        "write pending_bytes 0x777",
        "read pending_bytes -> 0x800",
    )
    assert rulings(READ_ONLY, *lines) == []


def test_pending_bytes_falls_when_a_buffer_is_taken() -> None:
    lines = (
        "write device_state 2",
        "read pending_bytes -> 0x1000",
        "read data_offset -> 0x1000",
        "write pending_bytes 0x800",
        "read pending_bytes -> 0x800",
    )
    assert rulings(READ_ONLY, *lines) == []


def test_a_driver_that_offers_the_next_buffer_elsewhere_is_kept() -> None:
    lines = (
        *STEADY,
        "write data_offset 0x2000",
        "read pending_bytes -> 0x1000",
        "read data_offset -> 0x2000",
    )
    assert rulings(READ_ONLY, *lines) == []


def test_data_offset_may_change_in_resuming() -> None:
    lines = (
        "write device_state 4",
        "read data_offset -> 0x1000",
        "write data_offset 0x2000",
        "read data_offset -> 0x2000",
    )
    assert rulings(READ_ONLY, *lines) == []


# V1-ACC-10


@pytest.mark.parametrize("access", ["read 0x20 16", "write 0xfff 1 00 -> EINVAL"])
def test_a_buffer_that_dead_space_moves_is_broken(access: str) -> None:
    lines = (*STEADY, access, "read data_size -> 0x400")
    assert len(broken(DEAD_SPACE, *lines)) == 1


def test_dead_space_that_moves_nothing_is_kept() -> None:
    lines = (*STEADY, "read 0x20 16 -> EINVAL", "read data_size -> 0x800")
    assert rulings(DEAD_SPACE, *lines) == [HELD]


def test_the_buffer_itself_is_no_dead_space() -> None:
    lines = (*STEADY, "read 0xfff 2", "read data_size -> 0x400")
    assert rulings(DEAD_SPACE, *lines) == []
