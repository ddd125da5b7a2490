from __future__ import annotations

import pytest

from tests.unit.conformance.histories import rulings
from vfiomig.conformance.ruling import HELD, Broken

SECTION = "stopped_device"


def judged(check: str, *lines: str) -> list[str]:
    areas = ((0x1000, 0x1000),)
    found = rulings(f"{SECTION}:{check}", *lines, areas=areas)
    return ["held" if ruling is HELD else "broken" for ruling in found]


def broken(check: str, *lines: str) -> Broken:
    (ruling,) = (
        each for each in rulings(f"{SECTION}:{check}", *lines) if each is not HELD
    )
    assert isinstance(ruling, Broken)
    return ruling


# -- stopped_when_the_write_returns ----------------------------------------------------


@pytest.mark.parametrize("target", [0, 2, 4])
def test_work_behind_the_write_that_stops_changes_nothing(target: int) -> None:
    lines = (f"write device_state {target}", "snapshot aa", "work 9", "snapshot aa")
    assert judged("stopped_when_the_write_returns", *lines) == ["held"]


@pytest.mark.parametrize("target", [0, 2, 4])
def test_a_device_that_goes_on_behind_the_write_is_blamed(target: int) -> None:
    lines = (f"write device_state {target}", "snapshot aa", "work 9", "snapshot bb")
    found = broken("stopped_when_the_write_returns", *lines)
    assert found.expected == "snapshot = aa"
    assert found.actual == "snapshot = bb"
    assert [each.index for each in found.witnesses] == [2, 4]


def test_pre_copy_that_becomes_stop_and_copy_stops_as_well() -> None:
    lines = ("write device_state 3", "snapshot aa", "work 1", "snapshot bb")
    assert judged("stopped_when_the_write_returns", *lines) == []
    stop = ("write device_state 2", "snapshot cc", "work 1", "snapshot dd")
    assert judged("stopped_when_the_write_returns", *lines, *stop) == ["broken"]


@pytest.mark.parametrize(
    "lines",
    [
        ("write device_state 2 -> EIO", "snapshot aa", "work 1", "snapshot bb"),
        ("snapshot aa", "write device_state 2", "snapshot bb"),
        ("write device_state 2", "work 1", "snapshot bb"),
        ("write device_state 2", "snapshot aa", "reset", "snapshot bb"),
        (
            "write device_state 2",
            "snapshot aa",
            "read pending_bytes -> 0x0",
            "snapshot bb",
        ),
        (
            "mmap 0x1000 0x1000",
            "write device_state 4",
            "snapshot aa",
            "snapshot bb",
        ),
        ("write device_state 1", "snapshot aa", "work 1", "snapshot bb"),
    ],
    ids=["failed", "before", "one", "reset", "later", "written unseen", "runs"],
)
def test_only_what_is_right_behind_the_write_is_judged(lines: tuple[str, ...]) -> None:
    assert judged("stopped_when_the_write_returns", *lines) == []


# -- no_progress_while_stopped ---------------------------------------------------------


def test_a_stopped_device_stays_as_it_is_while_it_is_saved() -> None:
    lines = (
        "write device_state 0",
        "snapshot aa",
        "work 9",
        "snapshot aa",
        "write device_state 2",
        "read pending_bytes -> 0x10",
        "read data_offset -> 0x1000",
        "read data_size -> 0x10",
        "unseen read 0x1000 16",
        "read pending_bytes -> 0x0",
        "snapshot aa",
        "read device_state -> 0x2",
        "write device_state 0",
        "snapshot aa",
    )
    assert judged("no_progress_while_stopped", *lines) == ["held"] * 3


def test_a_stopped_device_that_goes_on_is_blamed() -> None:
    lines = (
        "write device_state 2",
        "snapshot aa",
        "read pending_bytes -> 0x10",
        "work 9",
        "snapshot bb",
    )
    found = broken("no_progress_while_stopped", *lines)
    assert [each.index for each in found.witnesses] == [2, 5]
    assert found.because[-1] == "however, B is another snapshot than A"


@pytest.mark.parametrize(
    "between",
    [
        ("write device_state 1", "write device_state 2"),
        ("write device_state 1 -> EIO", "read device_state -> 0x2"),
        ("write device_state 4",),
        ("reset", "write device_state 2"),
        ("read data_size -> EIO",),
        ("write 0x1000 16",),
        ("write data_size 16",),
        ("write 0x0 1 01", "read device_state -> 0x2"),
        ("read 0x8 4 -> 0x0",),
        ("read device_state -> 0x1", "read device_state -> 0x2"),
    ],
    ids=[
        "ran",
        "half ran",
        "resuming",
        "reset",
        "failure",
        "data",
        "load",
        "odd write",
        "odd read",
        "ran by itself",
    ],
)
def test_snapshots_of_two_stops_may_differ(between: tuple[str, ...]) -> None:
    lines = ("write device_state 2", "snapshot aa", *between, "snapshot bb")
    assert judged("no_progress_while_stopped", *lines) == []


