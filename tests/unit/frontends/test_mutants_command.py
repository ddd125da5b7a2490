"""``vfiomig mutants`` as a user types it: who is tried, the matrix, exit codes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from vfiomig.conformance.museum import Tried, every_exhibit, totals_of
from vfiomig.frontends.commands.mutants import exit_code
from vfiomig.frontends.exit_codes import DONE, INTERRUPTED, MISUSE, NOT_AS_EXPECTED
from vfiomig.frontends.report.mutants_terminal import MuseumView, print_museum

if TYPE_CHECKING:
    from tests.unit.frontends.conftest import Vfiomig

# A user application: its trial takes a fraction of a second.
FAST = "MapsTheWholeRegion"
ITS_RULE = "v1/sparse-mmap/only-listed-areas-mapped"


def test_a_mutant_that_is_found_is_a_row_and_exit_code_0(vfiomig: Vfiomig) -> None:
    code, output, errors = vfiomig("mutants", FAST)
    assert (code, errors) == (DONE, "")
    (row,) = (line for line in output.splitlines() if line.startswith(f"  {FAST} "))
    # Mapping is the first thing it does.
    assert row.split()[:5] == [FAST, ITS_RULE, "it", "0", "1"]
    assert output.endswith("\n1 found, 0 missed\n")


@pytest.mark.parametrize("name", ["NoSuchMutant", "v1/no-such-rule", ""])
def test_what_means_no_mutant_is_one_line(vfiomig: Vfiomig, name: str) -> None:
    code, output, errors = vfiomig("mutants", name)
    assert (code, output) == (MISUSE, "")
    assert errors.startswith(f'vfiomig: no mutant is called "{name}"')
    assert errors.count("\n") == 1


@pytest.mark.parametrize("jobs", ["0", "-1", "many"])
def test_jobs_are_counted_from_1(vfiomig: Vfiomig, jobs: str) -> None:
    assert vfiomig("mutants", FAST, "--jobs", jobs)[0] == MISUSE


def test_the_json_has_the_matrix_and_the_sums(vfiomig: Vfiomig) -> None:
    code, _, _ = vfiomig("mutants", FAST, "--effort", "quick", "--json", "m.json")
    assert code == DONE
    facts = json.loads(Path("m.json").read_text())
    assert (facts["schema"], facts["protocol"], facts["effort"]) == (1, "v1", "quick")
    assert facts["interrupted"] is False
    (one,) = facts["mutants"]
    assert one.pop("seconds") >= 0
    assert one == {
        "target": f"vfiomig.client.mutants.registers:{FAST}",
        "party": "user application",
        "violates": [ITS_RULE],
        "found": True,
        "found_by": [ITS_RULE],
        "accesses": 1,
        "others": [],
        "died": None,
    }
    assert facts["totals"] == {
        "found": 1,
        "missed": 0,
        "died": 0,
        "median_accesses": None,
        "unbroken_rules": [],
    }


def one(name: str, broken: dict[str, int | None], died: str = "") -> Tried:
    (exhibit,) = (each for each in every_exhibit() if each.name == name)
    return Tried(exhibit=exhibit, broken=broken, died=died, seconds=1.0)


def printed(*tried: Tried, number: int = 1, is_interrupted: bool = False) -> list[str]:
    page = io.StringIO()
    print_museum(
        tried,
        totals_of(tried),
        Console(file=page, width=40),
        number=number,
        is_interrupted=is_interrupted,
    )
    return page.getvalue().splitlines()


def test_a_mutant_that_is_missed_is_said_to_be() -> None:
    lines = printed(one(FAST, {"v1/saving/in-sequence": 3}))
    (row,) = (line for line in lines if line.startswith(f"  {FAST} "))
    assert row.split()[2:4] == ["missed", "1"]
    assert lines[-1] == "0 found, 1 missed"
    assert exit_code(missed=1, is_interrupted=False) == NOT_AS_EXPECTED


def test_an_interrupt_prints_what_was_done() -> None:
    lines = printed(one(FAST, {ITS_RULE: 1}), number=9, is_interrupted=True)
    assert any(line.startswith(f"  {FAST} ") for line in lines)
    assert lines[-1] == "interrupted after 1 of 9: 1 found, 0 missed"
    assert exit_code(missed=0, is_interrupted=True) == INTERRUPTED
    assert exit_code(missed=0, is_interrupted=False) == DONE


def test_a_death_is_shown_beside_its_row_on_one_line() -> None:
    lines = printed(one("ShrinkingBuffer", {}, died="it\nhung"))
    (row,) = (line for line in lines if line.startswith("  ShrinkingBuffer "))
    assert row.endswith(r"  died: it\nhung")
    assert "died in a conversation: 1" in lines


def test_the_progress_says_which_mutant_of_how_many() -> None:
    names = (FAST, "MarksADeviceAsItsOwn")
    exhibits = [each for each in every_exhibit() if each.name in names]
    with MuseumView(Console(file=io.StringIO()), exhibits) as view:
        assert view.line() == f"1 of 2 mutants   {FAST}"
        view.done(one(FAST, {}))
        assert view.line() == "2 of 2 mutants   1 missed   MarksADeviceAsItsOwn"
        view.done(one("MarksADeviceAsItsOwn", {}))
        assert view.line() == "2 of 2 mutants   2 missed"


@pytest.mark.slow
def test_the_command_line_imports_no_mutant() -> None:
    program = (
        "import sys; import vfiomig.frontends.command_line; "
        "sys.exit(any('.mutants.' in m for m in sys.modules) "
        "or 'vfiomig.conformance.museum' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupt_ends_the_trials_that_go_on(tmp_path: Path, jobs: str) -> None:
    command = [sys.executable, "-m", "vfiomig", "mutants", "v1/saving", "--jobs", jobs]
    terminal, end = os.openpty()  # what is on trial is said on a terminal only
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=end,
        env=os.environ | {"TERM": "xterm"},
        start_new_session=True,
        text=True,
    )
    os.close(end)
    assert os.read(terminal, 1)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    os.close(terminal)
    assert process.returncode == INTERRUPTED
    assert output.splitlines()[-1].startswith("interrupted after 0 of ")


@pytest.mark.slow
def test_processes_come_to_the_same_as_one(vfiomig: Vfiomig) -> None:
    for jobs in ("1", "2"):
        name = f"{jobs}.json"
        vfiomig("mutants", "v1/resuming/in-sequence", "--jobs", jobs, "--json", name)
    alone, together = (
        json.loads(Path(f"{jobs}.json").read_text())["mutants"] for jobs in "12"
    )
    for each in (*alone, *together):
        del each["seconds"]
    assert alone == together
