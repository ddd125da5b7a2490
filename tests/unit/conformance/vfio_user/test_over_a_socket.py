"""The suite and a migration, on servers of ours in processes of their own."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from vfiomig.conformance.campaign import Campaign, Plan
from vfiomig.conformance.catalogue import load_catalogue
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.conversation.steps import step
from vfiomig.conformance.holding import Held, Scripted, Shorten
from vfiomig.conformance.shortening import Shortened, Sought
from vfiomig.conformance.target import load_target
from vfiomig.conformance.worker import WorkerDied

if TYPE_CHECKING:
    from pathlib import Path

    from vfiomig.conformance.holding import Job, Report

pytestmark = pytest.mark.slow

DRIVERS = """
import os
import time
from vfiomig.conformance.target import load_target


class Reference:
    def __init__(self):
        self.driver = load_target("reference").make_driver()

    def __getattr__(self, name):
        if name in ("work", "snapshot", "fail"):
            raise AttributeError(name)
        return getattr(self.driver, name)

    def read(self, offset, size):
        return self.driver.read(offset, size)

    def write(self, offset, data):
        self.driver.write(offset, data)


class Exits(Reference):
    def read(self, offset, size):
        if offset == 24:
            print("out of descriptors", flush=True)
            os._exit(7)
        return super().read(offset, size)


class Raises(Reference):
    def read(self, offset, size):
        if offset == 24:
            raise ZeroDivisionError("no chunk")
        return super().read(offset, size)


class Hangs(Reference):
    def read(self, offset, size):
        while offset == 24:
            time.sleep(1)
        return super().read(offset, size)


class CrashesWhenLeft(Reference):
    def close(self):
        os.kill(os.getpid(), 11)


class ForgetsToStop(Reference):
    def write(self, offset, data):
        if offset == 0 and data[0] & 7 == 5:
            return
        super().write(offset, data)
