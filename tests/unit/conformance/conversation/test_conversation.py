"""Steps never fail, any part of a conversation is one, and nothing goes on for ever."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.conformance.small_drivers import (
    PRE_COPY,
    RUNNING,
    SIZE,
    STOP,
    STOP_AND_COPY,
    Bare,
    Framed,
    Ticks,
    bench_for,
    hold,
    origins_broken,
    small,
)
from vfiomig.conformance.conversation.conversation import Conversation
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.conversation.steps import Step, step
from vfiomig.protocol.history import Access
from vfiomig.protocol.region import MigrationRegion, SparseMmapArea

if TYPE_CHECKING:
    from collections.abc import Callable

# Each holds whole conversations: together they take half a minute.
pytestmark = pytest.mark.slow

EVERY_STEP = sorted({each for steps in scripts() for each in steps}, key=str)
ABORTED = (
    step("watch_work", "source", 9),
    step("enter", "source", STOP_AND_COPY),
    step("enter", "source", RUNNING),
    step("watch_work", "source", 9),
)
MIGRATED = scripts()[0]
REOPENED = step("reopen", "source")


def talk(make_driver: Callable[[], Bare], *steps: Step) -> Conversation:
    conversation = Conversation(make_driver, (), rule_ids={})
    conversation.perform(steps)
    conversation.close()
    return conversation


# -- steps -----------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.lists(st.sampled_from(EVERY_STEP), max_size=12))
def test_any_steps_are_a_conversation_that_a_conforming_driver_holds(
    steps: list[Step],
) -> None:
    held = hold(Framed, *steps)
    assert held.died is None
    assert origins_broken(Framed, *steps) == set()


@settings(max_examples=60)
@given(st.sampled_from(scripts()), st.data())
def test_any_part_of_a_script_is_one(
    steps: tuple[Step, ...], data: st.DataObject
) -> None:
    part = data.draw(st.lists(st.sampled_from(steps), max_size=len(steps)))
    assert origins_broken(Bare, *part) == set()


@pytest.mark.parametrize("each", {each.name: each for each in EVERY_STEP}.values())
def test_a_step_for_which_there_is_no_occasion_does_nothing(each: Step) -> None:
    assert origins_broken(Framed, each) == set()


def refuse(*_: object) -> int:
    raise OSError(5, "no")


@pytest.mark.parametrize(
    "member", ["device_state", "pending_bytes", "data_offset", "data_size", "take"]
)
def test_what_a_device_refuses_is_an_answer(member: str) -> None:
    assert hold(small(**{member: refuse}), *MIGRATED).died is None


# -- bounds ----------------------------------------------------------------------------


def test_a_device_that_never_ends_is_left() -> None:
    endless = small(pending_bytes=lambda _: 1, data_size=lambda _: 1)
    drain = (step("enter", "source", STOP_AND_COPY), step("drain", "source"))
    short = talk(endless, step("keep_short"), *drain)
    assert len(short.records) < 400


def test_a_device_that_never_ends_breaks_a_rule() -> None:
    endless = small(
        Bare,
        pending_bytes=lambda self: 64 * (self.state == STOP_AND_COPY),
        data_size=lambda _: 64,
    )
    drain = (step("enter", "source", STOP_AND_COPY), step("drain", "source"))
    assert "V1-PEND-13" in origins_broken(endless, *drain)


def test_a_short_conversation_moves_no_more_than_it_must() -> None:
    class Large(Bare):
        def power_on(self) -> None:
            super().power_on()
            self.memory = bytes(4 * 1000)

    drain = (step("enter", "source", STOP_AND_COPY), step("drain", "source"))
    assert talk(Large, *drain).moved == 4000
    assert talk(Large, step("keep_short"), *drain).moved <= 4 * 65


# -- a stopped device that runs again --------------------------------------------------


def test_a_device_that_stands_still_after_an_abort_is_found() -> None:
    class StandsStill(Framed):
        was_stopped = False

        def write_device_state(self, target: int) -> None:
            super().write_device_state(target)
            self.was_stopped |= target in (STOP, STOP_AND_COPY)

        def work(self, amount: int) -> None:
            if not self.was_stopped:
                super().work(amount)

    assert origins_broken(StandsStill, *ABORTED) == {"V1-STATE-03"}


def test_one_that_saturates_is_not_accused() -> None:
    saturates = small(worked=lambda *_: b"\xff" * SIZE)
    assert origins_broken(saturates, *ABORTED) == set()


def toggled(self: Bare, amount: int) -> bytes:
    return bytes([self.memory[0] ^ amount & 1]) + self.memory[1:]


@pytest.mark.parametrize("amount", [1, 2, 9, 40])
def test_one_that_toggles_is_not_accused(amount: int) -> None:
    watched = step("watch_work", "source", amount)
    steps = (watched, *ABORTED, watched, watched)
    assert origins_broken(small(worked=toggled), *steps) == set()


def test_one_that_does_no_work_at_all_is_not_accused() -> None:
    assert origins_broken(small(work=lambda *_: None), *ABORTED) == set()
    assert origins_broken(small(work=None), *ABORTED) == set()


def test_one_that_works_now_and_then_is_not_accused() -> None:
    class Sometimes(Framed):
        works = 0

        def work(self, amount: int) -> None:
            self.works += 1
            if self.works % 3 == 0:
                super().work(amount)

    assert origins_broken(Sometimes, *ABORTED, *ABORTED, *ABORTED) == set()


# -- states that are not the same every time -------------------------------------------


class RandomPowerOn(Framed):
    """Each object, and each reset of one, begins in a state of its own."""

    started = 0

    def power_on(self) -> None:
        super().power_on()
        RandomPowerOn.started += 1
        self.memory = RandomPowerOn.started.to_bytes(SIZE, "little")


WITH_A_PAST = (
    step("work", "source", 3),
    step("reset", "source"),
    step("enter", "source", STOP_AND_COPY),
    step("reset", "source"),
    step("work", "source", 3),
    step("reopen", "source"),
    step("read_device_state", "source"),
    *MIGRATED,
)


@pytest.mark.parametrize("driver", [Framed, Bare, RandomPowerOn, Ticks])
def test_a_device_that_is_as_fresh_behind_a_reset_is_not_accused(
    driver: type[Bare],
) -> None:
    assert origins_broken(driver, *WITH_A_PAST) == set()


@pytest.mark.parametrize("driver", [RandomPowerOn, Ticks, Bare, Framed])
def test_it_is_accused_in_no_script(driver: type[Bare]) -> None:
    bench = bench_for(driver)
    broken: set[str] = set()
    for steps in scripts():
        broken |= bench.hold(steps).broken.keys()
    assert broken == set()


def test_a_device_that_a_reset_leaves_as_it_was_is_accused() -> None:
    class KeepsState(Framed):
        def reset(self) -> None:
            memory = self.memory
            super().reset()
            self.memory = memory

    assert origins_broken(KeepsState, *WITH_A_PAST) == {"V1-RST-04"}


def test_a_device_that_remembers_the_last_session_is_accused() -> None:
    class Remembers(Framed):
        last = bytes(SIZE)

        def power_on(self) -> None:
            super().power_on()
            self.memory = Remembers.last

        def close(self) -> None:
            Remembers.last = self.memory

    steps = (step("work", "source", 3), step("reopen", "source"))
    assert "V1-RST-06" in origins_broken(Remembers, step("reset", "third"), *steps)


# -- what a device did before ----------------------------------------------------------


class CannotBeClosed(Framed):
    """It fails to close while it saves, and is gone all the same."""

    def close(self) -> None:
        if self.state == STOP_AND_COPY:
            raise OSError(errno.EBUSY, "it saves")


CLOSED_WHILE_IT_SAVES = (step("enter", "source", STOP_AND_COPY), REOPENED)


def test_a_close_that_fails_is_accused() -> None:
    assert origins_broken(Framed, *CLOSED_WHILE_IT_SAVES) == set()
    assert origins_broken(CannotBeClosed, *CLOSED_WHILE_IT_SAVES) == {"V1-RST-06"}


def test_a_running_device_whose_close_fails_has_asked_for_a_stop() -> None:
    steps = (step("read_device_state", "source"), REOPENED)
    assert {"V1-RST-06", "V1-TRANS-11"} == origins_broken(small(close=refuse), *steps)


def test_a_close_that_fails_leaves_the_next_session_alone() -> None:
    steps = (*CLOSED_WHILE_IT_SAVES, *MIGRATED)
    assert origins_broken(CannotBeClosed, *steps) == {"V1-RST-06"}


def test_who_was_never_opened_is_not_reopened() -> None:
    assert talk(CannotBeClosed, REOPENED).records == []


SAVED_TWICE = tuple(
    step("enter", "source", state)
    for state in (STOP, STOP_AND_COPY, STOP, STOP_AND_COPY)
)


class SavesOnce(Framed):
    """It begins to save once, and refuses that later."""

    TIMES = 1
    begun = 0

    def write_device_state(self, target: int) -> None:
        if target == STOP_AND_COPY and self.state == STOP:
            if self.begun == self.TIMES:
                raise OSError(errno.EBUSY, "not again")
            self.begun += 1
        super().write_device_state(target)


def test_saving_that_was_granted_once_and_is_refused_later_is_accused() -> None:
    assert origins_broken(SavesOnce, *SAVED_TWICE) == {"V1-SAVE-11"}


def test_saving_that_is_never_granted_from_there_is_not_accused() -> None:
    assert origins_broken(small(SavesOnce, TIMES=0), *SAVED_TWICE) == set()


def test_a_fault_excuses_that_saving_is_refused_later() -> None:
    fault = step("fail", "source", "device_state", errno.ENOMEM)
    steps = (*SAVED_TWICE[:-1], fault, SAVED_TWICE[-1])
    assert origins_broken(Framed, *steps) == set()


# -- bits that are not the state -------------------------------------------------------

BIT_31 = 1 << 31
AS_READ = (
    step("enter", "source", PRE_COPY),
    step("request_as_read", "source", STOP_AND_COPY),
)


class SetsBit31(Framed):
    """It reads with bit 31 set where it saves."""

    def device_state(self) -> int:
        is_saving = self.state in (PRE_COPY, STOP_AND_COPY)
        return self.state | BIT_31 * is_saving


class RefusesBit31(SetsBit31):
    """It does not take that bit back."""

    def write(self, offset: int, data: bytes) -> None:
        if offset == 0 and data[3] & 0x80:
            raise OSError(errno.EINVAL, "reserved bits")
        super().write(offset, data)


@pytest.mark.parametrize(("driver", "bits"), [(Framed, 0), (SetsBit31, BIT_31)])
def test_the_other_bits_are_written_as_they_were_read(
    driver: type[Bare], bits: int
) -> None:
    written = [
        each
        for each in talk(driver, *AS_READ).records
        if isinstance(each, Access) and each.access == "write"
    ]
    assert int(written[-1].value, 0) == bits | STOP_AND_COPY


def test_one_that_refuses_the_bits_that_it_set_itself_is_accused() -> None:
    assert "V1-STATE-13" in origins_broken(RefusesBit31, *AS_READ)


def test_one_that_takes_back_the_bits_that_it_set_is_not_accused() -> None:
    assert origins_broken(SetsBit31, *AS_READ, *MIGRATED[1:]) == set()


def test_one_that_refuses_bits_that_it_never_set_is_not_accused() -> None:
    driver = small(RefusesBit31, device_state=Bare.device_state)
    assert origins_broken(driver, *AS_READ) == set()


def test_a_state_that_cannot_be_read_is_asked_for_without_other_bits() -> None:
    refuses = small(device_state=refuse)
    written = [
        each.value
        for each in talk(refuses, AS_READ[1]).records
        if isinstance(each, Access) and each.access == "write"
    ]
    assert [int(each, 0) for each in written] == [STOP_AND_COPY]


# -- the region ------------------------------------------------------------------------


def test_an_area_of_no_bytes_is_accused() -> None:
    region = MigrationRegion(0x3000, (SparseMmapArea(0x1000, 0),))
    driver = small(migration_region=region)
    assert origins_broken(driver, *MIGRATED) == {"V1-MMAP-07"}
