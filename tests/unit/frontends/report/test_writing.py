"""An output is whole, or what was there before."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from vfiomig.frontends.report.writing import write_whole, writing_whole


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_data_is_there_and_nothing_beside(tmp_path: Path) -> None:
    write_whole(tmp_path / "out.json", b"data")
    assert (tmp_path / "out.json").read_bytes() == b"data"
    assert names_in(tmp_path) == ["out.json"]


def test_pieces_are_appended(tmp_path: Path) -> None:
    with writing_whole(tmp_path / "out") as write:
        write(b"one ")
        write(memoryview(b"two"))
    assert (tmp_path / "out").read_bytes() == b"one two"


def test_until_it_is_whole_the_old_is_there(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with writing_whole(path) as write:
        write(b"new" * 100_000)
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" * 100_000


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(5)])
def test_what_the_body_raises_leaves_the_old(
    error: BaseException, tmp_path: Path
) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def write_half() -> None:
        with writing_whole(path) as write:
            write(b"half")
            raise error

    with pytest.raises(type(error)) as raised:
        write_half()
    assert raised.value is error
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["out"]


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_whole(tmp_path / "out", b"")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_old_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.touch(mode=0o600)
    write_whole(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder / "out")
    for data in (b"first", b"second"):
        write_whole(tmp_path / "link", data)
        assert (folder / "out").read_bytes() == data
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (".", errno.EISDIR),
        ("missing/out", errno.ENOENT),
        ("file/out", errno.ENOTDIR),
        ("x" * 300, errno.ENAMETOOLONG),
        ("nul\0", errno.EINVAL),
        ("loop", errno.ELOOP),
    ],
)
def test_a_place_that_cannot_be_is_an_oserror_with_its_name(
    name: str, code: int, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=rf"\[Errno {code}\] [\w ]+: ") as raised:
        write_whole(tmp_path / name, b"data")
    assert raised.value.errno == code
    assert raised.value.filename == str(tmp_path / name)
    assert names_in(tmp_path) == ["file", "loop"]


def test_a_name_as_long_as_names_can_be_is_written(tmp_path: Path) -> None:
    write_whole(tmp_path / ("x" * 255), b"data")
    assert names_in(tmp_path) == ["x" * 255]


def test_a_full_disk_is_an_oserror_with_the_name() -> None:
    with pytest.raises(OSError, match="No space left") as raised:
        write_whole(Path("/dev/full"), b"data")
    assert raised.value.filename == "/dev/full"


def test_a_device_stays_a_device() -> None:
    before = Path("/dev/null").stat()
    write_whole(Path("/dev/null"), b"data")
    assert Path("/dev/null").stat().st_ino == before.st_ino


def test_a_pipe_that_somebody_reads_is_written(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(path, b"data")
        assert os.read(reader, 10) == b"data"
    finally:
        os.close(reader)
    assert path.is_fifo()


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="No such device") as raised:
        write_whole(path, b"data")
    assert raised.value.errno == errno.ENXIO


def test_an_open_file_is_written_by_its_number(tmp_path: Path) -> None:
    # As /dev/stdout is, when the output goes to a file.
    with (tmp_path / "out").open("wb") as file:
        write_whole(Path(f"/dev/fd/{file.fileno()}"), b"data")
    assert (tmp_path / "out").read_bytes() == b"data"
    assert names_in(tmp_path) == ["out"]
