"""What becomes of a guest's harts under each policy, told by the guest that goes on.

Expected is the table of what a hart was at the source and what QEMU makes of it at the
destination: unpatched (8.2 to 11.1), forcing all secondaries runnable (the third
version of the patch on the list), and with mp_state saved (what was merged).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from vfiomig.frontends.run_report import Verdict
from vfiomig.frontends.scenario import ScenarioError, load_scenario
from vfiomig.frontends.simulation import simulate
from vfiomig.migration.metrics import Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from vfiomig.frontends.run_report import HartReport, RunReport

SCENARIO: Final = """
transport = "{transport}"
[[device]]
target = "serial"
[machine]
type = "virt"
ram = "1M"
[machine.harts]
roles = [{roles}]
policy = "{policy}"
{more}
"""
RUN: Final = "runnable"
STOP: Final = "stopped"


def moved(
    folder: Path,
    roles: tuple[str, ...],
    policy: str,
    more: str = "",
    transport: str = "memory",
) -> RunReport:
    """Return the report of such a guest's migration."""
    file = folder / "harts.toml"
    words = ", ".join(f'"{role}"' for role in roles)
    file.write_text(
        SCENARIO.format(transport=transport, roles=words, policy=policy, more=more)
    )
    return simulate(load_scenario(file))


class Fate(NamedTuple):
    """Where a hart arrives, in which modes it then retires, and what befalls it."""

    arrives: str
    user: bool
    supervisor: bool
    befell: str = ""

    @classmethod
    def of(cls, hart: HartReport) -> Fate:
        return cls(
            hart.destination,
            hart.retired_user > 0,
            hart.retired_supervisor > 0,
            hart.befell.partition(" at ")[0],
        )


IN_USER: Final = Fate(f"U, {RUN}", user=True, supervisor=True)  # it calls its kernel
IN_SUPERVISOR: Final = Fate(f"S, {RUN}", user=False, supervisor=True)
STANDS: Final = Fate(f"S, {STOP}", user=False, supervisor=False)
OOPS: Final = Fate(
    f"S, {RUN}", user=False, supervisor=True, befell="panic: instruction page fault"
)
BEHIND_ITS_STOP: Final = IN_SUPERVISOR._replace(befell="went on behind its hart_stop")
BOOTS_AGAIN: Final = IN_SUPERVISOR._replace(befell="booted the guest once more")

MIXED: Final = (
    ("user", "supervisor", "waiting", "stopped"),
    ("supervisor", "user", "stopped", "never-started"),
    ("waiting", "never-started", "user", "supervisor"),
    ("stopped", "waiting", "user", "never-started"),
)
# A secondary's fate by its role.
BY_ROLE: Final = {
    "unpatched": dict.fromkeys(
        ("user", "supervisor", "waiting", "stopped", "never-started"), STANDS
    ),
    "all-runnable": {
        "user": IN_USER,
        "supervisor": IN_SUPERVISOR,
        "waiting": IN_SUPERVISOR,
        "stopped": BEHIND_ITS_STOP,
        "never-started": BOOTS_AGAIN,
    },
    "mp-state": {
        "user": IN_USER,
        "supervisor": IN_SUPERVISOR,
        "waiting": IN_SUPERVISOR,
        "stopped": STANDS,
        "never-started": STANDS,
    },
}
# And that of hart 0, which is never stopped by a policy that does not know.
OF_THE_FIRST: Final = {
    "unpatched": {
        "user": OOPS,
        "supervisor": IN_SUPERVISOR,
        "waiting": IN_SUPERVISOR,
        "stopped": BEHIND_ITS_STOP,
    },
    "all-runnable": {
        "user": IN_USER,
        "supervisor": IN_SUPERVISOR,
        "waiting": IN_SUPERVISOR,
        "stopped": BEHIND_ITS_STOP,
    },
    "mp-state": {
        "user": IN_USER,
        "supervisor": IN_SUPERVISOR,
        "waiting": IN_SUPERVISOR,
        "stopped": STANDS,
    },
}


@pytest.mark.parametrize("policy", BY_ROLE)
@pytest.mark.parametrize("roles", MIXED, ids="-".join)
def test_four_harts_end_as_the_column_of_their_policy_says(
    tmp_path: Path, roles: tuple[str, ...], policy: str
) -> None:
    report = moved(tmp_path, roles, policy, transport="rsocket-model")
    assert report.outcome is Outcome.COMPLETED
    first, *others = roles
    expected = [OF_THE_FIRST[policy][first]]
    expected += [BY_ROLE[policy][role] for role in others]
    assert [Fate.of(hart) for hart in report.harts] == expected
    assert [hart.role for hart in report.harts] == list(roles)


