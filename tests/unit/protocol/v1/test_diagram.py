"""specs/v1/README.md shows the table as it is; run this file to write it anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from vfiomig.protocol.v1.diagram import mermaid, table
from vfiomig.protocol.v1.states import ARCS, ArcClass

README = Path(__file__).parents[4] / "specs" / "v1" / "README.md"

SHOWN = {"diagram": f"```mermaid\n{mermaid()}```\n", "table": table()}


def marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: made by diagram.py -->\n", f"<!-- end of {name} -->\n"


def between(text: str, name: str) -> str:
    """Return what stands between the two marks, blank lines around it left out."""
    begin, end = marks(name)
    assert text.count(begin) == 1
    assert text.count(end) == 1
    return text.split(begin)[1].split(end)[0].strip("\n") + "\n"


def refreshed(text: str) -> str:
    """Return the text with everything between marks made anew."""
    for name, shown in SHOWN.items():
        begin, end = marks(name)
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{shown}\n{end}{rest.split(end)[1]}"
    return text


@pytest.mark.parametrize("name", SHOWN)
def test_the_readme_shows_what_the_table_says(name: str) -> None:
    again = f"it is old: run python {Path(__file__).relative_to(README.parents[2])}"
    assert between(README.read_text(), name) == SHOWN[name], again


def test_refreshing_a_fresh_readme_changes_nothing() -> None:
    assert refreshed(README.read_text()) == README.read_text()


def test_the_diagram_draws_each_arc_between_valid_states_once() -> None:
    lines = mermaid().splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert lines[1].strip() == "[*] --> RUNNING: open"
    assert lines[-1].strip() == "ERROR --> RUNNING: VFIO_DEVICE_RESET"
    drawn = lines[2:-1]
    # 7 required, 5 expected, 8 optional; nothing refused, nothing to itself.
    assert len(drawn) == len(set(drawn)) == 20
    assert sum(line.endswith(": REQ") for line in drawn) == 7
    assert sum(line.endswith(": EXP") for line in drawn) == 5
    assert sum(line.endswith(": OPT") for line in drawn) == 8
    assert "    STOP_AND_COPY --> STOP: REQ" in drawn
    assert "    PRE_COPY --> RUNNING: EXP" in drawn


def test_the_table_has_a_cell_for_each_pair() -> None:
    head, rule, *rows = table().splitlines()
    assert head.startswith("| from / to | 000 STOP | 001 RUNNING | 010 STOP_AND_COPY |")
    assert rule == "|---|---|---|---|---|---|---|---|---|"
    cells = [cell.strip() for row in rows for cell in row.split("|")[2:-1]]
    in_order = sorted(ARCS, key=lambda arc: (arc.source, arc.target))
    assert cells == [arc.arc_class.name for arc in in_order]


def test_the_readme_says_what_each_class_means() -> None:
    text = README.read_text()
    for arc_class in ArcClass:
        assert f"| {arc_class.name} | {arc_class.value} |" in text


if __name__ == "__main__":
    README.write_text(refreshed(README.read_text()))
