"""A finding's history as a sequence diagram: the user application, and the devices.

Only numbers and text are made here; the template draws them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.explain import text_of
from vfiomig.frontends.plain_text import plain
from vfiomig.protocol.history import Access

if TYPE_CHECKING:
    from vfiomig.conformance.finding import Finding
    from vfiomig.protocol.history import Record

_ROW: Final = 24
_TOP: Final = 44
_LEFT: Final = 130
_LANE: Final = 420
_SHOWN: Final = 200  # records; of a longer history the last ones
_LONGEST: Final = 56


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """One record: from the user application to a device, or beside a device."""

    number: int
    y: int
    x: int
    text: str
    title: str
    kind: str
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """The diagram: parties as (x, name), and an arrow a record."""

    width: int
    height: int
    left: int
    parties: tuple[tuple[int, str], ...]
    arrows: tuple[Arrow, ...]
    skipped: int


def sequence_of(finding: Finding) -> Sequence:
    """Lay out the history of a finding; its witnesses are marked A, B, C."""
    skipped = max(0, len(finding.history) - _SHOWN)
    records = list(enumerate(finding.history, 1))[skipped:]
    devices = list(dict.fromkeys(record.device for _, record in records))
    x_of = {name: _LEFT + _LANE * (n + 1) for n, name in enumerate(devices)}
    marks = {
        each.index: chr(ord("A") + number)
        for number, each in enumerate(finding.broken.witnesses[:26])
    }
    arrows = []
    for row, (number, record) in enumerate(records):
        text = plain(text_of(record))
        arrows.append(
            Arrow(
                number=number,
                y=_TOP + _ROW * (row + 1),
                x=x_of[record.device],
                text=text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...",
                title=text,
                kind=_kind_of(record),
                mark=marks.get(number, ""),
            )
        )
    return Sequence(
        width=_LEFT + _LANE * max(1, len(devices)) + 90,
        height=_TOP + _ROW * (len(records) + 2),
        left=_LEFT,
        parties=(
            (_LEFT, "user application"),
            *((x_of[name], plain(name)) for name in devices),
        ),
        arrows=tuple(arrows),
        skipped=skipped,
    )


def _kind_of(record: Record) -> str:
    if not isinstance(record, Access):
        return "bench"
    return "refused" if record.errno or record.died else "access"
