"""The explorer: the shortest conversation, proved or bounded, and the same for all."""

from __future__ import annotations

import errno
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest

from vfiomig.conformance.catalogue import load_catalogue
from vfiomig.conformance.conversation.steps import step
from vfiomig.conformance.exploring import Exploration, ExplorationProgress, explore
from vfiomig.protocol.region import MigrationRegion

READ_STATE = step("read_device_state", "source")
STEPS = (
    READ_STATE,
    step("enter", "source", 3),
    step("read_data_offset", "source"),
    step("read_data_size", "source"),
    step("read_pending_bytes", "source"),
)
WIDTHS = {0: 4, 4: 4, 8: 8, 16: 8, 24: 8}
DATA = 32
ONLY = "v1/device-state/no-invalid-state-reported"
RULES = [rule for rule in load_catalogue() if rule.id == ONLY]


class NoData:
    """A device without state, whose streams are empty."""

    migration_region = MigrationRegion(40)

    def __init__(self) -> None:
        self.state = 1

    def read(self, offset: int, size: int) -> bytes:
        if WIDTHS.get(offset) != size:
            raise OSError(errno.EINVAL, "no register")
        return struct.pack("<I" if size == 4 else "<Q", self.register(offset))

    def register(self, offset: int) -> int:
        return {0: self.state, 16: DATA}.get(offset, 0)

    def write(self, offset: int, data: bytes) -> None:
        if WIDTHS.get(offset) != len(data) or (offset == 0 and data[0] > 4):
            raise OSError(errno.EINVAL, "not this")
        if offset == 0:
            self.state = data[0]
        elif offset != 4:
            raise OSError(errno.EINVAL, "read only")

    def reset(self) -> None:
        self.state = 1

    def close(self) -> None:
        """Hold nothing."""


class Rare(NoData):
    """device_state reads 101b after five accesses in one order, and only then."""

    ORDER = (0, 16, 24, 8, 0)

    def __init__(self) -> None:
        super().__init__()
        self.matched = 0

    def register(self, offset: int) -> int:
        goes_on = self.state == 3 and offset == self.ORDER[self.matched]
        self.matched = self.matched + 1 if goes_on else int(offset == 0)
        if self.matched == len(self.ORDER):
            self.matched = 0
            return 5
        return super().register(offset)


class Generating(NoData):
    """Something in it cannot be compared."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = (number for number in range(3))


class Counting(NoData):
    """It has no end of states."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def register(self, offset: int) -> int:
        self.reads += 1
        return super().register(offset)


class Remembering(NoData):
    """What one object did, the next one knows."""

    written = 0

    def __init__(self) -> None:
        super().__init__()
        self.before = Remembering.written

    def write(self, offset: int, data: bytes) -> None:
        Remembering.written += 1
        super().write(offset, data)


class Dying(NoData):
    """It raises what no errno stands for."""

    def register(self, offset: int) -> int:
        if offset == 24 and self.state == 3:
            raise ValueError("no buffer")
        return super().register(offset)


def explored(driver: type[NoData], *, depth: int = 9, states: int = 99) -> Exploration:
    return explore(
        driver, rules=RULES, depth=depth, states_limit=states, vocabulary=STEPS
    )


def test_a_rare_order_is_found_with_its_shortest_conversation() -> None:
    exploration = explored(Rare)
    (finding,) = exploration.outcome.findings
    assert finding.rule.id == ONLY
    assert finding.steps == (*STEPS[1:], READ_STATE)
    assert finding.history
    assert finding.token


def test_a_finite_driver_is_proved() -> None:
    exploration = explored(NoData)
    assert exploration.coverage.verdict == "proved"
    assert exploration.coverage.reasons == ()
    assert exploration.outcome.findings == []


def test_what_cannot_be_compared_is_the_reason_for_a_bound() -> None:
    coverage = explored(Generating).coverage
    assert coverage.verdict == "bounded"
    assert coverage.reasons == ("it holds a generator, which cannot be compared",)


def test_the_depth_is_honoured() -> None:
    coverage = explored(Counting, depth=2).coverage
    assert coverage.verdict == "bounded"
    assert coverage.depth == 2
    assert coverage.reasons == ("conversations end after 2 steps",)


def test_the_limit_of_states_is_honoured() -> None:
    coverage = explored(Counting, states=5).coverage
    assert coverage.reasons == ("there are more than 5 states",)


def test_state_outside_of_the_object_is_no_proof(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Remembering, "written", 0)
    (reason,) = explored(Remembering, depth=2).coverage.reasons[:1]
    assert reason.startswith("the same conversation came to another place")


def test_a_driver_that_dies_is_told_of_with_its_shortest_conversation() -> None:
    (death,) = explored(Dying).outcome.deaths
    assert death.error == "ValueError: no buffer"
    assert death.steps == (STEPS[1], STEPS[3])


def test_what_was_not_covered_is_told() -> None:
    coverage = explored(NoData, depth=1).coverage
    assert ("RUNNING", "enter(3)") in coverage.covered
    assert ("PRE_COPY", "enter(3)") in coverage.not_covered


@pytest.mark.slow
def test_an_executor_finds_the_same() -> None:
    alone = explored(Rare)
    with ThreadPoolExecutor(2) as executor:
        together = explore(
            Rare,
            rules=RULES,
            depth=9,
            states_limit=99,
            vocabulary=STEPS,
            executor=executor,
        )
    assert together.outcome.findings == alone.outcome.findings
    assert together.coverage == alone.coverage


def test_an_interrupt_leaves_what_was_found() -> None:
    def interrupt(progress: ExplorationProgress) -> None:
        if progress.findings:
            raise KeyboardInterrupt

    exploration = explore(Rare, rules=RULES, vocabulary=STEPS, watch=interrupt)
    assert exploration.outcome.is_interrupted
    assert exploration.outcome.findings
    assert exploration.coverage.reasons == ("it was interrupted",)


def test_what_checks_remember_is_in_the_key_of_a_thorough_exploration() -> None:
    exploration = explore(
        NoData, rules=RULES, vocabulary=STEPS[:2], is_thorough=True, depth=9
    )
    assert exploration.coverage.is_proved
    assert exploration.coverage.key[-1] == "what each check remembers"
