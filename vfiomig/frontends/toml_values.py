"""What a key of a TOML file may hold, as data: parsers and the tables made of them.

Rule 1: a parser takes what tomllib gave for a key and returns what the program works
with, or raises ``ValueError`` with a reason that can follow "KEY: ".  One that looks
into tables knows the place of what is wrong, and raises ``BadKeyError``.

Rule 2: TOML's ``true`` is an ``int`` to Python.  Here it is not.
"""

from __future__ import annotations

import datetime
import difflib
import errno
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from vfiomig.frontends.plain_text import plain, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

HIGHEST: Final = 2**63 - 1  # what a file offset, and TOML's own integer, can hold

_SIZE_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TIME_UNITS: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_SIZE: Final = re.compile(r"([0-9]{1,19})([KMGT]?)")
_TIME: Final = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?)(ns|us|ms|s)")
_ERRNO_NAME: Final = {
    name: code
    for name, code in vars(errno).items()
    if name.startswith("E") and isinstance(code, int)
}

Parser: TypeAlias = "Callable[[object], object]"


class BadKeyError(ValueError):
    """What is wrong with a key: ``place`` is its path inside the value parsed."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(reason)
        self.place = place
        self.reason = reason


class _Required(NamedTuple):
    """Stands for the default of a key that has none."""


REQUIRED: Final = _Required()


class Key(NamedTuple):
    """A key of a table: its parser, and what it is when it is not there."""

    parse: Parser
    default: object = None


def shown(value: object) -> str:
    """Return a TOML value for a message: as it is written, if that is short."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return quoted(value)
        case dict():
            return "a table"
        case list():
            return "a list"
        case datetime.date() | datetime.time():
            return value.isoformat()
        # Python refuses to write out an int of more than 4300 digits.
        case int() if abs(value) > 10**30:
            return "a number of more than 30 digits"
        case _:
            return plain(str(value))


# -- one value -------------------------------------------------------------------------


