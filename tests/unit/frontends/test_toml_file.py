"""Whatever a path leads to, reading it ends, with tables or with a reason."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from vfiomig.frontends.toml_file import read_toml


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"seed = 1\nseed 2\n", "line 2, column 6: Expected '='"),
        (b"seed = ", "end of document: Invalid value"),
        (b"name = '\xff'", "byte 8: not UTF-8"),
        (b"\xef\xbb\xbfseed = 1", "line 1, column 1: Invalid statement"),
        (b"x = " + b"[" * 20_000, "nested too deeply"),
        (b"x = " + b"1" * 5_000, "4300 digits"),
        (b"x = 2026-13-01", "line 1, column"),
        (b"#" * ((1 << 20) + 1), "larger than 1 MiB"),
    ],
)
def test_what_is_not_toml_says_where_and_why(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(reason)):
        read_toml(path)


def test_a_pipe_that_nobody_writes_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        read_toml(tmp_path / "pipe")


def test_a_device_without_an_end_is_not_read() -> None:
    with pytest.raises(ValueError, match="not a regular file"):
        read_toml(Path("/dev/zero"))


@pytest.mark.parametrize("name", [".", "missing.toml"])
def test_what_cannot_be_read_is_an_oserror(name: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"Is a directory|No such file"):
        read_toml(tmp_path / name)


def test_the_largest_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.toml"
    path.write_text("seed = 1\n".ljust(1 << 20))
    assert read_toml(path) == {"seed": 1}
