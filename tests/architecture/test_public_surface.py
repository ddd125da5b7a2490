"""What a package's `__init__` promises: sorted, complete, documented, and cheap."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import vfiomig

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]


def packages_with_a_surface() -> list[str]:
    """Name every package whose `__init__` has an `__all__`."""
    return [
        ".".join(init.parent.relative_to(CHECKOUT).parts)
        for init in sorted(CHECKOUT.glob("vfiomig/**/__init__.py"))
        if "__all__" in init.read_text()
    ]


def names_bound(body: list[ast.stmt]) -> Iterator[str]:
    """Yield what an `__init__` defines or imports from vfiomig, types included."""
    for node in body:
        match node:
            case ast.ImportFrom(module=str(module), names=names):
                if module.partition(".")[0] == "vfiomig":
                    yield from (alias.asname or alias.name for alias in names)
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.If(body=inner):
                yield from names_bound(inner)


def is_public(name: str) -> bool:
    return not name.startswith("_")


PACKAGES = packages_with_a_surface()


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_complete(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ is not None
    bound = set(names_bound(ast.parse(Path(module.__file__).read_text()).body))
    assert {name for name in bound if is_public(name)} == {
        name for name in module.__all__ if is_public(name)
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_all_names_nothing_twice_and_everything_resolves(package: str) -> None:
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_class_and_function_is_documented(package: str) -> None:
    module = importlib.import_module(package)
    undocumented = []
    for name in module.__all__:
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        # A dataclass or named tuple without a docstring gets "Name(field, ...)".
        text = value.__doc__ or ""
        if not text.strip() or text.startswith(f"{name}("):
            undocumented.append(name)
    assert undocumented == []


def test_every_all_is_sorted() -> None:
    # RUF022 is the order that ruff keeps: constants, then classes, then the rest.
    ruff = Path(sys.executable).with_name("ruff")
    checked = subprocess.run(
        [ruff, "check", "--isolated", "--no-cache", "--select=RUF022", "vfiomig"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def test_the_root_offers_what_driver_authors_write_against() -> None:
    assert PACKAGES[0] == "vfiomig"
    assert {"MigrationRegion", "SparseMmapArea", "VendorDriver"} <= set(vfiomig.__all__)
    assert set(vfiomig.__all__) <= set(dir(vfiomig))


def test_a_name_that_the_root_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="NoSuchName"):
        vfiomig.NoSuchName  # noqa: B018 -- the look-up is what is tested


def test_importing_vfiomig_imports_nothing_else() -> None:
    program = (
        "import json, sys; before = set(sys.modules); import vfiomig;"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    printed = subprocess.check_output([sys.executable, "-c", program], text=True)
    imported = set(json.loads(printed))
    assert "vfiomig" in imported
    assert {name for name in imported if name.startswith("vfiomig.")} == set()
    tops = {name.partition(".")[0] for name in imported - {"vfiomig"}}
    assert tops <= sys.stdlib_module_names
