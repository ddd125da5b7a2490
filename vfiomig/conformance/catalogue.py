"""The catalogue of rules: specs/v1/*.toml, read and bound to the checks.

The files are the specification as data: one for each section, and ``profiles.toml``
with what broken rules take away.  What decides a rule is named in its entry: a
check of a history, a comparison that only the suite's own conversations can make
(``bench``), or the reason why no conversation could tell (``untestable``).
"""

from __future__ import annotations

import importlib
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from vfiomig.conformance.judge import Bound

if TYPE_CHECKING:
    from collections.abc import Iterable

_PACKAGE: Final = Path(__file__).parents[1]

# The order of the sections is that of the header's text.
SECTIONS: Final = (
    "discovery",
    "register_access",
    "device_state",
    "transitions",
    "pending_bytes",
    "data_offset",
    "data_size",
    "saving",
    "resuming",
    "sparse_mmap",
    "errors_and_reset",
)

Level = Literal["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "SHOULD*", "MAY"]
PartyName = Literal["vendor driver", "user application"]
Capability = Literal["stop-and-copy", "pre-copy", "mmap", "qemu-7.2"]


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[[rule]]`` as the file has it."""

    id: str
    origin: str
    level: Level
    party: PartyName
    title: str
    sentence: str
    source: str
    check: str = ""
    untestable: str = ""
    bench: str = ""
    needs: tuple[Literal["work", "snapshot", "fail"], ...] = ()
    fails: bool = True
    takes_away: tuple[Capability, ...] = ()


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    section: str
    source: str
    rule: tuple[_Entry, ...]


class Rule(_Entry, frozen=True, kw_only=True):
    """A rule; ``id`` is whole, ``v1/data-size/stable-within-iteration``.

    One of ``check``, ``bench`` and ``untestable`` says how it is decided.  Where it
    does not ``fail`` the suite, a broken one is an observation.  ``takes_away`` is
    what cannot be relied on once it is broken.
    """

    section: str

    @property
    def needed(self) -> tuple[str, ...]:
        """The members of the bench without which it is hardly ever reached."""
        return self.needs or (("snapshot",) if self.bench else ())


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A capability that rules promise together; ``lost`` says what is without it."""

    id: Capability
    title: str
    lost: str


class _Profiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    profile: tuple[Profile, ...]


@cache
def load_catalogue() -> tuple[Rule, ...]:
    """Return all rules, in the order of the sections."""
    return tuple(rule for name in SECTIONS for rule in _rules_of(name))


@cache
def load_profiles() -> dict[Capability, Profile]:
    """Return what rules can take away, by id, what is needed most first."""
    text = (_folder() / "profiles.toml").read_text("utf-8")
    profiles = msgspec.convert(tomllib.loads(text), _Profiles).profile
    return {profile.id: profile for profile in profiles}


def rule_named(name: str) -> Rule | None:
    """Return the rule with an id, or with an origin such as ``V1-SIZE-02``."""
    for rule in load_catalogue():
        if name in (rule.id, rule.origin):
            return rule
    return None


def driver_rules(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return those among the rules that are about the vendor driver."""
    return tuple(rule for rule in rules if rule.party == "vendor driver")


def ids_by_origin(rules: Iterable[Rule]) -> dict[str, str]:
    """Return the ids of rules by their origins, as comparisons name them."""
    return {rule.origin: rule.id for rule in rules}


def bound_checks(rules: Iterable[Rule]) -> list[Bound]:
    """Return the checks of those rules that have one."""
    return [_bound(rule) for rule in rules if rule.check]


def _rules_of(name: str) -> Iterable[Rule]:
    text = (_folder() / f"{name}.toml").read_text("utf-8")
    section = msgspec.convert(tomllib.loads(text), _Section)
    for entry in section.rule:
        fields = msgspec.structs.asdict(entry)
        fields["id"] = f"{section.section}/{entry.id}"
        fields["fails"] = entry.fails and entry.level != "MAY"
        yield Rule(**fields, section=section.section)


def _folder() -> Path:
    """Return where the catalogue is: in the wheel, or beside the package."""
    installed = _PACKAGE / "_specs" / "v1"
    return installed if installed.is_dir() else _PACKAGE.parent / "specs" / "v1"


def _bound(rule: Rule) -> Bound:
    module_name, _, name = rule.check.partition(":")
    module = importlib.import_module(f"vfiomig.conformance.checks.{module_name}")
    function = getattr(module, name)
    return Bound(
        rule=rule.id,
        function=function,
        kinds=module.CHECKS[function],
        is_across=function in getattr(module, "ACROSS", ()),
    )
