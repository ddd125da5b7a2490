"""specs/history.schema.json is the schema of the lines that are read and written.

Run this file to write it anew: ``python tests/unit/protocol/test_history_schema.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import msgspec

from vfiomig.protocol.history import SCHEMA, Access, BenchEvent, Header

PUBLISHED: Final = Path(__file__).parents[3] / "specs" / "history.schema.json"

TITLE: Final = "A line of a vfiomig history"
ABOUT: Final = (
    "The first line is a Header, each other line an Access or a BenchEvent. Register "
    "values are numbers in hex (0x1), data is hex bytes, and of more than 64 bytes "
    "their digest (xxh3-128:...). Offsets are those of the migration region."
)


def schema() -> str:
    """Return the schema as it is published, made from the types."""
    lines, components = msgspec.json.schema_components(
        [Header, Access, BenchEvent], ref_template="#/$defs/{name}"
    )
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": TITLE,
        "description": ABOUT,
        "anyOf": list(lines),
        "$defs": components,
    }
    return json.dumps(whole, indent=2) + "\n"


def test_the_published_schema_is_that_of_the_types() -> None:
    assert PUBLISHED.read_text() == schema()


def test_the_schema_names_the_version_that_is_read() -> None:
    header = json.loads(PUBLISHED.read_text())["$defs"]["Header"]
    assert header["properties"]["schema"]["default"] == SCHEMA == 1


def test_every_kind_of_line_has_its_own_key() -> None:
    defined = json.loads(PUBLISHED.read_text())["$defs"]
    required = {name: set(defined[name]["required"]) for name in defined}
    assert required["Header"] == {"recorded_by", "devices"}
    assert required["Access"] == {"device", "access"}
    assert required["BenchEvent"] == {"device", "bench"}


if __name__ == "__main__":
    PUBLISHED.write_text(schema())
