"""Streams that no destination may run with unawares, and how to tell that one did.

A driver owes an error for what is incomplete, inconsistent or invalid (V1-TRANS-27).
But a stream may carry no redundancy at all, and then damage makes another state's
stream of it, which nobody can tell from a true one.  The device itself is asked: what
it saves again, behind the damaged stream, shows whether it took the damage as state.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Final

# A bit of the first chunk, or of the last, where a head may be.
HEADS: Final = ("a bit of its head flipped", "a bit of its last head flipped")
_FLIPPED: Final = ("a bit flipped", *HEADS)

# How a stream is damaged, and the rule (by origin) that running with it breaks.
DAMAGES: Final = (
    "empty",
    "without its end",
    "without its start",
    "cut short",
    *_FLIPPED,
    "foreign",
)

# All is there, but not as it was: a driver may refuse that (V1-RES-04).
REARRANGEMENTS: Final = ("reordered", "split", "merged")

_OTHER_RULES: Final = {
    "foreign": "V1-RES-08",
    **dict.fromkeys(REARRANGEMENTS, "V1-RES-04"),
}
_NEVER: Final = repeat(0)
_SAME_LENGTH: Final = (*_FLIPPED, "foreign")


@dataclass(frozen=True, slots=True)
class Damage:
    """What a destination was given in place of the source's stream."""

    how: str
    chunks: list[bytes]
    whole: list[bytes]

    @property
    def held_back(self) -> list[bytes]:
        """What is missing at its end."""
        return self.whole[len(self.chunks) :]

    @property
    def place(self) -> str:
        """Where the first byte is that differs, where all others are there."""
        given, true = b"".join(self.chunks), b"".join(self.whole)
        if len(given) != len(true) or given == true:
            return ""
        first = next(
            n for n, same in enumerate(map(operator.eq, given, true)) if not same
        )
        return f", byte {first} of {len(true)}"

    @property
    def origin(self) -> str:
        """The rule that a driver breaks which runs with it, in another state."""
        return _OTHER_RULES.get(self.how, "V1-TRANS-27")

    def is_state(self, again: list[bytes], control: list[bytes]) -> bool:
        """Tell whether the device took the damage as state, to the last byte.

        ``again`` is what it saved behind the damaged stream, ``control`` what another
        device saved behind the true one.  A checksum, a count or a magic number that
        the driver has makes them differ in more than the byte that was hit.
        """
        saved, given = b"".join(again), b"".join(self.chunks)
        true, whole = b"".join(self.whole), b"".join(control)
        if sorted(again) == sorted(self.chunks):  # in whatever order it likes
            return True
        # What is other at each saving, such as a count of migrations, is no state.
        by_itself = map(operator.ne, true, whole) if len(true) == len(whole) else ()
        if len(saved) == len(given) and all(
            map(operator.le, map(operator.ne, saved, given), chain(by_itself, _NEVER))
        ):
            return True
        if self.how not in _SAME_LENGTH or len(saved) != len(whole):
            return False
        changed = sum(map(operator.ne, saved, whole))
        return self.how in _FLIPPED and changed <= 1


def damaged(chunks: list[bytes], how: str, place: int) -> Damage | None:
    """Return a damaged stream; None where it cannot be made, or is the same.

    ``place`` chooses which byte or chunk it hits, or how many more chunks are missing.
    """
    filled = [chunk for chunk in chunks if chunk]
    if not filled:
        return None
    other = _damaged(list(filled), how, place)
    return Damage(how, other, filled) if other is not None and other != filled else None


def _damaged(chunks: list[bytes], how: str, place: int) -> list[bytes] | None:
    number = place % len(chunks)
    match how:
        case "empty":
            return []
        case "without its end":
            return chunks[: -1 - place] or chunks[:-1]
        case "without its start":
            return chunks[1:]
        case "cut short":
            half = chunks[-1][: len(chunks[-1]) // 2]
            return [*chunks[:-1], half] if half else chunks[:-1]
        case "a bit flipped":
            hit = _flipped(chunks[number], place // len(chunks))
            return [*chunks[:number], hit, *chunks[number + 1 :]]
        case "a bit of its head flipped":
            return [_flipped(chunks[0], place), *chunks[1:]]
        case "a bit of its last head flipped":
            return [*chunks[:-1], _flipped(chunks[-1], place)]
        case "foreign":
            return [_foreign(len(chunk), place) for chunk in chunks]
        case "reordered":
            return chunks[::-1]
        case "split":
            chunk = chunks[number]
            middle = len(chunk) // 2
            parts = [part for part in (chunk[:middle], chunk[middle:]) if part]
            return [*chunks[:number], *parts, *chunks[number + 1 :]]
        case "merged":
            return [chunks[0] + chunks[1], *chunks[2:]] if len(chunks) > 1 else None
        case _:
            raise ValueError(how)


def _foreign(size: int, place: int) -> bytes:
    pattern = bytes((place + 7 * n) % 256 for n in range(256))  # and then from anew
    return (pattern * (size // len(pattern) + 1))[:size]


def _flipped(chunk: bytes, bit: int) -> bytes:
    place, mask = bit // 8 % len(chunk), 1 << bit % 8
    return chunk[:place] + bytes([chunk[place] ^ mask]) + chunk[place + 1 :]
