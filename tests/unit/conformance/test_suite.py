"""The suite as a whole: conforming drivers hold, faulty ones are found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vfiomig.conformance.conversation.steps import read_token
from vfiomig.conformance.effort import Effort
from vfiomig.conformance.suite import run_suite
from vfiomig.conformance.target import load_target

if TYPE_CHECKING:
    from vfiomig.conformance.finding import Outcome

FEW = Effort(conversations=0, accesses=100_000, data=64 << 20)


def outcome_of(target: str) -> Outcome:
    return run_suite(load_target(target).make_driver, effort=FEW)


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [
        "reference",
        "serial",
        "opaque",
        "accelerator,memory=1M",
        "reference,data-section=split",
        "vfiomig.vendor.conforming:AcceptsEveryArc",
        "vfiomig.vendor.conforming:RefusesOptionalArcs",
        "vfiomig.vendor.conforming:MovingDataOffset",
        "vfiomig.vendor.conforming:NoDeviceState",
        "vfiomig.vendor.conforming:SeveralAreas",
        "vfiomig.vendor.conforming:UndefinedOutsideSessions",
    ],
)
def test_a_conforming_driver_holds(target: str) -> None:
    outcome = outcome_of(target)
    assert [f"{f.rule.id}: {f.broken}" for f in outcome.findings] == []
    assert outcome.verdict == "held"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "rule"),
    [
        ("data_size:ShrinkingBuffer", "v1/data-size/stable-within-iteration"),
        ("data_offset:ZeroOffset", "v1/data-offset/behind-the-registers"),
        ("device_state:OpensStopped", "v1/device-state/running-on-open"),
    ],
)
def test_a_faulty_driver_is_found_by_its_rule(target: str, rule: str) -> None:
    outcome = outcome_of(f"vfiomig.vendor.mutants.{target}")
    finding = next(f for f in outcome.findings if f.rule.id == rule)
    named, steps = read_token(finding.token)
    assert named == rule
    assert steps == finding.steps
