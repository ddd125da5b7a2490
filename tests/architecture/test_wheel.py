"""The wheel works in an empty environment outside the checkout, specs included."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import vfiomig

CHECKOUT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, exit_code: int = 0) -> str:
    """Run a command away from the checkout; return its output, or fail with it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=kept,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == exit_code, f"{command}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, install it where nothing else is; return the environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, CHECKOUT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "environment", with_pip=False)
    interpreter = folder / "environment" / "bin" / "python"
    run(*pip, "--python", interpreter, "install", wheel, cwd=folder)
    return folder / "environment"


@pytest.fixture
def installed(environment: Path) -> Path:
    """Return where the package lies in the environment."""
    where = "import vfiomig; print(vfiomig.__file__)"
    printed = run(environment / "bin" / "python", "-c", where, cwd=environment)
    folder = Path(printed.strip()).parent
    assert environment in folder.parents
    return folder


def test_the_command_tells_its_version(environment: Path) -> None:
    said = run(environment / "bin" / "vfiomig", "--version", cwd=environment)
    assert vfiomig.__version__ in said


def test_python_dash_m_is_the_same_command(environment: Path) -> None:
    python = environment / "bin" / "python"
    assert "migrate" in run(python, "-m", "vfiomig", "--help", cwd=environment)
    run(python, "-m", "vfiomig", "no-such-command", cwd=environment, exit_code=2)


def test_a_device_migrates_outside_the_checkout(environment: Path) -> None:
    migrated = run(environment / "bin" / "vfiomig", "migrate", cwd=environment)
    assert "state verified" in migrated


def test_the_specification_is_inside_to_the_last_file(installed: Path) -> None:
    def files(folder: Path) -> dict[Path, bytes]:
        there = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder): path.read_bytes() for path in there}

    assert files(CHECKOUT / "specs")
    assert files(installed / "_specs") == files(CHECKOUT / "specs")


def test_every_module_is_inside_and_the_tests_are_not(installed: Path) -> None:
    modules = {path.relative_to(CHECKOUT) for path in CHECKOUT.glob("vfiomig/**/*.py")}
    inside = {path.relative_to(installed.parent) for path in installed.rglob("*.py")}
    assert inside == modules
    assert (installed / "py.typed").exists()
    assert not (installed.parent / "tests").exists()