@pytest.mark.parametrize("roles", MIXED, ids="-".join)
def test_only_saving_mp_state_moves_mixed_harts(
    tmp_path: Path, roles: tuple[str, ...]
) -> None:
    reports = {policy: moved(tmp_path, roles, policy) for policy in BY_ROLE}
    ended_well = [policy for policy, report in reports.items() if report.ok]
    assert ended_well == ["mp-state"]
    verdicts = {device.name: device.verdict for device in reports["unpatched"].devices}
    assert verdicts["harts"] is Verdict.DIFFERS
    assert verdicts["ram"] is Verdict.VERIFIED


def test_a_report_says_which_hart_differs_and_how(tmp_path: Path) -> None:
    report = moved(tmp_path, ("supervisor", "supervisor", "waiting"), "unpatched")
    (harts,) = [device for device in report.devices if device.name == "harts"]
    assert harts.reason == (
        "hart 1: is stopped, and the source's ran; "
        "hart 2: is stopped, and the source's ran"
    )


def test_a_guest_waits_as_long_as_before(tmp_path: Path) -> None:
    # Each wake-up takes a few instructions, and they come once a millisecond.
    report = moved(tmp_path, ("waiting",), "mp-state", 'run_on = "50ms"')
    once = moved(tmp_path, ("waiting",), "mp-state", 'run_on = "10ms"')
    assert 0 < once.harts[0].retired_supervisor < 10 * 50
    assert (
        4 * once.harts[0].retired_supervisor
        < report.harts[0].retired_supervisor
        < 6 * once.harts[0].retired_supervisor
    )


# -- where source and destination are not alike ----------------------------------------


@pytest.mark.parametrize(
    ("here", "there", "why"),
    [
        ("unpatched", "mp-state", "version 11 cannot be loaded, only 12"),
        ("mp-state", "unpatched", "version 12 cannot be loaded, only 11"),
    ],
)
def test_other_versions_refuse_one_another(
    tmp_path: Path, here: str, there: str, why: str
) -> None:
    more = f'destination_policy = "{there}"'
    report = moved(tmp_path, ("user", "stopped"), here, more)
    assert report.outcome is Outcome.FAILED
    assert why in report.reason
    assert all(device.verdict is Verdict.DID_NOT_ARRIVE for device in report.devices)


def test_a_source_without_the_capability_leaves_secondaries_stopped(
    tmp_path: Path,
) -> None:
    report = moved(tmp_path, ("user", "user"), "mp-state", "mp_state = false")
    assert [Fate.of(hart) for hart in report.harts] == [
        IN_USER,
        STANDS._replace(arrives="U, stopped"),
    ]
    assert not report.ok


def test_a_destination_without_the_capability_refuses(tmp_path: Path) -> None:
    more = "destination_mp_state = false"
    report = moved(tmp_path, ("user", "user"), "mp-state", more)
    assert report.outcome is Outcome.FAILED
    assert "cpu/kvm-mp-state cannot be loaded (ENOTSUP)" in report.reason


def test_harts_that_could_not_move_go_on_at_the_source(tmp_path: Path) -> None:
    report = moved(
        tmp_path, ("user", "stopped"), "mp-state", "destination_mp_state = false"
    )
    (harts,) = [device for device in report.devices if device.name == "harts"]
    assert harts.digests.source_after_failure == harts.digests.source_at_stop


def test_harts_and_devices_move_by_multifd_as_well(tmp_path: Path) -> None:
    more = "[capabilities]\nmultifd = true"
    roles = ("user", "supervisor")
    report = moved(tmp_path, roles, "mp-state", more, "rsocket-model")
    assert report.ok
    assert [Fate.of(hart) for hart in report.harts] == [IN_USER, IN_SUPERVISOR]


def test_rdma_that_is_not_there_is_named(tmp_path: Path) -> None:
    more = '[rsocket]\naddress = "192.0.2.1"'
    with pytest.raises(ScenarioError, match=r"harts\.toml: rsocket\.address: 192\.0"):
        moved(tmp_path, ("user",), "mp-state", more, "rsocket")
