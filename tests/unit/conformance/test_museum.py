"""Catalogue, checks and mutants belong together, and each mutant is found.

What is fast looks at what they say of each other; what is slow runs the suite on all.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

from vfiomig.client.mutants import every_client
from vfiomig.conformance import checks
from vfiomig.conformance.catalogue import load_catalogue
from vfiomig.conformance.museum import (
    Exhibit,
    Tried,
    breakable_rules,
    every_exhibit,
    exhibits_named,
    totals_of,
    try_exhibit,
    unbroken_rules,
)
from vfiomig.vendor.mutants import every_mutant
from vfiomig.vendor.mutants.standalone import StandaloneDriver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.conformance.catalogue import PartyName

CATALOGUE: Final = load_catalogue()
EXHIBITS: Final = every_exhibit()

# The published bugs that a v1 driver or user application can have on its own, where
# its migration region shows them (the page of published bugs tells the others).
PUBLISHED: Final = (
    "CORE-01",
    "CORE-02",
    "MLX5-10",
    "MLX5-12",
    "MLX5-18",
    "HISI-01",
    "HISI-02",
    "HISI-03",
    "HISI-04",
    "HISI-05",
    "HISI-06",
    "HISI-07",
    "HISI-09",
    "HISI-10",
    "PDS-03",
    "PDS-04",
    "PDS-07",
    "XE-01",
    "QV1-12",
    "QV1-13",
    "QV1-14",
    "QV2-19",
)


# -- the catalogue ---------------------------------------------------------------------


def test_each_rule_is_decided_in_one_way() -> None:
    for rule in CATALOGUE:
        ways = [bool(rule.check), bool(rule.bench), bool(rule.untestable)]
        assert sum(ways) == 1, rule.id


def test_at_most_eight_rules_of_the_vendor_driver_are_untestable() -> None:
    owed = [r for r in CATALOGUE if r.party == "vendor driver" and r.level != "MAY"]
    untestable = [rule.id for rule in owed if rule.untestable]
    assert len(untestable) <= 8, untestable


def check_functions() -> Iterator[str]:
    for found in pkgutil.iter_modules(checks.__path__):
        module = importlib.import_module(f"{checks.__name__}.{found.name}")
        for function in getattr(module, "CHECKS", ()):
            yield f"{found.name}:{function.__name__}"


def test_every_check_belongs_to_one_rule() -> None:
    named = Counter(rule.check for rule in CATALOGUE if rule.check)
    assert named == Counter(check_functions())
    assert set(named.values()) == {1}


# -- the museum ------------------------------------------------------------------------


def test_every_mutant_names_rules_of_its_own_party() -> None:
    party = {rule.id: rule.party for rule in CATALOGUE}
    for exhibit in EXHIBITS:
        assert exhibit.violates, exhibit.target
        for rule in exhibit.violates:
            assert party[rule] == exhibit.party, exhibit.target


def test_no_mutant_names_a_rule_that_nothing_decides() -> None:
    untestable = {rule.id for rule in CATALOGUE if rule.untestable}
    for exhibit in EXHIBITS:
        assert not exhibit.violates & untestable, exhibit.target


def test_every_rule_that_can_be_broken_has_a_mutant() -> None:
    assert unbroken_rules(EXHIBITS) == ()


def test_rules_that_can_be_broken_are_of_both_parties() -> None:
    breakable = breakable_rules()
    assert {rule.party for rule in breakable} == {"vendor driver", "user application"}
    for rule in breakable:
        assert rule.level != "MAY"
        assert rule.check or rule.bench


def test_the_museum_is_large_and_a_part_of_it_stands_alone() -> None:
    drivers = every_mutant().values()
    assert len(EXHIBITS) == len(drivers) + len(every_client())
    assert len(EXHIBITS) >= 80
    assert sum(issubclass(each, StandaloneDriver) for each in drivers) >= 20


def test_every_published_bug_of_v1_has_its_mutant() -> None:
    everyone = [*every_mutant().values(), *every_client().values()]
    told = " ".join(each.__doc__ or "" for each in everyone)
    ids = set(re.findall(r"BUG-([A-Z0-9]+-[0-9]+)", told))
    assert ids == set(PUBLISHED)


def test_no_two_exhibits_have_one_name() -> None:
    names = Counter(each.name for each in EXHIBITS)
    assert max(names.values()) == 1


# -- who is meant ----------------------------------------------------------------------


def test_an_exhibit_is_meant_by_its_name_or_its_target() -> None:
    for exhibit in EXHIBITS:
        assert exhibits_named(exhibit.name) == [exhibit]
        assert exhibits_named(exhibit.target) == [exhibit]


def test_a_rule_means_those_that_break_it() -> None:
    rule = "v1/saving/in-sequence"
    found = exhibits_named(rule)
    assert found
    assert found == exhibits_named("V1-SAVE-01")
    assert all(rule in each.violates for each in found)
    assert len(found) == sum(rule in each.violates for each in EXHIBITS)


def test_a_beginning_means_all_rules_that_have_it() -> None:
    found = exhibits_named("v1/data-size/")
    sizes = [
        each
        for each in EXHIBITS
        if any(rule.startswith("v1/data-size/") for rule in each.violates)
    ]
    assert found == sizes


@pytest.mark.parametrize("name", ["", "NoSuchMutant", "v1/no-such-rule"])
def test_what_means_nothing_finds_nothing(name: str) -> None:
    assert exhibits_named(name) == []


# -- what is said of them --------------------------------------------------------------


def tried(
    broken: dict[str, int | None],
    *violates: str,
    party: PartyName = "vendor driver",
    died: str = "",
) -> Tried:
    exhibit = Exhibit(target="a.b:C", party=party, violates=frozenset(violates))
    return Tried(exhibit=exhibit, broken=broken, died=died, seconds=0.0)


def test_a_mutant_is_found_by_a_rule_of_its_own_alone() -> None:
    one = tried({"v1/b": 7, "v1/c": 2}, "v1/a", "v1/b")
    assert (one.is_found, one.found_by, one.others, one.accesses) == (
        True,
        ("v1/b",),
        1,
        7,
    )
    other = tried({"v1/c": 2}, "v1/a", died="it hung")
    assert (other.is_found, other.others, other.accesses) == (False, 1, None)


def test_the_shortest_of_its_own_conversations_counts() -> None:
    assert tried({"v1/a": 9, "v1/b": None, "v1/c": 4}, "v1/a", "v1/c").accesses == 4
    assert tried({"v1/a": None}, "v1/a").accesses is None


def test_the_median_is_of_vendor_drivers_that_were_found() -> None:
    totals = totals_of(
        [
            tried({"v1/a": 2}, "v1/a"),
            tried({"v1/a": 5}, "v1/a", died="it hung"),
            tried({"v1/b": 1}, "v1/a"),
            tried({"v1/a": 90}, "v1/a", party="user application"),
        ]
    )
    assert (totals.found, totals.missed, totals.died, totals.median) == (3, 1, 1, 3.5)
    assert totals_of([]).median is None


# -- they are found --------------------------------------------------------------------

# All of them, at normal effort, take hours: tests/soak/test_museum.py.
DRIVERS: Final = [each for each in EXHIBITS if each.party == "vendor driver"]
CLIENTS: Final = [each for each in EXHIBITS if each.party == "user application"]


@pytest.mark.slow
@pytest.mark.parametrize("exhibit", [*DRIVERS[::16], *CLIENTS], ids=lambda it: it.name)
def test_a_mutant_is_found_by_a_rule_that_it_breaks(exhibit: Exhibit) -> None:
    found = try_exhibit(exhibit, effort="quick", seed=1)
    assert found.is_found, (sorted(exhibit.violates), sorted(found.broken), found.died)
