from __future__ import annotations

import pytest

from tests.unit.conformance.histories import all_broken as broken
from tests.unit.conformance.histories import rulings
from vfiomig.conformance.catalogue import load_catalogue
from vfiomig.conformance.ruling import HELD

READ_ONLY = "data_offset:read_only"
BEHIND = "data_offset:behind_the_registers"
THERE = "data_offset:returns_when_data_is_there"
STABLE = "data_offset:stable_within_iteration"
INSIDE = "data_offset:inside_the_region"
ALIGNED = "data_offset:page_aligned_where_mapped"
WHERE = "data_offset:says_where_to_write"
UNDEFINED = "data_offset:undefined_outside_sessions"
WHILE_PENDING = "data_offset:read_only_while_bytes_are_pending"
BEFORE_SIZE = "data_offset:read_before_data_size"
NO_ITERATION = "data_offset:zero_means_no_iteration"
BETWEEN = "data_offset:read_between_buffers"

STOP_AND_COPY = "write device_state 2"
PRE_COPY = "write device_state 3"
RESUMING = "write device_state 4"
PENDING = "read pending_bytes -> 0x20"
ZERO = "read pending_bytes -> 0x0"
OFFSET = "read data_offset -> 0x1000"
ELSEWHERE = "read data_offset -> 0x2000"
SIZE = "read data_size -> 0x10"
DATA = "read 0x1000 16"
BUFFER = (OFFSET, SIZE, DATA)
BEGIN = (STOP_AND_COPY, PENDING)
FAILED = "read data_size -> EIO"
AREA = ((0x1000, 0x1000),)


def test_every_rule_of_the_page_has_an_entry() -> None:
    rules = [each for each in load_catalogue() if each.section == "v1/data-offset"]
    assert [each.origin for each in rules] == [f"V1-OFF-{n:02}" for n in range(1, 13)]
    assert all(bool(r.check) + bool(r.bench) + bool(r.untestable) == 1 for r in rules)
    assert [each.origin for each in rules if not each.fails] == [
        "V1-OFF-06",
        "V1-OFF-10",
    ]


# V1-OFF-01


@pytest.mark.parametrize(
    "lines",
    [
        (*BEGIN, OFFSET, "write data_offset 0x2000", ELSEWHERE),
        (RESUMING, OFFSET, "write data_offset 0x4000", "read data_offset -> 0x4000"),
    ],
)
def test_a_write_that_sets_data_offset_is_found(lines: tuple[str, ...]) -> None:
    (found,) = broken(READ_ONLY, *lines)
    assert [each.index for each in found.witnesses] == [
        len(lines) - 2,
        len(lines) - 1,
        len(lines),
    ]


@pytest.mark.parametrize("outcome", ["", " -> EINVAL"])
def test_a_write_may_be_refused_or_ignored(outcome: str) -> None:
    write = f"write data_offset 0x2000{outcome}"
    assert rulings(READ_ONLY, *BEGIN, OFFSET, write, OFFSET) == [HELD]


@pytest.mark.parametrize(
    "lines",
    [
        # Another buffer, or another place to write: it may well be there.
        (*BEGIN, *BUFFER, "write data_offset 0x2000", PENDING, ELSEWHERE),
        (*BEGIN, *BUFFER, PENDING, "write data_offset 0x2000", ELSEWHERE),
        (RESUMING, OFFSET, "write data_offset 0x2000", ELSEWHERE),
        # Asked out of turn, when any value will do.
        (*BEGIN, OFFSET, "write data_offset 0", ZERO, "read data_offset -> 0x0"),
        (*BEGIN, *BUFFER, ZERO, "write data_offset 0", "read data_offset -> 0x0"),
        (STOP_AND_COPY, OFFSET, "write data_offset 0", "read data_offset -> 0x0"),
        # It was there before.
        (*BEGIN, OFFSET, "write data_offset 0x1000", OFFSET),
        (*BEGIN, "write data_offset 0x1000", OFFSET),
        # Undefined, and another session.
        (OFFSET, "write data_offset 0x2000", ELSEWHERE),
        (*BEGIN, OFFSET, "write data_offset 0x4000", RESUMING, ELSEWHERE),
    ],
)
def test_a_place_that_the_driver_may_choose_proves_nothing(
    lines: tuple[str, ...],
) -> None:
    assert rulings(READ_ONLY, *lines) == []


