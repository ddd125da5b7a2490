from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest
import xxhash

from vfiomig.client.recorder import HistoryWriter
from vfiomig.frontends.noted_bench import NotedBench
from vfiomig.protocol.bench import BenchAccess, bench_of
from vfiomig.protocol.errors import DriverDiedError
from vfiomig.protocol.history import BenchEvent
from vfiomig.vendor.reference import ReferenceDriver
from vfiomig.vendor.scratchpad import ScratchpadModel

if TYPE_CHECKING:
    from vfiomig.host.device_ops import TrappedDriver


def driver() -> ReferenceDriver:
    return ReferenceDriver(ScratchpadModel(), section=16384, data_section="trapped")


def noted(
    driver: TrappedDriver, members: BenchAccess, log: HistoryWriter | None = None
) -> NotedBench:
    return NotedBench(driver, members, "source/a", log, device=("source", "a"))


def test_what_a_bench_does_is_in_the_history() -> None:
    device, log = driver(), HistoryWriter()
    bench = noted(device, bench_of(device), log)
    bench.work(3)
    taken = bench.snapshot()
    bench.fail("data_size", errno.EIO)
    assert taken is not None
    assert taken.digest == xxhash.xxh3_128_hexdigest(device.snapshot())
    assert log.records == [
        BenchEvent("source/a", "work", amount=3),
        BenchEvent("source/a", "snapshot", digest=f"xxh3-128:{taken.digest}"),
        BenchEvent("source/a", "fail", on="data_size", errno=errno.EIO),
    ]


def test_a_driver_without_a_bench_has_nothing_to_note() -> None:
    log = HistoryWriter()
    bench = noted(driver(), BenchAccess(), log)
    bench.work(3)
    assert bench.snapshot() is None
    assert log.records == []


def test_no_work_is_nothing_to_note() -> None:
    log = HistoryWriter()
    device = driver()
    noted(device, bench_of(device), log).work(0)
    assert log.records == []


def broken(*_: object) -> Any:
    message = "a bug"
    raise OSError(errno.EIO, message)


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (lambda bench: bench.work(3), "work(3)"),
        (lambda bench: bench.snapshot(), "snapshot()"),
        (lambda bench: bench.fail("data", 5), "fail('data', 5)"),
    ],
    ids=["work", "snapshot", "fail"],
)
def test_a_driver_dies_of_whatever_it_raises(act: Any, what: str) -> None:
    log = HistoryWriter()
    bench = noted(driver(), BenchAccess(work=broken, snapshot=broken, fail=broken), log)
    with pytest.raises(DriverDiedError) as death:
        act(bench)
    assert death.value.access == what
    assert death.value.device == ("source", "a")
    assert death.value.error == "OSError: [Errno 5] a bug"
    assert log.records == []


def test_a_snapshot_that_is_no_bytes_is_the_drivers_fault() -> None:
    text: Any = lambda: "state"  # noqa: E731
    bench = noted(driver(), BenchAccess(snapshot=text))
    with pytest.raises(DriverDiedError, match="it returned str, not bytes"):
        bench.snapshot()
