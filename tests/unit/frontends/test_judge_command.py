"""`vfiomig judge` as a user types it: what is printed, written, and the exit code."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vfiomig.frontends.exit_codes import DONE, MISUSE, NOT_AS_EXPECTED

if TYPE_CHECKING:
    from tests.unit.frontends.conftest import Vfiomig

DATA = Path(__file__).parents[2] / "data"
QEMU = DATA / "qemu-7.2-v1-source.accesses.tsv"

HEADER = {"recorded_by": "a test", "devices": {"source": {"size": 0x3000}}}
STATE = {"device": "source", "access": "read", "size": 4, "value": "0x1"}
SAVE = [
    STATE,
    {"device": "source", "access": "write", "size": 4, "value": "0x2"},
    *(
        {"device": "source", "access": "read", "offset": o, "size": 8, "value": v}
        for o, v in [(8, "0x1000"), (16, "0x1000"), (24, "0x8")]
    ),
]
# data_size is 8, and then 4: V1-SIZE-02 is broken by the vendor driver.
SHRINKS = [*SAVE, {**SAVE[-1], "value": "0x4"}]
# 111b is written and refused: only the user application is to blame.
ASKS_FOR_7 = [
    STATE,
    {"device": "source", "access": "write", "size": 4, "value": "0x7", "errno": 22},
]
STABLE = "v1/data-size/stable-within-iteration"


def written(records: list[dict[str, object]], name: str = "h.jsonl") -> str:
    lines = [json.dumps(line) for line in [HEADER, *records]]
    Path(name).write_text("\n".join(lines) + "\n")
    return name


def test_what_qemu_did_is_held(vfiomig: Vfiomig) -> None:
    code, output, errors = vfiomig("judge", str(QEMU))
    assert (code, errors) == (DONE, "")
    assert re.fullmatch(r"held: \d+ rules, in 24 accesses", output.splitlines()[-1])
    assert "note: the areas are not told" in output


def test_what_migrate_wrote_is_held(vfiomig: Vfiomig) -> None:
    assert vfiomig("migrate", "--device", "reference", "--history", "h")[0] == DONE
    code, output, errors = vfiomig("judge", "h")
    assert (code, errors) == (DONE, "")
    assert output.splitlines()[-1].startswith("held: ")
    assert "note: " not in output


def test_a_broken_rule_is_explained_and_ends_in_exit_1(vfiomig: Vfiomig) -> None:
    code, output, errors = vfiomig("judge", written(SHRINKS), "--rule", STABLE)
    assert (code, errors) == (NOT_AS_EXPECTED, "")
    assert output.startswith(f"{STABLE}   SHOULD   broken by the vendor driver\n")
    assert "    A = #5  read  data_size -> 0x8\n" in output
    assert "    Actual: data_size = 0x4\n" in output
    assert f"  Reproduce with: vfiomig judge h.jsonl --rule {STABLE}\n" in output
    last = output.splitlines()[-1]
    assert last == "broken: 1 rule by the vendor driver, in 6 accesses"


def test_a_broken_rule_of_the_user_application_ends_in_exit_1(
    vfiomig: Vfiomig,
) -> None:
    code, output, _ = vfiomig("judge", written(ASKS_FOR_7))
    assert code == NOT_AS_EXPECTED
    last = output.splitlines()[-1]
    assert last == "broken: 1 rule by the user application, in 2 accesses"


def test_other_rules_are_not_looked_at(vfiomig: Vfiomig) -> None:
    code, output, _ = vfiomig("judge", written(SHRINKS), "--rule", "v1/data-offset")
    assert code == DONE
    assert "broken by" not in output


def test_a_history_in_which_nothing_happened_proves_nothing(vfiomig: Vfiomig) -> None:
    code, output, _ = vfiomig("judge", written([]), "--rule", "v1/data-size")
    assert code == DONE
    assert output.splitlines()[-1] == "held: but no rule was reached in 0 accesses"


def test_a_driver_that_died_ends_in_exit_1(vfiomig: Vfiomig) -> None:
    read = {**STATE, "value": "", "died": True}
    name = written([{"device": "source", "access": "reset"}, read])
    code, output, _ = vfiomig("judge", name, "--rule", "v1/data", "--json", "f")
    assert code == NOT_AS_EXPECTED
    assert "source: the driver died at read device_state -> died" in output
    assert output.splitlines()[-1].startswith("died: ")
    facts = json.loads(Path("f").read_text())
    assert facts["verdict"] == "died"
    assert facts["died"]["access"]["died"] is True
    assert len(facts["died"]["history"]) == 2


def test_the_json_has_every_rule_and_what_broke_it(vfiomig: Vfiomig) -> None:
    code, _, _ = vfiomig("judge", written(SHRINKS), "--json", "f.json")
    facts = json.loads(Path("f.json").read_text())
    assert code == NOT_AS_EXPECTED
    assert (facts["schema"], facts["protocol"]) == (1, "v1")
    assert (facts["verdict"], facts["died"]) == ("broken", None)
    assert (facts["history"], facts["recorded_by"]) == ("h.jsonl", "a test")
    (rule,) = [one for one in facts["rules"] if one["id"] == STABLE]
    finding = rule.pop("finding")
    assert rule == {
        "id": STABLE,
        "origin": "V1-SIZE-02",
        "level": "SHOULD",
        "party": "vendor driver",
        "verdict": "broken",
        "reason": "",
        "conversations": 1,
    }
    assert (finding["expected"], finding["actual"]) == (
        "data_size = 0x8",
        "data_size = 0x4",
    )
    assert finding["history"] == SHRINKS
    assert (finding["device"], finding["token"]) == ("source", "")


def test_the_verdicts_are_those_of_the_suite(vfiomig: Vfiomig) -> None:
    vfiomig("judge", written(SHRINKS), "--json", "f.json")
    rules = json.loads(Path("f.json").read_text())["rules"]
    assert {one["verdict"] for one in rules} <= {
        *("held", "broken", "observed", "waived", "flaky"),
        *("not-reached", "not-applicable"),
    }
    untold = [r for r in rules if r["verdict"].startswith("not-") and not r["reason"]]
    assert untold == []


def test_a_history_with_an_unreadable_end_leaves_no_json(vfiomig: Vfiomig) -> None:
    name = written(SHRINKS)
    with Path(name).open("a") as file:
        file.write('{"device": "source", "acc')
    code, output, errors = vfiomig("judge", name, "--json", "f.json")
    assert (code, output) == (MISUSE, "")
    assert errors.startswith("vfiomig: h.jsonl: line 8: ")
    assert errors.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["h.jsonl"]


@pytest.mark.parametrize("path", [QEMU, None], ids=["tsv", "json"])
def test_a_dash_is_standard_input(
    vfiomig: Vfiomig,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    path: Path | None,
) -> None:
    os.chdir(tmp_path)
    content = (path or Path(written(SAVE))).read_bytes()
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        file.write(content)
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        code, output, errors = vfiomig("judge", "-")
    assert (code, errors) == (DONE, "")
    assert output.splitlines()[-1].startswith("held: ")


def test_an_error_in_standard_input_names_it(
    vfiomig: Vfiomig, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"read 0x0 4 what\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    code, _, errors = vfiomig("judge", "-")
    assert code == MISUSE
    assert errors == ("vfiomig: standard input: line 1: value: 'what' is no number\n")


def test_a_pipe_that_nobody_writes_is_not_waited_for(vfiomig: Vfiomig) -> None:
    os.mkfifo("pipe")
    code, _, errors = vfiomig("judge", "pipe")
    assert code == MISUSE
    assert errors == "vfiomig: pipe: line 1: there is no header\n"


def test_another_device_than_the_headers_is_misuse(vfiomig: Vfiomig) -> None:
    name = written([{**STATE, "device": "stranger\n"}])
    code, _, errors = vfiomig("judge", name)
    assert code == MISUSE
    assert re.fullmatch(r"vfiomig: h\.jsonl: record 1: no device .*\n", errors)


def test_names_in_a_history_do_nothing_to_a_terminal(vfiomig: Vfiomig) -> None:
    name = "\x1b[2Jstate verified"
    lines = [{**one, "device": name} for one in SHRINKS]
    header = {**HEADER, "devices": {name: {"size": 0x3000}}}
    text = "\n".join(map(json.dumps, [header, *lines]))
    Path("h.jsonl").write_text(text)
    code, output, _ = vfiomig("judge", "h.jsonl")
    assert code == NOT_AS_EXPECTED
    assert "\x1b" not in output
    assert "state verified" not in output
    assert r"\x1b[2Jstate-verified" in output


MISUSES = {
    "no history": ("judge",),
    "missing": ("judge", "missing.jsonl"),
    "a folder": ("judge", "."),
    "a NUL": ("judge", "a\0b"),
    "zeros without end": ("judge", "/dev/zero"),
    "no such rule": ("judge", str(QEMU), "--rule", "v9/nothing"),
    "no folder for output": ("judge", str(QEMU), "--json", "missing/f"),
    "disk full": ("judge", str(QEMU), "--json", "/dev/full"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_is_one_line_and_exit_2(vfiomig: Vfiomig, misuse: str) -> None:
    code, output, errors = vfiomig(*MISUSES[misuse])
    assert (code, output) == (MISUSE, "")
    assert re.fullmatch(r"vfiomig: .*\n", errors)
