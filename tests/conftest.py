"""Profiles of hypothesis: the same examples on every run, or many more of them.

`make check` takes fewer than `make test`, which has "quick".

And one thing for speed.
"""

from __future__ import annotations

import gc
import os

from hypothesis import settings

# No deadline: two cores under load are slow at times, and that is no finding.
# What `make test` takes: more of them are for `make soak`.
settings.register_profile(
    "quick", derandomize=True, deadline=None, max_examples=60, print_blob=True
)
settings.register_profile("check", settings.get_profile("quick"), max_examples=25)
settings.register_profile("thorough", deadline=None, max_examples=5000, print_blob=True)
settings.register_profile("soak", settings.get_profile("thorough"))  # for `make soak`
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_collection() -> None:
    """Let the collector of garbage rest while tests are collected: none is garbage."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave all tests that were collected out of its rounds: they stay to the end."""
    gc.freeze()
    gc.enable()
