"""Profiles of hypothesis: the same examples on every run, or many more of them."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: two cores under load are slow at times, and that is no finding.
settings.register_profile("quick", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("thorough", deadline=None, max_examples=5000, print_blob=True)
settings.register_profile("soak", settings.get_profile("thorough"))  # for `make soak`
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
