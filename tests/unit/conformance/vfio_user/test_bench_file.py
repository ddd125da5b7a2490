"""A bench file: what it may say, and what a bench then does to the BARs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vfiomig.conformance.target import TargetError
from vfiomig.conformance.vfio_user.bench_file import read_black_box

if TYPE_CHECKING:
    import mmap
    from pathlib import Path

WHOLE = """
[[state]]
bar = 1
offset = 0x10
size = 8

[[state]]
bar = 0
offset = 2
size = 2
width = 1

[[work]]
bar = 2
offset = 4
value = 0xfffe
width = 2
step = 1
"""


COMMAND = (7 << 40) + 4  # VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND


class Bars:
    """A handle that notes what is done to it, and reads as the place that is read.

    Its command register is one that works.
    """

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, bytes]] = []
        self.command = b"\0\4"  # PCI_COMMAND_INTX_DISABLE
        self.refuses = False

    def pread(self, size: int, offset: int) -> bytes:
        if offset == COMMAND:
            return self.command[:size]
        self.reads.append((offset, size))
        return bytes([offset & 0xFF] * size)

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        if offset == COMMAND:
            self.command = bytes(data)
            return len(data)
        self.writes.append((offset, bytes(data)))
        if self.refuses:
            raise OSError(5, "it is stopped")
        return len(data)

    def mmap(self, length: int, offset: int) -> mmap.mmap:
        raise NotImplementedError

    def ioctl(self, request: int, argument: bytearray | None = None) -> int:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def written(folder: Path, text: str) -> Path:
    path = folder / "bench.toml"
    path.write_text(text)
    return path


def test_a_snapshot_is_the_state_in_the_order_of_the_file(tmp_path: Path) -> None:
    bars = Bars()
    state = read_black_box(written(tmp_path, WHOLE)).observer(bars)()
    bar_1 = (1 << 40) + 0x10
    assert bars.reads == [(bar_1, 4), (bar_1 + 4, 4), (2, 1), (3, 1)]
    assert state == bytes([0x10] * 4 + [0x14] * 4 + [2, 3])


def test_each_unit_of_work_writes_the_next_value(tmp_path: Path) -> None:
    bars = Bars()
    work = read_black_box(written(tmp_path, WHOLE)).worker(bars)
    work(2)
    work(1)
    place = (2 << 40) + 4
    values = [b"\xfe\xff", b"\xff\xff", b"\0\0"]
    assert bars.writes == [(place, value) for value in values]


def test_a_slow_server_has_worked_enough_before_it_seems_to_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = Bars()
    monkeypatch.setattr("time.monotonic", lambda: 0.25 * len(bars.writes))
    work = read_black_box(written(tmp_path, WHOLE)).worker(bars)
    work(70_000)
    assert 2.0 <= 0.25 * len(bars.writes) <= 3.0


def test_bars_are_enabled_first_and_other_bits_stay(tmp_path: Path) -> None:
    black_box = read_black_box(written(tmp_path, WHOLE))
    for use in (black_box.observer, lambda bars: lambda: black_box.worker(bars)(1)):
        bars = Bars()
        use(bars)()
        assert bars.command == b"\3\4"  # PCI_COMMAND_IO and PCI_COMMAND_MEMORY


def test_work_that_a_device_refuses_is_lost_as_a_guests_is(tmp_path: Path) -> None:
    bars = Bars()
    bars.refuses = True
    read_black_box(written(tmp_path, WHOLE)).worker(bars)(2)
    assert len(bars.writes) == 2


def test_an_empty_file_is_a_bench_that_can_do_nothing(tmp_path: Path) -> None:
    black_box = read_black_box(written(tmp_path, ""))
    assert (black_box.state, black_box.work) == ((), ())


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("[[state]]\nbar = 0\noffset = 0\n", "state[0]", "size"),
        ("[[state]]\nbar = 6\noffset = 0\nsize = 4\n", "state[0].bar", "5"),
        (
            "[[state]]\nbar = 0\noffset = 0\nsize = 6\n",
            "state[0]",
            "multiple of width 4",
        ),
        ("[[work]]\nbar = 0\noffset = 0\nvalue = 1\nwidth = 3\n", "work[0]", "width 3"),
        ("[[work]]\nbar = 0\noffset = 0\nvalue = 256\nwidth = 1\n", "work[0]", "0x100"),
        ("[[work]]\nbar = 0\noffset = -1\nvalue = 1\n", "work[0].offset", "0"),
        ("states = 1\n", "", "states"),
        ("state = \n", "", "line 1"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(
    tmp_path: Path, text: str, place: str, reason: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TargetError) as caught:
        read_black_box(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: {place}")
    assert reason in line
    assert "\n" not in line


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TargetError, match="no such file"):
        read_black_box(tmp_path / name)


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(TargetError) as caught:
        read_black_box(path)
    assert str(caught.value).startswith(f"{path}: ")