# V1-OFF-03


@pytest.mark.parametrize("begin", [BEGIN, (PRE_COPY, PENDING), (RESUMING,)])
@pytest.mark.parametrize("value", [0, 24, 31])
def test_an_offset_in_the_registers_is_found(
    begin: tuple[str, ...], value: int
) -> None:
    (found,) = broken(BEHIND, *begin, f"read data_offset -> {value:#x}")
    assert found.actual == f"data_offset = {value:#x}"


@pytest.mark.parametrize("begin", [BEGIN, (PRE_COPY, PENDING), (RESUMING,)])
def test_an_offset_right_behind_the_registers_is_fine(begin: tuple[str, ...]) -> None:
    assert rulings(BEHIND, *begin, "read data_offset -> 0x20") == [HELD]


@pytest.mark.parametrize(
    "begin",
    [
        (),
        ("write device_state 0",),
        (STOP_AND_COPY,),
        (STOP_AND_COPY, ZERO),
        (PRE_COPY, PENDING, STOP_AND_COPY),
        (*BEGIN, FAILED),
    ],
)
def test_who_asks_out_of_turn_may_be_told_0(begin: tuple[str, ...]) -> None:
    nothing = "read data_offset -> 0x0"
    assert rulings(BEHIND, *begin, nothing) == []
    assert rulings(INSIDE, *begin, "read data_offset -> 0x9000") == []


# V1-OFF-04


@pytest.mark.parametrize(
    "read", ["read 0x1000 16 -> EAGAIN", "read 0x1004 4 -> EIO", "read 0x100f 1 -> EIO"]
)
def test_a_buffer_that_cannot_be_read_is_found(read: str) -> None:
    (found,) = broken(THERE, *BEGIN, OFFSET, SIZE, read)
    assert found.actual == read
    assert found.witnesses[0].text == OFFSET


def test_a_read_that_gives_no_byte_is_found() -> None:
    assert len(broken(THERE, *BEGIN, OFFSET, SIZE, "read 0x1000 16 -> 0 bytes")) == 1


@pytest.mark.parametrize("read", [DATA, "read 0x1001 3", "read 0x1000 16 -> 4 bytes"])
def test_a_buffer_that_can_be_read_in_any_piece_is_fine(read: str) -> None:
    assert rulings(THERE, *BEGIN, OFFSET, SIZE, read) == [HELD]


@pytest.mark.parametrize(
    "lines",
    [
        (OFFSET, SIZE, "read 0x1000 17 -> EINVAL"),
        (OFFSET, SIZE, "read 0xff0 16 -> EINVAL"),
        (OFFSET, "read 0x1000 16 -> EINVAL"),
        (OFFSET, "read data_size -> 0x0", "read 0x1000 16 -> EINVAL"),
        (*BUFFER, PENDING, "read 0x1000 16 -> EINVAL"),
        (OFFSET, SIZE, "fail data 5", "read 0x1000 16 -> EIO"),
        (OFFSET, SIZE, "read data_offset -> EIO", "read 0x1000 16 -> EIO"),
        (OFFSET, SIZE, "read 0x1000 16 -> died"),
        (OFFSET, "read data_size -> 0x9000", "read 0x3000 16 -> EINVAL"),
    ],
)
def test_other_bytes_need_not_be_there(lines: tuple[str, ...]) -> None:
    assert broken(THERE, *BEGIN, *lines) == []


# V1-OFF-05


