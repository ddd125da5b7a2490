"""Where a conversation stands: what both parties may know of a device, and no more."""

from __future__ import annotations

import errno

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.conformance.histories import record
from tests.unit.conformance.small_drivers import Bare, Framed, origins_broken, small
from vfiomig.conformance.conversation.steps import step
from vfiomig.conformance.judge import Judge
from vfiomig.conformance.position import RANGES_LIMIT, Buffer, Position, covers
from vfiomig.protocol.history import RegionShape


def after(*lines: str) -> Position:
    """Return the position behind a history of the source."""
    judge = Judge((), {"source": RegionShape(size=0x1000, areas=())})
    for line in lines:
        list(judge.see(record(line)))
    return judge.position("source")


# -- device_state ----------------------------------------------------------------------


def test_a_device_just_opened_runs() -> None:
    assert after().is_running


def test_a_write_that_succeeds_is_the_state() -> None:
    assert after("write device_state 2").state == 2


def test_behind_a_write_that_fails_the_state_is_not_known() -> None:
    position = after("write device_state 2 -> EIO")
    assert position.state is None
    assert position.state_before_failure == 1
    assert position.attempted == 2


def test_it_is_known_again_once_it_was_read() -> None:
    position = after("write device_state 2 -> EIO", "read device_state -> 0x6")
    assert position.in_error
    assert position.attempted is None


def test_behind_a_reset_that_fails_the_state_is_not_known() -> None:
    assert after("reset -> EIO").state is None


def test_a_reset_leads_to_running() -> None:
    assert after("write device_state 2", "reset").state == 1


def test_saving_goes_on_from_pre_copy_to_stop_and_copy() -> None:
    assert after("write device_state 3", "write device_state 2").session == 1
    lines = ("write device_state 2", "write device_state 1", "write device_state 2")
    assert after(*lines).session == 2


def test_reserved_bits_are_not_the_state() -> None:
    assert after("write device_state 0x80000002").state == 2


# -- buffers ---------------------------------------------------------------------------

ITERATION = (
    "write device_state 2",
    "read pending_bytes -> 0x8",
    "read data_offset -> 0x40",
    "read data_size -> 0x8",
)


def test_a_buffer_is_consumed_once_all_of_it_was_read() -> None:
    half = after(*ITERATION, "read 0x44 4 -> 00000000")
    assert half.buffer is not None
    assert not half.buffer.is_consumed
    whole = after(*ITERATION, "read 0x44 4 -> 00000000", "read 0x40 4 -> 00000000")
    assert whole.buffer is not None
    assert whole.buffer.is_consumed


def test_pending_bytes_ends_the_buffer_in_hand() -> None:
    assert after(*ITERATION, "read pending_bytes -> 0x0").buffer is None


def test_only_a_stopped_device_is_drained() -> None:
    assert after("write device_state 2", "read pending_bytes -> 0x0").drained
    assert not after("write device_state 3", "read pending_bytes -> 0x0").drained


def test_a_read_of_another_state_ends_the_session() -> None:
    position = after(*ITERATION, "read device_state -> 0x1")
    assert (position.state, position.buffer) == (1, None)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=30))
def test_ranges_cover_what_their_bytes_cover(ranges: list[tuple[int, int]]) -> None:
    bytes_of = {byte for first, size in ranges for byte in range(first, first + size)}
    assert covers(ranges, 0, 49) == bytes_of.issuperset(range(49))
    for first, size in ranges:
        assert covers(ranges, first, size)


@given(st.permutations(range(40)))
def test_a_buffer_may_be_read_in_any_order(order: list[int]) -> None:
    reads = [f"read {0x40 + place:#x} 1 -> 00" for place in order]
    position = after(*ITERATION[:3], "read data_size -> 0x28", *reads)
    assert position.buffer is not None
    assert position.buffer.is_consumed


def test_a_million_reads_are_no_million_ranges() -> None:
    reads = [f"read {0x40 + 2 * place:#x} 1 -> 00" for place in range(400)]
    position = after(*ITERATION[:3], "read data_size -> 0x400", *reads)
    buffer: Buffer | None = position.buffer
    assert buffer is not None
    assert len(buffer.read) <= RANGES_LIMIT + 1


# -- faults ----------------------------------------------------------------------------

FAULT = f"fail device_state {errno.EIO}"
REFUSED = "write device_state 2 -> EIO"


def test_a_fault_is_due_until_an_access_of_its_kind_fails() -> None:
    assert after(FAULT).due == ("device_state",)
    assert after(FAULT, "read pending_bytes -> EIO").due == ("device_state",)
    assert after(FAULT, REFUSED).due == ()


def test_it_stays_armed_until_a_reset_that_finds_it_gone_off() -> None:
    assert after(FAULT, REFUSED).armed
    assert not after(FAULT, REFUSED, "reset").armed


def test_one_that_has_not_gone_off_is_armed_behind_a_reset() -> None:
    assert after(FAULT, "reset").armed
    assert after(FAULT, "reset", "reset").armed
    assert not after(FAULT, "reset", "reset", REFUSED, "reset").armed


def test_behind_a_reset_it_may_be_disarmed() -> None:
    assert not after(FAULT).may_be_disarmed
    assert after(FAULT, "reset").may_be_disarmed


def test_each_fault_is_one_failure() -> None:
    assert after(FAULT, FAULT, REFUSED).due == ("device_state",)


RESET = step("reset", "source")
ARMED = step("fail", "source", "device_state", errno.EIO)
STOPPED = step("enter", "source", 0)
SEEN = (step("read_device_state", "source"), step("enter", "source", 1))


def test_a_fault_that_survives_resets_excuses_one_failure() -> None:
    for resets in ((), (RESET,), (RESET, RESET)):
        steps = (ARMED, *resets, STOPPED, *SEEN, RESET, STOPPED, RESET)
        assert origins_broken(Framed, *steps) == set()


def test_one_that_a_reset_disarms_is_no_fault_of_the_driver() -> None:
    def power_on(self: Bare) -> None:
        self.armed.clear()
        Framed.power_on(self)

    driver = small(power_on=power_on)
    steps = (ARMED, RESET, STOPPED, *SEEN, RESET, STOPPED, RESET)
    assert origins_broken(driver, *steps) == set()


def test_a_device_that_never_recovers_is_accused() -> None:
    class Stuck(Framed):
        is_stuck = False

        def trip(self, on: str) -> None:
            if self.is_stuck and on == "device_state":
                raise OSError(errno.EIO, "still")
            try:
                super().trip(on)
            except OSError:
                self.is_stuck = True
                raise

    steps = (ARMED, STOPPED, *SEEN, RESET, STOPPED, RESET)
    assert origins_broken(Stuck, *steps) != set()
