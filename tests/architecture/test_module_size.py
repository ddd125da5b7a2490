"""No module is longer than a reader can hold in mind."""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
LIMIT = 400


def test_no_module_is_longer_than_400_lines() -> None:
    modules = list(CHECKOUT.glob("vfiomig/**/*.py"))
    assert modules
    lengths = {
        str(module.relative_to(CHECKOUT)): len(module.read_text().splitlines())
        for module in modules
    }
    assert {name: n for name, n in lengths.items() if n > LIMIT} == {}
