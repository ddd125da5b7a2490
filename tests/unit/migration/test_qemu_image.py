"""A stream in a file: mapped as it is, and unpacked where it is packed."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from vfiomig.migration.qemu_image import ImageError, mapped_image, open_image
from vfiomig.protocol.qemu_stream.records import EndOfFile, FileHeader

WHOLE = b"QEVM\0\0\0\3" + b"\0"
LONG = b"QEVM\0\0\0\3" + bytes(3 << 20)  # what it says does not matter here


@pytest.mark.parametrize(
    ("packed", "by"),
    [
        (LONG, None),
        (lzma.compress(LONG), "xz"),
        (lzma.compress(LONG[:100]) + bytes(8) + lzma.compress(LONG[100:]), "xz"),
        (gzip.compress(LONG), "gzip"),
        (gzip.compress(LONG[:100]) + gzip.compress(LONG[100:]) + bytes(9), "gzip"),
    ],
    ids=["plain", "xz", "xz-parts", "gzip", "gzip-parts"],
)
def test_a_packed_stream_is_unpacked(
    tmp_path: Path, packed: bytes, by: str | None
) -> None:
    (tmp_path / "vm").write_bytes(packed)
    with open_image(tmp_path / "vm") as image:
        assert (image.packed, image.damage, image.size) == (by, None, len(LONG))
        assert bytes(image.data) == LONG


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress])
def test_of_a_packed_stream_that_is_cut_the_beginning_is_had(
    tmp_path: Path, pack: type[bytes]
) -> None:
    noise = WHOLE[:8] + os.urandom(1 << 20)
    (tmp_path / "vm").write_bytes(pack(noise)[: 1 << 19])
    with open_image(tmp_path / "vm") as image:
        assert image.damage is not None
        assert image.damage.endswith("ends too early")
        assert 1 << 18 < image.size < 1 << 20
        assert bytes(image.data) == noise[: image.size]
        with pytest.raises(ImageError, match="ends too early"):
            list(image.records())


def test_a_packed_stream_that_is_damaged_says_so_at_its_end(tmp_path: Path) -> None:
    noise = WHOLE + os.urandom(3 << 20)
    packed = bytearray(gzip.compress(noise))
    packed[-5] ^= 1  # of the checksum
    (tmp_path / "vm").write_bytes(packed)
    with open_image(tmp_path / "vm") as image:
        assert bytes(image.data) == noise[: image.size]
        assert image.size > 1 << 20
        with pytest.raises(ImageError, match="gzip file is damaged"):
            list(image.records())


def test_a_stream_that_is_whole_is_read_before_its_packing_is_blamed(
    tmp_path: Path,
) -> None:
    (tmp_path / "vm").write_bytes(lzma.compress(WHOLE)[:-4])
    with open_image(tmp_path / "vm") as image:
        records = image.records()
        assert next(records).record == FileHeader(3)
        assert next(records).record == EndOfFile()
        with pytest.raises(ImageError, match="the xz file ends too early"):
            next(records)


def test_a_pipe_is_copied(tmp_path: Path) -> None:
    with (
        subprocess.Popen(
            [sys.executable, "-c", f"import os; os.write(1, {WHOLE!r})"],
            stdout=subprocess.PIPE,
        ) as source,
        mapped_image(cast("BinaryIO", source.stdout), "a pipe") as image,
    ):
        records = [located.record for located in image.records()]
    assert records == [FileHeader(3), EndOfFile()]


def test_an_endless_device_is_no_stream() -> None:
    with (
        pytest.raises(ImageError, match="it is no migration stream"),
        open_image(Path("/dev/zero")),
    ):
        pass


def test_a_pipe_that_nobody_writes_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.raises(ImageError, match="it is empty"),
        open_image(tmp_path / "pipe"),
    ):
        pass


def test_what_has_no_file_is_an_os_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", Path("a\0b")):
        with (
            pytest.raises(OSError, match=re.escape(repr(str(path)))),
            open_image(path),
        ):
            pass


def test_a_view_may_outlive_the_image(tmp_path: Path) -> None:
    (tmp_path / "vm").write_bytes(LONG)
    with open_image(tmp_path / "vm") as image:
        view = image.data[:4]
    assert bytes(view) == b"QEVM"
    view.release()
    image.data.release()
    image.mapping.close()
    with pytest.raises(ValueError, match="closed"):
        image.mapping.size()
