"""Judging a recorded history, whoever made it: one pass, both parties.

Rule 1: nothing is kept but the last records of each device, so that a history may be
as long as it likes.

Rule 2: what a history does not tell is not judged.  A plain TSV (access, offset, size,
value; see `read_history`) tells no areas, and nothing of what went through a mapping:
the rules about the region's shape are not applicable to it, and every buffer is taken
to have been moved unseen.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter, deque
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, Final

from vfiomig.conformance.catalogue import Rule, bound_checks, load_catalogue
from vfiomig.conformance.finding import Finding, RuleResult, Verdict, verdict_on
from vfiomig.conformance.judge import Judge
from vfiomig.conformance.plain_history import (
    PAGE,
    accesses,
    is_plain,
    region_size,
    with_unseen,
)
from vfiomig.conformance.ruling import Broken, Witness
from vfiomig.protocol.history import (
    Access,
    BenchEvent,
    Header,
    HistoryError,
    Record,
    RegionShape,
    decode,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

HISTORY_LENGTH: Final = 12  # records of a device that a finding shows
_PROTOCOL: Final = "v1"
_LONGEST_LINE: Final = 1 << 20
_SPARSE_MMAP: Final = "v1/sparse-mmap"
_NOT_TOLD: Final = "a plain TSV does not tell the region's size and areas"


# -- judging ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeathSeen:
    """The first access of a history at which a driver died, and what led to it."""

    access: Access
    history: tuple[Record, ...]


class HistoryJudge:
    """The rules over one history, a record at a time.

    ``rules`` are all of the catalogue unless told.  ``is_plain`` says that the history
    was a TSV, which has neither region nor mappings of its own.

    Raises:
        HistoryError: it is one of another protocol.
    """

    def __init__(
        self,
        header: Header,
        rules: Sequence[Rule] | None = None,
        *,
        is_plain: bool = False,
    ) -> None:
        if header.protocol != _PROTOCOL:
            message = f"line 1: protocol {header.protocol!r}, not {_PROTOCOL!r}"
            raise HistoryError(message)
        self._rules = tuple(load_catalogue() if rules is None else rules)
        self._rule = {rule.id: rule for rule in self._rules}
        self._not_told = {
            rule.id for rule in self._rules if is_plain and rule.section == _SPARSE_MMAP
        }
        self._is_plain = is_plain
        self._put_in = array("Q")  # records of a plain history that are not in its file
        checks = bound_checks(self._rules)
        self._across = {bound.rule for bound in checks if bound.is_across}
        self._broken: dict[str, Counter[str]] = {}
        self._finding: dict[str, Finding] = {}
        self._last: dict[str, deque[tuple[int, Record]]] = {
            name: deque(maxlen=HISTORY_LENGTH) for name in header.devices
        }
        self._index = 0
        self.accesses = 0
        self.death: DeathSeen | None = None
        self._judge = Judge(checks, {})
        for name, region in header.devices.items():
            for rule, broken in self._judge.open(name, region):
                if is_plain:
                    self._not_told.add(rule)
                self._note(rule, broken, name)
        if is_plain:
            self._not_told |= self._judge.kept

    def see(self, record: Record) -> None:
        """Judge the next record.

        Raises:
            UnknownDeviceError: the header has no such device.
        """
        self._index += 1
        found = self._judge.see(record)
        if self._is_plain and _is_put_in(record):
            self._put_in.append(self._index)
        else:
            self._last[record.device].append((self._index, record))
            self.accesses += isinstance(record, Access)
        if self.death is None and isinstance(record, Access) and record.died:
            self.death = DeathSeen(record, self._history_of(record.device))
        for rule, broken in found:
            self._note(rule, broken, record.device)

    def results(self) -> list[RuleResult]:
        """Return what became of each rule so far, in their order."""
        return [self._result_of(rule) for rule in self._rules]

    def _note(self, rule: str, broken: Broken, device: str) -> None:
        self._broken.setdefault(rule, Counter())[device] += 1
        if rule not in self._finding:
            devices = self._last if rule in self._across else (device,)
            self._finding[rule] = Finding(
                rule=self._rule[rule],
                broken=self._as_numbered(broken),
                device=device,
                history=self._history_of(*devices),
            )

    def _history_of(self, *devices: str) -> tuple[Record, ...]:
        records = sorted(
            chain.from_iterable(self._last[name] for name in devices),
            key=lambda pair: pair[0],
        )
        return tuple(record for _, record in records[-HISTORY_LENGTH:])

    def _as_numbered(self, broken: Broken) -> Broken:
        """Count the witnesses as the file does, without what was put in."""
        witnesses = [
            Witness(one.index - bisect_left(self._put_in, one.index), one.text)
            for one in broken.witnesses
        ]
        return replace(broken, witnesses=tuple(witnesses))

    def _result_of(self, rule: Rule) -> RuleResult:
        reason = rule.untestable
        if rule.bench:
            reason = f"only the suite's own conversations can tell: {rule.bench}"
        if rule.id in self._not_told:
            reason = _NOT_TOLD
        if reason or not rule.check:
            return RuleResult(rule=rule, verdict=Verdict.NOT_APPLICABLE, reason=reason)
        finding = self._finding.get(rule.id)
        # A history is one conversation.
        reached = int(finding is not None or rule.id in self._judge.kept)
        if not reached:
            reason = "its premise never came true"
        return RuleResult(
            rule=rule,
            verdict=verdict_on(rule, reached=reached, finding=finding),
            reason=reason or _counted(self._broken.get(rule.id, Counter())),
            reached=reached,
            finding=finding,
        )


def judge_history(
    header: Header,
    records: Iterable[Record],
    rules: Sequence[Rule] | None = None,
    *,
    is_plain: bool = False,
) -> list[RuleResult]:
    """Judge both parties of a history; return what became of each rule.

    Raises:
        HistoryError: it cannot be read, or is one of another protocol.
        UnknownDeviceError: a record names a device that the header does not have.
    """
    judge = HistoryJudge(header, rules, is_plain=is_plain)
    for record in records:
        judge.see(record)
    return judge.results()


def _counted(broken: Counter[str]) -> str:
    """Say how often a rule was broken, where that was more than once."""
    if broken.total() <= 1:
        return ""
    by_device = ", ".join(f"{name} {count}" for name, count in broken.items())
    return f"broken {broken.total()} times: {by_device}"


def _is_put_in(record: Record) -> bool:
    """Tell whether a record of a plain history is not one of its file."""
    return isinstance(record, Access) and (record.unseen or record.access == "mmap")


# -- reading ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A history that was opened; ``records`` are read as they are taken.

    ``unknown`` says in sentences what the file does not tell.
    """

    header: Header
    records: Iterator[Record]
    is_plain: bool = False
    unknown: tuple[str, ...] = ()


