"""Every mutant is found at normal effort, by a rule that it breaks."""

from __future__ import annotations

import pytest

from vfiomig.conformance.museum import Exhibit, every_exhibit, try_exhibit


@pytest.mark.parametrize("exhibit", every_exhibit(), ids=lambda it: it.name)
def test_a_mutant_is_found(exhibit: Exhibit) -> None:
    found = try_exhibit(exhibit, effort="normal", seed=1)
    assert found.is_found, (sorted(exhibit.violates), sorted(found.broken), found.died)
