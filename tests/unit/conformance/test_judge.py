"""A check that sleeps misses nothing: only what wakes it could begin anything."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vfiomig.conformance.catalogue import bound_checks, load_catalogue
from vfiomig.conformance.conversation.conversation import Conversation
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.judge import Bound, Judge
from vfiomig.conformance.moment import Watch
from vfiomig.conformance.target import load_target
from vfiomig.protocol.history import Record, RegionShape


def never_asleep(bound: Bound) -> Bound:
    kinds = bound.kinds
    return replace(bound, kinds=kinds.kinds if isinstance(kinds, Watch) else kinds)


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
    checks = bound_checks(load_catalogue())
    region = load_target(target).make_driver().migration_region
    areas = tuple((area[0], area[1]) for area in region.areas)
    shape = RegionShape(size=region.size, areas=areas)
    for records in conversations(target):
        devices = dict.fromkeys([each.device for each in records], shape)
        judge = Judge(checks, devices)
        awake = Judge([never_asleep(each) for each in checks], devices)
        for record in records:
            assert judge.see(record) == awake.see(record)
        assert judge.kept == awake.kept