def test_an_offset_that_moves_within_an_iteration_is_found() -> None:
    (found,) = broken(STABLE, *BEGIN, OFFSET, SIZE, ELSEWHERE)
    assert found.expected == "data_offset = 0x1000"
    assert [each.index for each in found.witnesses] == [3, 5]


def test_a_second_read_that_fails_is_found() -> None:
    assert len(broken(STABLE, *BEGIN, OFFSET, "read data_offset -> EBUSY")) == 1


def test_an_offset_that_stays_within_an_iteration_is_fine() -> None:
    assert rulings(STABLE, *BEGIN, OFFSET, SIZE, OFFSET, OFFSET) == [HELD, HELD]


@pytest.mark.parametrize(
    "lines",
    [
        (*BEGIN, *BUFFER, PENDING, ELSEWHERE),
        (PRE_COPY, PENDING, OFFSET, STOP_AND_COPY, ELSEWHERE),
        (*BEGIN, OFFSET, STOP_AND_COPY, ELSEWHERE),
        (RESUMING, OFFSET, ELSEWHERE),
        (OFFSET, ELSEWHERE),
        (STOP_AND_COPY, OFFSET, ELSEWHERE),
        (STOP_AND_COPY, ZERO, OFFSET, ELSEWHERE),
        (*BEGIN, OFFSET, FAILED, ELSEWHERE),
        (*BEGIN, OFFSET, "fail data_offset 5", "read data_offset -> EIO"),
        (*BEGIN, OFFSET, "read data_offset -> died"),
    ],
)
def test_an_offset_may_move_otherwise(lines: tuple[str, ...]) -> None:
    assert rulings(STABLE, *lines) == []


# V1-OFF-07


@pytest.mark.parametrize("begin", [BEGIN, (RESUMING,)])
def test_an_offset_behind_the_region_is_found(begin: tuple[str, ...]) -> None:
    assert len(broken(INSIDE, *begin, "read data_offset -> 0x3000")) == 1
    assert rulings(INSIDE, *begin, "read data_offset -> 0x2fff") == [HELD]


def test_a_buffer_that_ends_behind_the_region_is_found() -> None:
    (found,) = broken(INSIDE, *BEGIN, ELSEWHERE, "read data_size -> 0x1001")
    assert found.actual == "data_offset + data_size = 0x3001"
    assert [each.index for each in found.witnesses] == [3, 4]


def test_a_size_near_2_to_the_64_does_not_wrap() -> None:
    size = "read data_size -> 0xffffffffffffffff"
    assert len(broken(INSIDE, *BEGIN, OFFSET, size)) == 1


@pytest.mark.parametrize("size", ["0x1000", "0x0"])
def test_a_buffer_that_ends_with_the_region_is_fine(size: str) -> None:
    found = rulings(INSIDE, *BEGIN, ELSEWHERE, f"read data_size -> {size}")
    assert found == [HELD, HELD]


def test_a_size_without_a_buffer_is_not_added_to_one() -> None:
    assert rulings(INSIDE, *BEGIN, "read data_size -> 0x9000") == []
    assert rulings(INSIDE, RESUMING, "read data_size -> 0x9000") == []


# V1-OFF-08


@pytest.mark.parametrize(
    "lines",
    [
        (*BEGIN, "read data_offset -> 0x1800", SIZE),
        (RESUMING, "read data_offset -> 0x1001"),
    ],
)
def test_a_buffer_off_the_page_in_an_area_is_found(lines: tuple[str, ...]) -> None:
    assert len(broken(ALIGNED, *lines, areas=AREA)) == 1


@pytest.mark.parametrize("lines", [(*BEGIN, OFFSET, SIZE), (RESUMING, OFFSET)])
def test_a_buffer_on_a_page_in_an_area_is_fine(lines: tuple[str, ...]) -> None:
    assert rulings(ALIGNED, *lines, areas=AREA) == [HELD]


