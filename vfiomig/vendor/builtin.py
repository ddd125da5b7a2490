"""The devices that come with vfiomig, and the options each of them has.

Rule 1: an option is a name and a text; ``parse`` makes it a value or raises
``ValueError`` with a reason that a person can act on.

Rule 2: the table is data.  Whoever reads targets looks up names and parses texts;
`Builtin.make` is given values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.vendor.accelerator import MAX_MEMORY, AcceleratorModel
from vfiomig.vendor.opaque import OpaqueModel
from vfiomig.vendor.paged_memory import PAGE_SIZE
from vfiomig.vendor.pci_reference import PciReferenceDriver
from vfiomig.vendor.reference import DATA_SECTION_KINDS, ReferenceDriver
from vfiomig.vendor.scratchpad import ScratchpadModel
from vfiomig.vendor.serial import MAX_PORTS, SerialModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# A chunk holds a page and the headers around it, so one page is not enough.
_MIN_SECTION: Final = 2 * PAGE_SIZE
_MAX_SECTION: Final = 1 << 30

_SIZE: Final = re.compile(r"([0-9]+)([KMG]?)", re.ASCII | re.IGNORECASE)
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
# Longer numbers are no sizes, and Python refuses to read the longest at all.
_MAX_DIGITS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a built-in device; ``default`` is a text, as ``parse`` takes."""

    parse: Callable[[str], int | str | None]
    default: str
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Builtin:
    """A built-in device.

    ``make`` takes the values of all options as keywords, with ``_`` for the ``-`` in
    a name, and returns a fresh driver.  It raises ``ValueError`` if they do not go
    together.
    """

    summary: str
    options: Mapping[str, Option]
    make: Callable[..., ReferenceDriver]


def parse_size(text: str) -> int:
    """Return the bytes that ``text`` says: 4096, 64K, 16M, 1G.

    Raises ``ValueError`` for anything else.
    """
    match = _SIZE.fullmatch(text)
    if match is None or len(match[1]) > _MAX_DIGITS:
        message = f"{text!r} is not a size: a number of bytes, or with K, M or G"
        raise ValueError(message)
    return int(match[1]) * _UNITS[match[2].upper()]


def _size(least: int, most: int, *, unit: int = PAGE_SIZE) -> Callable[[str], int]:
    """Return a parser of sizes from ``least`` to ``most`` in steps of ``unit``."""

    def parse(text: str) -> int:
        size = parse_size(text)
        if not least <= size <= most:
            message = f"{text} is not from {_in_words(least)} to {_in_words(most)}"
            raise ValueError(message)
        if size % unit:
            message = f"{text} is not a multiple of {_in_words(unit)}"
            raise ValueError(message)
        return size

    return parse


def _in_words(size: int) -> str:
    for name in "GMK":
        if size and size % _UNITS[name] == 0:
            return f"{size // _UNITS[name]}{name}"
    return str(size)


def _parse_spread(text: str) -> int | None:
    return None if text == "all" else _size(PAGE_SIZE, MAX_MEMORY)(text)


def _parse_section(text: str) -> int | None:
    return None if text == "auto" else _size(_MIN_SECTION, _MAX_SECTION)(text)


def _parse_ports(text: str) -> int:
    allowed = [str(ports) for ports in range(1, MAX_PORTS + 1)]
    if text not in allowed:
        message = f"{text!r} is not a number of ports: {' or '.join(allowed)}"
        raise ValueError(message)
    return int(text)


def _parse_log(text: str) -> str | None:
    if not text:
        message = "a log is a path, or none"
        raise ValueError(message)
    return None if text == "none" else text


def _parse_data_section(text: str) -> str:
    if text not in DATA_SECTION_KINDS:
        message = f"{text!r} is not one of {', '.join(DATA_SECTION_KINDS)}"
        raise ValueError(message)
    return text


def _make_reference(*, state: int, section: int, data_section: str) -> ReferenceDriver:
    model = ScratchpadModel(state)
    return ReferenceDriver(model, section=section, data_section=data_section)


def _make_serial(
    *, ports: int, log: str | None, section: int, data_section: str
) -> ReferenceDriver:
    model = SerialModel(ports, log=log)
    return PciReferenceDriver(model, section=section, data_section=data_section)


def _make_accelerator(
    *, memory: int, spread: int | None, section: int | None, data_section: str
) -> ReferenceDriver:
    if section is None:
        # Large buffers cost less a byte, as long as a cache holds two of them; small
        # ones let a small memory have rounds.
        section = max(512 << 10, min(4 << 20, memory // 64 // PAGE_SIZE * PAGE_SIZE))
    model = AcceleratorModel(memory, spread=spread)
    return PciReferenceDriver(model, section=section, data_section=data_section)


def _make_opaque(*, state: int, section: int, data_section: str) -> ReferenceDriver:
    model = OpaqueModel(state)
    return ReferenceDriver(model, section=section, data_section=data_section)


def _section_options(section: str, data_section: str) -> dict[str, Option]:
    """Return the options that all devices have."""
    return {
        "section": Option(
            parse=_size(_MIN_SECTION, _MAX_SECTION),
            default=section,
            summary="bytes of the data section, whole pages",
        ),
        "data-section": Option(
            parse=_parse_data_section,
            default=data_section,
            summary=f"how it is reached: {', '.join(DATA_SECTION_KINDS)}",
        ),
    }


BUILTIN: Final[Mapping[str, Builtin]] = {
    "reference": Builtin(
        summary="obeys every rule; a little memory that pre-copy sends",
        options={
            "state": Option(
                parse=_size(PAGE_SIZE, MAX_MEMORY),
                default="64K",
                summary="bytes of its memory, whole pages",
            ),
            **_section_options("16K", "mapped"),
        },
        make=_make_reference,
    ),
    "serial": Builtin(
        summary="a card with 16550 UARTs; small state, all of it in stop-and-copy",
        options={
            "ports": Option(
                parse=_parse_ports,
                default="2",
                summary="1, looped back, or 2, wired to each other",
            ),
            "log": Option(
                parse=_parse_log,
                default="none",
                summary="a path: what port N sends is appended to PATH.N",
            ),
            **_section_options("64K", "trapped"),
        },
        make=_make_serial,
    ),
    "accelerator": Builtin(
        summary="local memory with dirty tracking, registers and a queue of jobs",
        options={
            "memory": Option(
                parse=_size(PAGE_SIZE, MAX_MEMORY),
                default="16M",
                summary="bytes of local memory, whole pages",
            ),
            "spread": Option(
                parse=_parse_spread,
                default="all",
                summary="bytes of local memory that jobs touch, or all",
            ),
            **_section_options("512K", "mapped"),
            "section": Option(
                parse=_parse_section,
                default="auto",
                summary="bytes of the data section, whole pages; auto: by the memory",
            ),
        },
        make=_make_accelerator,
    ),
    "opaque": Builtin(
        summary="a blob of which nothing is known; all of it in stop-and-copy",
        options={
            "state": Option(
                parse=_size(0, MAX_MEMORY, unit=1),
                default="64K",
                summary="bytes of the blob, perhaps none",
            ),
            **_section_options("64K", "mapped"),
        },
        make=_make_opaque,
    ),
}
