"""``vfiomig check`` as a user types it: verdicts, exit codes, files."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from tests.unit.frontends.check_drivers import write_drivers
from vfiomig.frontends.exit_codes import (
    DONE,
    INTERRUPTED,
    MISUSE,
    NOT_AS_EXPECTED,
    NOT_STARTED,
)

if TYPE_CHECKING:
    from tests.unit.frontends.conftest import Vfiomig

OPENED = "v1/device-state/running-on-open"


@pytest.fixture(autouse=True)
def _drivers(tmp_path: Path) -> None:
    """Have a driver.py in the folder of the command lines."""
    write_drivers(tmp_path)


def test_list_names_the_rules_of_the_vendor_driver_and_ends(vfiomig: Vfiomig) -> None:
    code, output, _ = vfiomig("check", "driver.py:Good", "--list")
    assert code == DONE
    *rules, last = output.splitlines()
    assert any(line.split()[0] == OPENED for line in rules)
    assert last == f"{len(rules)} rules"


def test_list_keeps_to_the_prefix(vfiomig: Vfiomig) -> None:
    _, output, _ = vfiomig("check", "driver.py:Good", "--list", "--rule", OPENED)
    assert output == f"{OPENED}  MUST\n1 rule\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["driver.py:NoStart"], NOT_STARTED),
        (["missing.py:Good"], MISUSE),
        (["driver.py:Goood"], MISUSE),
        (["driver.py:Good", "--rule", "v1/no-such"], MISUSE),
        (["driver.py:Good", "--seed", "-1"], MISUSE),
        (["driver.py:Good", "--effort", "great"], MISUSE),
        (["driver.py:Good", "--json", "no/such/folder/f"], MISUSE),
        (["driver.py:Good", "--baseline", "missing.toml"], MISUSE),
    ],
)
def test_what_cannot_begin_is_one_line(
    vfiomig: Vfiomig, arguments: list[str], code: int
) -> None:
    found, output, errors = vfiomig("check", *arguments)
    assert (found, output) == (code, "")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deviation = 1", "Expected `array`, got `int` - at `$.deviation`"),
        ("[[deviation]]\nrule = 'x'", "missing required field `reason`"),
        ("[[deviation]]\nrule = 'v1/x'\nreason = ''", "there is no rule v1/x"),
        ("deviation = ", "Invalid value"),
        ("[[known]]\nrule = 'x'", "unknown field `known`"),
        (f"[[deviation]]\nrule='{OPENED}'\nreason=''\n" * 2, "stands there twice"),
    ],
)
def test_a_bad_baseline_is_named_with_its_place(
    vfiomig: Vfiomig, text: str, message: str
) -> None:
    Path("known.toml").write_text(text)
    code, _, errors = vfiomig("check", "driver.py:Good", "--baseline", "known.toml")
    assert code == MISUSE
    assert errors.startswith("vfiomig: known.toml: ")
    assert message in errors


def test_no_file_is_left_of_a_run_that_did_not_begin(vfiomig: Vfiomig) -> None:
    before = set(os.listdir())  # noqa: PTH208
    vfiomig("check", "driver.py:NoStart", "--json", "f.json", "--html", "f.html")
    assert set(os.listdir()) - before <= {"__pycache__"}  # noqa: PTH208


QUICK = ("--effort", "quick")


@pytest.mark.slow
def test_a_conforming_driver_holds(vfiomig: Vfiomig) -> None:
    code, output, errors = vfiomig("check", "driver.py:Good", *QUICK)
    assert (code, errors) == (DONE, "")
    assert output.splitlines()[-1].startswith("held: ")


@pytest.mark.slow
def test_a_broken_rule_is_in_every_report(vfiomig: Vfiomig) -> None:
    outputs = ["--json", "f.json", "--junit", "f.xml", "--html", "f.html"]
    known = ["--baseline-write", "known.toml"]
    code, output, _ = vfiomig("check", "driver.py:Bits", *QUICK, *outputs, *known)
    assert code == NOT_AS_EXPECTED
    assert f"{OPENED}   MUST   broken by the vendor driver" in output
    facts = json.loads(Path("f.json").read_text())
    assert (facts["schema"], facts["verdict"], facts["died"]) == (1, "broken", None)
    assert set(facts["environment"]) == {"python", "platform", "vfiomig"}
    assert {"conversations", "accesses", "bytes", "reached"} <= set(facts["coverage"])
    (rule,) = (rule for rule in facts["rules"] if rule["id"] == OPENED)
    assert rule["verdict"] == "broken"
    assert 0 < rule["conversations"] <= facts["coverage"]["conversations"]
    finding = rule["finding"]
    assert finding["where"].startswith("driver.py:")
    assert finding["history"][-1]["value"] == "0x81"
    assert vfiomig("replay", finding["token"], "driver.py:Bits")[0] == NOT_AS_EXPECTED
    suite = ET.parse("f.xml").getroot()[0]
    assert len(suite.findall("testcase")) == len(facts["rules"]) + 1
    assert OPENED in {c.get("name") for c in suite if c.find("failure") is not None}
    page = Path("f.html").read_text()
    assert "<svg" in page
    assert f'id="{OPENED}"' in page
    assert "<script" not in page
    # What is known fails no run, and what is no longer so does.
    baseline = ("--baseline", "known.toml")
    code, output, _ = vfiomig("check", "driver.py:Bits", *QUICK, *baseline)
    assert code == DONE
    assert f"waived: {OPENED}: TODO" in output
    code, output, _ = vfiomig("check", "driver.py:Good", *QUICK, *baseline)
    assert code == NOT_AS_EXPECTED
    assert f"stale: known.toml: {OPENED} holds: take its entry out" in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("Raises", "ValueError: no buffer"),
        ("Text", "it answered with str"),
        ("Exits", "it ended the process with status 7"),
        ("Hangs", "it did not answer within 8 seconds"),
    ],
)
def test_a_death_is_told_and_fails(vfiomig: Vfiomig, name: str, error: str) -> None:
    target = f"driver.py:{name}"
    code, output, _ = vfiomig("check", target, *QUICK, "--json", "f", "--junit", "x")
    assert code == NOT_AS_EXPECTED
    assert error in output
    facts = json.loads(Path("f").read_text())
    assert facts["verdict"] in ("died", "broken")  # a death may break a rule, too
    assert error in facts["died"]["error"]
    assert facts["died"]["access"]["offset"] == 16
    assert "<error " in Path("x").read_text()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_json(vfiomig: Vfiomig) -> None:
    for name in "ab":
        vfiomig("check", "driver.py:Bits", *QUICK, "--seed", "7", "--json", name)
    assert Path("a").read_bytes() == Path("b").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupt_prints_what_was_found(tmp_path: Path, jobs: str) -> None:
    write_drivers(tmp_path)
    (tmp_path / "slow.py").write_text(
        "import os, signal\n"
        "from driver import Good\n"
        "class Interrupting(Good):\n"
        "    def write(self, offset, data):\n"
        "        if not os.path.exists('pressed'):  # only once\n"
        "            open('pressed', 'x').close()\n"
        "            os.killpg(os.getpgrp(), signal.SIGINT)  # as a terminal does\n"
        "        super().write(offset, data)\n"
    )
    command = [sys.executable, "-m", "vfiomig", "check", "slow.py:Interrupting"]
    done = subprocess.run(
        [*command, "--jobs", jobs],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        start_new_session=True,
    )
    assert done.returncode == INTERRUPTED, done.stderr
    assert "interrupted: held" in done.stdout.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_driver_that_hangs_does_not_outlive_the_command(
    tmp_path: Path, jobs: str
) -> None:
    (tmp_path / "hangs.py").write_text(
        "import os\n"
        "from driver import Good\n"
        "class Hangs(Good):\n"
        "    def write(self, offset, data):\n"
        "        os.write(os.open('alive', os.O_WRONLY), b'hangs')\n"
        "        while True: pass\n"
    )
    os.mkfifo(tmp_path / "alive")
    command = [sys.executable, "-m", "vfiomig", "check", "hangs.py:Hangs"]
    with (
        subprocess.Popen(
            [*command, "--jobs", jobs],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as vfiomig,
        (tmp_path / "alive").open("rb", buffering=0) as alive,
    ):
        assert alive.read(5) == b"hangs"
        vfiomig.kill()
        # The pipe ends when nobody has it open any more.
        assert select.select([alive], [], [], 20)[0]
        assert alive.read() == b""
