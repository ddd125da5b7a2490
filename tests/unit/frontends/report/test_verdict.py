"""The one line that every report ends in, and when it may say "state verified"."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from tests.unit.frontends.report import sample_runs
from tests.unit.frontends.report.sample_runs import device, failed, moved
from vfiomig.frontends.report.verdict import (
    Tone,
    device_words,
    downtime_words,
    overall_verdict,
)
from vfiomig.frontends.run_report import RunReport, Verdict
from vfiomig.migration.metrics import Outcome

MS = 10**6


def ended(outcome: Outcome, expected: Outcome, *, ok: bool) -> RunReport:
    """Return a run that failed, with another outcome."""
    report = failed()
    report.outcome, report.ok, report.reason = outcome, ok, "the reason"
    report.scenario = dataclasses.replace(report.scenario, expected=expected)
    return report


@pytest.mark.parametrize("ok", [True, False])
@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("expected", Outcome)
@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_state_verified_is_said_only_when_all_of_it_holds(
    outcome: Outcome, expected: Outcome, number: int, *, ok: bool
) -> None:
    for verdicts in itertools.combinations_with_replacement(Verdict, number):
        report = moved(*(device(f"d{n}", v) for n, v in enumerate(verdicts)))
        report.devices = report.devices[:number]
        report.outcome, report.ok = outcome, ok
        report.scenario = dataclasses.replace(report.scenario, expected=expected)
        quiet = {Verdict.VERIFIED, Verdict.NOTHING_TO_MOVE}
        holds = (
            ok
            and outcome is Outcome.COMPLETED
            and set(verdicts) <= quiet
            and Verdict.VERIFIED in verdicts
        )
        text, tone = overall_verdict(report)
        assert ("state verified" in text) == holds, (verdicts, text)
        assert not holds or text == "state verified"
        if tone is Tone.GOOD:
            assert ok
            assert text in {"state verified", "nothing to move"}


@pytest.mark.parametrize("verdict", Verdict)
def test_of_one_device_state_verified_is_never_said(verdict: Verdict) -> None:
    assert "state verified" not in device_words(verdict)


@pytest.mark.parametrize(
    ("verdicts", "text", "tone"),
    [
        ([Verdict.VERIFIED, Verdict.NOTHING_TO_MOVE], "state verified", Tone.GOOD),
        ([Verdict.NOTHING_TO_MOVE], "nothing to move", Tone.GOOD),
        (
            [Verdict.VERIFIED, Verdict.UNVERIFIED],
            "unverified: d1 has no snapshot()",
            Tone.CAUTION,
        ),
        (
            [Verdict.UNVERIFIED, Verdict.UNVERIFIED],
            "unverified: d0 has no snapshot() and d1 has no snapshot()",
            Tone.CAUTION,
        ),
        ([Verdict.DIFFERS, Verdict.VERIFIED], "state differs: d0", Tone.BAD),
        (
            [Verdict.DID_NOT_ARRIVE, Verdict.UNVERIFIED, Verdict.DIFFERS],
            "state differs: d2; did not arrive: d0; unverified: d1 has no snapshot()",
            Tone.BAD,
        ),
        ([], "unverified: there was no device", Tone.CAUTION),
    ],
)
def test_a_completed_run_says_what_it_proves(
    verdicts: list[Verdict], text: str, tone: Tone
) -> None:
    report = moved(*(device(f"d{n}", verdict) for n, verdict in enumerate(verdicts)))
    report.devices = report.devices[: len(verdicts)]
    assert overall_verdict(report) == (text, tone)


def test_a_device_says_why_it_is_unverified() -> None:
    report = moved(device("port", Verdict.UNVERIFIED))
    report.devices[0].reason = "port changed its snapshot()"
    assert overall_verdict(report).text == "unverified: port changed its snapshot()"


def test_completed_where_failed_was_expected_is_bad() -> None:
    report = moved()
    report.ok = False
    report.scenario = dataclasses.replace(report.scenario, expected=Outcome.FAILED)
    text = "completed, but failed was expected"
    assert overall_verdict(report) == (text, Tone.BAD)


def test_a_flip_that_nobody_noticed_is_bad() -> None:
    report = moved()
    report.ok, report.flip_unnoticed = False, True
    text = "completed, but a flipped bit of the stream went unnoticed"
    assert overall_verdict(report) == (text, Tone.BAD)


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome.FAILED, "failed"),
        (Outcome.CANCELLED, "cancelled"),
        (Outcome.NOT_CONVERGED, "did not converge"),
    ],
)
def test_a_failure_says_what_and_why_and_what_became_of_the_source(
    outcome: Outcome, words: str
) -> None:
    rest = "the reason; the source runs on unharmed"
    unexpected = ended(outcome, Outcome.COMPLETED, ok=False)
    assert overall_verdict(unexpected) == (f"{words}: {rest}", Tone.BAD)
    expected = ended(outcome, outcome, ok=True)
    assert overall_verdict(expected) == (f"{words} as expected: {rest}", Tone.CAUTION)
    other = ended(outcome, Outcome.DIED, ok=False)
    assert overall_verdict(other).text == f"{words} (died was expected): {rest}"


def test_a_death_names_device_access_error_and_line() -> None:
    assert overall_verdict(sample_runs.died()).text == (
        "died: source, gpu0: TypeError: no len() at read of pending_bytes (gpu.py:42); "
        "the source does not run on: gpu0: died"
    )


def test_a_source_that_changed_is_not_called_unharmed() -> None:
    assert overall_verdict(failed(unharmed=False)).text == (
        "failed: the link was cut at byte 70000000; "
        "the source runs on, but its state changed: gpu0 and port"
    )


def test_a_source_that_never_stopped_may_have_changed_by_itself() -> None:
    report = failed(unharmed=False)
    for one in report.devices:
        one.digests.source_at_stop = None
    said = "the source runs on, and its state changed while it ran: gpu0 and port"
    assert overall_verdict(report).text.endswith(f"; {said}")


def test_a_source_that_was_not_compared_is_not_called_unharmed() -> None:
    report = failed()
    report.devices[1].digests.source_after_failure = None
    assert overall_verdict(report).text.endswith(
        "the source runs on, whether unharmed is not known: port not compared"
    )


def test_a_run_that_never_began_says_so() -> None:
    report = failed()
    report.metrics.ended_at = None
    assert overall_verdict(report).text.endswith("; the migration never began")


def test_an_interrupted_run_says_nothing_of_the_source() -> None:
    report = ended(Outcome.INTERRUPTED, Outcome.COMPLETED, ok=False)
    report.metrics.ended_at = None
    assert overall_verdict(report) == ("interrupted: the reason", Tone.BAD)


@pytest.mark.parametrize(
    ("stopped", "resumed", "expected", "words"),
    [
        (100, 120, 18, ("20 ms", "expected 18 ms, limit 20 ms")),
        (100, 121, 18, ("21 ms", "expected 18 ms, limit 20 ms, exceeded")),
        (100, 100, 0, ("0 s", "expected 0 s, limit 20 ms")),
        (
            100,
            None,
            18,
            ("none", "the destination never ran, expected 18 ms, limit 20 ms"),
        ),
        (None, None, None, ("none", "the source never stopped, limit 20 ms")),
    ],
)
def test_downtime_stands_beside_what_was_expected_and_its_limit(
    stopped: int | None,
    resumed: int | None,
    expected: int | None,
    words: tuple[str, str],
) -> None:
    metrics = moved().metrics
    metrics.stopped_at = None if stopped is None else stopped * MS
    metrics.resumed_at = None if resumed is None else resumed * MS
    metrics.expected_downtime = None if expected is None else expected * MS
    assert downtime_words(metrics, 20 * MS) == words
