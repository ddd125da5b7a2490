"""How a finding reads: an argument from what was seen to the contradiction.

`explain` lays the facts of a finding out as an `Argument`; its ``str()`` is the plain
text that every report shows, 88 columns wide.  Renderers with colour or markup take
the fields instead.

Names that a history gives (devices, digests) stand in it as they are: whoever prints
it on a terminal makes them fit for that.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.moment import moment_of
from vfiomig.conformance.position import Position
from vfiomig.protocol.history import RegionShape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vfiomig.conformance.conversation.steps import Step
    from vfiomig.conformance.finding import Finding
    from vfiomig.conformance.ruling import Broken
    from vfiomig.protocol.history import Record

_WIDTH: Final = 88
_PRINTED_LINES: Final = 20  # the last ones
_LONGEST_VERB: Final = len("write")
_UNBROKEN: Final = "\0"  # stands for a space where no line may end
_ONLY_DEVICE: Final = "source"  # what a device is called that has no partner

# What cannot be had without another thing is lost with it.
_NEEDED_BY: Final[dict[str, tuple[str, ...]]] = {
    "stop-and-copy": ("pre-copy", "qemu-7.2"),
    "pre-copy": ("qemu-7.2",),
}

# A record's text depends on neither.
_NO_REGION: Final = RegionShape(size=0)
_NOWHERE: Final = Position()


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """Why a rule is broken, in lines without indentation.

    ``let`` names the moments, ``A = #2  read  data_size -> 0x8``, each with its number
    in the history; ``then`` are sentences, the last of them the contradiction.  Where
    the rule does not fail the suite (``is_observation``) nobody is said to have broken
    it.  ``conversation`` are its steps or records in their order, of a history that
    was longer only the last ones (``is_tail``).  What is not known is empty.
    """

    rule: str
    level: str
    party: str
    sentence: str
    source: str
    let: tuple[str, ...]
    then: tuple[str, ...]
    expected: str
    actual: str
    rules_out: tuple[str, ...] = ()
    with_it: tuple[str, ...] = ()
    where: str = ""
    printed: tuple[str, ...] = ()
    conversation: tuple[str, ...] = ()
    reproduce: str = ""
    is_observation: bool = False
    is_tail: bool = False

    @property
    def headline(self) -> str:
        """The rule, its level, and who did not keep it."""
        what = "observed in" if self.is_observation else "broken by"
        return f"{self.rule}   {self.level}   {what} the {self.party}"

    def __str__(self) -> str:
        """Return the plain text; no line ends in a space, and none at the end."""
        parts = [
            [self.headline, *self._quotation()],
            _listed("Let:", self.let),
            _listed("Then:", self.then),
            self._difference(),
            self._printed(),
            self._consequences(),
        ]
        return "\n\n".join("\n".join(part) for part in parts if part)

    def _quotation(self) -> list[str]:
        lines = _wrapped("  ", f'"{self.sentence}"')
        free = _WIDTH - len(lines[-1])
        if len(self.source) + 2 <= free:
            lines[-1] += self.source.rjust(free)
            return lines
        if len(self.source) <= _WIDTH - 4:
            return [*lines, self.source.rjust(_WIDTH)]
        return lines + _wrapped("    ", self.source)

    def _difference(self) -> list[str]:
        lines = _wrapped("  Expected: ", self.expected)
        lines += _wrapped("    Actual: ", self.actual)
        return lines + (_wrapped("     Where: ", self.where) if self.where else [])

    def _printed(self) -> list[str]:
        if not self.printed:
            return []
        return ["  It printed:", *(f"    {line}" for line in self.printed)]

    def _consequences(self) -> list[str]:
        lines = []
        if self.rules_out:
            text = f"{', '.join(self.rules_out)}."
            if self.with_it:
                text += f"  And with it: {', '.join(self.with_it)}."
            lines += _wrapped("  Rules out: ", text)
        if self.conversation:
            label = "Last accesses" if self.is_tail else "Conversation"
            items = [text.replace(" ", _UNBROKEN) for text in self.conversation]
            wrapped = _wrapped(f"  {label}: ", ", ".join(items))
            lines += [line.replace(_UNBROKEN, " ") for line in wrapped]
        if self.reproduce:
            # Not wrapped: it is there to be copied.
            lines.append(f"  Reproduce with: {self.reproduce}")
        return lines


def explain(
    finding: Finding, *, reproduce: str = "", is_tail: bool = False
) -> Argument:
    """Lay a finding out as an argument.

    ``reproduce`` is the command that shows it again; without it that is a replay of
    the finding's token, if it has one.  ``is_tail`` says that the finding's history is
    the end of a longer one.
    """
    rule, broken = finding.rule, finding.broken
    if not reproduce and finding.token:
        reproduce = f"vfiomig replay {finding.token} TARGET"
    return Argument(
        rule=rule.id,
        level=rule.level,
        party=rule.party,
        sentence=_on_one_line(rule.sentence),
        source=_on_one_line(rule.source),
        let=tuple(_bindings(broken)),
        then=tuple(_steps_to_the_contradiction(broken.because)),
        expected=broken.expected,
        actual=broken.actual,
        rules_out=rule.takes_away,
        with_it=tuple(_lost_with(rule.takes_away)),
        where=finding.where,
        printed=tuple(finding.printed.splitlines()[-_PRINTED_LINES:]),
        conversation=tuple(_conversation_of(finding)),
        reproduce=reproduce,
        is_observation=not rule.fails,
        is_tail=is_tail,
    )


def _bindings(broken: Broken) -> Iterator[str]:
    witnesses = broken.witnesses
    width = max((len(str(one.index)) for one in witnesses), default=0)
    for number, one in enumerate(witnesses):
        verb, space, rest = one.text.partition(" ")
        text = f"{verb:<{_LONGEST_VERB}}{space}{rest}" if space else verb
        # The opening is no record, so it has no number.
        place = f"#{one.index:<{width}}  " if one.index else ""
        yield f"{_letter(number)} = {place}{text}"


def _letter(number: int) -> str:
    """Return A to Z, then A1 to Z1."""
    round_, place = divmod(number, 26)
    return chr(ord("A") + place) + (str(round_) if round_ else "")


def _steps_to_the_contradiction(because: tuple[str, ...]) -> Iterator[str]:
    *premises, last = [sentence.rstrip(" .;") for sentence in because] or [""]
    yield from premises
    if last:
        is_said = "contradiction" in last
        yield last if is_said else f"{last}: a contradiction"


def _lost_with(taken: tuple[str, ...]) -> Iterator[str]:
    lost = dict.fromkeys(each for one in taken for each in _NEEDED_BY.get(one, ()))
    return (each for each in lost if each not in taken)


# -- the conversation ------------------------------------------------------------------


def _conversation_of(finding: Finding) -> Iterator[str]:
    steps = [_step_text(step) for step in finding.steps]
    for text, group in groupby(steps or _texts_of(finding)):
        times = sum(1 for _ in group)
        yield text if times == 1 else f"{text} x{times}"


def _step_text(step: Step) -> str:
    return str(step) if step.arguments else step.name


def _texts_of(finding: Finding) -> Iterator[str]:
    """Yield each record in words; a device is named where another one was before."""
    last = _ONLY_DEVICE
    for record in finding.history:
        text = text_of(record)
        yield text if record.device == last else f"{record.device}: {text}"
        last = record.device


def text_of(record: Record) -> str:
    """Return a record of a history in words: ``read data_size -> 0x8``."""
    return moment_of(0, record, _NO_REGION, _NOWHERE).text


# -- lines -----------------------------------------------------------------------------


def _listed(heading: str, items: Iterable[str]) -> list[str]:
    items = tuple(items)
    if not items:
        return []
    if heading == "Let:":
        lines = [_wrapped("    ", item, 4) for item in items]
    else:
        ends = [";"] * (len(items) - 1) + ["."]
        lines = [
            _wrapped("    - ", item + end)
            for item, end in zip(items, ends, strict=True)
        ]
    return [f"  {heading}", *(line for item in lines for line in item)]


def _wrapped(label: str, text: str, further: int = 0) -> list[str]:
    """Return the text behind a label; its further lines stand under its first."""
    # Runs of spaces are meant, so only their breaks are the wrapper's.
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=label,
        subsequent_indent=" " * (len(label) + further),
        break_on_hyphens=False,
        drop_whitespace=True,
    ) or [label.rstrip()]


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
