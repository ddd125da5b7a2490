"""A bench file on a PCI function that a server of ours has, in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.conformance.vfio_user.test_over_a_socket import done, served
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.holding import Held, Look, NotStarted, Scripted

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

BENCH = """
[[state]]
bar = 0
offset = 0x1000
size = 64
width = 8

[[work]]
bar = 0
offset = 0x10
value = 3
step = 1
"""

# A memory BAR: the state is at 0x1000; what is written to 0x10 is work.
DRIVERS = """
from vfiomig.conformance.target import load_target
from vfiomig.host.pci import DEFAULT_IDENTITY, Bar


class Pad:
    identity = DEFAULT_IDENTITY
    bars = (Bar(0x2000),)

    def __init__(self):
        target = load_target("opaque,state=64,data-section=trapped")
        self.driver = target.make_driver()
        self.migration_region = self.driver.migration_region
        self.reset, self.close = self.driver.reset, self.driver.close
        self.read = self.driver.read

    def connect(self, bus):
        pass

    def write(self, offset, data):
        self.driver.write(offset, data)

    def state(self):
        return bytes(self.driver.snapshot())

    def runs(self):
        return self.read(0, 4)[0] & 1

    def read_bar(self, bar, offset, size):
        return self.state()[offset - 0x1000 : offset - 0x1000 + size]

    def write_bar(self, bar, offset, data):
        if offset == 0x10:
            self.driver.work(int.from_bytes(data, "little"))


class LosesAByte(Pad):
    lost = False

    def write(self, offset, data):
        was_resuming = self.read(0, 4)[0] == 4
        super().write(offset, data)
        self.lost = self.lost or was_resuming and bool(self.runs())

    def state(self):
        state = super().state()
        return state[:60] + b"\\0" + state[61:] if self.lost else state


class WorksWhileStopped(Pad):
    worked = 0

    def write_bar(self, bar, offset, data):
        super().write_bar(bar, offset, data)
        if offset == 0x10 and not self.runs():
            self.worked += 1

    def state(self):
        state = bytearray(super().state())
        state[60] = (state[60] + self.worked) % 256
        return bytes(state)


class RefusesWorkWhileStopped(Pad):
    def write_bar(self, bar, offset, data):
        if not self.runs():
            raise OSError(5, "it is stopped")
        super().write_bar(bar, offset, data)


class ReadsAsOnesWhileStopped(Pad):
    def read_bar(self, bar, offset, size):
        ones = b"\\xff" * size
        return super().read_bar(bar, offset, size) if self.runs() else ones
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pad.py").write_text(DRIVERS)
    (tmp_path / "bench.toml").write_text(BENCH)
    return tmp_path


def target(folder: Path, name: str) -> str:
    return served(f"{folder}/pad.py:{name}", f",bench={folder}/bench.toml")


def first_with(*wanted: str) -> Scripted:
    """Name the first script in which steps of these names follow one another."""
    for number, steps in enumerate(scripts()):
        names = " ".join(each.name for each in steps)
        if " ".join(wanted) in names:
            return Scripted(number, number + 1)
    raise LookupError(wanted)


def judged(folder: Path, name: str) -> tuple[set[str], set[str]]:
    """Return the rules that a round trip and a stop reach, and those they break."""
    round_trip = first_with("drain", "enter", "enter", "load", "enter")
    stop = first_with("snapshot", "work", "snapshot")
    reached, broken = set[str](), set[str]()
    for report in done(target(folder, name), round_trip, stop):
        assert isinstance(report, Held)
        assert report.died is None
        reached |= report.reached
        broken |= report.broken.keys()
    return reached, broken


RESTORED = "v1/transitions/resuming-to-running"
NO_PROGRESS = "v1/device-state/no-progress-while-stopped"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("RefusesWorkWhileStopped", set()),
        ("LosesAByte", {RESTORED}),
        ("WorksWhileStopped", {NO_PROGRESS}),
    ],
)
def test_what_needs_a_bench_is_judged_by_its_bars(
    folder: Path, name: str, expected: set[str]
) -> None:
    reached, broken = judged(folder, name)
    assert {RESTORED, NO_PROGRESS} <= reached
    assert broken & {RESTORED, NO_PROGRESS} == expected
    assert bool(broken) == bool(expected)


STOPPED = ", while the device is stopped (STOP_AND_COPY): "


@pytest.mark.parametrize(
    ("name", "work", "why"),
    [
        (
            "ReadsAsOnesWhileStopped",
            "0x10",
            f"state[0], 0x1000 of BAR 0{STOPPED}it reads as all ones, "
            "as if nothing were there",
        ),
        ("Pad", "0x10000", "work[0], 0x10000 of BAR 0: Invalid argument"),
    ],
)
def test_a_place_that_cannot_be_judged_by_is_no_finding(
    folder: Path, name: str, work: str, why: str
) -> None:
    bench = BENCH.replace("0x10\n", f"{work}\n")
    (folder / "bench.toml").write_text(bench)
    (report,) = done(target(folder, name), Look())
    assert isinstance(report, NotStarted)
    assert str(report).endswith(f"the bench file is of no use: {why}")
