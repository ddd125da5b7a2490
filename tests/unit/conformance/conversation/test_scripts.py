"""The scripts are conversations: of steps that there are, with arguments that fit."""

from __future__ import annotations

import inspect

import pytest

from vfiomig.conformance.conversation.access_scripts import arcs
from vfiomig.conformance.conversation.conversation import Conversation
from vfiomig.conformance.conversation.damage import DAMAGES, REARRANGEMENTS
from vfiomig.conformance.conversation.passages import NEVER_VALID, VALID
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.conversation.steps import Step, TokenError, step, token_of
from vfiomig.conformance.replaying import read_replay
from vfiomig.conformance.shortening import DIED

EVERY_STEP = sorted({each for steps in scripts() for each in steps}, key=str)
STEPS_OF_MACHINES = {"perform", "close"}


def test_a_token_may_hold_every_step_of_every_script() -> None:
    steps = tuple(EVERY_STEP)
    assert read_replay(token_of(DIED, steps)).steps == steps


@pytest.mark.parametrize(
    "wrong",
    [
        step("fly", "source"),
        step("enter", "source"),
        step("enter", "source", "RUNNING"),
        step("enter", "source", -1),
        step("enter", "source", 1, 2),
        step("read_register", "source", "rubbish"),
        step("close"),
        step("perform"),
        step("_session", "source"),
        step("__init__", "source"),
    ],
)
def test_a_token_may_hold_no_other(wrong: Step) -> None:
    with pytest.raises(TokenError, match="a step that no conversation has"):
        read_replay(token_of(DIED, (wrong,)))


def test_every_step_is_in_a_script_or_begins_where_the_budget_ends() -> None:
    methods = inspect.getmembers(Conversation, inspect.isfunction)
    steps = {name for name, _ in methods if not name.startswith("_")}
    used = {each.name for each in EVERY_STEP}
    assert steps - used == STEPS_OF_MACHINES | {"keep_short"}


def test_every_arc_of_the_table_is_asked_for() -> None:
    asked = set()
    for steps in arcs():
        states = [each.arguments[1] for each in steps if each.name == "enter"]
        asked |= set(zip([1, *states], states, strict=False))
    assert asked >= {(one, other) for one in VALID for other in (*VALID, *NEVER_VALID)}


def test_every_damage_is_done() -> None:
    done = {each.arguments[1] for each in EVERY_STEP if each.name == "load_damaged"}
    assert done == {*DAMAGES, *REARRANGEMENTS}


def test_the_order_is_always_the_same() -> None:
    first = scripts()
    scripts.cache_clear()
    assert scripts() == first
