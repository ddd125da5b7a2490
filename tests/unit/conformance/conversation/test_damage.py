"""Damaged streams: what they are, and who is accused of running with one."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.conformance.small_drivers import (
    BLOCK,
    RESUMING,
    RUNNING,
    SIZE,
    STOP_AND_COPY,
    Bare,
    Framed,
    Gullible,
    hold,
    origins_broken,
)
from vfiomig.conformance.conversation.damage import (
    DAMAGES,
    REARRANGEMENTS,
    Damage,
    damaged,
)
from vfiomig.conformance.conversation.steps import Step, step

# Each holds whole conversations: together they take half a minute.
pytestmark = pytest.mark.slow

CHUNKS = st.lists(st.binary(max_size=12), max_size=5)
EVERY = (*DAMAGES, *REARRANGEMENTS)
CASES = [(how, 0) for how in EVERY] + [("a bit flipped", n) for n in (77, 1013, 40009)]


def with_damage(how: str, place: int = 0) -> tuple[Step, ...]:
    """Return a migration of a stream that is damaged."""
    return (
        step("work", "source", 40),
        step("enter", "source", STOP_AND_COPY),
        step("drain", "source"),
        step("enter", "destination", RESUMING),
        step("load_damaged", "destination", how, place),
        step("enter", "destination", RUNNING),
    )


# -- streams ---------------------------------------------------------------------------


@given(CHUNKS, st.sampled_from(EVERY), st.integers(0, 1 << 16))
def test_a_damaged_stream_is_another_one(
    chunks: list[bytes], how: str, place: int
) -> None:
    damage = damaged(chunks, how, place)
    if damage is not None:
        assert damage.chunks != [chunk for chunk in chunks if chunk]
        assert damage == damaged(chunks, how, place)


@given(CHUNKS, st.sampled_from(EVERY), st.integers(0, 1 << 16))
def test_the_stream_itself_stays_as_it_is(
    chunks: list[bytes], how: str, place: int
) -> None:
    before = list(chunks)
    damaged(chunks, how, place)
    assert chunks == before


@given(CHUNKS, st.integers(0, 1 << 16))
def test_one_bit_is_one_bit(chunks: list[bytes], place: int) -> None:
    damage = damaged(chunks, "a bit flipped", place)
    whole = b"".join(chunks)
    if damage is None:
        assert whole == b""
        return
    other = b"".join(damage.chunks)
    differs = int.from_bytes(whole, "big") ^ int.from_bytes(other, "big")
    assert differs.bit_count() == 1


@given(CHUNKS, st.sampled_from(("split", "merged")), st.integers(0, 99))
def test_split_and_merged_chunks_hold_the_same_bytes(
    chunks: list[bytes], how: str, place: int
) -> None:
    damage = damaged(chunks, how, place)
    if damage is not None:
        assert b"".join(damage.chunks) == b"".join(chunks)
        assert all(damage.chunks)


@pytest.mark.parametrize(
    ("how", "chunks"),
    [
        ("empty", []),
        ("without its end", [b"ab"]),
        ("without its start", [b"cdef"]),
        ("cut short", [b"ab", b"cd"]),
        ("reordered", [b"cdef", b"ab"]),
        ("split", [b"a", b"b", b"cdef"]),
        ("merged", [b"abcdef"]),
        ("foreign", [b"\0\0", b"\7\7\7\7"]),
    ],
)
def test_each_damage_is_what_its_name_says(how: str, chunks: list[bytes]) -> None:
    damage = damaged([b"ab", b"", b"cdef"], how, 0)
    if how == "foreign":
        assert damage is not None
        assert [len(chunk) for chunk in damage.chunks] == [2, 4]
    else:
        assert damage == Damage(how, chunks, [b"ab", b"cdef"])


def test_there_is_no_damage_of_another_name() -> None:
    with pytest.raises(ValueError, match="stolen"):
        damaged([b"ab"], "stolen", 0)


@pytest.mark.parametrize("how", EVERY)
def test_nothing_cannot_be_damaged(how: str) -> None:
    assert damaged([], how, 0) is None
    assert damaged([b"", b""], how, 0) is None


@pytest.mark.parametrize(
    ("how", "origin"),
    [
        ("empty", "V1-TRANS-27"),
        ("a bit flipped", "V1-TRANS-27"),
        ("foreign", "V1-RES-08"),
        ("merged", "V1-RES-04"),
    ],
)
def test_each_damage_names_its_rule(how: str, origin: str) -> None:
    assert Damage(how, [], []).origin == origin


# -- whether it is state ---------------------------------------------------------------


@pytest.mark.parametrize("how", EVERY)
def test_what_is_given_back_was_taken_as_state(how: str) -> None:
    damage = Damage(how, [b"abx", b"d"], [])
    assert damage.is_state([b"a", b"bxd"], [b"abcd"])


def test_a_byte_that_differs_may_be_derived_from_another() -> None:
    flipped = Damage("a bit flipped", [b"abcx"], [])
    assert flipped.is_state([b"abcy"], [b"abcd"])
    assert not flipped.is_state([b"xbcy"], [b"abcd"])


def test_another_length_is_another_state() -> None:
    assert not Damage("a bit flipped", [b"abcx"], []).is_state([b"abc"], [b"abcd"])
    assert not Damage("cut short", [b"ab"], []).is_state([b"abcd"], [b"abcd"])


# -- devices ---------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "place"), CASES)
def test_a_driver_whose_stream_is_its_state_is_not_accused(
    how: str, place: int
) -> None:
    assert origins_broken(Bare, *with_damage(how, place)) == set()


@pytest.mark.parametrize(("how", "place"), CASES)
def test_a_driver_that_refuses_damage_is_not_accused(how: str, place: int) -> None:
    assert origins_broken(Framed, *with_damage(how, place)) == set()


@pytest.mark.parametrize(
    ("how", "origin"),
    [
        ("empty", "V1-TRANS-27"),
        ("without its end", "V1-TRANS-27"),
        ("without its start", "V1-TRANS-27"),
        ("cut short", "V1-TRANS-27"),
        ("foreign", "V1-RES-08"),
    ],
)
def test_a_driver_that_could_tell_and_does_not_is_accused(
    how: str, origin: str
) -> None:
    assert origins_broken(Gullible, *with_damage(how)) == {origin}


def test_a_stream_in_another_order_is_observed_and_fails_nobody() -> None:
    assert origins_broken(Gullible, *with_damage("reordered")) == set()
    broken = hold(Gullible, *with_damage("reordered")).broken
    assert broken.keys() == {"v1/resuming/may-refuse-other-boundaries"}


def test_a_checksum_that_nobody_looks_at_is_found_by_a_bit_of_the_state() -> None:
    places = range(0, 3 * 8 * 12, 73)
    found = [origins_broken(Gullible, *with_damage("a bit flipped", p)) for p in places]
    assert {"V1-TRANS-27"} in found


class RefusesLate(Framed):
    """It refuses a bad chunk, and runs all the same as it was before."""

    def finish(self) -> None:
        whole = b"".join(chunk[self.FRAME.size :] for chunk in self.loaded)
        if len(whole) == len(self.memory):
            self.memory = whole


class Salted(Bare):
    """Its stream begins with a random number; the rest is bare state."""

    def stream(self) -> list[bytes]:
        return [os.urandom(BLOCK), *super().stream()]

    def finish(self) -> None:
        if len(self.loaded) != 1 + SIZE // BLOCK:
            raise OSError(errno.EINVAL, "not all of it has come")
        self.memory = b"".join(self.loaded[1:])


def test_damage_in_a_stream_that_differs_each_time_proves_nothing() -> None:
    places = range(5, 4 * BLOCK * 8, 11)
    found = [origins_broken(Salted, *with_damage("a bit flipped", p)) for p in places]
    assert set().union(*found) == set()


@pytest.mark.parametrize("how", ["a bit flipped", "foreign", "reordered"])
def test_an_error_at_a_write_and_the_state_as_before_is_enough(how: str) -> None:
    assert origins_broken(RefusesLate, *with_damage(how)) == set()


class RefusesAndKeeps(Gullible):
    """It refuses a bad chunk, and runs with what it has of it."""

    check = Framed.check

    def finish(self) -> None:
        super().finish()
        if len(self.loaded) > SIZE:
            self.memory = b"\xee" * SIZE


@pytest.mark.parametrize("how", ["a bit flipped", "foreign"])
def test_an_error_is_not_enough_where_something_stays(how: str) -> None:
    assert origins_broken(RefusesAndKeeps, *with_damage(how)) != set()


def test_a_driver_that_does_not_restore_a_true_stream_is_not_accused_of_damage() -> (
    None
):
    class Forgets(Framed):
        def finish(self) -> None:
            self.memory = bytes(len(self.memory))

    assert origins_broken(Forgets, *with_damage("a bit flipped")) == set()


def test_damage_behind_an_armed_fault_says_nothing() -> None:
    *before, last = with_damage("empty")
    fault = step("fail", "destination", "data", 5)
    assert origins_broken(Gullible, *before, fault, last) == set()


def test_what_is_other_at_each_saving_is_no_evidence() -> None:
    # The last byte counts migrations; nothing else is other than it was given.
    counted = Damage("foreign", [b"wxyz\1"], [b"abcd\1"])
    assert counted.is_state([b"wxyz\2"], [b"abcd\2"])
    # Here it is a checksum, which the true stream keeps.
    assert not counted.is_state([b"wxyz\2"], [b"abcd\1"])


def test_the_first_byte_that_was_hit_is_named() -> None:
    assert Damage("a bit flipped", [b"ab", b"xd"], [b"ab", b"cd"]).place == (
        ", byte 2 of 4"
    )
    assert Damage("cut short", [b"a"], [b"ab"]).place == ""
