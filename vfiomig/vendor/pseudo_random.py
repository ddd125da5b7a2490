"""The pseudo-random numbers behind the guest traffic of the built-in devices.

A linear congruential generator modulo 2**64: its state is one number, so a device
can keep it in its own memory, where it migrates with the rest.  Source and
destination then go on with the same traffic.
"""

from __future__ import annotations

from typing import Final

# Knuth's MMIX.  With an odd increment and a multiplier of 1 modulo 4 the period is
# full for every power of two and every start, 0 included.
MULTIPLIER: Final = 6364136223846793005
INCREMENT: Final = 1442695040888963407


def following(state: int, modulus: int = 1 << 64) -> int:
    """Return the state after ``state``; ``modulus`` is a power of two.

    The high bits are the random ones: bit n repeats after 2**(n + 1) states.
    """
    return (state * MULTIPLIER + INCREMENT) % modulus
