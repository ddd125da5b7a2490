"""What a run was made from, as a table and as a command."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.unit.frontends.report.sample_runs import everything, scenario
from vfiomig.frontends.report.parameters import command_of, parameters
from vfiomig.frontends.scenario import Scenario, builtin_scenario, with_targets


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (builtin_scenario(), "vfiomig migrate"),
        (
            with_targets(builtin_scenario(), ["serial", "my drivers.py:Gpu"]),
            "vfiomig migrate --device serial --device 'my drivers.py:Gpu'",
        ),
        (scenario("gpu0"), "vfiomig migrate scenarios/tight.toml"),
        (
            with_targets(scenario("gpu0"), ["opaque"]),
            "vfiomig migrate scenarios/tight.toml --device opaque",
        ),
        (
            dataclasses.replace(scenario("gpu0"), file=Path("a\x1b.toml")),
            r"vfiomig migrate 'a\x1b.toml'",
        ),
    ],
)
def test_the_command_runs_the_same_scenario(given: Scenario, command: str) -> None:
    assert command_of(given) == command


def test_what_was_left_at_its_default_is_told_too() -> None:
    rows = dict(parameters(builtin_scenario()))
    assert rows["file"] == "built-in"
    assert rows["link"] == "128 MiB/s, 100 us one way"
    assert rows["loading at the destination"] == "takes no time"
    assert rows["expected"] == "completed"
    assert not {"link cut", "flipped", "fault", "cancelled"} & set(rows)


def test_what_goes_wrong_on_purpose_is_told() -> None:
    rows = parameters(everything().scenario)
    assert ("link cut", "at byte 70000000 (66.76 MiB)") in rows
    assert ("flipped", "bit 3 of byte 1000") in rows
    assert ("fault", "EIO on data of gpu0, source, from round 2") in rows
    assert ("cancelled", "at 1 s") in rows
