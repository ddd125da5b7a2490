"""A driver author's test file with one line of ours, run by pytest as theirs."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

import pytest

from vfiomig import vfiomig_rules
from vfiomig.conformance.catalogue import load_catalogue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STABLE: Final = "v1/data-size/stable-within-iteration"
OPENED: Final = "v1/device-state/running-on-open"
WOBBLES: Final = "v1/pending-bytes/stable-while-stopped"
LIFE: Final = "lives-through-every-conversation"

# Its worker ends at once, so that the suite gives up soon.
EXITS: Final = """
import os
from pathlib import Path
from vfiomig import vfiomig_rules
from vfiomig.vendor.conforming import NoDeviceState

MADE = Path(__file__).with_name("made.txt")  # a byte for each driver, in any process

class Exits(NoDeviceState):
    def __init__(self):
        with MADE.open("a") as file:
            file.write(".")
        super().__init__()

    def read(self, offset, size):
        os._exit(7)
"""

Outcomes = dict[str, str]


def run_pytest(folder: Path, text: str, *arguments: str) -> str:
    """Run pytest on one test file in a process of its own; return what it prints."""
    (folder / "test_driver.py").write_text(text)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider"),
            *("-v", "-rs", "--junit-xml=report.xml", *arguments),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.stdout + done.stderr


def outcomes(folder: Path) -> Outcomes:
    """Return how each case of the last run ended, by its name."""
    return {
        case.get("name", ""): next(
            (part.tag for part in case if part.tag in ("failure", "skipped", "error")),
            "passed",
        )
        for case in ET.parse(folder / "report.xml").iter("testcase")
    }


# -- what needs no session -------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: vfiomig_rules(object, effort="hard"),  # type: ignore[arg-type]
            "quick, normal, thorough, not 'hard'",
        ),
        (
            lambda: vfiomig_rules(object, rules="v9/"),  # type: ignore[arg-type]
            "no rule begins with 'v9/'",
        ),
    ],
)
def test_what_there_is_not_is_refused_where_it_stands(
    call: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_pytest_is_not_needed_to_import_all_that_is_public() -> None:
    program = (
        "import sys; sys.modules['pytest'] = None; from vfiomig import *;"
        "assert callable(vfiomig_rules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


# -- a driver that dies, and none ------------------------------------------------------

DYING: Final = f"""{EXITS}
def no_driver():
    raise RuntimeError("no power")

def test_nothing_was_made():
    assert not MADE.exists()

test_one = vfiomig_rules(Exits, rules="v1/data-size")

def test_now_it_was():
    assert MADE.read_text()
    MADE.write_text("")

test_two = vfiomig_rules(Exits, rules="v1/data-size")

def test_no_more_was():
    assert not MADE.read_text()

