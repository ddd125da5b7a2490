"""Conversations by chance: as many as asked for, the same for the same seed."""

from __future__ import annotations

import pytest

from vfiomig.conformance.conversation.machine import STEPS, converse
from vfiomig.conformance.conversation.steps import Step, token_of
from vfiomig.conformance.replaying import read_replay
from vfiomig.conformance.shortening import DIED


class Recording:
    """Keeps the steps of each conversation."""

    def __init__(self, made: list[list[Step]]) -> None:
        self.made = made
        self.steps: list[Step] = []

    def perform(self, each: Step) -> None:
        self.steps.append(each)

    def finish(self) -> None:
        self.made.append(self.steps)


def made(seed: int, conversations: int = 5) -> list[list[Step]]:
    found: list[list[Step]] = []
    converse(lambda: Recording(found), conversations=conversations, seed_number=seed)
    return found


@pytest.fixture(scope="module")
def of_seed_1() -> list[list[Step]]:
    return made(1)


def test_so_many_are_held(of_seed_1: list[list[Step]]) -> None:
    assert len(of_seed_1) == 5


def test_the_same_seed_makes_the_same(of_seed_1: list[list[Step]]) -> None:
    assert made(1) == of_seed_1


def test_another_seed_makes_others(of_seed_1: list[list[Step]]) -> None:
    assert made(2) != of_seed_1


def test_every_step_is_one_that_a_token_may_hold(of_seed_1: list[list[Step]]) -> None:
    steps = tuple(each for steps in of_seed_1 for each in steps)
    assert read_replay(token_of(DIED, steps)).steps == steps


def test_a_conversation_has_an_end(of_seed_1: list[list[Step]]) -> None:
    most = 2 + 4 * 2  # steps of the longest action
    assert max(map(len, of_seed_1)) <= STEPS * most


def test_what_performs_a_step_may_raise_and_it_passes() -> None:
    class Raising(Recording):
        def perform(self, each: Step) -> None:
            raise LookupError(each.name)

    with pytest.raises(LookupError):
        converse(lambda: Raising([]), conversations=1, seed_number=1)
