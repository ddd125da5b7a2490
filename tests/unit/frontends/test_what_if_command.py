"""``vfiomig migrate --what-if`` as a user types it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.unit.frontends.documented import SECTIONS, example_of, paths_in, rows_of
from vfiomig.frontends.exit_codes import DONE, MISUSE, NOT_AS_EXPECTED, NOT_STARTED
from vfiomig.frontends.scenario import load_scenario
from vfiomig.frontends.what_if_axes import AXES, sweeps_of

if TYPE_CHECKING:
    from tests.unit.frontends.conftest import Vfiomig

GUEST: Final = """
[[device]]
target = "serial"
work = 100
[machine]
ram = "32M"
filled = "16M"
[[machine.load]]
dirty_rate = "30M"
working_set = "16M"
[parameters]
max-bandwidth = "64M"
"""
JSON: Final = SECTIONS["The JSON of `vfiomig migrate --what-if --json`"]

DRIVER: Final = """
from vfiomig import MigrationRegion
class Driver:
    migration_region = MigrationRegion(size=4096)
    def read(self, offset, size):
        {read}
    def write(self, offset, data):
        {write}
    def reset(self): pass
    def close(self): pass
"""


def guest() -> Path:
    path = Path("guest.toml")
    path.write_text(GUEST)
    return path


def driver(
    read: str = "return {0: 1}.get(offset, 0).to_bytes(size, 'little')",
    write: str = "pass",
) -> str:
    Path("driver.py").write_text(DRIVER.format(read=read, write=write))
    return "driver.py:Driver"


def test_it_foretells_the_scenario_and_what_lies_around(vfiomig: Vfiomig) -> None:
    code, output, errors = vfiomig("migrate", str(guest()), "--what-if")
    assert (code, errors) == (DONE, "")
    lines = output.splitlines()
    assert lines[-1].startswith("the scenario would converge after ")
    assert sum(line.endswith("<- the scenario") for line in lines) == 3
    for name in ("bandwidth", "dirty-rate", "downtime-limit"):
        assert any(re.match(rf" *{name} +converges", line) for line in lines)


def test_without_a_machine_the_devices_work_is_varied(vfiomig: Vfiomig) -> None:
    code, output, _ = vfiomig("migrate", "--what-if")
    assert code == DONE
    assert "work of the devices" in output
    assert "RAM" not in output


def test_one_sweep_has_its_points_and_the_scenarios_own(vfiomig: Vfiomig) -> None:
    sweep = "bandwidth=32M..256M:4"
    code, _, _ = vfiomig(
        "migrate", str(guest()), "--what-if", "--sweep", sweep, "--json", "f.json"
    )
    assert code == DONE
    (curve,) = json.loads(Path("f.json").read_text())["curves"]
    # At even distances, for they are less than 16 times apart; and its own, 64M.
    mib = [round(point["value"] / (1 << 20)) for point in curve["points"]]
    assert mib == [32, 64, 107, 181, 256]
    assert [point["is_own"] for point in curve["points"]] == [False, True] + 3 * [False]
    times = [point["total_time"] for point in curve["points"]]
    assert times == sorted(times, reverse=True)


def test_more_to_write_never_makes_it_faster(vfiomig: Vfiomig) -> None:
    arguments = ("migrate", str(guest()), "--what-if", "--json", "f.json")
    vfiomig(*arguments, "--sweep", "dirty-rate=0..120M:5")
    (curve,) = json.loads(Path("f.json").read_text())["curves"]
    syncs = [point["converges"] for point in curve["points"]]
    assert syncs == sorted(syncs, reverse=True)
    assert curve["points"][0]["stop_and_copy_ram_bytes"] == 0


@pytest.mark.parametrize(
    ("sweep", "reason"),
    [
        ("bandwidth", "is not NAME=LOW..HIGH"),
        ("bandwith=1M..2M", 'did you mean "bandwidth"?'),
        ("bandwidth=2M..1M", "2M is not below 1M"),
        ("bandwidth=0..1M", "must be at least 1"),
        ("bandwidth=1M..2M:1", "points must be 2 to 200"),
        ("bandwidth=1M..2M:x", "must be a whole number"),
        ("downtime-limit=1..2", "must be a time"),
        ("bandwidth=1M..99999999999999T", "must be at most"),
    ],
)
def test_a_bad_sweep_is_one_line(vfiomig: Vfiomig, sweep: str, reason: str) -> None:
    code, output, errors = vfiomig("migrate", "--what-if", "--sweep", sweep)
    assert (code, output) == (MISUSE, "")
    assert len(errors.splitlines()) == 1
    assert reason in errors


def test_what_the_scenario_does_not_have_cannot_be_varied(vfiomig: Vfiomig) -> None:
    sweep = "dirty-rate=1M..2M"
    code, _, errors = vfiomig("migrate", "--what-if", "--sweep", sweep)
    assert code == MISUSE
    assert "does not have a [[machine.load]] that writes" in errors


@pytest.mark.parametrize(
    "arguments",
    [
        ("--what-if", "--history", "h"),
        ("--what-if", "--stream", "s"),
        ("--sweep", "bandwidth=1M..2M"),
    ],
)
def test_options_that_do_not_go_together(
    vfiomig: Vfiomig, arguments: tuple[str, ...]
) -> None:
    code, _, errors = vfiomig("migrate", *arguments)
    assert code == MISUSE
    assert len(errors.splitlines()) == 1


def test_a_driver_that_dies_is_one_line(vfiomig: Vfiomig) -> None:
    target = driver(read="raise RuntimeError('no idea')")
    code, _, errors = vfiomig("migrate", "--device", target, "--what-if")
    assert code == NOT_AS_EXPECTED
    assert len(errors.splitlines()) == 1
    assert re.search(r"source, Driver: died: RuntimeError.*no idea", errors)


def test_a_driver_that_refuses_is_one_line(vfiomig: Vfiomig) -> None:
    target = driver(write="raise OSError(5, 'not today')")
    code, _, errors = vfiomig("migrate", "--device", target, "--what-if")
    assert code == NOT_AS_EXPECTED
    assert len(errors.splitlines()) == 1
    assert "source, Driver: " in errors


@pytest.mark.slow
def test_a_driver_that_is_never_done_is_asked_no_longer(vfiomig: Vfiomig) -> None:
    answers = "{0: 1, 8: 4096, 16: 64, 24: 1}"
    target = driver(read=f"return {answers}.get(offset, 0).to_bytes(size, 'little')")
    code, _, errors = vfiomig("migrate", "--device", target, "--what-if")
    assert code == NOT_AS_EXPECTED
    assert len(errors.splitlines()) == 1


def test_a_target_that_does_not_start(vfiomig: Vfiomig) -> None:
    Path("driver.py").write_text("raise ValueError\n")
    code, _, _ = vfiomig("migrate", "--device", "driver.py:Driver", "--what-if")
    assert code == NOT_STARTED


def test_the_page_is_self_contained_and_has_every_point(vfiomig: Vfiomig) -> None:
    code, _, _ = vfiomig("migrate", str(guest()), "--what-if", "--html", "f.html")
    page = Path("f.html").read_text()
    assert code == DONE
    assert not re.search(r"(src|href|url)\s*[=(]", page)
    scenario = load_scenario(Path("guest.toml"))
    points = sum(len(sweep.values) for sweep in sweeps_of(scenario, ()))
    assert page.count("<circle") == 2 * points
    assert page.count('class="is-own"') == 3


def test_every_key_of_the_json_is_documented(vfiomig: Vfiomig) -> None:
    vfiomig("migrate", str(guest()), "--what-if", "--json", "f.json")
    facts = json.loads(Path("f.json").read_text())
    assert {*paths_in(facts), "notes[]"} == rows_of(JSON).keys()
    example = json.loads(example_of(JSON, "json"))
    assert {*paths_in(example)} <= rows_of(JSON).keys()


@pytest.mark.parametrize("name", AXES)
def test_the_own_value_of_an_axis_leaves_the_scenario_as_it_is(
    name: str, vfiomig: Vfiomig
) -> None:
    scenario = load_scenario(guest())
    own = AXES[name].of(scenario)
    assert own is not None
    assert AXES[name].with_(scenario, own) == scenario
