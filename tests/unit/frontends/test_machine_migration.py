"""Whole machines, moved by scenarios: RAM and devices, over every transport."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vfiomig.frontends.report.verdict import overall_verdict
from vfiomig.frontends.run_report import RunReport, Verdict
from vfiomig.frontends.scenario import load_scenario
from vfiomig.frontends.simulation import simulate
from vfiomig.migration.loop_rules import LOOP_RULES
from vfiomig.migration.metrics import Outcome

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = """
[machine]
ram = "16M"
filled = "6M"
[[machine.load]]
dirty_rate = "4M"
working_set = "2M"
[[device]]
target = "accelerator,memory=1M"
work = 500
[[device]]
target = "serial"
"""


def migrate(folder: Path, *more: str, machine: str = MACHINE) -> RunReport:
    file = folder / "machine.toml"
    file.write_text("\n".join([*more, machine]))
    return simulate(load_scenario(file))


def is_whole(report: RunReport) -> bool:
    """Tell whether RAM and devices arrived, and were seen to."""
    verdicts = {device.name: device.verdict for device in report.devices}
    assert list(verdicts) == ["accelerator", "serial", "ram"]
    return set(verdicts.values()) == {Verdict.VERIFIED}


@pytest.mark.parametrize("multifd", ["false", "true"])
def test_a_machine_moves_alike_over_every_transport(
    tmp_path: Path, multifd: str
) -> None:
    runs = [
        migrate(
            tmp_path,
            f'transport = "{transport}"',
            f"capabilities = {{ multifd = {multifd} }}",
        )
        for transport in ("memory", "unix", "tcp")
    ]
    for run in runs:
        assert is_whole(run)
        assert overall_verdict(run).text == "state verified"
        assert run.metrics == runs[0].metrics
    metrics = runs[0].metrics
    # All 4096 pages once; those that the guest wrote meanwhile again.
    assert metrics.normal_pages + metrics.zero_pages >= 4096
    assert metrics.loaded_ram_pages == metrics.normal_pages + metrics.zero_pages
    assert metrics.zero_pages == (16 - 6) * 256
    if multifd == "true":
        assert metrics.channel_bytes >= metrics.normal_pages * 4096
        assert metrics.stream_bytes < 4 << 20
    else:
        assert metrics.channel_bytes == 0
        assert metrics.stream_bytes > metrics.normal_pages * 4104


@pytest.mark.parametrize("version", LOOP_RULES)
def test_every_version_of_the_loop_moves_all(tmp_path: Path, version: str) -> None:
    machine = MACHINE.replace("[machine]", f'[machine]\nqemu = "{version}"')
    report = migrate(tmp_path, machine=machine)
    assert is_whole(report)
    statuses = [each.status for each in report.metrics.statuses]
    switch = ["device"] if version in {"10.0", "11.1"} else []
    assert statuses == ["setup", "active", *switch, "completed"]


def test_ram_starves_devices_until_every_handler_has_a_turn(tmp_path: Path) -> None:
    # A guest that never stops writing: in 7.2 RAM is never finished.
    machine = MACHINE.replace('"4M"', '"60M"').replace('"2M"', '"8M"')
    sent = {
        version: migrate(
            tmp_path,
            'link = { bandwidth = "20M" }',
            "parameters = { downtime-limit = 60 }",
            'limits = { rounds = 6, when_not_converging = "switch-over" }',
            machine=machine.replace("[machine]", f'[machine]\nqemu = "{version}"'),
        ).metrics.precopy_device_bytes
        for version in ("7.2", "9.0")
    }
    assert 2 * sent["7.2"] < sent["9.0"]


@pytest.mark.slow
def test_auto_converge_slows_the_guest_until_it_fits(tmp_path: Path) -> None:
    machine = MACHINE.replace('"16M"', '"4M"').replace('"6M"', '"3M"')
    machine = machine.replace('rate = "4M"', 'rate = "1280K"').replace('"2M"', '"3M"')
    machine = machine.replace("memory=1M", "memory=64K") + "work = 0\n"
    link = 'link = { bandwidth = "1M" }'
    limit = "parameters = { downtime-limit = 100 }"
    left_alone = migrate(tmp_path, link, limit, machine=machine)
    assert left_alone.outcome is Outcome.NOT_CONVERGED
    assert left_alone.metrics.cpu_throttle == 0
    helped = migrate(
        tmp_path,
        link,
        limit,
        "capabilities = { auto-converge = true }",
        machine=machine,
    )
    assert is_whole(helped)
    assert helped.metrics.cpu_throttle >= 40


def test_max_bandwidth_is_a_budget_for_each_window(tmp_path: Path) -> None:
    # 6 MiB that are not zero at 8 MiB/s: two thirds of a second, the link being idle.
    report = migrate(tmp_path, 'parameters = { max-bandwidth = "8M" }')
    assert is_whole(report)
    assert report.metrics.stopped_at is not None
    assert 0.6e9 < report.metrics.stopped_at < 1.2e9
    assert report.metrics.measured_bandwidth == pytest.approx(
        8 << 20, rel=0.2
    )  # a device's buffer may go beyond it


@pytest.mark.parametrize("multifd", ["false", "true"])
@pytest.mark.parametrize(
    "transport",
    [
        pytest.param("memory", marks=pytest.mark.slow),
        pytest.param("unix", marks=pytest.mark.slow),
        "tcp",
    ],
)
@pytest.mark.parametrize("cut", [3, 100, 20_000, 600_000])
def test_a_link_that_breaks_leaves_the_source_whole(
    tmp_path: Path, cut: int, transport: str, multifd: str
) -> None:
    report = migrate(
        tmp_path,
        f'transport = "{transport}"',
        f"link = {{ cut = {cut} }}",
        f"capabilities = {{ multifd = {multifd} }}",
    )
    assert report.outcome is Outcome.FAILED
    assert report.lost == []
    assert overall_verdict(report).text.endswith("the source runs on unharmed")
    assert report.metrics.statuses[-1].status == "failed"


def test_a_cancel_is_told_as_query_migrate_tells_it(tmp_path: Path) -> None:
    report = migrate(tmp_path, 'limits = { cancel_at = "20ms" }')
    assert report.outcome is Outcome.CANCELLED
    statuses = [each.status for each in report.metrics.statuses]
    assert statuses == ["setup", "active", "cancelling", "cancelled"]


def test_pause_before_switchover_is_a_status(tmp_path: Path) -> None:
    report = migrate(tmp_path, "capabilities = { pause-before-switchover = true }")
    statuses = [each.status for each in report.metrics.statuses]
    assert statuses == ["setup", "active", "pre-switchover", "device", "completed"]


def test_a_flipped_bit_of_a_page_is_never_verified(tmp_path: Path) -> None:
    # In a page behind the working set, so that it is sent once: nothing but the digest
    # can tell.
    report = migrate(tmp_path, "link = { flip = { byte = 4000000, bit = 5 } }")
    assert report.outcome is Outcome.COMPLETED
    assert not report.ok
    (ram,) = (device for device in report.devices if device.name == "ram")
    assert ram.verdict is Verdict.DIFFERS
    assert "state verified" not in overall_verdict(report).text
