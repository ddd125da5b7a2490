"""What is held against a device, and what rules a comparison out."""

from __future__ import annotations

import errno

import pytest

from tests.unit.conformance.small_drivers import (
    BLOCK,
    RESUMING,
    RUNNING,
    SIZE,
    STOP_AND_COPY,
    Bare,
    Framed,
    Lossy,
    RefusesLooseData,
    hold,
    origins_broken,
    small,
)
from vfiomig.conformance.conversation.conversation import Conversation
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.conversation.steps import Step, step
from vfiomig.conformance.conversation.stream import PLAIN, rule_for, rules_about

# Each holds whole conversations: together they take half a minute.
pytestmark = pytest.mark.slow

SAVED = (
    step("work", "source", 40),
    step("enter", "source", STOP_AND_COPY),
    step("drain", "source"),
)
ARRIVED = (
    step("enter", "destination", RESUMING),
    step("load", "destination"),
    step("enter", "destination", RUNNING),
)
MIGRATED = (*SAVED, *ARRIVED)


def behind(*steps: Step) -> tuple[Step, ...]:
    """Return a migration with steps before its end."""
    return (*MIGRATED[:-1], *steps, MIGRATED[-1])


# -- outcomes --------------------------------------------------------------------------


def test_a_state_that_does_not_arrive_breaks_one_rule() -> None:
    assert origins_broken(Lossy, *MIGRATED) == {PLAIN}


def test_it_is_an_outcome() -> None:
    (broken,) = hold(Lossy, *MIGRATED).broken.values()
    assert broken.is_outcome


@pytest.mark.parametrize(
    ("way", "origin"),
    [
        ("halves", "V1-RES-09"),
        ("filled", "V1-RES-05"),
        ("whole", PLAIN),
        ("mapped", PLAIN),  # it has no areas
    ],
)
def test_what_was_special_names_the_rule(way: str, origin: str) -> None:
    steps = tuple(
        step("load", "destination", way) if each.name == "load" else each
        for each in MIGRATED
    )
    assert origins_broken(Lossy, *steps) == {origin}


def refuse(*_: object) -> None:
    raise OSError(errno.EIO, "no")


@pytest.mark.parametrize("member", ["take", "finish"])
def test_a_true_stream_that_is_refused_breaks_the_rule(member: str) -> None:
    assert PLAIN in origins_broken(small(**{member: refuse}), *MIGRATED)


# -- what rules it out -----------------------------------------------------------------


def test_an_armed_fault_rules_it_out() -> None:
    fault = step("fail", "destination", "device_state", errno.EIO)
    assert origins_broken(Lossy, *behind(fault)) == set()


def test_the_user_applications_own_fault_rules_it_out() -> None:
    lost = [
        step(name, "source")
        for name in ("read_pending_bytes", "read_data_offset", "read_pending_bytes")
    ]
    assert origins_broken(Lossy, *SAVED[:2], *lost, *SAVED[2:], *ARRIVED) == set()


def test_a_stream_that_is_not_whole_rules_it_out() -> None:
    part = (*SAVED[:2], step("iterate", "source", 1))
    assert origins_broken(Lossy, *part, *ARRIVED) == set()


def test_a_size_that_no_chunk_has_rules_it_out() -> None:
    stray = step("write_register", "destination", "data_size", 1 << 40)
    steps = (*SAVED, ARRIVED[0], stray, *ARRIVED[1:])
    assert origins_broken(Lossy, *steps) == set()


def test_a_device_without_snapshots_is_not_compared() -> None:
    assert origins_broken(small(Lossy, snapshot=None), *MIGRATED) == set()


def test_a_device_that_is_another_one_at_each_look_is_not_accused() -> None:
    class Changing(Lossy):
        looks = 0

        def snapshot(self) -> bytes:
            if self.state != RUNNING:
                return self.memory
            self.looks += 1
            return self.memory + bytes([self.looks])

    assert origins_broken(Changing, *MIGRATED) == set()


# -- data that no size follows ---------------------------------------------------------

OVERWRITTEN = behind(step("overwrite_window", "destination"))


class LoadsLate(Framed):
    """It takes a chunk only when it is asked where the next one goes, or to run."""

    size = 0

    def take(self, size: int) -> None:
        self.size = size

    def load(self) -> None:
        if self.state == RESUMING and self.size:
            size, self.size = self.size, 0
            super().take(size)

    def data_offset(self) -> int:
        self.load()
        return super().data_offset()

    def finish(self) -> None:
        self.load()
        super().finish()


