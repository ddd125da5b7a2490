"""A client and a driver, joined through the host: two outcomes, and no third.

Each example is a journey (see `joined`): a device that migrates a few times, with at
most one piece of trouble each time, beside a twin that never moves.
"""

from __future__ import annotations

import errno
from collections import Counter

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
