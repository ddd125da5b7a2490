"""Whatever a driver does to its process is an answer: how, at which access, and why."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.open_descriptors import open_descriptors
from tests.unit.conformance.small_drivers import STOP, Bare, Framed, bench_for, small
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.conversation.steps import step
from vfiomig.conformance.holding import Held, Look, Members, NotStarted, Scripted
from vfiomig.conformance.worker import WorkerDied, WorkerEndedError, work

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.conformance.holding import Job

FIRST = Scripted(0, 1)
PATIENCE = 0.5
AT_DATA_SIZE = "read of 8 bytes at 0x18"


def ended(make_driver: Callable[[], Bare], patience: float = 8.0) -> WorkerDied:
    """Hold the first conversation, which the worker does not live through."""
    with pytest.raises(WorkerEndedError) as raised:
        list(work(bench_for(make_driver), [FIRST], patience=patience))
    return raised.value.died


def held(make_driver: Callable[[], Bare]) -> Held:
    """Hold the first conversation, which the worker does live through."""
    (_, report), end = work(bench_for(make_driver), [FIRST])
    assert end == (0, None)
    assert isinstance(report, Held)
    return report


def loop_for_ever(_: Bare) -> NoReturn:
    while True:
        pass


def wait_in_c(_: Bare) -> int:
    ours, _theirs = os.pipe()
    return len(os.read(ours, 1))


def leave(_: Bare) -> NoReturn:
    sys.stdout.write("the last words\n")
    os.write(1, b"of the driver\n")
    os._exit(7)


def abort(_: Bare) -> NoReturn:
    faulthandler.disable()  # the test runner's
    os.abort()


def kill_itself(_: Bare) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# -- a driver that takes its worker with it --------------------------------------------


@pytest.mark.parametrize("hang", [loop_for_ever, wait_in_c])
def test_a_driver_that_hangs_is_given_up_with_its_last_access(
    hang: Callable[[Bare], object],
) -> None:
    died = ended(small(data_size=hang), PATIENCE)
    assert died.how == "it did not answer within 0.5 seconds"
    assert died.access == AT_DATA_SIZE
    assert died.steps == scripts()[0][: len(died.steps)]
    assert died.steps[-1].name == "drain"


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (leave, "it ended the process with status 7"),
        (abort, "it was killed by SIGABRT"),
        (kill_itself, "it was killed by SIGKILL"),
    ],
)
def test_a_driver_that_ends_its_process_is_known_by_its_last_access(
    end: Callable[[Bare], object], how: str
) -> None:
    died = ended(small(data_size=end))
    assert (died.how, died.access) == (how, AT_DATA_SIZE)
    assert [each.name for each in died.steps] == ["work", "enter", "drain"]


def test_what_the_driver_wrote_before_it_left_is_kept() -> None:
    printed = ended(small(data_size=leave)).printed
    assert printed == "the last words\nof the driver\n"


@pytest.mark.parametrize(
    ("member", "access"),
    [
        ("__init__", "start"),
        ("close", "close"),
        ("reset", "reset"),
        ("work", "work"),
        ("snapshot", "snapshot"),
    ],
)
def test_the_last_access_may_be_any_call(member: str, access: str) -> None:
    def exit_at_once(*_: object) -> NoReturn:
        os._exit(1)

    make_driver = small(**{member: exit_at_once})
    number = next(
        number
        for number, steps in enumerate(scripts())
        if member != "reset" or any(each.name == "reset" for each in steps)
    )
    with pytest.raises(WorkerEndedError) as raised:
        list(work(bench_for(make_driver), [Scripted(number, number + 1)]))
    assert raised.value.died.access == access


def test_reports_from_before_the_end_are_not_lost() -> None:
    class LeavesAtTheEnd(Framed):
        def write_device_state(self, target: int) -> None:
            if target == STOP:  # which the last of these scripts asks for, and no other
                os._exit(0)
            super().write_device_state(target)

    stops = step("enter", "source", STOP)
    last = next(n for n, steps in enumerate(scripts()[1:], 1) if stops in steps)
    first = next(n for n in range(last) if stops not in scripts()[n])
    jobs: list[Job] = [Scripted(first, first + 1), Scripted(last, last + 1)]
    reports = work(bench_for(LeavesAtTheEnd), jobs)
    assert isinstance(next(reports)[1], Held)
    assert next(reports) == (0, None)
    with pytest.raises(WorkerEndedError):
        next(reports)


def test_the_parents_own_output_is_left_alone(
    capfd: pytest.CaptureFixture[str],
) -> None:
    ended(small(data_size=leave))
    assert capfd.readouterr() == ("", "")


def test_a_worker_leaves_no_process_and_no_file_behind() -> None:
    before = open_descriptors()
    ended(small(data_size=loop_for_ever), PATIENCE)
    assert len(open_descriptors()) == len(before)
    assert multiprocessing.active_children() == []


# -- a driver that dies, and its worker lives on ---------------------------------------


def raise_runtime_error(_: Bare) -> NoReturn:
    raise RuntimeError("no size")


def exit_by_python(_: Bare) -> NoReturn:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (raise_runtime_error, "RuntimeError: no size"),
        (exit_by_python, "SystemExit: 3"),
    ],
)
def test_what_a_driver_raises_is_its_death(
    fault: Callable[[Bare], NoReturn], error: str
) -> None:
    report = held(small(data_size=fault))
    assert report.died is not None
    assert report.died.error == error
    assert report.died.access == AT_DATA_SIZE
    assert "small_drivers.py:" in report.died.where
    assert report.steps == scripts()[0][: len(report.steps)]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (None, "it answered with NoneType"),
        (0, "it answered with int"),
        ("four", "it answered with str"),
        (bytes(5), "it answered with 5 bytes"),
        (bytes(1 << 20), "it answered with 1048576 bytes"),
    ],
)
def test_an_answer_of_the_wrong_type_or_too_long_is_a_death(
    answer: object, error: str
) -> None:
    report = held(small(read=lambda *_: answer))
    assert report.died is not None
    assert report.died.error == error
    assert report.died.access == "read of 4 bytes at 0x0"


def test_an_answer_that_is_too_short_is_no_death() -> None:
    assert held(small(read=lambda *_: b"\1")).died is None


def test_an_allocation_larger_than_the_machine_fails_in_the_driver() -> None:
    report = held(small(data_size=lambda _: len(bytearray(8 << 30))))
    assert report.died is not None
    assert report.died.error == "MemoryError"


# -- the start -------------------------------------------------------------------------


def test_a_look_tells_which_members_of_the_bench_there_are() -> None:
    (_, report), _end = work(bench_for(Framed), [Look()])
    assert report == Members(work=True, snapshot=True, fail=True)


def broken_factory() -> Bare:
    raise RuntimeError("no hardware")


def test_a_factory_that_raises_is_told_with_its_line() -> None:
    (_, report), _end = work(bench_for(broken_factory), [Look()])
    assert isinstance(report, NotStarted)
    line = broken_factory.__code__.co_firstlineno + 1
    assert report.where.endswith(f"test_worker.py:{line}")
    assert str(report) == f"{report.where}: RuntimeError: no hardware"


def test_a_factory_that_cannot_be_called_is_told_by_where_it_is_defined() -> None:
    class Wants(Framed):
        def __init__(self, what: str) -> None:
            super().__init__()

    (_, report), _end = work(bench_for(Wants), [Look()])  # type: ignore[arg-type]
    assert isinstance(report, NotStarted)
    assert "test_worker.py:" in report.where
    assert "what" in report.why
