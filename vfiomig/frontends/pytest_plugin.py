"""The suite in a driver author's own pytest: one line gives a test for each rule.

Rule 1: pytest is no requirement of vfiomig.  Only this module imports it, and only
within `vfiomig_rules`, which nobody calls but a test file.

Rule 2: to collect the tests converses with nobody.  The suite runs at the first test
that asks, once in a session for a factory and its options.

Rule 3: a rule that fails no driver fails no test, not even where warnings are errors:
what was observed is a property of the test and part of its output.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakKeyDictionary

from vfiomig.conformance.catalogue import load_catalogue
from vfiomig.conformance.effort import EFFORTS
from vfiomig.conformance.explain import explain
from vfiomig.conformance.finding import Finding, RuleResult, Verdict
from vfiomig.conformance.library import lines_of_death
from vfiomig.conformance.suite import run_suite
from vfiomig.conformance.target import TargetStartError
from vfiomig.conformance.user_code import shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    import pytest

    from vfiomig.conformance.catalogue import Rule
    from vfiomig.conformance.finding import Death, Outcome
    from vfiomig.conformance.library import EffortName
    from vfiomig.host.device_ops import TrappedDriver

Found = TypeVar("Found", "Finding", "Death")

# The test of what is no rule: that the driver does not raise, exit, crash or hang.
LIFE: Final = "lives-through-every-conversation"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What the suite is asked for; equal options share a run of it."""

    # Compared but not hashed: a factory may be any object that can be called.
    make_driver: Callable[[], TrappedDriver] = dataclasses.field(hash=False)
    effort: EffortName
    seed: int
    prefix: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Run:
    """What one run came to, or in a line why it could not begin."""

    target: str
    outcome: Outcome | None
    not_started: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class _Report:
    """What becomes of a test: its outcome, the reason, and what it prints."""

    ends: str  # "passed", "failed" or "skipped"
    text: str = ""
    observed: str = ""


# By the session's configuration: two sessions in a process share nothing.
_RUNS: Final[WeakKeyDictionary[object, dict[_Options, _Run]]] = WeakKeyDictionary()


def vfiomig_rules(
    make_driver: Callable[[], TrappedDriver],
    *,
    effort: EffortName = "normal",
    seed: int = 1,
    rules: str = "v1/",
) -> Callable[..., None]:
    """Return a pytest test with a case for each rule, named by its id.

    ``make_driver`` is a function or class that returns a fresh driver in its default
    state, each time another.  ``rules`` is an id, or what several begin with; in a
    test file::

        test_rules = vfiomig_rules(MyDriver, effort="quick")

    A broken rule fails its case with the argument, as `vfiomig check` prints it.  What
    could not be judged is skipped with the reason.  One case more is the driver's life.

    Raises:
        ValueError: there is no such effort, or no such rule.
    """
    import pytest

    options = _options(make_driver, effort, seed, rules)
    ids = [rule.id for rule in _rules(rules)]

    def judge(case: str, request: pytest.FixtureRequest) -> None:
        __tracebackhide__ = True  # a skip is told with the place of the test
        report = _report_on(case, _run_of(options, request.config))
        if report.ends == "failed":
            pytest.fail(report.text, pytrace=False)
        if report.ends == "skipped":
            pytest.skip(report.text)
        if report.observed:
            # Not the fixture record_property, which warns beside a newer JUnit file.
            request.node.user_properties.append(("observed", report.observed))
            print(report.text)

    # A lambda is on one line, and that is said to be the line of the caller.
    test = _placed(
        lambda vfiomig_rule, request: judge(vfiomig_rule, request), sys._getframe(1)
    )
    return pytest.mark.parametrize("vfiomig_rule", [*ids, LIFE])(test)


