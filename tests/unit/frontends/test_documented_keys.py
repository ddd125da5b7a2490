"""specs/README.md tells every key of what is read and written, and no other."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from tests.unit.frontends.documented import (
    SECTIONS,
    example_of,
    examples_of,
    paths_in,
    rows_of,
)
from tests.unit.frontends.report.sample_runs import everything, failed, moved
from vfiomig.frontends.report.as_json import as_json
from vfiomig.frontends.scenario import KEYS, load_scenario
from vfiomig.frontends.toml_values import REQUIRED, key_paths
from vfiomig.migration.metrics import Outcome

if TYPE_CHECKING:
    from pathlib import Path

SCENARIO: Final = SECTIONS["SCENARIO.toml"]
JSON: Final = SECTIONS["The JSON of `vfiomig migrate --json`"]
KEY: Final = dict(key_paths(KEYS))


def real_paths() -> set[str]:
    """Return the paths of a report that has everything."""
    report = everything()
    return set(paths_in(msgspec.json.decode(as_json(report))))


# -- the scenario ----------------------------------------------------------------------


def test_every_key_of_a_scenario_is_in_the_table_and_no_other() -> None:
    assert rows_of(SCENARIO).keys() == KEY.keys()


@pytest.mark.parametrize("path", KEY)
def test_the_default_is_the_documented_one(path: str) -> None:
    _, default, _ = rows_of(SCENARIO)[path]
    key = KEY[path]
    if default == "required":
        assert key.default is REQUIRED
    elif written := re.fullmatch(r"`(.+)`", default):
        value = tomllib.loads(f"value = {written[1]}")["value"]
        assert key.parse(value) == key.default
    else:  # said in words: nothing
        assert key.default is None


@pytest.mark.parametrize("path", KEY)
def test_every_word_that_a_key_may_hold_is_documented(path: str) -> None:
    try:
        KEY[path].parse("no such word")
    except ValueError as refused:
        words = re.match(r'must be one of ((?:"[^"]+"(?:, )?)+)', str(refused))
    else:
        return
    if words is not None:
        holds = rows_of(SCENARIO)[path][0]
        assert set(re.findall(r'"[^"]+"', words[1])) == set(
            re.findall(r'"[^"]+"', holds)
        )


def test_the_examples_are_read_and_have_every_key_between_them(tmp_path: Path) -> None:
    written = set()
    ends = []
    for text in examples_of(SCENARIO, "toml"):
        (tmp_path / "example.toml").write_text(text)
        ends.append(load_scenario(tmp_path / "example.toml").expected)
        keys = paths_in(tomllib.loads(text))
        written |= {path.replace("[]", "") for path in keys}
    assert ends == [Outcome.FAILED, Outcome.COMPLETED]
    assert written == KEY.keys()


# -- the JSON --------------------------------------------------------------------------


def test_every_key_of_the_json_is_in_the_table_and_no_other() -> None:
    assert rows_of(JSON).keys() == real_paths()


def test_the_example_has_the_keys_of_a_real_report() -> None:
    example = msgspec.json.decode(example_of(JSON, "json"))
    real = set(paths_in(msgspec.json.decode(as_json(moved()))))
    assert set(paths_in(example)) == real
    assert example["verified"] == "state verified"


def test_no_report_has_a_key_that_another_leaves_out() -> None:
    for report in (moved(), failed(), everything()):
        facts = msgspec.json.decode(as_json(report))
        assert facts.keys() == msgspec.json.decode(as_json(moved())).keys()
