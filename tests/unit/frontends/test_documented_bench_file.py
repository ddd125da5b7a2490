"""The bench file that is shown can be read; the rules that need one say so."""

from __future__ import annotations

import re
from pathlib import Path

from vfiomig.conformance.catalogue import load_catalogue, rule_named
from vfiomig.conformance.vfio_user.bench_file import read_black_box

ROOT = Path(__file__).parents[3]


def test_the_example_can_be_read(tmp_path: Path) -> None:
    document = (ROOT / "specs" / "README.md").read_text()
    (text,) = re.findall(r"```toml\n# FILE: bench.toml\n(.*?)```", document, re.DOTALL)
    path = tmp_path / "bench.toml"
    path.write_text(text)
    black_box = read_black_box(path)
    assert [(each.bar, each.offset, each.size) for each in black_box.state] == [
        (0, 0x100, 64)
    ]
    assert [(each.offset, each.value, each.step) for each in black_box.work] == [
        (0x10, 1, 1)
    ]


def test_the_rules_that_need_a_bench_are_rules_that_say_so() -> None:
    text = (ROOT / "README.md").read_text()
    listed = text.partition("cannot be judged over a socket:")[2].partition("`.")[0]
    names = re.findall(r"`(v1/[a-z0-9/-]+)", listed)
    assert len(names) > 20
    assert all((rule := rule_named(name)) is not None and rule.needed for name in names)
    needing = [rule.id for rule in load_catalogue() if rule.needed]
    assert names == [name for name in needing if name in names]
