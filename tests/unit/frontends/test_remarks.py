"""A run says what its verdict does not show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.unit.frontends.conftest import Vfiomig

DEVICE = '[[device]]\nname = "d"\ntarget = "reference"\nwork = 0\n'
FAULT = '[[fault]]\nparty = "source"\ndevice = "d"\non = "data"\nerrno = "EIO"\n'
UNMAPPABLE = """
import errno
from vfiomig.vendor.reference import ReferenceDriver
from vfiomig.vendor.scratchpad import ScratchpadModel

class Driver(ReferenceDriver):
    def __init__(self):
        super().__init__(ScratchpadModel())

    def mmap(self, area):
        raise OSError(errno.ENOMEM, "no room")
"""


def notes(vfiomig: Vfiomig, *arguments: str) -> list[str]:
    _, output, errors = vfiomig("migrate", *arguments)
    assert not errors
    lines = output.splitlines()
    return [line.removeprefix("note: ") for line in lines if line.startswith("note: ")]


def test_a_run_without_anything_special_has_no_remarks(vfiomig: Vfiomig) -> None:
    assert notes(vfiomig, "--device", "reference") == []


def test_a_fault_that_came_to_nothing_is_told(vfiomig: Vfiomig) -> None:
    # A mapping is read past the driver.
    Path("f.toml").write_text(f'{DEVICE}{FAULT}at = "start"\n')
    assert notes(vfiomig, "f.toml") == [
        "fault[0] was armed in source, d on data, and the migration completed all the"
        " same"
    ]


def test_a_fault_whose_moment_never_came_is_told(vfiomig: Vfiomig) -> None:
    Path("f.toml").write_text(f'{DEVICE}{FAULT}at = "round"\nnumber = 999\n')
    assert notes(vfiomig, "f.toml") == ["fault[0] never happened: no such moment"]


def test_a_cancel_that_never_came_is_told(vfiomig: Vfiomig) -> None:
    Path("c.toml").write_text(f'{DEVICE}[limits]\ncancel_at = "3600s"\n')
    (note,) = notes(vfiomig, "c.toml")
    assert note.startswith("limits.cancel_at")
    assert note.endswith("never came: it was over before")


def test_data_that_is_trapped_for_want_of_a_mapping_is_told(vfiomig: Vfiomig) -> None:
    Path("driver.py").write_text(UNMAPPABLE)
    told = notes(vfiomig, "--device", "driver.py:Driver")
    assert [note.partition(":")[0] for note in told] == [
        "source, Driver",
        "destination, Driver",
    ]
    assert all("not mapped, all data was trapped: ENOMEM" in note for note in told)


def test_a_stop_and_copy_that_ended_too_early_is_told(vfiomig: Vfiomig) -> None:
    target = "vfiomig.vendor.conforming:EmptyBuffers"
    (note,) = notes(vfiomig, "--device", target)
    assert "QEMU 7.2 ended stop-and-copy at a buffer of 0 bytes" in note
    strict = f'conduct = "strict"\n[[device]]\nname = "d"\ntarget = "{target}"\n'
    Path("s.toml").write_text(strict)
    assert notes(vfiomig, "s.toml") == []
