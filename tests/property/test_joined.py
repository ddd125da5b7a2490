"""A client and a driver, joined through the host: two outcomes, and no third.

Each example is a journey (see `joined`): a device that migrates a few times, with at
most one piece of trouble each time, beside a twin that never moves.
"""

from __future__ import annotations

import errno
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.joined import (
    ACCESSES,
    DEVICES,
    SITES,
    Arrival,
    BitFlipped,
    Cancelled,
    Fault,
    Journey,
    Leg,
    LinkCut,
    NotConverging,
    NoTrouble,
    Refused,
    Section,
    Side,
    Trouble,
    travel,
)
from vfiomig.vendor.reference import DATA_SECTION_KINDS

CODES = [errno.EIO, errno.EINVAL, errno.ENOMEM, errno.EBUSY, errno.EAGAIN]

sides = st.sampled_from(Side)
codes = st.sampled_from(CODES)
# Streams are of some hundred bytes or of some ten thousand.
bytes_of_the_stream = st.integers(0, 400) | st.integers(0, 25_000)
troubles = st.one_of(
    st.just(NoTrouble()),
    st.builds(Refused, sides, st.sampled_from(ACCESSES), st.integers(1, 6), codes),
    st.builds(Fault, sides, st.sampled_from(SITES), st.integers(1, 30), codes),
    # A source whose device is in ERROR has lost it; a destination has lost nothing.
    st.builds(
        Fault,
        st.just(Side.DESTINATION),
        st.sampled_from(SITES),
        st.integers(1, 30),
        st.just(errno.ENOTRECOVERABLE),
    ),
    st.builds(LinkCut, st.just(Side.SOURCE), bytes_of_the_stream),
    st.builds(LinkCut, st.just(Side.DESTINATION), st.integers(0, 8)),
    st.builds(BitFlipped, bytes_of_the_stream, st.integers(0, 7)),
    st.builds(Cancelled, st.integers(0, 30_000)),
    st.just(NotConverging()),
)
sections = st.builds(
    Section,
    pages=st.sampled_from([2, 3, 7]),
    kind=st.sampled_from(DATA_SECTION_KINDS),
)
legs = st.builds(
    Leg,
    back=st.booleans(),
    section=sections,
    conduct=st.sampled_from(["strict", "qemu-7.2"]),
    transport=st.sampled_from(["memory", "memory", "memory", "unix"]),
    work=st.sampled_from([0, 1, 30]),
    rounds=st.integers(1, 4),
    patient=st.booleans(),
    trouble=st.just(NoTrouble()) | troubles,
)
journeys = st.builds(
    Journey,
    device=st.sampled_from(list(DEVICES)),
    work=st.sampled_from([0, 1, 40]),
    start=sections,
    legs=st.lists(legs, min_size=1, max_size=3).map(tuple),
)


def test_a_migration_moves_the_device_or_leaves_it_as_it_was() -> None:
    arrivals: Counter[Arrival] = Counter()

    @settings(max_examples=6 * settings().max_examples)
    @given(journeys)
    def no_third_outcome(journey: Journey) -> None:
        arrivals.update(travel(journey))

    no_third_outcome()
    moved, all_of_them = arrivals[Arrival.MOVED], arrivals.total()
    assert moved >= 0.3 * all_of_them, arrivals
    assert arrivals[Arrival.STAYED] >= 0.1 * all_of_them, arrivals


def plain(device: str, trouble: Trouble, *, back: bool = False) -> Journey:
    """Return a journey of one leg and nothing special."""
    section = Section(pages=2, kind="split")
    leg = Leg(
        back=back,
        section=section,
        conduct="strict",
        transport="memory",
        work=1,
        rounds=2,
        patient=True,
        trouble=trouble,
    )
    return Journey(device=device, work=1, start=section, legs=(leg,))


# A serial card's whole stream is not longer.
SHORT_STREAM = 300


def test_no_byte_of_the_stream_can_be_flipped_unnoticed() -> None:
    arrivals = [
        travel(plain("serial", BitFlipped(byte, byte % 8)))[0]
        for byte in range(SHORT_STREAM)
    ]
    length = arrivals.index(Arrival.MOVED)
    assert length > 200
    assert set(arrivals[length:]) == {Arrival.MOVED}  # behind the stream's end


@pytest.mark.slow
def test_no_bit_of_the_stream_can_be_flipped_unnoticed() -> None:
    for byte in range(SHORT_STREAM):
        for bit in range(8):
            travel(plain("serial", BitFlipped(byte, bit)))


@pytest.mark.parametrize("side", Side)
def test_the_link_can_be_cut_anywhere(side: Side) -> None:
    arrivals = [
        travel(plain("serial", LinkCut(side, byte)))[0] for byte in range(SHORT_STREAM)
    ]
    assert Arrival.LOST not in arrivals
    assert arrivals[0] is Arrival.STAYED
    assert arrivals[-1] is Arrival.MOVED


def test_a_source_device_that_goes_to_error_is_said_to_be_lost() -> None:
    arrivals: Counter[Arrival] = Counter()

    @settings(max_examples=settings().max_examples // 2)
    @given(journeys, st.integers(1, 20))
    def runs_nowhere_else(journey: Journey, number: int) -> None:
        trouble = Fault(Side.SOURCE, "device_state", number, errno.ENOTRECOVERABLE)
        leg = replace(journey.legs[0], trouble=trouble)
        journey = replace(journey, legs=(leg,))
        arrivals.update(travel(journey, may_be_lost=True))

    runs_nowhere_else()
    assert arrivals[Arrival.LOST] > 0, arrivals
    assert arrivals[Arrival.MOVED] > 0, arrivals
