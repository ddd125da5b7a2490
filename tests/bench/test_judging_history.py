"""Judging a recorded history: its time and memory as the history gets longer.

The history is a migration with the reference driver, there and back, over and over.  It
is made while it is judged, as `vfiomig judge` takes one from a file.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import cycle, islice
from typing import TYPE_CHECKING, Final

from tests.bench.figures import best_of, show, timed
from tests.bench.machines import Side, migrate
from vfiomig.client.recorder import HistoryWriter, Recorder
from vfiomig.client.region import find_migration_region
from vfiomig.conformance.finding import Verdict
from vfiomig.conformance.judging import judge_history
from vfiomig.conformance.target import load_target
from vfiomig.protocol.history import Header, RegionShape

if TYPE_CHECKING:
    from vfiomig.host.device_fd import DeviceFd
    from vfiomig.protocol.history import Record

TARGET: Final = "reference,data-section=trapped"  # so that all is seen

SHORT: Final = 100_000
LONG: Final = 1_000_000


def migration() -> tuple[Header, list[Record]]:
    """Return one migration; both devices are reset behind it, to begin again."""
    history = HistoryWriter()
    shapes: dict[str, RegionShape] = {}

    def side(name: str) -> Side:
        def recorder(fd: DeviceFd) -> Recorder:
            region = find_migration_region(fd)
            shapes[name] = RegionShape(size=region.size)
            return Recorder(fd, region, history, device=name)

        return Side.of(load_target(TARGET).make_driver(), recorder)

    source, destination = side("source"), side("destination")
    migrate(source, destination)
    for each in (source, destination):
        each.client.reset()
        each.fd.close()
    return Header(recorded_by="bench", devices=shapes), history.records


def judge(history: tuple[Header, list[Record]], length: int) -> None:
    """Judge so many records of one migration after another; no rule is broken."""
    header, once = history
    results = judge_history(header, islice(cycle(once), length))
    broken = [each.rule.id for each in results if each.verdict is Verdict.BROKEN]
    assert not broken, broken


def peak_of(length: int) -> tuple[int, int]:
    """Return the peak memory of a fresh process, before and behind it, in KiB."""
    # Not ru_maxrss: a child begins with its parent's.
    code = (
        "from tests.bench.test_judging_history import judge, migration\n"
        "history = migration()\n"
        "def peak():\n"
        "    lines = open('/proc/self/status').readlines()\n"
        "    return [l.split()[1] for l in lines if l.startswith('VmHWM')][0]\n"
        "judge(history, 1000); before = peak()\n"
        f"judge(history, {length}); print(before, peak())"
    )
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    before, peak = map(int, output.split())
    return before, peak


def test_a_history_of_a_million_accesses() -> None:
    history = migration()
    short, long = best_of(
        lambda: timed(lambda: judge(history, SHORT)),
        lambda: timed(lambda: judge(history, LONG)),
        runs=2,
    )
    per_record = long / LONG
    beside = "one of 100,000"
    show("a record of 1,000,000", per_record / (short / SHORT), 1.3, beside)
    print(f"({per_record * 1e6:.1f} us a record, {long:.1f} s in all)")


def test_its_peak_memory() -> None:
    _, short = peak_of(SHORT)
    before, long = peak_of(LONG)
    show("peak memory with 1,000,000 records", long / short, 1.2, "that with 100,000")
    print(f"({long - before} KiB more than with 1000)")
