"""The transition table, against kernel_uapi.md section B, typed in by hand."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from vfiomig.protocol.v1.states import (
    ARCS,
    DEFAULT_STATE,
    ArcClass,
    DeviceState,
    arc_between,
    named_state,
    state_name,
)
from vfiomig.uapi.migration_v1 import (
    VFIO_DEVICE_STATE_IS_ERROR,
    VFIO_DEVICE_STATE_VALID,
)

# Rows are from, columns are to, in the order of the three bits.
SECTION_B = """
    SELF  EXP   EXP   OPT   EXP   INV   ERRW  INV
    REQ   SELF  REQ   REQ   REQ   INV   ERRW  INV
    REQ   EXP   SELF  OPT   OPT   INV   ERRW  INV
    OPT   EXP   REQ   SELF  OPT   INV   ERRW  INV
    OPT   REQ   OPT   OPT   SELF  INV   ERRW  INV
    UNR   UNR   UNR   UNR   UNR   UNR   UNR   UNR
    XERR  XERR  XERR  XERR  XERR  XERR  XERR  XERR
    UNR   UNR   UNR   UNR   UNR   UNR   UNR   UNR
"""

# As the page adds its table up.
TOTALS = {
    "ERRW": 5,
    "EXP": 5,
    "INV": 10,
    "OPT": 8,
    "REQ": 7,
    "SELF": 5,
    "UNR": 16,
    "XERR": 8,
}

# Seven arcs are drawn in linux/vfio.h, on five numbered lines.
DRAWN = {(1, 0), (1, 2), (2, 0), (1, 3), (3, 2), (1, 4), (4, 1)}

RESERVED_BITS = [1 << bit for bit in range(3, 32)]


def test_the_table_is_that_of_section_b() -> None:
    rows = [line.split() for line in SECTION_B.split("\n") if line.strip()]
    by_hand = {(s, t): rows[s][t] for s, t in product(range(8), repeat=2)}
    assert {(a.source, a.target): a.arc_class.name for a in ARCS} == by_hand


def test_every_pair_has_exactly_one_row() -> None:
    pairs = Counter((arc.source, arc.target) for arc in ARCS)
    assert pairs == Counter(product(range(8), repeat=2))


def test_the_classes_add_up_as_the_page_says() -> None:
    assert Counter(arc.arc_class.name for arc in ARCS) == TOTALS


def test_every_row_says_who_says_so() -> None:
    for arc in ARCS:
        assert isinstance(arc.arc_class, ArcClass)
        assert arc.clause.strip(), arc


def test_the_drawn_arcs_are_the_required_ones_and_cite_the_drawing() -> None:
    required = {(a.source, a.target) for a in ARCS if a.arc_class is ArcClass.REQ}
    assert required == DRAWN
    for arc in ARCS:
        cites_drawing = arc.clause.startswith("H ") and arc.clause[2].isdigit()
        assert cites_drawing == ((arc.source, arc.target) in DRAWN), arc


@pytest.mark.parametrize("value", range(8))
def test_valid_is_the_macro_of_the_header(value: int) -> None:
    # 000 STOP, 001 RUNNING, 010 stop-and-copy, 011 pre-copy, 100 RESUMING
    expected = value in (0b000, 0b001, 0b010, 0b011, 0b100)
    assert VFIO_DEVICE_STATE_VALID(value) is expected
    for bit in RESERVED_BITS:
        assert VFIO_DEVICE_STATE_VALID(value | bit) is expected


@pytest.mark.parametrize("value", range(8))
def test_is_error_is_the_macro_of_the_header(value: int) -> None:
    expected = value == 0b110
    assert VFIO_DEVICE_STATE_IS_ERROR(value) is expected
    for bit in RESERVED_BITS:
        assert VFIO_DEVICE_STATE_IS_ERROR(value | bit) is expected


@pytest.mark.parametrize(("source", "target"), list(product(range(8), repeat=2)))
def test_the_class_of_an_arc_agrees_with_the_macros(source: int, target: int) -> None:
    arc_class = arc_between(source, target).arc_class
    if VFIO_DEVICE_STATE_IS_ERROR(source):
        assert arc_class is ArcClass.XERR
    elif not VFIO_DEVICE_STATE_VALID(source):
        assert arc_class is ArcClass.UNR
    elif VFIO_DEVICE_STATE_IS_ERROR(target):
        assert arc_class is ArcClass.ERRW
    elif not VFIO_DEVICE_STATE_VALID(target):
        assert arc_class is ArcClass.INV
    elif source == target:
        assert arc_class is ArcClass.SELF
    else:
        assert arc_class in (ArcClass.REQ, ArcClass.EXP, ArcClass.OPT)


@pytest.mark.parametrize("bit", RESERVED_BITS)
def test_reserved_bits_do_not_count(bit: int) -> None:
    for source, target in product(range(8), repeat=2):
        plain = arc_between(source, target)
        assert arc_between(source | bit, target) is plain
        assert arc_between(source, target | bit) is plain
        assert named_state(source | bit) is named_state(source)
        assert state_name(source | bit) == state_name(source)


def test_states_have_the_names_of_the_drawing() -> None:
    assert [state_name(value) for value in range(8)] == [
        "STOP",
        "RUNNING",
        "STOP_AND_COPY",
        "PRE_COPY",
        "RESUMING",
        "101b",
        "ERROR",
        "111b",
    ]
    assert [named_state(value) for value in (5, 7)] == [None, None]


def test_a_device_is_running_by_default() -> None:
    assert DEFAULT_STATE is DeviceState.RUNNING
    assert int(DEFAULT_STATE) == 0b001


def test_the_bits_say_who_runs_and_who_saves() -> None:
    running = {state.name for state in DeviceState if state.is_running}
    saving = {state.name for state in DeviceState if state.is_saving}
    assert running == {"RUNNING", "PRE_COPY"}
    # ERROR has the bit of SAVING as well, and saves nothing.
    assert saving == {"PRE_COPY", "STOP_AND_COPY"}
