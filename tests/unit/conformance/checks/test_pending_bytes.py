from __future__ import annotations

import pytest

from tests.unit.conformance.histories import all_broken as broken
from tests.unit.conformance.histories import rulings
from vfiomig.conformance.catalogue import load_catalogue
from vfiomig.conformance.ruling import HELD

READ_ONLY = "pending_bytes:read_only"
WORKS = "pending_bytes:any_number_of_reads_works"
END = "pending_bytes:zero_in_stop_and_copy_is_the_end"
UNTIL_ZERO = "pending_bytes:iterated_until_zero"
STABLE = "pending_bytes:stable_while_stopped"
CONSUMED = "pending_bytes:read_after_consumption"
UNDEFINED = "pending_bytes:undefined_outside_saving"
STOPPING = "pending_bytes:no_condition_of_stopping"

STOP_AND_COPY = "write device_state 2"
PRE_COPY = "write device_state 3"
PENDING = "read pending_bytes -> 0x20"
ZERO = "read pending_bytes -> 0x0"
OFFSET = "read data_offset -> 0x1000"
SIZE = "read data_size -> 0x10"
DATA = "read 0x1000 16"
BUFFER = (OFFSET, SIZE, DATA)
AREA = ((0x1000, 0x1000),)


def test_every_rule_of_the_page_has_an_entry() -> None:
    rules = [each for each in load_catalogue() if each.section == "v1/pending-bytes"]
    assert [each.origin for each in rules] == [f"V1-PEND-{n:02}" for n in range(1, 18)]
    assert all(bool(r.check) + bool(r.bench) + bool(r.untestable) == 1 for r in rules)
    assert [each.origin for each in rules if not each.fails] == [
        "V1-PEND-09",
        "V1-PEND-14",
        "V1-PEND-16",
    ]


# V1-PEND-01


def test_a_write_that_sets_pending_bytes_is_found() -> None:
    write = "write pending_bytes 0x5000"
    (found,) = broken(
        READ_ONLY, STOP_AND_COPY, PENDING, write, "read pending_bytes -> 0x5000"
    )
    assert found.actual == "pending_bytes = 0x5000"
    assert [each.index for each in found.witnesses] == [2, 3, 4]


@pytest.mark.parametrize("outcome", ["", " -> EINVAL"])
def test_a_write_may_be_refused_or_ignored(outcome: str) -> None:
    write = f"write pending_bytes 0x5000{outcome}"
    assert rulings(READ_ONLY, STOP_AND_COPY, PENDING, write, PENDING) == [HELD]


@pytest.mark.parametrize(
    "lines",
    [
        (PRE_COPY, PENDING, "write pending_bytes 0x30", "read pending_bytes -> 0x30"),
        (STOP_AND_COPY, PENDING, "write pending_bytes 0", ZERO),
        (STOP_AND_COPY, PENDING, "write pending_bytes 0x20", PENDING),
        (STOP_AND_COPY, "write pending_bytes 0x20", PENDING, PENDING),
        (
            STOP_AND_COPY,
            PENDING,
            "write pending_bytes 0x30",
            OFFSET,
            "read pending_bytes -> 0x30",
        ),
    ],
)
def test_a_value_that_may_come_by_itself_proves_nothing(lines: tuple[str, ...]) -> None:
    assert rulings(READ_ONLY, *lines) == []


# V1-PEND-06


@pytest.mark.parametrize("start", [STOP_AND_COPY, PRE_COPY])
def test_many_reads_and_then_the_sequence_is_fine(start: str) -> None:
    lines = (start, PENDING, PENDING, PENDING, *BUFFER, PENDING)
    assert rulings(WORKS, *lines) == [HELD]


@pytest.mark.parametrize(
    "lines",
    [
        ("read pending_bytes -> EINVAL",),
        (PENDING, "read data_offset -> EINVAL"),
        (PENDING, PENDING, "read data_offset -> EINVAL"),
        (PENDING, OFFSET, "read data_size -> EBUSY"),
        (PENDING, *BUFFER, "read pending_bytes -> EINVAL"),
        (*BUFFER, PENDING, PENDING, "read data_offset -> EINVAL"),
    ],
)
def test_a_driver_that_counts_reads_is_found(lines: tuple[str, ...]) -> None:
    (found,) = broken(WORKS, STOP_AND_COPY, PENDING, *lines)
    assert found.actual == lines[-1]


