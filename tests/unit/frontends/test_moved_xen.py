"""What becomes of a Xen guest that moves: its events, its store and its disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from vfiomig.frontends.report.as_json import as_json
from vfiomig.frontends.report.verdict import overall_verdict
from vfiomig.frontends.run_report import Verdict
from vfiomig.frontends.scenario import ScenarioError, load_scenario
from vfiomig.frontends.simulation import simulate
from vfiomig.migration.metrics import Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from vfiomig.frontends.run_report import RunReport, XenReport

SCENARIO: Final = """
[[device]]
target = "serial"
[machine]
ram = "1M"
[machine.xen]
"""
# The link is so slow that a handful of pages takes longer than a connection is kept.
SLOW: Final = '[link]\nbandwidth = "1M"\n[parameters]\nmax-bandwidth = "1M"\n'


def run(folder: Path, xen: str = "", more: str = "") -> RunReport:
    """Return the report of such a guest's migration."""
    file = folder / "xen.toml"
    file.write_text(f"{SCENARIO}{xen}\n{more}")
    return simulate(load_scenario(file))


def xen_of(report: RunReport) -> XenReport:
    """Return what is said of the Xen guest."""
    assert report.xen is not None
    return report.xen


def verdicts(report: RunReport) -> dict[str, Verdict]:
    """Return the verdict of each thing that moved."""
    return {each.name: each.verdict for each in report.devices}


@pytest.mark.parametrize("page", ["cached", "pinned"])
@pytest.mark.parametrize("layout", [32, 64])
def test_all_of_it_moves_and_no_event_is_lost(
    tmp_path: Path, page: str, layout: int
) -> None:
    told = f'page = "{page}"\nlayout = {layout}\nrenegotiate = "3ms"'
    report = run(tmp_path, told, SLOW)
    xen = xen_of(report)
    assert set(verdicts(report).values()) == {Verdict.VERIFIED}
    assert report.ok
    events = xen.events
    assert (events.lost, xen.befell, xen.disk.unheard) == (0, [], 0)
    assert events.sent_at_source == events.handled_at_source > 0
    assert events.sent_at_destination == events.handled_at_destination > 0
    assert xen.disk.connections_at_source > 1
    assert xen.disk.connections_at_destination > 1
    assert xen.disk.completed_at_destination > 0


@pytest.mark.parametrize("when", ["5ms", "40ms"], ids=["source", "destination"])
def test_one_word_decides_whether_events_are_lost(tmp_path: Path, when: str) -> None:
    told = f'replaced_at = ["{when}"]\nrenegotiate = "0ns"'
    cached = run(tmp_path, told, SLOW)
    pinned = run(tmp_path, f'page = "pinned"\n{told}', SLOW)
    assert cached.ok
    assert xen_of(cached).events.lost == 0
    assert pinned.outcome is Outcome.COMPLETED
    assert not pinned.ok
    assert verdicts(pinned)["xen"] is Verdict.DIFFERS
    # Every answer to what the guest had asked goes to a page that it does not look at.
    assert xen_of(pinned).events.lost == 32
    assert xen_of(pinned).disk.unheard == 32


def test_the_shortest_scenario_of_what_a_pinned_page_loses(tmp_path: Path) -> None:
    """Nothing is said but the way, and when the page is replaced."""
    report = run(tmp_path, 'page = "pinned"\nreplaced_at = ["1ms"]')
    assert not report.ok
    assert xen_of(report).events.lost > 0
    assert run(tmp_path, 'page = "cached"\nreplaced_at = ["1ms"]').ok


def test_open_transactions_end_at_the_destination(tmp_path: Path) -> None:
    told = 'nodes = 4\ntransactions = 3\nrequests = 0\nrenegotiate = "{}"'
    conflicted = xen_of(run(tmp_path, told.format("1ms"), SLOW)).store
    assert (conflicted.transactions, conflicted.conflicted) == (3, 3)
    assert (conflicted.committed, conflicted.unknown) == (0, 0)


def test_all_that_the_quotas_leave_moves(tmp_path: Path) -> None:
    told = "nodes = 955\nnode_size = 8\nwatches = 127\ntransactions = 10\nvcpus = 32"
    report = run(tmp_path, f'{told}\nvcpu_info = "registered"')
    assert report.ok
    store = xen_of(report).store
    assert (store.nodes, store.watches, store.watches_arrived) == (1000, 128, 128)
    assert store.transactions == 10
    assert (store.committed, store.conflicted, store.unknown) == (1, 9, 0)
    assert report.metrics.xenstore_bytes > 11 * 955 * 8
    assert store.share_of_downtime is not None
    assert 0 < store.share_of_downtime < 1


def test_qemus_store_loses_all_watches_of_a_path_but_one(tmp_path: Path) -> None:
    told = 'quirks = "qemu"\nnodes = 4\nwatches = 8\nrenegotiate = "0ns"'
    report = run(tmp_path, told, SLOW)
    store = xen_of(report).store
    # Two on each of four nodes, and the front end's own.
    assert (store.watches, store.watches_arrived) == (9, 5)
    assert verdicts(report)["xenstore"] is Verdict.DIFFERS
    assert verdicts(report)["xen"] is Verdict.VERIFIED
    assert not report.ok


