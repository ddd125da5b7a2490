"""What grows from conversation to conversation is told once, and nothing else is."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.unit.conformance.small_drivers import Framed, bench_for, small
from vfiomig.conformance.appetite import Appetite
from vfiomig.conformance.conversation.steps import step
from vfiomig.conformance.holding import Held, Scripted
from vfiomig.conformance.worker import work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONVERSATIONS = 30


@pytest.fixture
def files() -> Iterator[list[int]]:
    opened: list[int] = []
    yield opened
    for file in opened:
        os.close(file)


def complaints(between: Callable[[int], object]) -> list[str]:
    """Ask after each conversation, and return all that it complained of."""
    appetite = Appetite()
    asked = []
    for number in range(CONVERSATIONS):
        asked.append(appetite.complaint())
        between(number)
    return [each for each in asked if each]


def test_files_that_stay_open_are_told_once(files: list[int]) -> None:
    told = complaints(lambda _: files.append(os.open(os.devnull, os.O_RDONLY)))
    assert told == ["files stay open, and more with each conversation"]


def test_files_that_were_opened_at_first_are_no_complaint(files: list[int]) -> None:
    def open_some(number: int) -> None:
        if number < 5:
            files.append(os.open(os.devnull, os.O_RDONLY))

    assert complaints(open_some) == []


def test_a_file_now_and_then_is_no_habit(files: list[int]) -> None:
    def open_rarely(number: int) -> None:
        if number % 3 == 0:
            files.append(os.open(os.devnull, os.O_RDONLY))

    assert complaints(open_rarely) == []


def test_a_file_that_a_cycle_holds_is_no_leak() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            self.itself = self

        def __del__(self) -> None:
            self.file.close()

    assert complaints(lambda _: Cycle()) == []


def test_nothing_that_grows_is_no_complaint() -> None:
    assert complaints(lambda _: None) == []


@pytest.mark.slow
def test_memory_that_stays_is_told_once() -> None:
    kept: list[bytes] = []
    told = complaints(lambda _: kept.append(b"\1" * (24 << 20)))
    assert told == ["memory stays, and more with each conversation"]


def test_a_little_memory_of_each_conversation_is_told_once() -> None:
    kept: list[bytes] = []
    told = complaints(lambda _: kept.append(b"\1" * (5 << 20)))
    assert told == ["memory stays, and more with each conversation"]


def test_memory_that_was_taken_at_first_is_no_complaint() -> None:
    kept: list[bytes] = []

    def keep_some(number: int) -> None:
        if number < 8:
            kept.append(b"\1" * (10 << 20))

    assert complaints(keep_some) == []


# -- the bench -------------------------------------------------------------------------


def test_a_leak_is_the_death_of_one_conversation() -> None:
    driver = small(close=lambda _: os.pipe())
    bench = bench_for(driver)

    def report() -> list[Held]:
        reports = work(bench, [Scripted(0, CONVERSATIONS)])
        return [each for _, each in reports if isinstance(each, Held)]

    *before, last = report()
    assert [each for each in before if each.died] == []
    assert last.died is not None
    assert last.died.error == "files stay open, and more with each conversation"
    assert last.died.access == "close"
    assert len(before) < CONVERSATIONS


def test_no_driver_of_ours_is_accused_of_a_leak() -> None:
    bench = bench_for(Framed)
    steps = (step("work", "source", 1), step("enter", "source", 2))
    assert [held for _ in range(12) if (held := bench.hold(steps)).died] == []
