"""Every example is short, numbered, and does what it says.

A Python example is run in a copy of the folder and ends with exit code 0.  A scenario
is migrated there: it declares the outcome that it expects, so that exit code 0 says
that this outcome came.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted([*FOLDER.glob("*.py"), *FOLDER.glob("*.toml")])
LIMIT = 40  # lines; an example has fewer


def run(example: Path, folder: Path) -> str | None:
    """Run one example in ``folder``; return None if it went well, else what it said."""
    vfiomig = Path(sys.executable).with_name("vfiomig")
    command = {
        ".py": [sys.executable, example.name],
        ".toml": [str(vfiomig), "migrate", example.name],
    }[example.suffix]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    return None if done.returncode == 0 else f"exit {done.returncode}\n{done.stdout}"


def test_an_examples_folder_has_examples() -> None:
    assert EXAMPLES or not FOLDER.exists()


def test_every_example_is_shorter_than_40_lines() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES}
    assert {name: n for name, n in lengths.items() if n >= LIMIT} == {}


def test_every_example_has_a_number_and_a_name_in_words() -> None:
    pattern = re.compile(r"\d\d_[a-z0-9_]+\.(py|toml)")
    assert [path.name for path in EXAMPLES if not pattern.fullmatch(path.name)] == []


@pytest.mark.slow
def test_every_example_runs(tmp_path: Path) -> None:
    # One test and no parameters: without examples there would be one skipped.
    failed = {}
    for example in EXAMPLES:
        # Each in a copy of its own: none may lean on what another left behind.
        copy = shutil.copytree(FOLDER, tmp_path / example.name)
        if (said := run(example, copy)) is not None:
            failed[example.name] = said
    assert failed == {}, "\n".join(f"{name}: {said}" for name, said in failed.items())