def read_history(file: BinaryIO) -> History:
    """Read a history: JSON lines, or a plain TSV of one device, ``source``.

    A TSV has the columns access (read or write), offset in the region, size in bytes
    and value (hex); ``#`` begins a comment.  It is read twice, the first time for the
    region's size, so that its ``file`` must be seekable.

    Raises:
        HistoryError: a line that is none, with its number counted from 1; those behind
            the first may come while the records are taken.
    """
    lines = _lines(file)
    first = next(lines, b"")
    if not is_plain(first):
        return _json_history(chain([first] if first else [], lines))
    size = region_size(accesses(chain([first], lines)))
    file.seek(0)
    areas = ((PAGE, size - PAGE),) if size > PAGE else ()
    header = Header(
        recorded_by="plain TSV",
        devices={"source": RegionShape(size=size, areas=areas)},
    )
    return History(
        header=header,
        records=with_unseen(accesses(_lines(file)), areas),
        is_plain=True,
        unknown=(
            f"the region's size is not told: {size:#x} holds all that was seen",
            "the areas are not told, nor is what went through a mapping: every buffer "
            "is taken to have been moved, unseen",
            "resets, closes and failed accesses are not told",
        ),
    )


def _json_history(lines: Iterator[bytes]) -> History:
    decoded = decode(lines)
    header = next(decoded)
    assert isinstance(header, Header)  # it is the first, or decode raises
    records = (one for one in decoded if isinstance(one, Access | BenchEvent))
    return History(header=header, records=records)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    number = 0
    while line := file.readline(_LONGEST_LINE + 1):
        number += 1
        if len(line) > _LONGEST_LINE:
            message = f"line {number}: longer than {_LONGEST_LINE >> 20} MiB"
            raise HistoryError(message)
        yield line
