"""Accesses by which a driver took its worker with it, and which are not made again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Begin = Callable[[str, int, int], None]


class DeadlyAccessError(Exception):
    """The conversation ends here: this access killed workers before."""


def words_of(access: str, offset: int, size: int) -> str:
    """Say what a driver was asked."""
    return f"{access} of {size} bytes at {offset:#x}" if size else access


def avoiding(deadly: frozenset[str], begin: Begin) -> Begin:
    """Return ``begin`` for conversations that end where a deadly access would be."""

    def begin_if_safe(access: str, offset: int, size: int) -> None:
        if words_of(access, offset, size) in deadly:
            raise DeadlyAccessError
        begin(access, offset, size)

    return begin_if_safe if deadly else begin
