"""A conversation as data: steps that can be stored, shrunk, and taken again.

A step is the name of a method of `Conversation` and its arguments, plain values.  A
replay token holds the rule and the steps, not the seed that they came from.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from typing import Final, NamedTuple

from vfiomig.protocol.errors import VfiomigError

TOKEN_SCHEMA: Final = 1

Argument = str | int


class Step(NamedTuple):
    """One thing that the bench or the user application does."""

    name: str
    arguments: tuple[Argument, ...] = ()

    def __str__(self) -> str:
        """Return the step as a call."""
        return f"{self.name}({', '.join(map(repr, self.arguments))})"


class TokenError(VfiomigError):
    """A replay token that cannot be read."""


def step(name: str, *arguments: Argument) -> Step:
    """Return a step."""
    return Step(name, arguments)


def token_of(rule: str, steps: tuple[Step, ...]) -> str:
    """Return the token that plays ``steps`` again and expects ``rule`` to break."""
    plain = [[each.name, *each.arguments] for each in steps]
    text = json.dumps([TOKEN_SCHEMA, rule, plain], separators=(",", ":"))
    packed = zlib.compress(text.encode(), 9)
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def read_token(token: str) -> tuple[str, tuple[Step, ...]]:
    """Return rule and steps of a token.

    Raises:
        TokenError: it is none, or one of another schema.
    """
    try:
        packed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        schema, rule, plain = json.loads(zlib.decompress(packed))
        if schema != TOKEN_SCHEMA:
            message = f"a token of schema {schema}, and only {TOKEN_SCHEMA} can be read"
            raise TokenError(message)
        return str(rule), tuple(Step(name, tuple(rest)) for name, *rest in plain)
    except (binascii.Error, zlib.error, ValueError, TypeError) as error:
        message = f"{token[:40]!r} is no replay token: {error}"
        raise TokenError(message) from None
