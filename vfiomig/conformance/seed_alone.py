"""What a seed makes is the same in every process, whatever that has imported."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hypothesis.internal.conjecture import providers

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def of_the_seed_alone() -> Iterator[None]:
    """Keep Hypothesis from numbers that it reads in whatever modules are imported.

    It likes to try constants of the user's code, and there is no setting for it: what
    a process has imported would decide which conversations a seed has.
    """
    constants = getattr(providers, "Constants", None)
    if constants is None:  # an older one, which does not
        yield
        return
    before = providers._get_local_constants
    nothing = constants()
    providers.CONSTANTS_CACHE.cache.clear()
    providers._get_local_constants = lambda: nothing
    try:
        yield
    finally:
        providers._get_local_constants = before
        providers.CONSTANTS_CACHE.cache.clear()
