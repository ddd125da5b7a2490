"""One history of the two that two brokers wrote, each of its own devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vfiomig.protocol.history import Header, decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def merged(files: Sequence[Path]) -> Iterator[bytes]:
    """Yield the lines of one history: a header with all devices, then file by file.

    What the sides did at the same time is not told: the records of one come behind
    those of the other.  A file that was never begun is left out.
    """
    shapes = {}
    there = [each for each in files if each.exists() and each.stat().st_size]
    for each in there:
        with each.open("rb") as lines:
            header = next(decode(iter(lines)))
            assert isinstance(header, Header)  # it is the first, or decode raises
            shapes.update(header.devices)
    yield encode(Header(recorded_by="vfiomig qemu", devices=shapes))
    for each in there:
        with each.open("rb") as lines:
            next(lines)
            yield from lines