@pytest.mark.parametrize(
    "lines",
    [
        # Read once: whatever fails, it is not for the number of reads.
        (PENDING, "read data_offset -> EIO"),
        (PENDING, *BUFFER, "read pending_bytes -> EIO"),
        # A fault of the bench, and what comes after any failure.
        ("fail data_offset 5", PENDING, PENDING, "read data_offset -> EIO"),
        ("fail data 5", PENDING, PENDING, *BUFFER, "read pending_bytes -> EIO"),
        (PENDING, "read data_size -> EIO", PENDING, "read data_offset -> EIO"),
        # The user application leaves the sequence first.
        (PENDING, PENDING, "read data_size -> EINVAL"),
        (PENDING, ZERO, "read data_offset -> EINVAL"),
        (PENDING, OFFSET, PENDING, PENDING, "read data_offset -> EIO"),
        (PENDING, "write data_size 1", PENDING, "read data_offset -> EIO"),
        # It died, which is a finding of its own.
        (PENDING, PENDING, "read data_offset -> died"),
        (PENDING, PENDING, STOP_AND_COPY, "read pending_bytes -> EIO"),
    ],
)
def test_a_failure_for_another_reason_is_not_blamed_on_the_reads(
    lines: tuple[str, ...],
) -> None:
    assert broken(WORKS, STOP_AND_COPY, *lines) == []


def test_reads_outside_of_saving_do_not_count() -> None:
    assert rulings(WORKS, PENDING, PENDING, "read data_offset -> EINVAL") == []


# V1-PEND-11


def test_data_after_the_end_is_found() -> None:
    (found,) = broken(END, STOP_AND_COPY, ZERO, PENDING)
    assert found.expected == "pending_bytes = 0x0"
    assert found.actual == "pending_bytes = 0x20"


def test_data_after_the_end_is_found_behind_a_buffer_and_guest_traffic() -> None:
    lines = (STOP_AND_COPY, PENDING, *BUFFER, ZERO, "work 9", PENDING)
    assert len(broken(END, *lines)) == 1


def test_the_end_that_stays_is_fine() -> None:
    assert rulings(END, STOP_AND_COPY, ZERO, "read device_state -> 0x2", ZERO) == [HELD]


@pytest.mark.parametrize(
    "lines",
    [
        (PRE_COPY, ZERO, "work 1", PENDING),
        (PRE_COPY, ZERO, STOP_AND_COPY, PENDING),
        (STOP_AND_COPY, ZERO, PRE_COPY, STOP_AND_COPY, PENDING),
        (STOP_AND_COPY, ZERO, "reset", STOP_AND_COPY, PENDING),
        (STOP_AND_COPY, PENDING, "read pending_bytes -> 0x10"),
        (STOP_AND_COPY, ZERO, OFFSET, PENDING),
        (STOP_AND_COPY, ZERO, STOP_AND_COPY, PENDING),
        (STOP_AND_COPY, PENDING, OFFSET, ZERO, PENDING),
        (STOP_AND_COPY, "read data_size -> EIO", ZERO, PENDING),
        (STOP_AND_COPY, ZERO, "read pending_bytes -> EIO", PENDING),
        ("write device_state 0", ZERO, PENDING),
    ],
)
def test_zero_is_the_end_only_for_who_keeps_the_sequence(
    lines: tuple[str, ...],
) -> None:
    assert rulings(END, *lines) == []


# V1-PEND-12

RESUMES = (
    "destination: write device_state 4",
    "destination: read data_offset -> 0x1000",
    "destination: write 0x1000 16",
    "destination: write data_size 16",
    "destination: write device_state 1",
)


