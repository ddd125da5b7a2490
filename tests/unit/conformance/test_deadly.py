"""Accesses that killed workers are known by their words, and end a conversation."""

from __future__ import annotations

import pytest

from vfiomig.conformance.deadly import DeadlyAccessError, avoiding, words_of

Asked = list[tuple[str, int, int]]


@pytest.mark.parametrize(
    ("access", "words"),
    [
        (("read", 16, 8), "read of 8 bytes at 0x10"),
        (("write", 0, 4), "write of 4 bytes at 0x0"),
        (("reset", 0, 0), "reset"),
        (("close", 0, 0), "close"),
    ],
)
def test_an_access_is_told_in_words(access: tuple[str, int, int], words: str) -> None:
    assert words_of(*access) == words


def test_a_deadly_access_is_not_begun() -> None:
    asked: Asked = []
    begin = avoiding(
        frozenset({"read of 8 bytes at 0x10"}), lambda *access: asked.append(access)
    )
    with pytest.raises(DeadlyAccessError):
        begin("read", 16, 8)
    assert asked == []


@pytest.mark.parametrize(
    "access", [("read", 16, 4), ("read", 24, 8), ("write", 16, 8), ("reset", 0, 0)]
)
def test_all_others_are(access: tuple[str, int, int]) -> None:
    asked: Asked = []
    begin = avoiding(
        frozenset({"read of 8 bytes at 0x10"}), lambda *each: asked.append(each)
    )
    begin(*access)
    assert asked == [access]


def test_where_nothing_is_deadly_nothing_stands_between() -> None:
    def begin(*_: object) -> None:
        """Be told."""

    assert avoiding(frozenset(), begin) is begin
