"""A mutant that needs no bench is found over a socket, by the rule that it breaks.

What is held is the first script in which it breaks one here, without its bench; both
ends of the socket are ours.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import pytest

from tests.unit.conformance.vfio_user.serving import WithoutBench, serving
from vfiomig.conformance.campaign import Plan
from vfiomig.conformance.catalogue import load_catalogue
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.museum import Exhibit, every_exhibit
from vfiomig.conformance.target import load_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vfiomig.conformance.holding import Bench, Held
    from vfiomig.host.device_ops import TrappedDriver

# What nobody sees who only has a socket, or lives to tell of in this process.
NO_ANSWER: Final = {"CloseFailsWhileSaving", "CloseRefusedWhileRunning"}
DEADLY: Final = {"InvalidStateHangs", "HugeSizeExits"}
DRIVERS: Final = [
    each
    for each in every_exhibit()
    if each.party == "vendor driver" and each.name not in NO_ANSWER | DEADLY
]


def bench_for(exhibit: Exhibit, make_driver: Callable[[], TrappedDriver]) -> Bench:
    rules = tuple(r.id for r in load_catalogue() if r.id in exhibit.violates)
    return Plan(rules=rules, accesses=100_000, data=64 << 20).bench(make_driver)


def first_that_breaks(bench: Bench) -> Held | None:
    for steps in scripts():
        held = bench.hold(steps)
        if held.died is not None:
            return None
        if held.broken:
            return held
        if bench.accesses_left <= 0 or bench.bytes_left <= 0:
            break
    return None


@contextlib.contextmanager
def connected(
    make_driver: Callable[[], TrappedDriver],
) -> Iterator[Callable[[], TrappedDriver]]:
    """Serve a driver three times; yield what makes drivers of the servers, in turn."""
    with serving(make_driver, devices=6) as paths:
        free = [load_target(f"vfio-user:{path}").make_driver for path in paths]
        yield lambda: free.pop(0)()


def require_found_over_a_socket(exhibit: Exhibit) -> None:
    make = load_target(exhibit.target).make_driver
    here = first_that_breaks(bench_for(exhibit, lambda: WithoutBench(make())))
    if here is None:
        return  # only a bench shows it
    with connected(make) as make_remote:
        there = bench_for(exhibit, make_remote).hold(here.steps)
    assert there.died is None
    assert there.broken.keys() == here.broken.keys()
    assert there.accesses == here.accesses


# All of them take minutes: tests/soak/test_museum.py.
@pytest.mark.slow
@pytest.mark.parametrize("exhibit", DRIVERS[::8], ids=lambda it: it.name)
def test_a_mutant_is_found_by_the_same_rules_over_a_socket(exhibit: Exhibit) -> None:
    require_found_over_a_socket(exhibit)