@pytest.mark.parametrize(
    "lines",
    [
        (*BEGIN, "read data_offset -> 0x20", SIZE),
        (*BEGIN, "read data_offset -> 0xff8", "read data_size -> 0x100"),
        (*BEGIN, "read data_offset -> 0x2001", SIZE),
        (*BEGIN, "read data_offset -> 0x1800", "read data_size -> 0x0"),
        (STOP_AND_COPY, "read data_offset -> 0x1800", SIZE),
        (RESUMING, "read data_offset -> 0x20"),
        ("read data_offset -> 0x1800", SIZE),
    ],
)
def test_a_buffer_that_begins_in_no_area_may_begin_anywhere(
    lines: tuple[str, ...],
) -> None:
    assert rulings(ALIGNED, *lines, areas=AREA) == []


# V1-OFF-09


def test_an_offset_that_cannot_be_read_in_resuming_is_found() -> None:
    assert len(broken(WHERE, RESUMING, "read data_offset -> EINVAL")) == 1
    assert rulings(WHERE, RESUMING, OFFSET, ELSEWHERE) == [HELD, HELD]


@pytest.mark.parametrize(
    "lines",
    [
        # A stream that the driver refuses may show itself here.
        ("write 0x1000 16", "read data_offset -> EIO"),
        ("write data_size 16", "read data_offset -> EIO"),
        (OFFSET, "write data_size 0", "read data_offset -> EIO"),
        ("fail data_offset 5", "read data_offset -> EIO"),
        ("read data_size -> EINVAL", "read data_offset -> EIO"),
        ("read data_offset -> died",),
    ],
)
def test_resuming_may_end_in_an_error(lines: tuple[str, ...]) -> None:
    assert broken(WHERE, RESUMING, *lines) == []


def test_another_session_of_resuming_begins_anew() -> None:
    given = ("write 0x1000 16", "write data_size 16", "reset", RESUMING)
    assert len(broken(WHERE, RESUMING, *given, "read data_offset -> EINVAL")) == 1


# V1-OFF-10


@pytest.mark.parametrize("state", [0, 1])
@pytest.mark.parametrize("read", ["read data_offset -> 0x0", "read data_offset -> EIO"])
def test_outside_of_sessions_any_answer_will_do(state: int, read: str) -> None:
    assert rulings(UNDEFINED, f"write device_state {state}", read) == [HELD]


def test_outside_of_sessions_the_driver_must_survive() -> None:
    assert len(broken(UNDEFINED, "read data_offset -> died")) == 1
    assert rulings(UNDEFINED, RESUMING, "read data_offset -> died") == []


# V1-OFF-11


@pytest.mark.parametrize("lines", [(), (ZERO,), (PENDING, ZERO)])
def test_asking_for_a_buffer_before_bytes_are_pending_is_found(
    lines: tuple[str, ...],
) -> None:
    assert len(broken(WHILE_PENDING, STOP_AND_COPY, *lines, OFFSET)) == 1


@pytest.mark.parametrize(
    "lines", [BEGIN, (PRE_COPY, PENDING, STOP_AND_COPY), (*BEGIN, PENDING)]
)
def test_asking_for_a_buffer_while_bytes_are_pending_is_fine(
    lines: tuple[str, ...],
) -> None:
    assert rulings(WHILE_PENDING, *lines, OFFSET, OFFSET) == [HELD]


@pytest.mark.parametrize(
    "lines",
    [
        (OFFSET,),
        (RESUMING, OFFSET),
        (STOP_AND_COPY, "read pending_bytes -> EIO", OFFSET),
    ],
)
def test_asking_outside_of_saving_needs_no_pending_bytes(
    lines: tuple[str, ...],
) -> None:
    assert rulings(WHILE_PENDING, *lines) == []


def test_what_was_pending_in_another_session_does_not_count() -> None:
    lines = (*BEGIN, "write device_state 0", STOP_AND_COPY, OFFSET)
    assert len(broken(WHILE_PENDING, *lines)) == 1


