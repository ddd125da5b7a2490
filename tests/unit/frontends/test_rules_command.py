"""`vfiomig rules` as a user types it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vfiomig.conformance.catalogue import load_catalogue
from vfiomig.frontends.exit_codes import DONE, MISUSE

if TYPE_CHECKING:
    from tests.unit.frontends.conftest import Vfiomig

STABLE = "v1/data-size/stable-within-iteration"


def test_every_rule_is_listed_once_in_the_catalogues_order(vfiomig: Vfiomig) -> None:
    code, output, errors = vfiomig("rules")
    assert (code, errors) == (DONE, "")
    rows = [line.split()[0] for line in output.splitlines() if line.startswith("  ")]
    assert rows == [rule.id for rule in load_catalogue()]


def test_the_counts_are_those_of_the_catalogue(vfiomig: Vfiomig) -> None:
    _, output, _ = vfiomig("rules")
    catalogue = load_catalogue()
    parties = Counter(rule.party for rule in catalogue)
    assert (
        f"\n{len(catalogue)} rules: {parties['vendor driver']} of the vendor driver, "
        f"{parties['user application']} of the user application\n"
    ) in output
    checked = sum(bool(rule.check) for rule in catalogue)
    assert f"\ndecided: {checked} by a check of the history, " in output


def test_a_prefix_lists_what_begins_with_it(vfiomig: Vfiomig) -> None:
    code, output, _ = vfiomig("rules", "v1/data-s")
    assert code == DONE
    below = [r.id for r in load_catalogue() if r.section == "v1/data-size"]
    assert output.startswith(f"v1/data-size ({len(below)})\n")
    rows = [line.split()[0] for line in output.splitlines() if line.startswith("  ")]
    assert rows == below


@pytest.mark.parametrize("name", [STABLE, "V1-SIZE-02", "v1-size-02"])
def test_one_rule_is_shown_in_full(vfiomig: Vfiomig, name: str) -> None:
    code, output, _ = vfiomig("rules", name)
    assert code == DONE
    assert output.startswith(f"{STABLE}   V1-SIZE-02   SHOULD   vendor driver\n")
    words = " ".join(output.split())
    assert '"Read on data_offset and data_size should return the offset' in words
    assert "-- linux/vfio.h, saving step (c)" in words
    assert "Check: data_size:stable_within_iteration" in words
    assert "Premise: " in words
    assert "Takes away: stop-and-copy plain stop-and-copy: State that " in words


def test_what_decides_a_rule_without_a_check_is_said(vfiomig: Vfiomig) -> None:
    catalogue = load_catalogue()
    bench = next(rule for rule in catalogue if rule.bench)
    untestable = next(rule for rule in catalogue if rule.untestable)
    for rule, words in [
        (bench, f"Compared by the suite: {bench.bench}"),
        (untestable, f"Not testable: {untestable.untestable}"),
    ]:
        _, output, _ = vfiomig("rules", rule.id)
        assert " ".join(words.split()) in " ".join(output.split())


def test_an_observation_is_said_to_fail_no_driver(vfiomig: Vfiomig) -> None:
    rule = next(rule for rule in load_catalogue() if not rule.fails)
    assert "it fails no driver" in vfiomig("rules", rule.id)[1]
    assert "it fails no driver" not in vfiomig("rules", STABLE)[1]


def test_every_rule_can_be_shown_by_its_origin(vfiomig: Vfiomig) -> None:
    for rule in load_catalogue()[::20]:
        _, output, _ = vfiomig("rules", rule.origin)
        assert output.startswith(f"{rule.id}   {rule.origin}   {rule.level}   ")
        assert max(map(len, output.splitlines())) <= 88


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("v1/data-size/stable-within-iteratoin", STABLE),
        ("v1/data-sise", "v1/data-size"),
        ("V1-SISE-02", "V1-SIZE-02"),
        ("refuses-nothing-at-all-of-it", None),
        ("", None),
    ],
)
def test_an_unknown_rule_is_one_line_with_what_may_be_meant(
    vfiomig: Vfiomig, name: str, meant: str | None
) -> None:
    code, output, errors = vfiomig("rules", name)
    assert (code, output) == (MISUSE, "")
    hint = f", did you mean {meant}?" if meant else ""
    # Behind it stands how to get help, by the name of the program that runs.
    assert errors.startswith(f'vfiomig: there is no rule "{name}"{hint} (try: ')
    assert errors.count("\n") == 1


def test_the_json_has_every_rule_with_what_decides_it(vfiomig: Vfiomig) -> None:
    code, _, _ = vfiomig("rules", "--json", "rules.json")
    assert code == DONE
    facts = json.loads(Path("rules.json").read_text())
    assert facts["schema"] == 1
    assert [one["id"] for one in facts["rules"]] == [r.id for r in load_catalogue()]
    for one in facts["rules"]:
        assert one["decided"] in ("check", "bench", "untestable")
        assert bool(one["check"]) != bool(one["reason"])


def test_the_json_of_one_rule_has_that_one(vfiomig: Vfiomig) -> None:
    vfiomig("rules", STABLE, "--json", "rule.json")
    (rule,) = json.loads(Path("rule.json").read_text())["rules"]
    assert (rule["id"], rule["fails"]) == (STABLE, True)
    assert rule["takes_away"] == ["stop-and-copy"]
    assert "\n" not in rule["sentence"]
