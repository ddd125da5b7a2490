"""The contracts of pyproject.toml hold, and each of them bites.

import-linter judges the checkout; then one breach of every contract is planted in a
copy, and each must be reported under the contract's own name.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"][
    "importlinter"
]["contracts"]
CONTRACT_NAMES = [contract["name"] for contract in CONTRACTS]

LAYERS = "Layers: imports point downwards only"
SANS_IO = "protocol/ is sans-IO"
BEHIND_THE_FD = "Whoever drives a device never reaches behind its fd"
MACHINES = "Only migration joins devices and machines"
SIBLINGS = "Siblings are acyclic"
TEST_TOOLS = "pytest and hypothesis stay out of the simulator"
PLUGIN = "Only the plugin knows pytest"
SERVE = "Whoever serves a device is handed it"

# (contract, the file that breaks it, what it says, how the report names the breach)
PLANTED = (
    (
        LAYERS,
        "host/planted_upwards.py",
        "import vfiomig.client",
        "vfiomig.host.planted_upwards -> vfiomig.client ",
    ),
    (
        LAYERS,
        "vendor/planted_sideways.py",
        "import vfiomig.client",
        "vfiomig.vendor.planted_sideways -> vfiomig.client ",
    ),
    (LAYERS, "utils/__init__.py", "", "- vfiomig.utils\n"),
    (
        SANS_IO,
        "protocol/planted_os.py",
        "import os",
        "vfiomig.protocol.planted_os -> os ",
    ),
    (
        SANS_IO,
        "protocol/v1/planted_clock.py",
        "from time import monotonic",
        "vfiomig.protocol.v1.planted_clock -> time ",
    ),
    (
        SANS_IO,
        "uapi/planted_mmap.py",
        "import mmap",
        "vfiomig.uapi.planted_mmap -> mmap ",
    ),
    (
        BEHIND_THE_FD,
        "migration/planted_vendor.py",
        "import vfiomig.vendor",
        "vfiomig.migration.planted_vendor -> vfiomig.vendor ",
    ),
    (
        BEHIND_THE_FD,
        "client/planted_host.py",
        "def inside() -> None:\n    import vfiomig.host.device_fd",
        "vfiomig.client.planted_host -> vfiomig.host.device_fd ",
    ),
    (
        MACHINES,
        "vendor/planted_vm.py",
        "import vfiomig.vm",
        "vfiomig.vendor.planted_vm -> vfiomig.vm ",
    ),
    (
        SIBLINGS,
        "uapi/planted_left.py",
        "import vfiomig.uapi.planted_right",
        "- .planted_",
    ),
    (
        SIBLINGS,
        "uapi/planted_right.py",
        "import vfiomig.uapi.planted_left",
        "No cycles are allowed in vfiomig.uapi",
    ),
    (
        TEST_TOOLS,
        "host/planted_hypothesis.py",
        "import hypothesis",
        "vfiomig.host.planted_hypothesis -> hypothesis ",
    ),
    (
        TEST_TOOLS,
        "client/planted_pytest.py",
        "import pytest",
        "vfiomig.client.planted_pytest -> pytest ",
    ),
    (
        SERVE,
        "serve/planted_vendor.py",
        "import vfiomig.vendor",
        "vfiomig.serve.planted_vendor -> vfiomig.vendor ",
    ),
    (
        PLUGIN,
        "frontends/planted_pytest.py",
        "import pytest",
        "vfiomig.frontends.planted_pytest -> pytest ",
    ),
)


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the package ``vfiomig`` that lies in ``folder``."""
    lint_imports = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [lint_imports, "--no-cache", "--no-logo"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def copy_of_the_tree(folder: Path) -> Path:
    """Copy what import-linter reads; packages still to come are there, empty."""
    shutil.copy(CHECKOUT / "pyproject.toml", folder)
    package = folder / "vfiomig"
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "vfiomig", package, ignore=skip)
    for layer in re.findall(r"\w+", " ".join(CONTRACTS[0]["layers"])):
        (package / layer).mkdir(exist_ok=True)
        (package / layer / "__init__.py").touch()
    return package


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Plant every breach; return what is reported, by the contract's name."""
    folder = tmp_path_factory.mktemp("planted")
    package = copy_of_the_tree(folder)
    for _, file, text, _ in PLANTED:
        (package / file).parent.mkdir(exist_ok=True)
        (package / file).write_text(f"{text}\n")
    linted = lint(folder)
    assert linted.returncode == 1, linted.stdout + linted.stderr
    # A section is a name, a line of dashes of the same length, and what follows.
    parts = re.split(r"^(.+)\n-+\n", linted.stdout, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_contract_holds() -> None:
    linted = lint(CHECKOUT)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in linted.stdout


def test_a_copy_without_a_breach_holds_too(tmp_path: Path) -> None:
    copy_of_the_tree(tmp_path)
    linted = lint(tmp_path)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize(
    ("contract", "file", "breach"),
    [(contract, file, breach) for contract, file, _, breach in PLANTED],
    ids=[file for _, file, _, _ in PLANTED],
)
def test_a_planted_breach_is_reported(
    reports: dict[str, str], contract: str, file: str, breach: str
) -> None:
    assert breach in reports[contract], f"{file} went unnoticed"


def test_every_contract_has_a_planted_breach() -> None:
    assert {contract for contract, *_ in PLANTED} == set(CONTRACT_NAMES)


def test_every_package_of_the_simulator_is_kept_from_test_tools() -> None:
    # Other contracts can name a package to come; "forbidden" needs it to exist.
    there = {init.parent.name for init in CHECKOUT.glob("vfiomig/*/__init__.py")}
    (named,) = (c["source_modules"] for c in CONTRACTS if c["name"] == TEST_TOOLS)
    simulator = there - {"conformance", "frontends"}
    assert {f"vfiomig.{package}" for package in simulator} == set(named)


def test_no_module_has_a_name_that_says_nothing() -> None:
    drawers = {"utils", "util", "helpers", "common", "core", "misc", "manager"}
    named = {path.stem for path in CHECKOUT.glob("vfiomig/**/*")}
    assert named & drawers == set()
