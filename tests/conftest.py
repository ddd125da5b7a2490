"""Profiles of hypothesis: the same examples on every run, or many more of them."""

from __future__ import annotations

from hypothesis import settings

# No deadline: two cores under load are slow at times, and that is no finding.
settings.register_profile("check", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("soak", deadline=None, max_examples=5000, print_blob=True)
settings.load_profile("check")
