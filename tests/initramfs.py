"""What a Linux guest starts with: Debian's kernel and busybox, in an archive.

A machine that lacks them gets them by
``apt-get install linux-image-amd64 busybox-static``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

BUSYBOX: Final = Path("/bin/busybox")

_FOLDER: Final = 0o040755
_PROGRAM: Final = 0o100755


def kernels() -> list[Path]:
    """Return Debian's kernels on this machine, the newest first."""
    found = Path("/boot").glob("vmlinuz-*-amd64")
    return sorted(found, key=lambda kernel: kernel.stat().st_mtime, reverse=True)


def fault_of(file: Path) -> str | None:
    """Return why a guest cannot start with a kernel or a busybox."""
    try:
        with file.open("rb") as opened:
            head = opened.read(4096)
    except OSError as error:
        return f"{file} cannot be read ({error.strerror})"
    return f"{file} is not static" if b"/ld-linux" in head else None


def archive(init: str, files: Mapping[str, bytes] | None = None) -> bytes:
    """Return busybox, what it runs first, and ``files``, for the kernel to unpack.

    The format is newc. Names are relative; ``bin``, ``dev``, ``proc`` and the folders
    of ``files`` are there.
    """
    files = files or {}
    folders = {"bin", "dev", "proc"}
    for name in files:
        folders |= {str(folder) for folder in Path(name).parents} - {"."}
    return b"".join(
        (
            *(_entry(name, _FOLDER) for name in sorted(folders)),
            _entry("bin/busybox", _PROGRAM, BUSYBOX.read_bytes()),
            _entry("init", _PROGRAM, init.encode()),
            *(_entry(name, _PROGRAM, data) for name, data in files.items()),
            _entry("TRAILER!!!", 0),
        )
    )


def _entry(name: str, mode: int, data: bytes = b"") -> bytes:
    """Return one file; see the kernel's driver-api/early-userspace/buffer-format."""
    path = name.encode() + b"\0"
    # ino, mode, uid, gid, nlink, mtime, size, two devices, the path's size, no checksum
    numbers = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers)
    return _padded(head + path) + _padded(data)


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 4)