def whole(low: int, high: int = HIGHEST) -> Parser:
    """Return a parser of whole numbers from ``low`` to ``high``."""

    def parse(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            message = f"must be a whole number, not {shown(value)}"
            raise ValueError(message)
        return _within(low, value, high, value)

    return parse


def size(low: int) -> Parser:
    """Return a parser of bytes: a whole number, or text with K, M, G or T."""

    def parse(value: object) -> int:
        if isinstance(value, str) and (found := _SIZE.fullmatch(value)):
            return _within(low, int(found[1]) * _SIZE_UNITS[found[2]], HIGHEST, value)
        if not isinstance(value, int) or isinstance(value, bool):
            message = f'must be a size such as "16M" or 4096, not {shown(value)}'
            raise ValueError(message)
        return _within(low, value, HIGHEST, value)

    return parse


def duration(value: object) -> int:
    """Return nanoseconds from text with ns, us, ms or s."""
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        message = f'must be a time such as "100us" or "1.5s", not {shown(value)}'
        raise ValueError(message)
    time = Fraction(found[1]) * _TIME_UNITS[found[2]]
    if time.denominator != 1:
        message = f"must be whole nanoseconds, not {shown(value)}"
        raise ValueError(message)
    return _within(0, int(time), HIGHEST, value)


def duration_up_to(seconds: int) -> Parser:
    """Return a parser of times that are not longer."""

    def parse(value: object) -> int:
        time = duration(value)
        if time > seconds * _TIME_UNITS["s"]:
            message = f"must be at most {seconds}s, not {shown(value)}"
            raise ValueError(message)
        return time

    return parse


def one_of(*choices: str) -> Parser:
    """Return a parser of text that is one of ``choices``."""

    def parse(value: object) -> str:
        if isinstance(value, str) and value in choices:
            return value
        known = ", ".join(f'"{choice}"' for choice in choices)
        hint = nearest(value, choices) if isinstance(value, str) else ""
        message = f"must be one of {known}, not {shown(value)}{hint}"
        raise ValueError(message)

    return parse


def text(pattern: str, what: str) -> Parser:
    """Return a parser of text that ``pattern`` matches whole; ``what`` says it."""
    expression = re.compile(pattern)

    def parse(value: object) -> str:
        if isinstance(value, str) and expression.fullmatch(value):
            return value
        message = f"must be {what}, not {shown(value)}"
        raise ValueError(message)

    return parse


def flag(value: object) -> bool:
    """Return a truth value."""
    if not isinstance(value, bool):
        message = f"must be true or false, not {shown(value)}"
        raise ValueError(message)
    return value


def list_of(parse: Parser, *, least: int, most: int) -> Parser:
    """Return a parser of lists of ``least`` to ``most`` values, each by ``parse``."""

    def parse_all(value: object) -> tuple[object, ...]:
        if not isinstance(value, list):
            message = f"must be a list, not {shown(value)}"
            raise ValueError(message)
        if not least <= len(value) <= most:
            message = f"must have {least} to {most} values, not {len(value)}"
            raise ValueError(message)
        return tuple(
            _parsed(parse, each, f"[{number}]") for number, each in enumerate(value)
        )

    return parse_all


def errno_code(value: object) -> int:
    """Return the number of an errno, from its name or the number itself."""
    if isinstance(value, str) and (code := _ERRNO_NAME.get(value)) is not None:
        return code
    if type(value) is int and value in errno.errorcode:
        return value
    hint = nearest(value, _ERRNO_NAME) if isinstance(value, str) else ""
    message = f'must be an errno such as "EIO" or 5, not {shown(value)}{hint}'
    raise ValueError(message)


def _within(low: int, number: int, high: int, given: object) -> int:
    if number < low:
        message = f"must be at least {low}, not {shown(given)}"
        raise ValueError(message)
    if number > high:
        most = "2^63 - 1" if high == HIGHEST else str(high)
        message = f"must be at most {most}, not {shown(given)}"
        raise ValueError(message)
    return number


def nearest(word: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    """Return ``; did you mean "..."?`` if one of ``known`` is near, else nothing."""
    close = difflib.get_close_matches(word[:100], known, n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


# -- tables ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Parses a table whose keys are ``keys``, and gives them to ``make`` by name.

    ``written`` is how the table begins in a file, for a message.
    """

    keys: Mapping[str, Key]
    make: Callable[..., object]
    written: str

    def __call__(self, value: object) -> object:
        """Return what ``make`` returns; raises BadKeyError."""
        if not isinstance(value, dict):
            message = f"must be a table ({self.written}), not {shown(value)}"
            raise ValueError(message)
        for name in value:
            if name not in self.keys:
                hint = nearest(name, self.keys) or f"; known: {', '.join(self.keys)}"
                raise BadKeyError(plain(name[:60]), f"unknown key{hint}")
        return self.make(**dict(self._values(value)))

    def _values(self, table: dict[str, object]) -> Iterator[tuple[str, object]]:
        for name, key in self.keys.items():
            if name in table:
                yield name, _parsed(key.parse, table[name], name)
            elif key.default is REQUIRED:
                raise BadKeyError(name, f"is missing{_how_written(key.parse)}")
            else:
                yield name, key.default


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Parses a list of tables into a tuple; ``least`` is how many there must be."""

    table: Table
    least: int = 0

    def __call__(self, value: object) -> tuple[object, ...]:
        """Return what the table's ``make`` returns for each; raises BadKeyError."""
        if not isinstance(value, list):
            message = f"must be written {self.table.written}, not as {shown(value)}"
            raise ValueError(message)
        if len(value) < self.least:
            message = f"at least {self.least} must be there ({self.table.written})"
            raise ValueError(message)
        return tuple(
            _parsed(self.table, table, f"[{number}]")
            for number, table in enumerate(value)
        )


def _parsed(parse: Parser, value: object, place: str) -> object:
    try:
        return parse(value)
    except BadKeyError as problem:
        dot = "" if problem.place.startswith("[") else "."
        raise BadKeyError(f"{place}{dot}{problem.place}", problem.reason) from None
    except ValueError as error:
        raise BadKeyError(place, str(error)) from None


def _how_written(parse: Parser) -> str:
    return f" ({parse.table.written})" if isinstance(parse, Tables) else ""


def key_paths(table: Table, prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Yield every key that holds a value, by its path: ``link.flip.byte``."""
    for name, key in table.keys.items():
        match key.parse:
            case Table() as inner:
                yield from key_paths(inner, f"{prefix}{name}.")
            case Tables() as several:
                yield from key_paths(several.table, f"{prefix}{name}.")
            case _:
                yield f"{prefix}{name}", key