def test_leaving_before_zero_is_found_when_the_destination_runs() -> None:
    lines = (STOP_AND_COPY, PENDING, *BUFFER, PENDING, "write device_state 0")
    (found,) = broken(UNTIL_ZERO, *lines, *RESUMES)
    assert [each.index for each in found.witnesses] == [7, 12]


def test_iterating_until_zero_is_fine() -> None:
    lines = (STOP_AND_COPY, PENDING, *BUFFER, ZERO, "write device_state 0")
    assert rulings(UNTIL_ZERO, *lines, *RESUMES) == [HELD]


@pytest.mark.parametrize(
    "lines",
    [
        # Given up: nobody runs, or the source goes on.
        (STOP_AND_COPY, PENDING, "write device_state 0"),
        (STOP_AND_COPY, PENDING, "write device_state 1", *RESUMES),
        (
            STOP_AND_COPY,
            PENDING,
            "write device_state 0",
            "write device_state 1",
            *RESUMES,
        ),
        (STOP_AND_COPY, PENDING, "write device_state 0", "reset", *RESUMES),
        # The destination was given nothing, or reset instead of run.
        (
            STOP_AND_COPY,
            PENDING,
            "write device_state 0",
            "destination: write device_state 4",
            "destination: write device_state 1",
        ),
        (
            STOP_AND_COPY,
            PENDING,
            "write device_state 0",
            *RESUMES[:-1],
            "destination: reset",
        ),
        (
            STOP_AND_COPY,
            PENDING,
            "write device_state 0",
            *RESUMES[:-1],
            "destination: write device_state 1 -> EINVAL",
        ),
        # The source failed first.
        (
            STOP_AND_COPY,
            "read pending_bytes -> EIO",
            "write device_state 0",
            *RESUMES,
        ),
    ],
)
def test_giving_up_needs_no_zero(lines: tuple[str, ...]) -> None:
    assert rulings(UNTIL_ZERO, *lines) == []


def test_each_source_is_held_against_its_own_destination() -> None:
    early = [
        f"source/gpu0: {each}"
        for each in (STOP_AND_COPY, PENDING, "write device_state 0")
    ]
    other = [each.replace("destination", "destination/gpu1") for each in RESUMES]
    own = [each.replace("destination", "destination/gpu0") for each in RESUMES]
    assert broken(UNTIL_ZERO, *early, *other) == []
    assert len(broken(UNTIL_ZERO, *early, *other, *own)) == 1


# V1-PEND-14


def test_a_stopped_device_that_changes_its_mind_is_observed() -> None:
    (found,) = broken(STABLE, STOP_AND_COPY, PENDING, "read pending_bytes -> 0x10")
    assert found.expected == "pending_bytes = 0x20"


def test_a_stopped_device_that_repeats_itself_is_fine() -> None:
    assert rulings(STABLE, STOP_AND_COPY, PENDING, "work 3", PENDING) == [HELD]


@pytest.mark.parametrize(
    "lines",
    [
        (PRE_COPY, PENDING, ZERO),
        (PRE_COPY, PENDING, STOP_AND_COPY, ZERO),
        (STOP_AND_COPY, PENDING, OFFSET, ZERO),
        (STOP_AND_COPY, "read 0x1000 1 -> EINVAL", PENDING, ZERO),
        ("write device_state 0", PENDING, ZERO),
        ("write device_state 4", PENDING, ZERO),
    ],
)
def test_pending_bytes_may_change_otherwise(lines: tuple[str, ...]) -> None:
    assert rulings(STABLE, *lines) == []


# V1-PEND-15


def test_a_buffer_given_back_unread_is_found_once_data_reads_are_seen() -> None:
    begin = (STOP_AND_COPY, PENDING)
    assert len(broken(CONSUMED, *begin, OFFSET, SIZE, PENDING, DATA)) == 1
    assert len(broken(CONSUMED, *begin, *BUFFER, PENDING, OFFSET, SIZE, PENDING)) == 1


def test_a_buffer_read_in_part_is_found() -> None:
    lines = (STOP_AND_COPY, PENDING, OFFSET, SIZE, "read 0x1000 15", PENDING)
    (found,) = broken(CONSUMED, *lines)
    assert "all of its 0x10 bytes" in found.expected


