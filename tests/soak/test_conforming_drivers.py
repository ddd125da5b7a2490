"""The suite accuses no conforming driver, whatever the seed.

Scripts know no seed and are held once for each driver; what differs from seed to seed
is generated.  The two processes of the executor take the jobs of one driver in turns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from vfiomig.conformance.effort import EFFORTS
from vfiomig.conformance.processes import processes
from vfiomig.conformance.suite import run_suite_on
from vfiomig.vendor import conforming

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

PROCESSES: Final = 2
TARGETS: Final = (
    "reference",
    "serial",
    "opaque",
    "accelerator,memory=1M",
    "reference,data-section=split",
    *(f"vfiomig.vendor.conforming:{name}" for name in conforming.__all__),
)


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with processes(PROCESSES) as pool:
        assert pool is not None
        yield pool


@pytest.mark.parametrize(("effort", "seeds"), [("quick", 200), ("normal", 10)])
@pytest.mark.parametrize("target", TARGETS)
def test_a_conforming_driver_is_not_accused(
    target: str, effort: str, seeds: int, executor: Executor
) -> None:
    outcome = run_suite_on(target, executor, effort=EFFORTS[effort], seeds=seeds)
    found = [f"{each.rule.id} {each.token}" for each in outcome.findings]
    died = [f"{each.access}: {each.error} {each.token}" for each in outcome.deaths]
    assert (found, died) == ([], [])
    assert outcome.conversations >= seeds * EFFORTS[effort].conversations
