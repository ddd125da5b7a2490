"""A migration by somebody who is nobody: no root, no group, no home."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

pytestmark = pytest.mark.slow

AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "-i")
ROOT = Path(__file__).parents[2]

# What a process of ours does: it loads its libraries, and starts itself once more.
PROBE = (
    "import subprocess, sys, msgspec, vfiomig;"
    "subprocess.run([sys.executable, '-c', ''], check=True)"
)


def needed(
    lines: Iterable[str], seen: set[str]
) -> Iterator[importlib.metadata.Distribution]:
    """Yield what is required by these lines, and what that requires."""
    for line in lines:
        found = re.match(r"[\w.-]+", line)
        if found is None or "extra ==" in line or found[0] in seen:
            continue
        seen.add(found[0])
        try:
            distribution = importlib.metadata.distribution(found[0])
        except importlib.metadata.PackageNotFoundError:
            continue  # for another Python, or another system
        yield distribution
        yield from needed(distribution.requires or [], seen)


@pytest.fixture
def readable(folder: Path) -> Path:
    """Copy our code and what it needs to where anybody may read it."""
    folder.chmod(0o755)
    here = folder / "code"
    shutil.copytree(ROOT / "vfiomig", here / "vfiomig")
    shutil.copytree(ROOT / "specs", here / "specs")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for distribution in needed(project["dependencies"], set()):
        for file in distribution.files or []:
            source = Path(str(distribution.locate_file(file)))
            if ".." not in file.parts and source.exists():
                (here / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, here / file)
    return here


@pytest.fixture
def python(readable: Path) -> list[str]:
    """Return an interpreter with our code that nobody may run."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else; the other tests ran as a user")
    variables = (f"PATH={os.environ['PATH']}", f"PYTHONPATH={readable}")
    # The interpreter of a venv may be in root's home.
    for candidate in (sys.executable, "/usr/bin/python3"):
        command = [*AS_NOBODY, *variables, candidate]
        done = subprocess.run(
            [*command, "-c", PROBE], capture_output=True, cwd="/", check=False
        )
        if not done.returncode:
            return command
    pytest.skip("there is no Python that nobody may run: apt-get install python3")


def test_nobody_migrates(python: list[str]) -> None:
    done = subprocess.run(
        [*python, "-m", "vfiomig", "qemu", "--migrate", "--device", "reference"],
        capture_output=True,
        text=True,
        cwd="/",
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "migration completed: state verified"
