"""The line that is to blame is the user's own, wherever the user's code lives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vfiomig
from vfiomig.conformance import TargetError, load_target
from vfiomig.conformance.user_code import (
    defining_line,
    home_of,
    raising_line,
    reason,
    shown,
)

HERE = Path(__file__)
STANDARD_LIBRARY = Path(json.__file__).parents[1]


def error_of_json() -> Exception:
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("{")
    return caught.value


def test_the_standard_library_is_not_to_blame() -> None:
    place = raising_line(error_of_json(), None)
    assert place is not None
    assert place.rpartition(":")[0] == shown(HERE)


def test_a_target_in_the_standard_library_is() -> None:
    place = raising_line(error_of_json(), STANDARD_LIBRARY / "json")
    assert place is not None
    assert place.startswith(f"{STANDARD_LIBRARY}/json/")


def test_who_loads_a_target_of_vfiomig_itself_is_not_to_blame() -> None:
    with pytest.raises(TargetError) as caught:
        load_target("")
    place = raising_line(caught.value, Path(vfiomig.__file__).parent)
    assert place is not None
    assert place.rpartition(":")[0] == shown(HERE)


def test_an_error_that_was_never_raised_has_no_line() -> None:
    assert raising_line(ValueError("kept"), None) is None


@pytest.mark.parametrize(
    ("module", "home"),
    [
        ("json", STANDARD_LIBRARY / "json"),
        ("json.decoder", STANDARD_LIBRARY / "json"),
        ("shlex", STANDARD_LIBRARY),
        ("sys", None),
        ("no_such_module", None),
    ],
)
def test_a_modules_home_is_the_folder_of_its_outermost_package(
    module: str, home: Path | None
) -> None:
    assert home_of(module) == home


@pytest.mark.parametrize("thing", [3, int, len, None])
def test_what_has_no_source_has_no_line(thing: object) -> None:
    assert defining_line(thing) is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("x"), "KeyError: 'x'"),
        (MemoryError(), "MemoryError"),
        (ValueError("a\n\tb"), "ValueError: a b"),
    ],
)
def test_a_reason_is_one_line(error: Exception, said: str) -> None:
    assert reason(error) == said
