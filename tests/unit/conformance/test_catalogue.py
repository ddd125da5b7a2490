"""The catalogue of rules, and what broken ones take away."""

from __future__ import annotations

from typing import get_args

import pytest

from vfiomig.conformance.catalogue import (
    Capability,
    load_catalogue,
    load_profiles,
)


def test_every_capability_has_a_profile_and_no_other() -> None:
    assert set(load_profiles()) == set(get_args(Capability))


def test_every_profile_is_taken_away_by_some_rule() -> None:
    taken = {name for rule in load_catalogue() for name in rule.takes_away}
    assert taken == set(load_profiles())


def test_no_rule_takes_a_capability_away_twice() -> None:
    twice = [
        rule.id
        for rule in load_catalogue()
        if len(set(rule.takes_away)) < len(rule.takes_away)
    ]
    assert twice == []


@pytest.mark.parametrize("profile", load_profiles().values(), ids=lambda p: p.id)
def test_what_is_lost_is_one_sentence(profile: object) -> None:
    lost = getattr(profile, "lost", "")
    assert lost.endswith(".")
    assert lost.count(". ") == 0
