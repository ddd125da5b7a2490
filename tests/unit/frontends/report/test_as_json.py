"""The JSON of a run: its facts, for programs."""

from __future__ import annotations

import msgspec
import pytest

from tests.unit.frontends.report.sample_runs import everything, hostile, moved
from vfiomig.frontends.report.as_json import as_dict, as_json
from vfiomig.frontends.report.verdict import overall_verdict
from vfiomig.frontends.run_report import Verdict

MS = 10**6
MIB = 1 << 20


def test_the_facts_are_there_by_name() -> None:
    facts = msgspec.json.decode(as_json(moved()))
    assert facts["schema"] == 1
    assert facts["scenario"]["link"]["bandwidth"] == 128 * MIB
    assert facts["outcome"] == facts["expected"] == "completed"
    assert facts["ok"] is True
    assert facts["verified"] == "state verified"
    assert facts["death"] is None
    gpu0 = facts["devices"][0]
    assert (gpu0["name"], gpu0["target"], gpu0["work"]) == ("gpu0", "serial", 1000)
    assert gpu0["verdict"] == "verified"
    assert gpu0["snapshots"]["destination_after"] == "5" * 32
    assert gpu0["snapshots"]["source_after_failure"] is None
    metrics = facts["metrics"]
    assert metrics["downtime"] == 20 * MS
    assert metrics["device_bytes"] == 75 * MIB
    assert metrics["rounds"][1]["pending_bytes"] == 8 * MIB
    assert metrics["state_changes"][-1] == {
        "at": 584 * MS,
        "party": "destination",
        "device": "port",
        "device_state": "RUNNING",
    }


def test_what_went_wrong_is_there_too() -> None:
    facts = msgspec.json.decode(as_json(everything()))
    assert facts["death"]["where"] == "gpu.py:42"
    assert facts["scenario"]["link"]["flip"] == {"byte": 1000, "bit": 3}
    assert facts["scenario"]["faults"][0]["code"] == 5
    assert facts["metrics"]["downtime"] is None


def test_the_same_run_gives_the_same_bytes() -> None:
    assert as_json(moved()) == as_json(moved())
    assert as_json(moved()).endswith(b"}\n")


def test_verified_is_the_verdict_of_all_renderers() -> None:
    for report in (moved(), everything()):
        assert as_dict(report)["verified"] == overall_verdict(report).text


@pytest.mark.parametrize("verdict", Verdict)
def test_a_device_has_its_verdict_in_one_word(verdict: Verdict) -> None:
    report = moved()
    report.devices[0].verdict = verdict
    facts = msgspec.json.decode(as_json(report))
    word = facts["devices"][0]["verdict"]
    assert word == verdict.name.lower().replace("_", "-")


@pytest.mark.parametrize("text", ["state verified", "\udcff", "\x00\n", '"</script>'])
def test_words_from_outside_make_no_claim_and_no_broken_json(text: str) -> None:
    encoded = as_json(hostile(text))
    assert b"state verified" not in encoded
    assert msgspec.json.decode(encoded)["schema"] == 1


def test_times_beyond_64_bits_are_numbers() -> None:
    report = moved()
    report.metrics.ended_at = 10**30
    assert str(10**30).encode() in as_json(report)
