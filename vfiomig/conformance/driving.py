"""A user application on trial: what it does to devices, judged.

Rule 1: it is given several pairs of devices, one after another, because no pair can
show all that it may do wrong: some conform in unusual ways, and one is faulty itself.

Rule 2: the checks are those of a recorded history, both parties' alike; what the bench
did to the devices is in it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from vfiomig.client.mutants.careful import Device
from vfiomig.client.recorder import HistoryWriter, Recorder
from vfiomig.client.region import find_migration_region
from vfiomig.conformance.finding import Verdict
from vfiomig.conformance.judging import HistoryJudge
from vfiomig.host.device_fd import DeviceFd
from vfiomig.protocol.bench import BenchAccess, bench_of
from vfiomig.protocol.history import BenchEvent, Header, RegionShape
from vfiomig.vendor.conforming.buffers import EmptyBuffers, MovingDataOffset
from vfiomig.vendor.data_section import PAGE
from vfiomig.vendor.mutants.standalone_registers import ZeroSizeForever
from vfiomig.vendor.mutants.standalone_resuming import HalfAStreamWillDo
from vfiomig.vendor.reference import ReferenceDriver
from vfiomig.vendor.scratchpad import ScratchpadModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.host.device_ops import TrappedDriver

_STATE: Final = 6 * PAGE


class UserApplication(Protocol):
    """Whoever drives two fresh devices from open to the end."""

    def drive(self, source: Device, destination: Device) -> None:
        """Migrate from one to the other, or fail to."""


class Pair(NamedTuple):
    """The devices of one drive."""

    name: str
    make_source: Callable[[], TrappedDriver]
    make_destination: Callable[[], TrappedDriver]


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """What a user application broke, and what its devices are accused of.

    ``broken`` has, for each rule of the user application, the records from the open to
    where it was broken, in the pair where these were fewest.  ``accused`` are rules of
    the vendor driver, with the pair; ``raised`` is what came out of the drive.
    """

    broken: dict[str, int]
    held: frozenset[str]
    accused: tuple[tuple[str, str], ...]
    raised: tuple[str, ...]


def _reference(section: int) -> Callable[[], TrappedDriver]:
    return lambda: ReferenceDriver(
        ScratchpadModel(_STATE), section=section, data_section="split"
    )


PAIRS: Final = (
    Pair("reference", _reference(2 * PAGE), _reference(2 * PAGE)),
    Pair("moving data_offset", MovingDataOffset, MovingDataOffset),
    Pair("empty buffers", EmptyBuffers, EmptyBuffers),
    Pair("less room", _reference(4 * PAGE), _reference(PAGE)),
    # Not the user application's fault; its own faults show all the same.
    Pair("no progress", ZeroSizeForever, HalfAStreamWillDo),
)


def judge_user_application(make_client: Callable[[], UserApplication]) -> Driven:
    """Let a fresh user application drive each pair, and judge what it did."""
    broken: dict[str, int] = {}
    held: set[str] = set()
    accused: list[tuple[str, str]] = []
    raised: list[str] = []
    for pair in PAIRS:
        judge, error = _drive(make_client(), pair)
        if error:
            raised.append(f"{pair.name}: {error}")
        for result in judge.results():
            rule, finding = result.rule, result.finding
            is_own = rule.party == "user application"
            if result.verdict is Verdict.HELD and is_own:
                held.add(rule.id)
            if result.verdict is not Verdict.BROKEN or finding is None:
                continue
            if is_own:
                at = finding.broken.witnesses[-1].index
                broken[rule.id] = min(at, broken.get(rule.id, at))
            else:
                accused.append((rule.id, pair.name))
    return Driven(
        broken=broken,
        held=frozenset(held - broken.keys()),
        accused=tuple(accused),
        raised=tuple(raised),
    )


def _drive(client: UserApplication, pair: Pair) -> tuple[HistoryJudge, str]:
    log = HistoryWriter()
    shapes: dict[str, RegionShape] = {}
    devices = []
    error = ""
    with contextlib.ExitStack() as open_devices:
        for name, make in (
            ("source", pair.make_source),
            ("destination", pair.make_destination),
        ):
            driver = make()
            handle = DeviceFd(driver)
            region = find_migration_region(handle)
            shapes[name] = RegionShape.of(region)
            recorder = Recorder(handle, region, log, device=name)
            open_devices.callback(_close, recorder)
            devices.append(Device(recorder, _noted(bench_of(driver), name, log)))
        try:
            client.drive(*devices)
        except Exception as failure:  # it is on trial: that too is told of it
            error = f"{type(failure).__name__}: {failure}"
    judge = HistoryJudge(Header(recorded_by="vfiomig mutants", devices=shapes))
    for record in log.records:
        judge.see(record)
    return judge, error


def _close(recorder: Recorder) -> None:
    with contextlib.suppress(OSError):
        recorder.close()


def _noted(bench: BenchAccess, name: str, log: HistoryWriter) -> BenchAccess:
    """Return a bench whose doings stand in the history."""
    work, fail = bench.work, bench.fail

    def noted_work(amount: int) -> None:
        if work is not None:
            work(amount)
            log.append(BenchEvent(name, "work", amount=amount))

    def noted_fail(on: str, code: int) -> None:
        if fail is not None:
            fail(on, code)
            log.append(BenchEvent(name, "fail", on=on, errno=code))

    return BenchAccess(work=noted_work, fail=noted_fail)
