"""Text from outside, made fit to stand inside a line of ours.

A name, a path or an exception's text may hold line ends, terminal escapes, or the
words of our own verdict.
"""

from __future__ import annotations

from typing import Final

# What a run may claim of itself is said by its report alone, and people and scripts
# look for these words: nothing that is quoted may say them.
CLAIM: Final = "state verified"
_QUOTED_CLAIM: Final = "state-verified"


def plain(text: str) -> str:
    r"""Return ``text`` on one line, with what does not print as ``\n``, ``\x1b``."""
    shown = "".join(c if c.isprintable() else _escaped(c) for c in text)
    return shown.replace(CLAIM, _QUOTED_CLAIM)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def quoted(text: str, *, longest: int = 60) -> str:
    """Return ``text`` plain, between quotes, cut after ``longest`` characters."""
    end = "..." if len(text) > longest else ""
    return f'"{plain(text[:longest])}{end}"'


def listed(words: list[str]) -> str:
    """Join words as a sentence does: ``a, b and c``."""
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last
