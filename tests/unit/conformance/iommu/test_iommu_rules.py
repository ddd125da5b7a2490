"""specs/iommu, the checks and the museum of the host hold together.

Every rule has a check or a reason, every check a rule, every mutant is found by each
rule that it names, and the container itself breaks none.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from vfiomig.conformance.iommu import checks
from vfiomig.conformance.iommu.catalogue import IommuRule, load_iommu_rules
from vfiomig.conformance.iommu.suite import check_iommu, make_faulty
from vfiomig.host import mutants
from vfiomig.host.container import Container
from vfiomig.host.iommu import Iommu
from vfiomig.host.mutants import MODULES, every_iommu

RULES: Final = {rule.id: rule for rule in load_iommu_rules()}
CHECKED: Final = [rule for rule in RULES.values() if rule.check]
MUTANTS: Final = every_iommu()


def violated_by(target: str) -> frozenset[str]:
    violates = MUTANTS[target].__dict__["violates"]  # its own, not one inherited
    assert isinstance(violates, frozenset)
    return violates


# -- the catalogue ---------------------------------------------------------------------


def test_no_rule_is_there_twice() -> None:
    assert len(RULES) == len(load_iommu_rules()) >= 40


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.id)
def test_a_rule_is_checked_or_says_why_not(rule: IommuRule) -> None:
    assert bool(rule.check) != bool(rule.untestable)
    assert re.fullmatch(r"iommu(/[a-z0-9]+(-[a-z0-9]+)*){2}", rule.id)
    assert re.fullmatch(r"DIRTY-[A-Z]+-\d\d", rule.origin)
    assert rule.sentence.endswith(".")


def test_every_check_belongs_to_one_rule() -> None:
    claimed = [rule.check for rule in CHECKED]
    written = [
        f"{module.name}:{name}"
        for module in pkgutil.iter_modules(checks.__path__)
        for name, function in vars(
            importlib.import_module(f"{checks.__name__}.{module.name}")
        ).items()
        if inspect.isfunction(function)
        and not name.startswith("_")
        and function.__module__ == f"{checks.__name__}.{module.name}"
    ]
    assert sorted(claimed) == sorted(written)


# Of section D of the facts; DIRTY-SEM-02 binds the user application.
ORIGINS = {
    *(f"DIRTY-CAP-{number:02}" for number in (1, 2)),
    *(f"DIRTY-OP-{number:02}" for number in range(1, 6)),
    *(f"DIRTY-GET-{number:02}" for number in range(1, 10)),
    *(f"DIRTY-UNMAP-{number:02}" for number in range(1, 4)),
    "DIRTY-MAP-01",
    "DIRTY-SEM-01",
}


def test_every_fact_has_a_rule() -> None:
    assert {rule.origin for rule in RULES.values()} == ORIGINS


# -- the container ---------------------------------------------------------------------


@pytest.mark.parametrize("rule", CHECKED, ids=lambda rule: rule.id)
def test_the_container_breaks_no_rule(rule: IommuRule) -> None:
    assert check_iommu(Container, rules=[rule]) == []


# -- the museum ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("target", MUTANTS)
def test_a_mutant_is_found_by_each_rule_that_it_names(target: str) -> None:
    violates = violated_by(target)
    make = partial(make_faulty, MUTANTS[target])
    findings = check_iommu(make, rules=[RULES[name] for name in violates])
    assert {finding.rule.id for finding in findings} == violates != set()
    for finding in findings:
        assert finding.breach.expected != finding.breach.actual
        assert finding.breach.conversation


def test_every_rule_has_a_mutant() -> None:
    broken = frozenset().union(*(violated_by(target) for target in MUTANTS))
    assert broken == {rule.id for rule in CHECKED}


PUBLISHED = [f"BUG-IOMMU-{number:02}" for number in range(1, 11)]


@pytest.mark.parametrize("bug", PUBLISHED)
def test_every_published_bug_is_in_the_museum(bug: str) -> None:
    documented = [mutant.__doc__ or "" for mutant in MUTANTS.values()]
    assert any(bug in text for text in documented)


@pytest.mark.parametrize("target", MUTANTS)
def test_a_mutant_tells_its_bug_in_a_sentence(target: str) -> None:
    text = inspect.cleandoc(MUTANTS[target].__dict__["__doc__"])
    assert text.split("\n")[0].endswith((".", ")."))


def test_every_module_of_the_museum_is_listed_with_all_that_is_in_it() -> None:
    found = {module.name for module in pkgutil.iter_modules(mutants.__path__)}
    assert found == set(MODULES)
    for name in MODULES:
        module = importlib.import_module(f"{mutants.__name__}.{name}")
        tree = ast.parse(Path(str(module.__file__)).read_text())
        classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        assert {each for each in classes if each[0] != "_"} == set(module.__all__)


def test_a_container_that_raises_anything_but_an_errno_has_died() -> None:
    class Dies(Iommu):
        """Has a bug."""

        def unmap_all(self) -> int:
            return 1 // 0

    rule = RULES["iommu/unmapping/all-at-once"]
    (finding,) = check_iommu(partial(make_faulty, Dies), rules=[rule])
    assert "test_iommu_rules.py" in finding.died
    assert finding.breach.actual.startswith("ZeroDivisionError")
    assert "UNMAP_DMA" in finding.breach.conversation[-1]