def _options(
    make_driver: Callable[[], TrappedDriver],
    effort: EffortName,
    seed: int,
    rules: str,
) -> _Options:
    if effort not in EFFORTS:
        message = f"effort is one of {', '.join(EFFORTS)}, not {effort!r}"
        raise ValueError(message)
    if not _rules(rules):
        message = f"no rule begins with {rules!r}: see `vfiomig rules`"
        raise ValueError(message)
    return _Options(make_driver=make_driver, effort=effort, seed=seed, prefix=rules)


def _rules(prefix: str) -> list[Rule]:
    return [rule for rule in load_catalogue() if rule.id.startswith(prefix)]


def _placed(test: Callable[..., None], caller: FrameType) -> FunctionType:
    """Return a function that pytest reports at the line of the user's file."""
    assert isinstance(test, FunctionType)
    test.__name__ = "test_rules"  # pytest puts no mark on a lambda
    test.__code__ = test.__code__.replace(
        co_filename=caller.f_code.co_filename, co_firstlineno=caller.f_lineno
    )
    return test


# -- the run ---------------------------------------------------------------------------


def _run_of(options: _Options, session: object) -> _Run:
    """Return the session's run of the suite; the first to ask waits for it."""
    runs = _RUNS.setdefault(session, {})
    if options not in runs:
        runs[options] = _run(options)
    return runs[options]


def _run(options: _Options) -> _Run:
    target = _target_of(options.make_driver)
    try:
        outcome = run_suite(
            options.make_driver,
            effort=EFFORTS[options.effort],
            seed=options.seed,
            rules=_rules(options.prefix),
        )
    except TargetStartError as error:
        return _Run(target, None, f"the driver could not be made: {error}")
    if outcome.is_interrupted:
        raise KeyboardInterrupt
    return _Run(target, outcome)


def _target_of(make_driver: Callable[[], TrappedDriver]) -> str:
    """Return what `vfiomig replay` finds the factory by, ``TARGET`` if it cannot."""
    name = getattr(make_driver, "__qualname__", "<")
    module = sys.modules.get(getattr(make_driver, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    if module is None or file is None or getattr(module, name, None) is not make_driver:
        return "TARGET"
    if module.__package__:  # its imports may be relative
        return f"{module.__name__}:{name}"
    return f"{shown(Path(file))}:{name}"


# -- the cases -------------------------------------------------------------------------


def _report_on(case: str, run: _Run) -> _Report:
    if run.outcome is None:
        return _Report("failed", run.not_started)
    if case == LIFE:
        return _report_on_life(run.outcome, run.target)
    (result,) = (each for each in run.outcome.results if each.rule.id == case)
    text = _argument(result.finding, run.target) if result.finding else ""
    if result.verdict is Verdict.BROKEN:
        return _Report("failed", text)
    if result.verdict is Verdict.OBSERVED and result.finding is not None:
        broken = result.finding.broken
        observed = f"expected {broken.expected}, actual {broken.actual}"
        return _Report("passed", text, observed)
    if result.verdict is Verdict.HELD:
        return _Report("passed")
    return _Report("skipped", _why_not(result, run.outcome))


def _argument(finding: Finding, target: str) -> str:
    command = f"vfiomig replay {finding.token} {target}" if finding.token else ""
    return str(explain(_seen_from_here(finding), reproduce=command))


def _report_on_life(outcome: Outcome, target: str) -> _Report:
    deaths = [
        "\n".join(lines_of_death(_seen_from_here(death), target=target))
        for death in outcome.deaths
    ]
    return _Report("failed" if deaths else "passed", "\n\n".join(deaths))


def _why_not(result: RuleResult, outcome: Outcome) -> str:
    if result.verdict is not Verdict.NOT_REACHED:
        return f"{result.verdict.value}: {result.reason}"
    why = f"{result.verdict.value}: its premise never came true"
    return f"{why} before the driver died" if outcome.deaths else why


def _seen_from_here(found: Found) -> Found:
    """Name a file as a person in the current folder would."""
    file, colon, line = found.where.rpartition(":")
    if not (colon and line.isdigit()):
        return found
    return dataclasses.replace(found, where=f"{shown(Path(file))}:{line}")
