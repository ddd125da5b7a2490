"""A check that sleeps misses nothing: only what wakes it could begin anything.

Nor does one that is woken only in some states, or only by what failed.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Final

import pytest

from tests.unit.conformance.histories import record
from vfiomig.conformance import kinds
from vfiomig.conformance.catalogue import bound_checks, load_catalogue
from vfiomig.conformance.conversation.conversation import Conversation
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.judge import Bound, Judge
from vfiomig.conformance.moment import (
    EVERY_KIND,
    Kind,
    Moment,
    Watch,
    When,
    during,
    failing,
    outside,
    succeeding,
)
from vfiomig.conformance.ruling import HELD, Ruling
from vfiomig.conformance.target import load_target
from vfiomig.protocol.history import Access, Record, RegionShape

AREAS: Final = ((0x1000, 0x1000), (0x2000, 0x2000))


def never_asleep(bound: Bound) -> Bound:
    """Return a check that is given all that could wake it, in whatever state."""
    watch = bound.kinds
    if not isinstance(watch, Watch):
        return bound
    waking = [each if isinstance(each, Kind) else each.kind for each in watch.woken_by]
    return replace(bound, kinds=(*watch.kinds, *waking))


CHECKS: Final = tuple(bound_checks(load_catalogue()))
AWAKE: Final = tuple(map(never_asleep, CHECKS))


def conversations(target: str) -> list[list[Record]]:
    make_driver = load_target(target).make_driver
    held = []
    for steps in scripts()[::11]:
        conversation = Conversation(make_driver, (), rule_ids={})
        conversation.perform(steps)
        conversation.close()
        held.append(conversation.records)
    return held


@pytest.mark.parametrize(
    "target",
    [
        "reference,data-section=split",
        "vfiomig.vendor.mutants.saving:ReadsOnce",
        "vfiomig.vendor.mutants.standalone_saving:ReadsLikeAPipe",
        "vfiomig.vendor.mutants.register_access:OddReadConsumes",
    ],
)
def test_checks_that_sleep_rule_as_if_they_were_awake(target: str) -> None:
    region = load_target(target).make_driver().migration_region
    areas = tuple((area[0], area[1]) for area in region.areas)
    shape = RegionShape(size=region.size, areas=areas)
    for records in conversations(target):
        assert_same_rulings(records, shape)


def assert_same_rulings(records: list[Record], shape: RegionShape) -> None:
    devices = dict.fromkeys([each.device for each in records], shape)
    judge, awake = Judge(CHECKS, devices), Judge(AWAKE, devices)
    for each in records:
        assert judge.see(each) == awake.see(each)
        assert judge.kept == awake.kept
        judge.kept.clear()
        awake.kept.clear()


# -- where no driver would lead --------------------------------------------------------


ITERATION: Final = (
    "read pending_bytes -> 16; read data_offset -> 0x1000; read data_size -> 16"
)
TWICE: Final = (
    "read pending_bytes -> 16; read pending_bytes -> 16; read data_offset -> EINVAL"
)
# What may be said in any order; some lines are left out then, and some fail.
PHRASES: Final = (
    "write device_state 3",
    "write device_state 2",
    "write device_state 2; snapshot aa; snapshot bb",
    "snapshot aa; write device_state 1; snapshot aa",
    "write device_state 0; snapshot aa; work 1; snapshot bb",
    "write device_state 4",
    "write device_state 5; read device_state -> 1",
    "read device_state -> 1; read device_state -> 6; snapshot aa; snapshot bb",
    "reset; read device_state -> 1; reset; read device_state -> 2",
    "read pending_bytes -> 16",
    "read pending_bytes -> 0; read pending_bytes -> 16",
    ITERATION,
    f"read 0x1000 16 -> {'00' * 16}; read pending_bytes -> 16",
    f"read 0x1000 8 -> {'00' * 8}; read 0x1008 8 -> {'01' * 8}",
    "read 0x800 8; read data_offset -> 0x1001; read data_size -> 17",
    "read pending_bytes -> 1; write pending_bytes 32; read pending_bytes -> 32",
    "read data_offset -> 0x1000; write data_offset 0x20; read data_offset -> 0x20",
    "read data_size -> 16; write data_size 32; read data_size -> 32",
    "read data_offset -> 0x1000; write 0x1000 16; write data_size 16",
    "write 0x1000 8; read data_offset -> 0x1008; write data_size 16",
    "read reserved -> 0; write reserved 1; read reserved -> 1",
    "write 0 2; read device_state -> 2; read 0 2",
    "fail data 5; fail pending_bytes 5",
    "mmap 0x1000 0x1000; close",
    # What some check wakes for, and random order comes to too seldom.
    "write device_state 4; snapshot aa; snapshot bb",
    "read device_state -> 2; write pending_bytes 1; read device_state -> 3",
    "write device_state 2; read pending_bytes -> 2; write pending_bytes 4;"
    " read pending_bytes -> 4",
    f"{ITERATION}; write 0x800 8; read data_offset -> 0x2000",
    f"{ITERATION}; read data_offset -> 0x1000; write 0x800 8; read data_offset -> 1",
    *(
        f"reset; write device_state {state}; {ITERATION}; write data_size 32;"
        " read data_size -> 32"
        for state in (2, 3)
    ),
    "write 2 2; read device_state -> 5",
    "write device_state 2; read pending_bytes -> 0; read pending_bytes -> 16",
    "write device_state 4; read data_offset -> 0x3000; write 0x3000 8;"
    " read data_offset -> 0x3800; write data_size 8",
    "write device_state 1; write device_state 4; read data_offset -> 0x1000;"
    " write data_offset 0x4000; read data_offset -> 0x4000",
    f"{ITERATION}; read 0x1000 8 -> EIO; read data_size -> 16",
    f"reset; write device_state 2; {ITERATION}; read 0x1000 16;"
    " write device_state 0 -> EIO; read pending_bytes -> 1",
    f"{ITERATION}; read device_state -> 2; read data_size -> died; read 0x800 8;"
    " read device_state -> 3",
    f"{ITERATION}; read device_state -> 2; read data_size -> died; write 0x800 8;"
    " read device_state -> 3",
    *(
        f"reset; write device_state {state}; {spoils}; {TWICE}"
        for state in (2, 3)
        for spoils in (
            "write 0x1000 8",
            "write data_size 1",
            "read data_size -> 1",
            "read data_offset -> 0x1000",
            f"{ITERATION}; read pending_bytes -> 1",
        )
    ),
    *(f"reset; write device_state {state}; {TWICE}" for state in (2, 3)),
    "reset; write device_state 4; read data_offset -> 0x1000; write data_offset 0x20;"
    " read data_offset -> 0x20",
)
FAILURES: Final = ("EINVAL", "EIO", "died")


def any_history(random: Random) -> list[Record]:
    lines = [line for _ in range(50) for line in random.choice(PHRASES).split("; ")]
    records = []
    for line in lines:
        is_failing = random.random() < 0.06 and line.startswith(
            ("read", "write", "reset")
        )
        asked = line.partition(" -> ")[0]
        said = f"{asked} -> {random.choice(FAILURES)}" if is_failing else line
        if random.random() < 0.9:
            records.append(record(f"source: {said}"))
    return records


@pytest.mark.parametrize("seed", range(10))
def test_sleepers_miss_nothing_of_what_never_happens(seed: int) -> None:
    random = Random(seed)
    for _ in range(6):
        assert_same_rulings(any_history(random), RegionShape(size=0x4000, areas=AREAS))


# -- where a check is asked ------------------------------------------------------------

WRITTEN: Final = Access("source", "write", 0, 4, "0x2")
REFUSED: Final = Access("source", "write", 0, 4, "0x3", 22)
READ: Final = Access("source", "read", 8, 8, "0x10")


@pytest.mark.parametrize(
    ("occasions", "indexes"),
    [
        ((kinds.WRITE_DEVICE_STATE,), [1, 3]),
        (failing(kinds.WRITE_DEVICE_STATE), [3]),
        (succeeding(kinds.WRITE_DEVICE_STATE), [1]),
        (during((2,), kinds.READ_PENDING_BYTES), [2]),
        (during((None,), kinds.READ_PENDING_BYTES), [4]),
        (during((2,), kinds.WRITE_DEVICE_STATE, ok=True), []),
        (outside((2,), *EVERY_KIND), [0, 1, 4]),
        ((kinds.OPEN, *during((1,), kinds.WRITE_DEVICE_STATE)), [0, 1]),
    ],
)
def test_a_check_is_asked_where_it_is_bound_to(
    occasions: tuple[Kind | When, ...], indexes: list[int]
) -> None:
    asked = []

    def check(moment: Moment) -> Ruling:
        asked.append(moment.index)
        return HELD

    bound = Bound(rule="any", function=check, kinds=occasions)
    judge = Judge([bound], {"source": RegionShape(size=0x4000)})
    for each in (WRITTEN, READ, REFUSED, READ):
        judge.see(each)
    assert asked == indexes