def test_a_running_device_goes_on() -> None:
    lines = ("snapshot aa", "work 1", "snapshot bb", "write device_state 3")
    more = ("snapshot cc", "work 1", "snapshot dd")
    assert judged("no_progress_while_stopped", *lines, *more) == []


def test_what_is_loaded_in_resuming_changes_the_device() -> None:
    lines = (
        "write device_state 4",
        "snapshot aa",
        "work 3",
        "snapshot aa",
        "read data_offset -> 0x1000",
        "snapshot bb",
        "write 0x1000 16",
        "snapshot cc",
        "write data_size 16",
        "snapshot dd",
        "write device_state 0",
        "snapshot ee",
    )
    assert judged("no_progress_while_stopped", *lines) == ["held"]


def test_work_in_resuming_changes_nothing() -> None:
    lines = ("write device_state 4", "snapshot aa", "work 3", "snapshot bb")
    assert judged("no_progress_while_stopped", *lines) == ["broken"]
    mapped = ("mmap 0x1000 0x1000", *lines)
    assert judged("no_progress_while_stopped", *mapped) == []


def test_a_snapshot_in_an_unknown_state_is_not_compared() -> None:
    lines = ("write device_state 2 -> EIO", "snapshot aa", "work 1", "snapshot bb")
    assert judged("no_progress_while_stopped", *lines) == []


# -- saving_hands_out_state ------------------------------------------------------------

CHANGED = ("snapshot aa", "work 3", "write device_state 2", "snapshot bb")
BUFFER = (
    "read pending_bytes -> 0x10",
    "read data_offset -> 0x1000",
    "read data_size -> 0x10",
    "read 0x1000 16",
)
END = "read pending_bytes -> 0x0"


def test_a_changed_device_hands_out_something() -> None:
    assert judged("saving_hands_out_state", *CHANGED, *BUFFER, END) == ["held"]


def test_a_changed_device_that_hands_out_nothing_is_blamed() -> None:
    found = broken("saving_hands_out_state", *CHANGED, END)
    assert [each.index for each in found.witnesses] == [1, 4]


def test_the_snapshot_may_come_behind_the_end() -> None:
    lines = ("snapshot aa", "work 3", "write device_state 2", END, "snapshot bb")
    assert judged("saving_hands_out_state", *lines) == ["broken"]


def test_what_pre_copy_handed_out_counts() -> None:
    lines = (
        "snapshot aa",
        "work 3",
        "write device_state 3",
        *BUFFER,
        END,
        "write device_state 2",
        "snapshot bb",
        END,
    )
    assert judged("saving_hands_out_state", *lines) == ["held"]


@pytest.mark.parametrize(
    "lines",
    [
        ("snapshot aa", "write device_state 2", "snapshot aa", END),
        ("work 3", "snapshot aa", "work 1", "write device_state 2", "snapshot bb", END),
        ("snapshot aa", "work 3", "write device_state 3", "snapshot bb", END),
        (*CHANGED, "read data_offset -> EIO", END),
        (*CHANGED, "write device_state 1", "write device_state 2", END),
        ("reset", *CHANGED, END),
    ],
    ids=["as opened", "not as opened", "pre-copy", "failure", "another stop", "reset"],
)
def test_saving_may_end_without_a_buffer(lines: tuple[str, ...]) -> None:
    assert judged("saving_hands_out_state", *lines) == []


# -- quiesced_in_error -----------------------------------------------------------------

IN_ERROR = ("write device_state 2 -> EIO", "read device_state -> 0x6")


def test_a_device_in_error_stays_as_it_is() -> None:
    lines = ("snapshot aa", "work 3", "read device_state -> 0x6", "snapshot aa")
    assert judged("quiesced_in_error", *IN_ERROR, *lines) == ["held"]


def test_a_device_in_error_that_goes_on_is_noticed() -> None:
    lines = ("snapshot aa", "work 3", "snapshot bb")
    assert judged("quiesced_in_error", *IN_ERROR, *lines) == ["broken"]


@pytest.mark.parametrize(
    "between", ["reset", "write device_state 1 -> EIO", "read pending_bytes -> EIO"]
)
def test_an_access_in_error_may_change_anything(between: str) -> None:
    lines = ("snapshot aa", between, "snapshot bb")
    assert judged("quiesced_in_error", *IN_ERROR, *lines) == []


def test_a_device_that_kept_its_state_may_run() -> None:
    lines = ("write device_state 2 -> EIO", "read device_state -> 0x1")
    more = ("snapshot aa", "work 3", "snapshot bb")
    assert judged("quiesced_in_error", *lines, *more) == []