# V1-OFF-12


@pytest.mark.parametrize("lines", [BEGIN, (*BEGIN, *BUFFER, PENDING)])
def test_a_size_before_its_offset_is_found(lines: tuple[str, ...]) -> None:
    assert len(broken(BEFORE_SIZE, *lines, SIZE)) == 1


@pytest.mark.parametrize(
    "lines", [(*BEGIN, OFFSET), (PRE_COPY, PENDING, OFFSET, STOP_AND_COPY)]
)
def test_a_size_behind_its_offset_is_fine(lines: tuple[str, ...]) -> None:
    assert rulings(BEFORE_SIZE, *lines, SIZE, SIZE) == [HELD, HELD]


@pytest.mark.parametrize("lines", [(), (RESUMING,), (*BEGIN, "read 0x1 1 -> EINVAL")])
def test_a_size_outside_of_saving_needs_no_offset(lines: tuple[str, ...]) -> None:
    assert rulings(BEFORE_SIZE, *lines, SIZE) == []


# V1-PEND-03


@pytest.mark.parametrize("access", [OFFSET, SIZE, DATA, "unseen read 0x1000 16"])
@pytest.mark.parametrize("start", [STOP_AND_COPY, PRE_COPY])
def test_going_on_at_0_is_found(start: str, access: str) -> None:
    (found,) = broken(NO_ITERATION, start, ZERO, access)
    assert found.witnesses[0].index == 3


@pytest.mark.parametrize("then", [ZERO, PENDING, "write device_state 0", "reset"])
def test_leaving_it_at_0_is_fine(then: str) -> None:
    assert rulings(NO_ITERATION, STOP_AND_COPY, ZERO, then) == [HELD]


@pytest.mark.parametrize(
    "lines",
    [
        (ZERO, OFFSET),
        (RESUMING, ZERO, OFFSET),
        (*BEGIN, OFFSET, SIZE, DATA),
        (STOP_AND_COPY, "read pending_bytes -> EIO", OFFSET),
    ],
)
def test_going_on_without_a_0_is_another_matter(lines: tuple[str, ...]) -> None:
    assert rulings(NO_ITERATION, *lines) == []


# V1-PEND-05


def test_going_on_without_pending_bytes_is_found() -> None:
    pieces = (OFFSET, SIZE, "read 0x1000 8", "read 0x1008 8")
    (found,) = broken(BETWEEN, *BEGIN, *BUFFER, *pieces)
    assert [each.index for each in found.witnesses] == [3, 6, 9]


def test_pending_bytes_between_buffers_is_fine() -> None:
    assert rulings(BETWEEN, *BEGIN, *BUFFER, PENDING, *BUFFER, ZERO) == [HELD, HELD]


@pytest.mark.parametrize(
    "lines",
    [
        # Registers or data again, each by itself.
        (OFFSET, SIZE, OFFSET, SIZE, DATA),
        (*BUFFER, DATA, OFFSET, SIZE),
        (*BUFFER, OFFSET, DATA),
        (*BUFFER, OFFSET, SIZE, "read 0x1000 8"),
        # A retry, and a buffer of nothing.
        (OFFSET, SIZE, "read 0x1000 16 -> EIO", OFFSET, SIZE, DATA),
        (*BUFFER, "read 0x1000 16 -> EIO", OFFSET, SIZE, DATA),
        (OFFSET, "read data_size -> 0x0", OFFSET, "read data_size -> 0x0"),
        (OFFSET, SIZE, OFFSET, SIZE),
        # The device is left, or changes its state.
        (*BUFFER, "write device_state 0"),
        (*BUFFER, STOP_AND_COPY, "reset"),
    ],
)
def test_reading_the_same_buffer_again_is_fine(lines: tuple[str, ...]) -> None:
    assert rulings(BETWEEN, *BEGIN, *lines) == []
