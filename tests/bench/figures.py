"""Measuring a figure: the best of several runs, as a ratio to something beside it.

Both are measured in turns in one run, so that what a shared machine does to one it
does to the other.  Nothing here asserts: a figure is read, not tested.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def best_of(*measures: Callable[[], float], runs: int = 7) -> list[float]:
    """Run all measures in turns and return the best time of each, in seconds."""
    best = [float("inf")] * len(measures)
    gc.collect()
    gc.disable()
    try:
        for _ in range(runs):
            for number, measure in enumerate(measures):
                best[number] = min(best[number], measure())
    finally:
        gc.enable()
    return best


def timed(action: Callable[[], object], times: int = 1) -> float:
    """Return the seconds that an action takes, done so many times."""
    began = time.perf_counter()
    for _ in range(times):
        action()
    return time.perf_counter() - began


def show(figure: str, ratio: float, limit: float, beside: str) -> None:
    """Print one figure."""
    verdict = "ok" if ratio <= limit else "OVER"
    print(f"\n{figure}: {ratio:.2f} times {beside} (at most {limit:g}): {verdict}")