"""
SERVE = f"{shlex.quote(sys.executable)} -m vfiomig serve"


@pytest.fixture
def drivers(tmp_path: Path) -> Path:
    path = tmp_path / "drivers.py"
    path.write_text(DRIVERS)
    return path


def done(target: str, *jobs: Job) -> list[Report | WorkerDied]:
    loaded = load_target(target)
    assert loaded.servers is not None
    rules = tuple(rule.id for rule in load_catalogue())
    plan = Plan(rules=rules, accesses=100_000, data=64 << 20)
    bench = plan.bench(loaded.make_driver)
    campaign = Campaign(bench, servers=loaded.servers)
    try:
        return [report for job in jobs for report in campaign.do(job)]
    finally:
        loaded.servers.renew()


def served(target: str, options: str = "") -> str:
    return f"vfio-user{options}:{SERVE} {shlex.quote(target)} --socket {{socket}}"


def vfiomig(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vfiomig", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        check=False,
    )


def test_a_conversation_is_the_same_over_a_socket(drivers: Path) -> None:
    jobs = (Scripted(0, 12), Scripted(400, 412))
    here = load_target(f"{drivers}:Reference")
    rules = tuple(rule.id for rule in load_catalogue())
    campaign = Campaign(
        Plan(rules=rules, accesses=100_000, data=64 << 20).bench(here.make_driver)
    )
    held = [report for job in jobs for report in campaign.do(job)]
    remote = done(served("reference"), *jobs)
    assert len(remote) == 24
    assert remote == held


def test_a_server_that_ends_died_with_its_status_and_what_it_printed(
    drivers: Path,
) -> None:
    reports = done(served(f"{drivers}:Exits"), Scripted(0, 6))
    deaths = [each for each in reports if isinstance(each, WorkerDied)]
    assert len(deaths) == 2  # behind which the access is not made again
    assert {each.access for each in deaths} == {"read of 8 bytes at 0x18"}
    assert "the server ended with status 7" in deaths[0].how
    assert "REGION_READ of 8 bytes at 0x18" in deaths[0].how
    assert "out of descriptors" in deaths[0].printed
    assert sum(isinstance(each, Held) for each in reports) == 4


def test_a_driver_that_dies_in_its_server_is_found_in_its_source(drivers: Path) -> None:
    (death, *_) = done(served(f"{drivers}:Raises"), Scripted(0, 1))
    assert isinstance(death, WorkerDied)
    assert "the server ended with status 1" in death.how
    assert "ZeroDivisionError: no chunk" in death.printed
    line = DRIVERS.split("\n").index('            raise ZeroDivisionError("no chunk")')
    assert f"drivers.py:{line + 1}" in death.printed


def test_a_server_that_crashes_behind_its_client_died_once(drivers: Path) -> None:
    reports = done(served(f"{drivers}:CrashesWhenLeft"), Scripted(0, 12))
    (death,) = [each for each in reports if isinstance(each, WorkerDied)]
    assert death.access == "close"
    assert "killed by SIGSEGV after its client had left" in death.how
    assert sum(isinstance(each, Held) for each in reports) >= 10


def test_a_server_that_hangs_died_of_the_access(drivers: Path) -> None:
    (death, *_) = done(served(f"{drivers}:Hangs", ",limit=1"), Scripted(0, 1))
    assert isinstance(death, WorkerDied)
    assert death.access == "read of 8 bytes at 0x18"
    assert "within 1 s" in death.how


def test_a_finding_is_made_short_on_servers_of_its_own(drivers: Path) -> None:
    rule = "v1/device-state/invalid-values-refused"
    target = served(f"{drivers}:ForgetsToStop")
    steps = next(steps for steps in scripts() if step("enter", "source", 5) in steps)
    reports = done(target, Shorten(Sought(rule=rule), steps))
    (short,) = [each for each in reports if isinstance(each, Shortened)]
    assert not short.is_flaky
    assert short.broken is not None
    assert short.where == ""  # its source is the server's
    assert len(short.history) <= 8


def test_servers_are_the_two_sides_of_a_migration_that_maps(tmp_path: Path) -> None:
    target = served("reference,data-section=mapped")
    words = ("--device", target, "--history", "h", "--json", "j")
    ended = vfiomig("migrate", *words, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "has no snapshot()" in ended.stdout
    header, *records = map(json.loads, (tmp_path / "h").read_text().splitlines())
    (shape, _) = header["devices"].values()
    (area,) = shape["areas"]
    inside = [
        each
        for each in records
        if each.get("access") in ("read", "write") and each.get("offset", 0) >= area[0]
    ]
    assert inside
    assert all(each.get("unseen") for each in inside)


def test_each_side_of_a_migration_may_be_another_kind_of_target(tmp_path: Path) -> None:
    for words in (
        ("--device", served("serial"), "--destination", "serial"),
        ("--device", "serial", "--destination", served("serial")),
    ):
        ended = vfiomig("migrate", *words, cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
        assert "completed" in ended.stdout


def test_how_many_rules_cannot_be_judged_is_the_first_line(
    drivers: Path, tmp_path: Path
) -> None:
    serve = f"{SERVE} {drivers}:ForgetsToStop --socket {{socket}}"
    words = ("--server", serve, "--effort", "quick", "--rule", "v1/device-state")
    ended = vfiomig("check", "vfio-user:", *words, cwd=tmp_path)
    assert ended.returncode == 1, ended.stderr
    first, *rest = ended.stdout.splitlines()
    # Those of README that are about device_state.
    assert first == "over a socket 6 rules cannot be judged"
    assert any("invalid-values-refused" in line for line in rest)
    assert f"--server {shlex.quote(serve)}" in ended.stdout or serve in ended.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("vfio-user:", "--server", "false {socket}"), 3, "ended with status 1 before"),
        (("vfio-user:", "--server", "no-socket"), 3, "no server can be reached"),
        (("vfio-user:/nowhere",), 3, "no server can be reached"),
        (("vfio-user:",), 2, "which server?"),
        (("vfio-user:/s", "--exhaustive"), 2, "--exhaustive needs a driver in Python"),
        (("serial", "--server", "x {socket}"), 2, "only a vfio-user: target"),
        (("vfio-user:/s", "--bench", "none"), 2, "none: there is no such file"),
    ],
)
def test_what_cannot_be_checked_is_one_line(
    tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    ended = vfiomig("check", *words, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
