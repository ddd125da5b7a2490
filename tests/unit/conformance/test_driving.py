"""Faulty user applications are found by their rules, and a careful one is not."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from functools import cache
from pathlib import Path
from typing import Final, cast

import pytest

from vfiomig.client import mutants
from vfiomig.client.mutants import MODULES, every_client
from vfiomig.client.mutants.careful import CarefulClient, Device
from vfiomig.conformance.catalogue import load_catalogue
from vfiomig.conformance.driving import PAIRS, Driven, judge_user_application
from vfiomig.protocol.v1.registers import Register

CLIENTS: Final = cast("dict[str, type[CarefulClient]]", every_client())
DECIDED: Final = frozenset(
    rule.id
    for rule in load_catalogue()
    if rule.party == "user application" and rule.check
)

# One pair has a source that makes no progress: it is accused, and nobody else.
STUCK: Final = ("v1/data-size/makes-progress", "no progress")


@cache
def driven_by(target: str) -> Driven:
    return judge_user_application(CLIENTS[target])


def test_the_careful_client_keeps_every_rule_and_reaches_all() -> None:
    driven = judge_user_application(CarefulClient)
    assert driven.broken == {}
    assert driven.held == DECIDED
    assert driven.raised == ()


@pytest.mark.parametrize("target", CLIENTS)
def test_every_client_is_found_by_each_rule_that_it_breaks(target: str) -> None:
    client = CLIENTS[target]
    assert client.violates
    assert client.violates <= driven_by(target).broken.keys()


@pytest.mark.parametrize("target", CLIENTS)
def test_no_driver_is_accused_for_what_its_user_does(target: str) -> None:
    assert set(driven_by(target).accused) <= {STUCK}


def test_every_rule_of_the_user_application_has_a_client_that_breaks_it() -> None:
    broken = frozenset().union(*(client.violates for client in CLIENTS.values()))
    assert broken == DECIDED


@pytest.mark.parametrize("target", CLIENTS)
def test_every_client_tells_its_bug_in_a_sentence(target: str) -> None:
    own = CLIENTS[target].__dict__
    assert isinstance(own["violates"], frozenset)
    assert inspect.cleandoc(own["__doc__"]).split("\n")[0].endswith((".", ")."))


@pytest.mark.parametrize("target", CLIENTS)
def test_a_target_leads_to_its_client(target: str) -> None:
    module, _, name = target.partition(":")
    assert getattr(importlib.import_module(module), name) is CLIENTS[target]


def test_every_module_of_clients_is_listed() -> None:
    found = {module.name for module in pkgutil.iter_modules(mutants.__path__)}
    assert found == {*MODULES, "careful"}


@pytest.mark.parametrize("name", MODULES)
def test_all_is_complete(name: str) -> None:
    module = importlib.import_module(f"{mutants.__name__}.{name}")
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text())
    public = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert sorted(public) == sorted(module.__all__)


# -- the trial itself ------------------------------------------------------------------


class _Raises(CarefulClient):
    def migrate(self, source: Device, destination: Device) -> None:
        message = "out of ideas"
        raise LookupError(message)


def test_what_a_client_raises_is_told_of_each_pair() -> None:
    driven = judge_user_application(_Raises)
    assert driven.raised == tuple(
        f"{pair.name}: LookupError: out of ideas" for pair in PAIRS
    )


class _Widens(CarefulClient):
    def drive(self, source: Device, destination: Device) -> None:
        source.read(Register.DEVICE_STATE)
        source.read(Register.DEVICE_STATE)
        with pytest.raises(OSError, match="no register"):
            source.read_at(Register.PENDING_BYTES.offset, 2)


def test_the_accesses_are_counted_up_to_the_one_that_breaks_a_rule() -> None:
    driven = judge_user_application(_Widens)
    assert driven.broken["v1/register-access/native-width"] == 3