def test_a_source_that_goes_on_has_lost_nothing(tmp_path: Path) -> None:
    fails = (
        '[[fault]]\nparty = "destination"\ndevice = "serial"\non = "device_state"\n'
        'errno = "EIO"\nat = "end"\n[expect]\noutcome = "failed"\n'
    )
    report = run(tmp_path, 'renegotiate = "3ms"\nnodes = 4\nwatches = 8', SLOW + fails)
    xen = xen_of(report)
    assert report.ok
    assert xen.events.lost == 0
    assert xen.events.handled_at_destination == xen.events.sent_at_destination == 0
    assert xen.disk.connections_at_source > 1
    assert xen.befell == []


def test_a_source_that_goes_on_without_its_events_is_not_unharmed(
    tmp_path: Path,
) -> None:
    told = 'page = "pinned"\nreplaced_at = ["2ms"]\nrenegotiate = "0ns"'
    cancelled = '[limits]\ncancel_at = "7ms"\n[expect]\noutcome = "cancelled"\n' + SLOW
    report = run(tmp_path, told, cancelled)
    assert report.outcome is Outcome.CANCELLED
    assert not report.ok
    verdict = overall_verdict(report).text
    assert "the source runs on, but not unharmed: xen (32 events sent" in verdict
    assert run(tmp_path, told.replace("pinned", "cached"), cancelled).ok


def test_what_a_guest_holds_is_ended_where_it_goes_on(tmp_path: Path) -> None:
    held = 'transactions = 10\nnodes = 2\nrenegotiate = "2ms"'
    cancelled = '[limits]\ncancel_at = "7ms"\n[expect]\noutcome = "cancelled"\n' + SLOW
    report = run(tmp_path, held, cancelled)
    assert report.ok
    store = xen_of(report).store
    assert store.transactions == 10
    assert store.nodes > 40
    assert store.committed + store.conflicted == 10
    assert xen_of(report).befell == []


def test_rounds_before_qemu_has_measured_a_bandwidth_do_not_count(
    tmp_path: Path,
) -> None:
    """A store that is asked all the time dirties its ring in each of them."""
    limits = "[limits]\nrounds = 1\n"
    report = run(tmp_path, 'renegotiate = "1ms"', SLOW + limits)
    assert report.outcome is Outcome.COMPLETED
    assert report.ok
    assert len(report.metrics.rounds) > 5


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    told = 'nodes = 10\nwatches = 3\ntransactions = 1\nrenegotiate = "3ms"'
    first, second = (run(tmp_path, told, SLOW) for _ in range(2))
    assert as_json(first) == as_json(second)


def test_the_json_counts_events_at_both_ends(tmp_path: Path) -> None:
    report = run(tmp_path)
    told = msgspec.json.decode(as_json(report))["xen"]["events"]
    events = xen_of(report).events
    assert told["sent_at_source"] == events.handled_at_source
    assert told["handled_at_destination"] == events.sent_at_destination
    assert told["lost"] == 0


@pytest.mark.parametrize(
    ("told", "refused"),
    [
        ("layout = 16", "machine.xen.layout: must be one of 64, 32, not 16"),
        ("watches = 1", "machine.xen.watches: must be at most 0, two on each of nodes"),
        ("node_size = 2049", "machine.xen.node_size: must be at most 2048, not 2049"),
        ('page = "pin"', 'machine.xen.page: must be one of "cached", "pinned"'),
        ('run_on = "101s"', "machine.xen.run_on: must be at most 100s"),
        ("vcpus = 33", "machine.xen.vcpus: must be at most 32, not 33"),
        ('replaced_at = ["x"]', "machine.xen.replaced_at[0]: must be a time"),
        (
            "[[machine.load]]\ndirty_rate = 1",
            "machine.load[0].offset: must be at least",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, told: str, refused: str) -> None:
    file = tmp_path / "xen.toml"
    file.write_text(f"{SCENARIO}{told}")
    with pytest.raises(ScenarioError, match=r"xen\.toml: ") as error:
        load_scenario(file)
    assert refused in str(error.value)


@pytest.mark.parametrize(
    ("machine", "refused"),
    [
        (
            'type = "virt"\n[machine.harts]\nroles = ["user"]',
            'machine.xen: is of a PC, not of "virt"',
        ),
        ("", "machine.ram: must be at least 65536 bytes: the Xen guest's own is there"),
    ],
)
def test_a_machine_that_cannot_be_a_xen_guests_is_refused(
    tmp_path: Path, machine: str, refused: str
) -> None:
    ram = "16M" if machine else "4K"
    file = tmp_path / "xen.toml"
    device = '[[device]]\ntarget = "serial"\n'
    file.write_text(f'{device}[machine.xen]\n[machine]\nram = "{ram}"\n{machine}')
    with pytest.raises(ScenarioError) as error:
        load_scenario(file)
    assert refused in str(error.value)
