"""How many steps of a stride end in a range of pages: counted, not walked.

Number k ends at ``k * step`` modulo the number of pages.  Sums of whole parts of lines
are taken as Euclid's algorithm goes, so that the count takes as many steps as that,
however many numbers there are.
"""

from __future__ import annotations


def steps_into(
    low: int, high: int, *, first: int, end: int, step: int, pages: int
) -> int:
    """Return how many of the numbers ``first`` to ``end`` step into ``low``..``high``.

    Both ranges are without their ends; 0 <= low <= high <= pages, and a step is not
    negative.
    """
    return (
        _below(high, end, step, pages)
        - _below(high, first, step, pages)
        - (_below(low, end, step, pages) - _below(low, first, step, pages))
    )


def _below(limit: int, count: int, step: int, pages: int) -> int:
    """Return how many of the first ``count`` numbers end below page ``limit``."""
    # The whole part grows by one earlier where the rest reaches the limit.
    reached = _whole_parts(count, pages, step, pages - limit)
    return _whole_parts(count, pages, step, pages) - reached


def _whole_parts(count: int, pages: int, step: int, offset: int) -> int:
    """Return the sum of ``(step * k + offset) // pages`` for k below ``count``."""
    total = 0
    while True:
        whole, step = divmod(step, pages)
        total += whole * (count * (count - 1) // 2)
        whole, offset = divmod(offset, pages)
        total += whole * count
        # The lattice points below the line, counted along its other axis.
        last = step * count + offset
        if last < pages:
            return total
        count, offset = divmod(last, pages)
        step, pages = pages, step