def test_a_buffer_whose_size_was_never_asked_is_found() -> None:
    (found,) = broken(CONSUMED, STOP_AND_COPY, PENDING, OFFSET, PENDING)
    assert "its size" in found.expected


@pytest.mark.parametrize(
    "lines",
    [
        BUFFER,
        (OFFSET, SIZE, "read 0x1008 8", "read 0x1000 8"),
        (OFFSET, SIZE, *(f"read {at:#x} 1" for at in range(0x1000, 0x1010))),
        (OFFSET, "read data_size -> 0x0"),
        (OFFSET, SIZE, "unseen read 0x1000 16"),
    ],
)
def test_a_consumed_buffer_may_be_given_back(lines: tuple[str, ...]) -> None:
    assert rulings(CONSUMED, STOP_AND_COPY, PENDING, *lines, PENDING) == [HELD]


@pytest.mark.parametrize(
    "lines",
    [
        # Nothing of data is seen in this history at all.
        (OFFSET, SIZE, PENDING, OFFSET, SIZE, ZERO),
        # Through the mapping, where nobody saw it.
        ("mmap 0x1000 0x1000", OFFSET, SIZE, PENDING, DATA),
        # Not given back, but left.
        (OFFSET, SIZE, "write device_state 0", PENDING, DATA),
        (OFFSET, "read data_size -> EIO", PENDING, DATA),
        (SIZE, OFFSET, PENDING, DATA),
    ],
)
def test_what_was_not_seen_is_not_held_against_the_user_application(
    lines: tuple[str, ...],
) -> None:
    assert broken(CONSUMED, STOP_AND_COPY, PENDING, *lines, areas=AREA) == []


def test_reads_in_many_places_are_not_miscounted() -> None:
    places = [*range(0, 512, 2), *range(1, 512, 2)]
    data = [f"read {0x1000 + at:#x} 1" for at in places]
    lines = (STOP_AND_COPY, PENDING, OFFSET, "read data_size -> 0x200", *data, ZERO)
    assert broken(CONSUMED, *lines) == []


# V1-PEND-16


@pytest.mark.parametrize("state", [0, 1, 4])
@pytest.mark.parametrize("read", [PENDING, ZERO, "read pending_bytes -> EINVAL"])
def test_outside_of_saving_any_answer_will_do(state: int, read: str) -> None:
    assert rulings(UNDEFINED, f"write device_state {state}", read) == [HELD]


def test_outside_of_saving_the_driver_must_survive() -> None:
    assert len(broken(UNDEFINED, "read pending_bytes -> died")) == 1


def test_in_saving_and_in_an_unknown_state_the_rule_is_silent() -> None:
    assert rulings(UNDEFINED, PRE_COPY, PENDING) == []
    assert rulings(UNDEFINED, "write device_state 2 -> EIO", PENDING) == []


# V1-PEND-17


def test_refusing_to_stop_while_bytes_are_pending_is_found() -> None:
    (found,) = broken(STOPPING, PRE_COPY, PENDING, "write device_state 2 -> EBUSY")
    assert found.actual == "write device_state 0x2 -> EBUSY"


def test_stopping_while_bytes_are_pending_is_fine() -> None:
    assert rulings(STOPPING, PRE_COPY, PENDING, STOP_AND_COPY) == [HELD]


@pytest.mark.parametrize(
    "lines",
    [
        (ZERO, "write device_state 2 -> EIO"),
        ("write device_state 2 -> EIO",),
        (PENDING, "write device_state 0 -> EINVAL"),
        (PENDING, "write device_state 4 -> EINVAL"),
        (PENDING, "write device_state 0x80000002 -> EINVAL"),
        (PENDING, "fail device_state 5", "write device_state 2 -> EIO"),
        (PENDING, OFFSET, "read data_size -> EIO", "write device_state 2 -> EIO"),
        (PENDING, "write device_state 2 -> died"),
    ],
)
def test_another_refusal_is_another_matter(lines: tuple[str, ...]) -> None:
    assert rulings(STOPPING, PRE_COPY, *lines) == []
