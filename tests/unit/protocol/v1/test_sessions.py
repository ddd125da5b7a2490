"""The sequences of saving, resuming and device_state, letter by letter."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfiomig.protocol.errors import UserApplicationError, VendorDriverError
from vfiomig.protocol.v1.device_state import DeviceInErrorStateError, set_device_state
from vfiomig.protocol.v1.registers import Register
from vfiomig.protocol.v1.requests import (
    ReadData,
    ReadRegister,
    Request,
    WriteData,
    WriteRegister,
)
from vfiomig.protocol.v1.resuming import load_buffer
from vfiomig.protocol.v1.saving import check_buffer, save_buffer, save_rest
from vfiomig.protocol.v1.states import DeviceState

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

Result = TypeVar("Result")

STATE = ReadRegister(Register.DEVICE_STATE)
PENDING = ReadRegister(Register.PENDING_BYTES)
OFFSET = ReadRegister(Register.DATA_OFFSET)
SIZE = ReadRegister(Register.DATA_SIZE)

IO_ERROR = OSError(errno.EIO, "the device is on fire")


def converse(
    session: Generator[Request, int, Result], answers: Sequence[int | OSError]
) -> tuple[list[Request], Result]:
    """Give the answers one after another; return what was asked, and the result."""
    asked = [next(session)]
    try:
        go_on(session, answers, asked)
    except StopIteration as end:
        return asked, end.value
    message = f"the session goes on: {asked}"
    raise AssertionError(message)


def requests_until_error(
    session: Generator[Request, int, object],
    answers: Sequence[int | OSError],
    error: type[Exception],
) -> tuple[list[Request], Exception]:
    """Give the answers; return what was asked before the session raised."""
    asked = [next(session)]
    with pytest.raises(error) as raised:
        go_on(session, answers, asked)
    return asked, raised.value


def go_on(
    session: Generator[Request, int, object],
    answers: Sequence[int | OSError],
    asked: list[Request],
) -> None:
    for answer in answers:
        if isinstance(answer, OSError):
            asked.append(session.throw(answer))
        else:
            asked.append(session.send(answer))


# -- saving --------------------------------------------------------------------------


def test_one_buffer_is_steps_b_to_e() -> None:
    asked, size = converse(save_buffer(), [0x1000, 0x1800, 0])
    assert asked == [OFFSET, SIZE, ReadData(0x1000, 0x1800)]
    assert size == 0x1800


def test_the_rest_is_steps_a_to_f_until_nothing_is_pending() -> None:
    # The page's two-phase device: 0x2800 left at the stop, buffers of 0x1800.
    asked, _ = converse(
        save_rest(),
        [0x2800, 0x1000, 0x1800, 0, 0x1000, 0x2000, 0x1000, 0, 0],
    )
    assert asked == [
        PENDING,  # (a)
        OFFSET,  # (b)
        SIZE,  # (c)
        ReadData(0x1000, 0x1800),  # (d), (e)
        PENDING,  # (f)
        OFFSET,
        SIZE,
        ReadData(0x2000, 0x1000),
        PENDING,
    ]


def test_nothing_pending_is_nothing_to_iterate() -> None:
    asked, _ = converse(save_rest(), [0])
    assert asked == [PENDING]


def test_pending_bytes_are_only_zero_or_not() -> None:
    # V1-PEND-07 and -08: a buffer larger than what was pending, then more pending.
    asked, _ = converse(save_rest(), [1, 32, 0x5000, 0, 0x9000, 32, 1, 0, 0])
    assert asked.count(PENDING) == 3


@pytest.mark.parametrize("step", range(5))
def test_an_error_of_the_device_leaves_the_session_where_it_came(step: int) -> None:
    answers: list[int | OSError] = [0x10, 0x1000, 0x10, 0, 0]
    answers[step] = IO_ERROR
    asked, error = requests_until_error(save_rest(), answers, OSError)
    assert error is IO_ERROR
    assert len(asked) == step + 1


def test_empty_buffers_are_no_end_but_sixteen_in_a_row_are_no_progress() -> None:
    # AMB-06: K = 16 consecutive buffers of size 0 with bytes pending.
    answers = [1, 0x1000, 0, 0] * 16
    asked, error = requests_until_error(save_rest(), answers, VendorDriverError)
    assert asked.count(SIZE) == 16
    assert "16 buffers of 0 bytes" in str(error)


def test_one_byte_between_empty_buffers_is_progress() -> None:
    empty, full = [1, 0x1000, 0, 0], [1, 0x1000, 1, 0]
    asked, _ = converse(save_rest(), [*(empty * 15 + full) * 2, 0])
    assert asked.count(SIZE) == 32


def test_qemu_leaves_at_the_first_empty_buffer() -> None:
    session = save_rest(stops_at_empty_buffer=True)
    asked, _ = converse(session, [0x10, 0x1000, 8, 0, 0x8, 0x1000, 0, 0])
    assert asked == [
        PENDING,
        OFFSET,
        SIZE,
        ReadData(0x1000, 8),
        PENDING,
        OFFSET,
        SIZE,
        ReadData(0x1000, 0),
    ]


REGION = 0x3000


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (32, REGION - 32),
        (0x1000, 0x2000),
        (0x1000, 0),
        (0x2FFF, 1),
        (REGION, 0),
    ],
)
def test_a_buffer_inside_the_data_section_is_read(offset: int, size: int) -> None:
    asked, _ = converse(save_buffer(REGION), [offset, size, 0])
    assert asked[-1] == ReadData(offset, size)


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (0, 8),  # V1-OFF-03: never zero
        (31, 8),
        (REGION, 1),
        (0x1000, 0x2001),
        (REGION + 1, 0),
        ((1 << 64) - 1, (1 << 64) - 1),  # no overflow
        (0x1000, (1 << 64) - 0x1000),
    ],
)
def test_a_buffer_outside_the_data_section_is_not_read(offset: int, size: int) -> None:
    asked, error = requests_until_error(
        save_buffer(REGION), [offset, size], VendorDriverError
    )
    assert asked == [OFFSET, SIZE]
    assert hex(offset) in str(error)
    with pytest.raises(VendorDriverError):
        check_buffer(offset, size, REGION)


def test_without_a_region_size_nothing_is_checked() -> None:
    asked, _ = converse(save_buffer(), [0, 1 << 63, 0])
    assert asked[-1] == ReadData(0, 1 << 63)


# -- resuming ------------------------------------------------------------------------


def test_a_buffer_is_given_in_steps_a_to_c() -> None:
    asked, _ = converse(load_buffer(0x1800, REGION), [0x1000, 0, 0])
    assert asked == [
        OFFSET,  # (a)
        WriteData(0x1000, 0x1800),  # (b)
        WriteRegister(Register.DATA_SIZE, 0x1800),  # (c)
    ]


@pytest.mark.parametrize("step", range(3))
def test_an_error_while_resuming_ends_the_session(step: int) -> None:
    answers: list[int | OSError] = [0x1000, 0, 0]
    answers[step] = IO_ERROR
    asked, error = requests_until_error(load_buffer(8, REGION), answers, OSError)
    assert error is IO_ERROR
    assert len(asked) == step + 1


def test_qemu_splits_what_the_region_has_no_room_for() -> None:
    # Section 2.5: 0x1000 bytes of data section, a chunk of 0x1800.
    session = load_buffer(0x1800, 0x2000, splits=True)
    asked, _ = converse(session, [0x1000, 0, 0, 0x1000, 0, 0])
    assert asked == [
        OFFSET,
        WriteData(0x1000, 0x1000),
        WriteRegister(Register.DATA_SIZE, 0x1000),
        OFFSET,
        WriteData(0x1000, 0x800),
        WriteRegister(Register.DATA_SIZE, 0x800),
    ]


def test_each_piece_asks_again_where_it_goes() -> None:
    session = load_buffer(0x30, 0x2000, splits=True)
    asked, _ = converse(session, [0x1FF0, 0, 0, 0x1FE8, 0, 0, 0x40, 0, 0])
    assert [r for r in asked if isinstance(r, WriteData)] == [
        WriteData(0x1FF0, 0x10),
        WriteData(0x1FE8, 0x18),
        WriteData(0x40, 0x8),
    ]


def test_the_specification_wants_the_sizes_of_the_source() -> None:
    # V1-RES-03: what does not fit is not cut.
    session = load_buffer(0x1800, 0x2000)
    asked, error = requests_until_error(session, [0x1000], VendorDriverError)
    assert asked == [OFFSET]
    assert "no room at data_offset 0x1000" in str(error)


@pytest.mark.parametrize("splits", [False, True])
@pytest.mark.parametrize("offset", [0x2000, 0x2001, 1 << 63, (1 << 64) - 1])
def test_a_place_outside_the_region_is_not_written(offset: int, splits: bool) -> None:
    session = load_buffer(8, 0x2000, splits=splits)
    asked, _ = requests_until_error(session, [offset], VendorDriverError)
    assert asked == [OFFSET]


@pytest.mark.parametrize("offset", [0, 8, 31])
def test_the_specification_has_no_data_in_the_registers(offset: int) -> None:
    session = load_buffer(8, 0x2000)
    asked, _ = requests_until_error(session, [offset], VendorDriverError)
    assert asked == [OFFSET]


@pytest.mark.parametrize("offset", [0, 8, 31])
def test_qemu_does_not_look_whether_the_place_is_data(offset: int) -> None:
    session = load_buffer(8, 0x2000, splits=True)
    asked, _ = converse(session, [offset, 0, 0])
    assert asked[1] == WriteData(offset, 8)


# -- device_state --------------------------------------------------------------------


def test_a_transition_reads_modifies_and_writes() -> None:
    asked, written = converse(set_device_state(~1, 2), [3, 0])
    assert asked == [STATE, WriteRegister(Register.DEVICE_STATE, 2)]
    assert written == 2


def test_success_is_not_read_back() -> None:
    asked, _ = converse(set_device_state(~7, 1), [0, 0])
    assert len(asked) == 2


def test_the_same_state_is_written_all_the_same() -> None:
    asked, _ = converse(set_device_state(~1, 2), [2, 0])
    assert asked[1] == WriteRegister(Register.DEVICE_STATE, 2)


def test_reserved_bits_are_written_back_as_they_were_read() -> None:
    # V1-STATE-12
    asked, _ = converse(set_device_state(~7, 4), [0xDEADBEE9, 0])
    assert asked[1] == WriteRegister(Register.DEVICE_STATE, 0xDEADBEEC)


def test_an_unreadable_state_ends_it_before_anything_is_written() -> None:
    asked, error = requests_until_error(set_device_state(~7, 1), [IO_ERROR], OSError)
    assert asked == [STATE]
    assert error is IO_ERROR


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4, 5, 7, 0xFFFFFFF8])
def test_a_refused_write_is_read_back_and_passed_on(after: int) -> None:
    # V1-TRANS-04
    asked, error = requests_until_error(
        set_device_state(~1, 2), [3, IO_ERROR, after], OSError
    )
    assert asked == [STATE, WriteRegister(Register.DEVICE_STATE, 2), STATE]
    assert error is IO_ERROR


@pytest.mark.parametrize("after", [6, 0xFFFFFFFE, 14])
def test_a_refused_write_that_left_error_says_so(after: int) -> None:
    asked, error = requests_until_error(
        set_device_state(~1, 2), [3, IO_ERROR, after], DeviceInErrorStateError
    )
    assert len(asked) == 3
    assert isinstance(error, DeviceInErrorStateError)
    assert error.state is DeviceState.ERROR
    assert error.required == "STOP_AND_COPY"
    assert error.__cause__ is IO_ERROR


def test_a_state_that_cannot_even_be_read_back_counts_as_error() -> None:
    # Section 2.2, 4: "If that fails, or what it returns is ERROR".
    gone = OSError(errno.ENODEV, "gone")
    asked, error = requests_until_error(
        set_device_state(~1, 2), [3, IO_ERROR, gone], DeviceInErrorStateError
    )
    assert len(asked) == 3
    assert error.__cause__ is IO_ERROR


@given(
    current=st.integers(0, (1 << 32) - 1),
    mask=st.integers(-8, -1) | st.just(7),
    value=st.integers(0, 7),
)
def test_an_invalid_target_is_never_written(
    current: int, mask: int, value: int
) -> None:
    # V1-USER-04; VALID by its definition: RESUMING, if it is set, stands alone.
    target = current & mask | value
    valid = target & 7 in (0, 1, 2, 3, 4)
    session = set_device_state(mask, value)
    assert next(session) == STATE
    if valid:
        assert session.send(current) == WriteRegister(Register.DEVICE_STATE, target)
    else:
        with pytest.raises(UserApplicationError):
            session.send(current)


def endless(size: int, pending: int, buffers: int) -> int:
    """Answer a session with the same for ever; return how many buffers it took."""
    session = save_rest()
    request, taken = next(session), 0
    while taken < buffers:
        if request == PENDING:
            answer = pending
        elif request == SIZE:
            answer = size
        else:
            answer = 0x1000
        taken += isinstance(request, ReadData)
        request = session.send(answer)
    return taken


def test_tiny_buffers_without_end_are_the_drivers_fault() -> None:
    with pytest.raises(VendorDriverError, match="65536 buffers had 524288 bytes"):
        endless(size=8, pending=8, buffers=70_000)


def test_large_buffers_may_come_while_pending_bytes_says_1() -> None:
    assert endless(size=0x1000, pending=1, buffers=70_000) == 70_000
