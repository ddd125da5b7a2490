"""specs/README.md tells what the suite reads and writes, and what QEMU 7.2 breaks."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from tests.unit.conformance.histories import record
from tests.unit.frontends.documented import SECTIONS, example_of, paths_in, rows_of
from vfiomig.conformance.catalogue import load_catalogue, rule_named
from vfiomig.conformance.conversation.steps import step
from vfiomig.conformance.exploration.coverage import Coverage
from vfiomig.conformance.finding import Death, Finding, Outcome, RuleResult, Verdict
from vfiomig.conformance.judging import judge_history, read_history
from vfiomig.conformance.museum import Exhibit, Totals, Tried
from vfiomig.conformance.ruling import Broken, Witness
from vfiomig.frontends import exit_codes
from vfiomig.frontends.baseline import BaselineError, as_baseline, read_baseline
from vfiomig.frontends.check_report import CheckReport
from vfiomig.frontends.report.mutants_as_json import mutants_as_json
from vfiomig.frontends.report.rules_as_json import check_as_json
from vfiomig.protocol.history import (
    SCHEMA,
    Access,
    BenchEvent,
    Header,
    HistoryError,
    RegionShape,
    decode,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.unit.frontends.conftest import Vfiomig

DATA: Final = Path(__file__).parents[2] / "data"
HISTORY: Final = SECTIONS["A history"]
CHECK: Final = SECTIONS["The JSON of `vfiomig check --json`"]
JUDGE: Final = SECTIONS["The JSON of `vfiomig judge --json`"]
RULES: Final = SECTIONS["The JSON of `vfiomig rules --json`"]
MUTANTS: Final = SECTIONS["The JSON of `vfiomig mutants --json`"]
BASELINE: Final = SECTIONS["A baseline"]
QEMU: Final = SECTIONS["What QEMU 7.2 breaks"]
A_COVERAGE: Final = Coverage(
    states=2,
    arcs=3,
    depth=4,
    key=("device_state",),
    covered=(("STOP", "reset"),),
    not_covered=(("ERROR", "reset"),),
    not_tried=("faults",),
    reasons=("it runs a thread",),
)
STABLE: Final = "v1/data-size/stable-within-iteration"


def documented(paths: Iterable[str]) -> set[str]:
    """Return paths as the tables have them: records are told of in one place."""
    told = (re.sub(r"(\bhistory\[\]|^died\.access)\..*", r"\1", path) for path in paths)
    return set(told)


# -- a history -------------------------------------------------------------------------


def test_every_key_of_a_history_is_documented_with_its_default() -> None:
    rows = rows_of(HISTORY).items()
    defaults = {key: default for key, (_, default, _) in rows}  # in, default, meaning
    real: dict[str, str] = {}
    shapes = ((Header, ""), (RegionShape, "devices.*."), (Access, ""), (BenchEvent, ""))
    for shape, place in shapes:
        for field in msgspec.structs.fields(shape):
            if field.required:
                real[place + field.name] = "required"
            else:
                default = msgspec.json.encode(field.default).decode()
                real[place + field.name] = f"`{default}`"
    assert defaults == real


def test_the_version_of_a_history_is_the_documented_one() -> None:
    assert f"its version: {SCHEMA}." in " ".join(HISTORY.split())


def test_another_version_of_a_history_is_refused() -> None:
    line = example_of(HISTORY, "jsonl").splitlines()[0]
    later = line.replace('"schema": 1', '"schema": 2').encode()
    assert later != line.encode()
    with pytest.raises(HistoryError, match="schema 2"):
        next(decode(iter([later])))


def test_the_example_of_a_history_breaks_what_it_says_that_it_breaks(
    tmp_path: Path,
) -> None:
    file = tmp_path / "example.jsonl"
    file.write_text(example_of(HISTORY, "jsonl"))
    with file.open("rb") as lines:
        history = read_history(lines)
        results = judge_history(history.header, history.records)
    broken = [r.rule.id for r in results if r.verdict is Verdict.BROKEN]
    assert broken == [STABLE]


# -- the JSON --------------------------------------------------------------------------


def a_check() -> CheckReport:
    """Return a report that has everything."""
    rule = rule_named(STABLE)
    assert rule is not None
    history = (Access("source", "read", 24, 8, "0x4"),)
    steps = (step("iterate", "source", 1),)
    finding = Finding(
        rule=rule,
        broken=Broken(
            expected="8", actual="4", witnesses=(Witness(1, "A"),), because=("so",)
        ),
        device="source",
        history=history,
        token="token",
        steps=steps,
    )
    death = Death(
        access="read of 8 bytes at 0x10",
        error="it hung",
        where="",
        steps=steps,
        printed="a line",
        token="token",
        history=history,
    )
    result = RuleResult(rule=rule, verdict=Verdict.BROKEN, reached=1, finding=finding)
    return CheckReport(
        target="TARGET",
        seed=1,
        effort="quick",
        outcome=Outcome(
            results=(result,), deaths=(death,), conversations=1, accesses=1, data=8
        ),
        results=(result,),
        stale=("known.toml: a line",),
    )


def test_every_key_of_the_json_of_check_is_in_the_table_and_no_other() -> None:
    explored = dataclasses.replace(a_check(), coverage=A_COVERAGE)
    facts = msgspec.json.decode(check_as_json(explored))
    real = {path for path in paths_in(facts) if not path.startswith("died.")} | {"died"}
    assert documented(rows_of(CHECK)) == documented(real)


def test_every_key_of_the_json_of_mutants_is_in_the_table_and_no_other() -> None:
    exhibit = Exhibit(
        target="module:Name", party="vendor driver", violates=frozenset({STABLE})
    )
    broken = {STABLE: 5, "v1/another": None}
    tried = Tried(exhibit=exhibit, broken=broken, died="", seconds=1.0)
    totals = Totals(found=1, missed=0, died=0, median=5, unbroken=("v1/a",))
    page = mutants_as_json(
        [tried], totals, effort="quick", seed=1, is_interrupted=False
    )
    real = paths_in(msgspec.json.decode(page))
    outermost = {re.sub(r"^environment\..*", "environment", path) for path in real}
    assert rows_of(MUTANTS).keys() == outermost


def test_the_example_of_check_has_the_keys_of_a_real_report() -> None:
    example = msgspec.json.decode(example_of(CHECK, "json"))
    real = msgspec.json.decode(check_as_json(a_check()))
    assert example.keys() == real.keys()
    (rule,), (real_rule,) = example["rules"], real["rules"]
    assert rule.keys() == real_rule.keys()
    assert rule["finding"].keys() == real_rule["finding"].keys()
    assert example["coverage"].keys() == real["coverage"].keys()
    entry = rule_named(rule["id"])
    assert entry is not None
    for key in ("origin", "level", "party"):
        assert rule[key] == getattr(entry, key)
    assert rule["finding"]["rules_out"][: len(entry.takes_away)] == list(
        entry.takes_away
    )


def test_every_key_of_the_json_of_judge_is_in_the_table_and_no_other(
    vfiomig: Vfiomig,
) -> None:
    header = '{"recorded_by": "a test", "devices": {"source": {"size": 64}}}'
    died = '{"device": "source", "access": "read", "size": 4, "died": true}'
    Path("died.jsonl").write_text(f"{header}\n{died}\n")
    real: set[str] = set()
    for name in ("died.jsonl", str(DATA / "qemu-7.2-v1-source.accesses.tsv")):
        vfiomig("judge", name, "--json", "judged.json")
        facts = msgspec.json.decode(Path("judged.json").read_bytes())
        real |= {re.sub(r"^rules\[\]\..*", "rules[]", p) for p in paths_in(facts)}
    assert rows_of(JUDGE).keys() == documented(real) - {"died"}


def test_the_example_of_judge_is_what_judge_says(vfiomig: Vfiomig) -> None:
    example = msgspec.json.decode(example_of(JUDGE, "json"))
    header = {"recorded_by": "a person", "devices": {"source": {"size": 64}}}
    lines = [header, *example["died"]["history"]]
    Path(example["history"]).write_bytes(
        b"\n".join(msgspec.json.encode(line) for line in lines)
    )
    (rule,) = example["rules"]
    command = ("judge", example["history"], "--rule", rule["id"], "--json", "out.json")
    vfiomig(*command)
    assert msgspec.json.decode(Path("out.json").read_bytes()) == example


def test_every_key_of_the_json_of_rules_is_in_the_table_and_no_other(
    vfiomig: Vfiomig,
) -> None:
    vfiomig("rules", "--json", "rules.json")
    facts = msgspec.json.decode(Path("rules.json").read_bytes())
    assert rows_of(RULES).keys() == set(paths_in(facts))


def test_the_example_of_rules_is_what_rules_says(vfiomig: Vfiomig) -> None:
    vfiomig("rules", STABLE, "--json", "rule.json")
    real = msgspec.json.decode(Path("rule.json").read_bytes())
    assert msgspec.json.decode(example_of(RULES, "json")) == real


# -- a baseline, exit codes ------------------------------------------------------------


def test_the_example_of_a_baseline_is_read_and_written(tmp_path: Path) -> None:
    text = example_of(BASELINE, "toml")
    (tmp_path / "known.toml").write_text(text)
    ((name, reason),) = read_baseline(tmp_path / "known.toml").items()
    rule = rule_named(name)
    assert rule is not None
    known = RuleResult(rule=rule, verdict=Verdict.WAIVED, reason=reason)
    assert as_baseline([known]).decode() == text
    written = {path.replace("[]", "") for path in paths_in(tomllib.loads(text))}
    assert rows_of(BASELINE).keys() == written


def test_another_key_of_a_baseline_is_refused(tmp_path: Path) -> None:
    text = example_of(BASELINE, "toml") + "since = 2026\n"
    (tmp_path / "known.toml").write_text(text)
    with pytest.raises(BaselineError, match="since"):
        read_baseline(tmp_path / "known.toml")


def test_the_exit_codes_are_the_documented_ones() -> None:
    real = {str(code) for code in vars(exit_codes).values() if isinstance(code, int)}
    assert rows_of(SECTIONS["Exit codes"]).keys() == real


# -- what QEMU 7.2 breaks --------------------------------------------------------------

SOURCE_SAVES: Final = (
    "read device_state -> 0x1",
    "write device_state 0x2",
    "read pending_bytes -> 0x10",
    "read data_offset -> 0x1000",
)
DESTINATION_LOADS: Final = (
    "destination: read device_state -> 0x1",
    "destination: write device_state 4",
    "destination: read data_offset -> 0x1000",
)
DESTINATION_RUNS: Final = (
    "destination: read device_state -> 0x4",
    "destination: write device_state 1",
)
CUT_IN_TWO: Final = (
    *SOURCE_SAVES,
    "read data_size -> 0x10",
    "unseen read 0x1000 16 -> 16 bytes",
    "read pending_bytes -> 0x0",
    "read device_state -> 0x2",
    "write device_state 0x0",
    *DESTINATION_LOADS,
    "destination: write 0x1000 8 0011223344556677",
    "destination: write data_size 8",
    "destination: read data_offset -> 0x1000",
    "destination: write 0x1000 8 0011223344556677",
    "destination: write data_size 8",
    *DESTINATION_RUNS,
)

# What QEMU does, access for access as its source has it.
STRAYINGS: Final = {
    "v1/device-state/reserved-bits-preserved": (
        "read device_state -> 0x9",
        "write device_state 0x3",
    ),
    "v1/transitions/leave-error-by-reset": (
        "read device_state -> 0x6",
        "write device_state 0x1 -> EIO",
    ),
    "v1/saving/ends-at-an-error": (
        "read device_state -> 0x1",
        "write device_state 0x3",
        "fail pending_bytes 5",
        "read pending_bytes -> EIO",
        "read pending_bytes -> 0x10",
        "read data_offset -> 0x1000",
    ),
    "v1/pending-bytes/iterated-until-zero": (
        *SOURCE_SAVES,
        "read data_size -> 0x8",
        "unseen read 0x1000 8 -> 8 bytes",
        "read pending_bytes -> 0x8",
        "read data_offset -> 0x1000",
        "read data_size -> 0x0",
        "read device_state -> 0x2",
        "write device_state 0x0",
        *DESTINATION_LOADS,
        "destination: write 0x1000 8 0011223344556677",
        "destination: write data_size 8",
        *DESTINATION_RUNS,
    ),
    "v1/resuming/length-from-the-source": CUT_IN_TWO,
    "v1/resuming/order-and-sizes-kept": CUT_IN_TWO,
}


def broken_by_the_user_application(results: Iterable[RuleResult]) -> set[str]:
    return {
        result.rule.id
        for result in results
        if result.verdict is Verdict.BROKEN and result.rule.party == "user application"
    }


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.glob("*.tsv")))
def test_what_is_documented_of_the_recorded_files_is_what_judge_finds(
    name: str,
) -> None:
    with (DATA / name).open("rb") as file:
        history = read_history(file)
        results = judge_history(history.header, history.records, is_plain=True)
    accesses, rules = rows_of(QEMU)[name]
    lines = (DATA / name).read_text().splitlines()
    assert int(accesses) == sum(not line.startswith("#") for line in lines)
    documented_rules = set(re.findall(r"`([^`]+)`", rules))
    assert broken_by_the_user_application(results) == documented_rules
    assert (rules == "none") is (not documented_rules)


def test_every_straying_that_is_documented_is_one_of_these() -> None:
    rules = {key for key in rows_of(QEMU) if key.startswith("v1/")}
    assert rules == STRAYINGS.keys()
    assert rules <= {r.id for r in load_catalogue() if r.party == "user application"}


@pytest.mark.parametrize("rule", STRAYINGS)
def test_judge_names_the_rule_that_a_straying_breaks(rule: str) -> None:
    shape = RegionShape(size=0x2000)
    header = Header(
        recorded_by="a person", devices={"source": shape, "destination": shape}
    )
    results = judge_history(header, [record(line) for line in STRAYINGS[rule]])
    assert rule in broken_by_the_user_application(results)
