"""Tokens: what was stored is what comes back, and all else is refused."""

from __future__ import annotations

import base64
import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfiomig.conformance.conversation.steps import (
    TOKEN_SCHEMA,
    Step,
    TokenError,
    read_token,
    step,
    token_of,
)

ARGUMENTS = st.one_of(st.text(max_size=20), st.integers(0, 2**64 - 1))
STEPS = st.lists(
    st.builds(Step, st.text(max_size=20), st.lists(ARGUMENTS, max_size=3).map(tuple)),
    max_size=8,
).map(tuple)


@settings(max_examples=25)
@given(st.text(max_size=30), STEPS)
def test_a_token_is_read_as_it_was_written(rule: str, steps: tuple[Step, ...]) -> None:
    assert read_token(token_of(rule, steps)) == (rule, steps)


@settings(max_examples=25)
@given(STEPS)
def test_a_token_is_one_word_of_a_command_line(steps: tuple[Step, ...]) -> None:
    token = token_of("v1/x", steps)
    assert token.replace("-", "a").replace("_", "a").isalnum()


@given(st.text(max_size=60))
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(TokenError):
        read_token(text)


@given(st.data())
def test_a_token_that_was_cut_is_refused(data: st.DataObject) -> None:
    token = token_of("v1/x", (step("enter", "source", 2), step("drain", "source")))
    cut = token[: data.draw(st.integers(0, len(token) - 2))]
    with pytest.raises(TokenError):
        read_token(cut)


def token_around(plain: object) -> str:
    packed = zlib.compress(json.dumps(plain).encode())
    return base64.urlsafe_b64encode(packed).decode()


def test_another_schema_is_named() -> None:
    text = f"a token of schema 2, and only {TOKEN_SCHEMA} can be read"
    with pytest.raises(TokenError, match=text):
        read_token(token_around([2, "v1/x", []]))


@pytest.mark.parametrize("plain", [{}, [], [1], 1, None, [1, "r", 5], [1, "r", [[]]]])
def test_what_is_packed_must_be_steps(plain: object) -> None:
    with pytest.raises(TokenError, match="is no replay token"):
        read_token(token_around(plain))


def test_a_step_is_shown_as_a_call() -> None:
    assert str(step("enter", "source", 2)) == "enter('source', 2)"
    assert str(step("keep_short")) == "keep_short()"
