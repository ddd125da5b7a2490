"""How much is tried, and in which jobs.

Effort is counted in conversations, never in seconds: the same seed gives the same
findings, in one process or in many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.campaign import Plan
from vfiomig.conformance.catalogue import Rule, load_catalogue
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.holding import Generated, Job, Scripted

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is tried: generated conversations, accesses and bytes of data in all.

    Behind the last two, conversations go on, but are kept short; with a large state a
    job ends early (see `holding.Bench`).
    """

    conversations: int
    accesses: int
    data: int


EFFORTS: Final = {
    "quick": Effort(conversations=20, accesses=150_000, data=512 << 20),
    "normal": Effort(conversations=300, accesses=1_000_000, data=2 << 30),
    "thorough": Effort(conversations=3000, accesses=20_000_000, data=16 << 30),
}

_BLOCK: Final = 10  # generated conversations in a job
_SCRIPTS_BLOCK: Final = 24


def planned(
    effort: Effort, seeds: range, rules: Sequence[Rule] | None
) -> tuple[Plan, list[Job]]:
    """Return what all jobs have in common, and the jobs: scripts first."""
    total = len(scripts())
    jobs: list[Job] = [
        Scripted(first, min(first + _SCRIPTS_BLOCK, total))
        for first in range(0, total, _SCRIPTS_BLOCK)
    ]
    blocks = -(-effort.conversations // _BLOCK)
    of_one_seed = len(jobs) + blocks
    jobs += [
        Generated(seed * 1_000_003 + number, _BLOCK)
        for seed in seeds
        for number in range(blocks)
    ]
    plan = Plan(
        rules=tuple(rule.id for rule in (load_catalogue() if rules is None else rules)),
        accesses=effort.accesses // of_one_seed,
        data=effort.data // of_one_seed,
    )
    return plan, jobs
