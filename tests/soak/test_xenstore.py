"""XenStore and its model over many lives, and how much was in flight in them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from tests.property.xenstore_steps import some_step, take

if TYPE_CHECKING:
    import pytest

SEQUENCES: Final = 10_000
SHORTEST, LONGEST = 15, 45


def test_ten_thousand_sequences_differ_nowhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    operations = open_transactions = 0
    for seed in range(SEQUENCES):
        rng = random.Random(seed)
        length = rng.randint(SHORTEST, LONGEST)
        try:
            taken = take(some_step(rng) for _ in range(length))
        except AssertionError as error:
            error.add_note(f"sequence {seed}")
            raise
        operations += taken.operations
        open_transactions += taken.open_transactions
    mean, open_at_once = operations / SEQUENCES, open_transactions / operations
    with capsys.disabled():
        print(  # noqa: T201 -- a soak says what it soaked
            f"\n{SEQUENCES} sequences of {mean:.1f} operations, with "
            f"{open_at_once:.2f} transactions open, on average: no difference"
        )
    assert mean >= 29.5
    assert open_at_once >= 1.8
