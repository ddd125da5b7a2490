"""A forecast of 1 TiB, and a whole sweep, beside a small guest that really moves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.bench.figures import show, timed
from vfiomig.frontends.scenario import load_scenario
from vfiomig.frontends.simulation import simulate
from vfiomig.frontends.what_if import what_if

if TYPE_CHECKING:
    from pathlib import Path

_SCENARIO = """
[[device]]
target = "accelerator"
[machine]
ram = "{ram}"
filled = "{filled}"
[[machine.load]]
dirty_rate = "{rate}"
working_set = "{working_set}"
[link]
bandwidth = "1G"
[parameters]
max-bandwidth = 0
"""


def test_a_sweep_of_a_tebibyte_beside_moving_a_gibibyte(tmp_path: Path) -> None:
    big, small = tmp_path / "big.toml", tmp_path / "small.toml"
    big.write_text(
        _SCENARIO.format(ram="1T", filled="512G", rate="400M", working_set="20G")
    )
    small.write_text(
        _SCENARIO.format(ram="1G", filled="1G", rate="40M", working_set="64M")
    )
    began = time.perf_counter()
    report = what_if(load_scenario(big))
    sweep = time.perf_counter() - began
    points = sum(len(curve.points) for curve in report.curves)
    assert points >= 40
    move = timed(lambda: simulate(load_scenario(small)))
    show(
        f"what-if, {points} forecasts of 1 TiB", sweep / move, 5, "moving 1 GiB of RAM"
    )