class LoadsLateBare(LoadsLate):
    """It has nothing that would tell it of rubbish."""

    stream = Bare.stream
    finish = Bare.finish

    def check(self, chunk: bytes) -> None:
        """Believe it."""

    def write_device_state(self, target: int) -> None:
        self.load()
        super().write_device_state(target)


@pytest.mark.parametrize("driver", [Framed, Bare, RefusesLooseData])
def test_who_has_taken_what_lies_in_the_window_is_not_accused(
    driver: type[Bare],
) -> None:
    assert origins_broken(driver, *OVERWRITTEN) == set()


@pytest.mark.parametrize("driver", [LoadsLate, LoadsLateBare])
def test_one_that_loads_at_the_next_data_offset_is_accused(driver: type[Bare]) -> None:
    assert origins_broken(driver, *MIGRATED) == set()
    assert origins_broken(driver, *OVERWRITTEN) == {"V1-SIZE-06"}


def test_one_that_refuses_loose_data_and_any_stream_is_accused_of_that() -> None:
    driver = small(RefusesLooseData, finish=refuse)
    assert origins_broken(driver, *MIGRATED) == {PLAIN}
    assert origins_broken(driver, *OVERWRITTEN) == set()


# -- data that comes late --------------------------------------------------------------

LATE = (
    *SAVED,
    ARRIVED[0],
    step("load_damaged", "destination", "without its end"),
    ARRIVED[2],
    step("load_rest", "destination"),
    ARRIVED[2],
)


def test_the_chunk_that_was_held_back_restores_the_device() -> None:
    assert origins_broken(Framed, *LATE) == set()
    assert "v1/transitions/resuming-to-running" in hold(Framed, *LATE).reached


def test_a_device_that_cannot_go_on_behind_its_refusal_is_observed_and_fails_not() -> (
    None
):
    class Forgets(Framed):
        def finish(self) -> None:
            loaded, self.loaded = self.loaded, []
            if len(loaded) != SIZE // BLOCK:
                raise OSError(errno.EINVAL, "not all of it has come")
            self.loaded = loaded
            super().finish()

        def check(self, chunk: bytes) -> None:
            """Look at the end only."""

    assert origins_broken(Forgets, *MIGRATED) == set()
    assert origins_broken(Forgets, *LATE) == set()
    broken = hold(Forgets, *LATE).broken
    assert broken.keys() == {"v1/transitions/late-data-accepted"}


@pytest.mark.parametrize("how", ["empty", "a bit flipped", "merged"])
def test_no_rest_is_given_where_none_was_held_back(how: str) -> None:
    other = step("load_damaged", "destination", how)
    steps = tuple(other if each.name == "load_damaged" else each for each in LATE)
    assert origins_broken(Framed, *steps) == set()


# -- what is held for it ---------------------------------------------------------------


def test_a_migration_speaks_for_the_rules_that_it_needed() -> None:
    assert origins_broken(Framed, *MIGRATED) == set()
    reached = hold(Framed, *MIGRATED).reached
    assert "v1/transitions/resuming-to-running" in reached


@pytest.mark.parametrize("steps", scripts()[:5], ids=map(str, range(5)))
@pytest.mark.parametrize("driver", [Framed, Bare])
def test_a_round_trip_of_a_conforming_driver_breaks_nothing(
    driver: type[Bare], steps: tuple[Step, ...]
) -> None:
    assert hold(driver, *steps).broken == {}


def test_the_first_feature_in_the_order_of_the_table_is_named() -> None:
    assert rule_for({"pre-copy", "odd access"}) == "V1-ACC-03"
    assert rule_for(set()) == PLAIN
    assert rule_for({"nothing that is known"}) == PLAIN


def test_equal_states_speak_for_every_feature() -> None:
    assert {"V1-SAVE-06", "V1-ACC-03", PLAIN} <= rules_about({"pre-copy", "odd access"})


def test_a_rule_that_is_not_asked_about_is_not_ruled_on() -> None:
    conversation = Conversation(Framed, (), rule_ids={PLAIN: "v1/x"})
    conversation.perform(MIGRATED[:-1])
    assert not conversation.kept
    conversation.perform(MIGRATED[-1:])
    conversation.close()
    assert (conversation.kept, conversation.broken) == ({"v1/x"}, [])