test_none = vfiomig_rules(no_driver, rules="{STABLE}")
"""


@pytest.fixture(scope="module")
def dying(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Outcomes]:
    """Return what a session on such drivers printed, and how its cases ended."""
    folder = tmp_path_factory.mktemp("dying")
    printed = run_pytest(folder, DYING)
    return printed, outcomes(folder)


@pytest.mark.slow
def test_nothing_is_made_before_the_first_test_and_nothing_is_run_twice(
    dying: tuple[str, Outcomes],
) -> None:
    _, ended = dying
    for name in ("test_nothing_was_made", "test_now_it_was", "test_no_more_was"):
        assert ended[name] == "passed"


@pytest.mark.slow
def test_a_driver_that_dies_fails_one_test_and_its_rules_are_skipped(
    dying: tuple[str, Outcomes],
) -> None:
    printed, ended = dying
    of_one = {name: how for name, how in ended.items() if name.startswith("test_one[")}
    assert of_one.pop(f"test_one[{LIFE}]") == "failure"
    assert set(of_one.values()) == {"skipped"}
    assert "\nthe driver died at read of 4 bytes at 0x0\n" in printed
    assert "it ended the process with status 7" in printed
    assert " test_driver.py:Exits\n" in printed  # what replay is told to run
    assert "its premise never came true before the driver died" in printed


@pytest.mark.slow
def test_a_test_stands_at_the_line_that_made_it_and_shows_none_of_ours(
    dying: tuple[str, Outcomes],
) -> None:
    printed, _ = dying
    line = 1 + DYING[: DYING.index("test_one =")].count("\n")
    assert f"test_driver.py:{line}: not-applicable: it is " in printed
    assert "pytest_plugin.py" not in printed


@pytest.mark.slow
def test_a_factory_that_raises_is_told(dying: tuple[str, Outcomes]) -> None:
    printed, ended = dying
    assert ended[f"test_none[{STABLE}]"] == "failure"
    where = r"\nthe driver could not be made: .*test_driver\.py:\d+: "
    assert re.search(f"{where}RuntimeError: no power\n", printed)


@pytest.mark.slow
def test_a_keyword_chooses_and_x_ends_with_the_first_failure(tmp_path: Path) -> None:
    text = f"{EXITS}\ntest_rules = vfiomig_rules(Exits)\ntest_more = test_rules\n"
    printed = run_pytest(
        tmp_path, text, "-x", "-k", f"data-size/stable-within or {LIFE}"
    )
    assert outcomes(tmp_path) == {
        f"test_rules[{STABLE}]": "skipped",
        f"test_rules[{LIFE}]": "failure",
    }
    assert f"collected {2 * (len(load_catalogue()) + 1)} items" in printed


# -- two drivers, quickly --------------------------------------------------------------

DRIVERS: Final = """
from vfiomig import vfiomig_rules
from vfiomig.vendor.conforming import NoDeviceState
from vfiomig.vendor.mutants.pending_bytes import PendingWobbles

class Faulty(PendingWobbles):  # and reserved bits of device_state read as 1
    def read(self, offset, size):
        data = super().read(offset, size)
        return bytes([data[0] | 0x80]) + data[1:] if offset == 0 else data

test_good = vfiomig_rules(NoDeviceState, effort="quick")
test_faulty = vfiomig_rules(Faulty, effort="quick", seed=2)
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Outcomes]:
    """Return what a session on two drivers printed, and how its cases ended."""
    folder = tmp_path_factory.mktemp("session")
    printed = run_pytest(folder, DRIVERS, "-rsP")
    return printed, outcomes(folder)


@pytest.mark.slow
def test_a_conforming_driver_fails_nothing(session: tuple[str, Outcomes]) -> None:
    _, ended = session
    good = {name: how for name, how in ended.items() if name.startswith("test_good")}
    assert len(good) == len(load_catalogue()) + 1
    assert set(good.values()) == {"passed", "skipped"}


@pytest.mark.slow
def test_a_broken_rule_fails_its_test_with_the_argument(
    session: tuple[str, Outcomes],
) -> None:
    printed, ended = session
    assert ended[f"test_faulty[{OPENED}]"] == "failure"
    assert ended[f"test_faulty[{LIFE}]"] == "passed"
    _, _, message = printed.partition(f"test_faulty[{OPENED}] ____")
    headline, quotation = message.splitlines()[1:3]
    assert headline == f"{OPENED}   MUST   broken by the vendor driver"
    assert quotation.startswith('  "')
    assert "\n     Where: test_driver.py:" in message
    assert "\n  Reproduce with: vfiomig replay " in message
    assert " test_driver.py:Faulty\n" in message


@pytest.mark.slow
def test_what_is_only_observed_passes_and_is_printed(
    session: tuple[str, Outcomes],
) -> None:
    printed, ended = session
    assert ended[f"test_faulty[{WOBBLES}]"] == "passed"
    assert f"\n{WOBBLES}   SHOULD*   observed in the vendor driver\n" in printed


@pytest.mark.slow
def test_what_is_no_rule_of_the_driver_is_skipped_with_the_reason(
    session: tuple[str, Outcomes],
) -> None:
    printed, ended = session
    parties = {rule.id: rule.party for rule in load_catalogue()}
    users = [name for name, party in parties.items() if party == "user application"]
    assert {ended[f"test_faulty[{name}]"] for name in users} == {"skipped"}
    assert f"SKIPPED [{len(users)}] test_driver.py:" in printed
    assert ": not-applicable: it is the user application's\n" in printed
