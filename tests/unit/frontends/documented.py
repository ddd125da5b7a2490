"""What specs/README.md says: its sections, their tables and their examples."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE: Final = (Path(__file__).parents[3] / "specs" / "README.md").read_text()
SECTIONS: Final = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")}


def rows_of(section: str) -> dict[str, list[str]]:
    """Return the rows of a section's table: the other cells, by key."""
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE)
    assert len({key for key, _ in rows}) == len(rows)
    return {key: cells.split(" | ") for key, cells in rows}


def example_of(section: str, language: str) -> str:
    """Return the one fenced block of a section in a language."""
    (block,) = examples_of(section, language)
    return block


def examples_of(section: str, language: str) -> list[str]:
    """Return the fenced blocks of a section in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.M | re.S)


def paths_in(value: object, place: str = "") -> Iterator[str]:
    """Yield the path of every key that holds a value; [] stands for a list."""
    match value:
        case dict():
            for key, inner in value.items():
                yield from paths_in(inner, f"{place}.{key}" if place else key)
        case list():
            for inner in value:
                yield from paths_in(inner, f"{place}[]")
        case _:
            yield place
