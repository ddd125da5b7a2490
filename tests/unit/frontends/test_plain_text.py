"""Text from outside stays on its line and claims nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfiomig.frontends.plain_text import CLAIM, listed, plain, quoted

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a name", "a name"),
        ("größer €", "größer €"),
        ("two\nlines", r"two\nlines"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202egnp", r"\u202egnp"),  # what follows would be read backwards
        ("\udcff", r"\udcff"),  # a byte of a path that is no UTF-8
        ("state verified", "state-verified"),
    ],
)
def test_what_does_not_print_is_written_out(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(ANY_TEXT)
def test_plain_text_is_one_printable_line_of_utf8(text: str) -> None:
    assert plain(text).isprintable()
    assert plain(text).encode().decode() == plain(text)


@given(ANY_TEXT, ANY_TEXT)
def test_plain_text_never_makes_the_claim(before: str, after: str) -> None:
    assert CLAIM not in plain(before + CLAIM + after)


def test_a_long_text_is_cut_between_its_quotes() -> None:
    assert quoted("x" * 100, longest=3) == '"xxx..."'
    assert quoted("xxx", longest=3) == '"xxx"'


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")],
)
def test_words_are_listed_as_in_a_sentence(words: list[str], sentence: str) -> None:
    assert listed(words) == sentence
