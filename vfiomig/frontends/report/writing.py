"""Outputs that are whole or not there at all.

Rule 1: what is written stands beside its place until all of it is there; then it is
renamed.  Whoever reads the place finds what was there before, or all of the new.

Rule 2: a place that is no file (a terminal, a pipe, /dev/full) is written to as it
is: renaming onto it would put a file in its stead.

Rule 3: what goes wrong is an ``OSError`` that names the place, not the file beside.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Names of open files, which may be regular ones: /dev/stdout of `vfiomig ... > out`.
_OPEN_FILES: Final = (Path("/dev"), Path("/dev/fd"), Path("/proc/self/fd"))


def write_whole(path: Path, data: bytes) -> None:
    """Make ``data`` the content of ``path``; raises OSError with the path in it."""
    with writing_whole(path) as write:
        write(data)


@contextlib.contextmanager
def writing_whole(path: Path) -> Iterator[Callable[[bytes | memoryview], None]]:
    """Yield a function that appends to what ``path`` will hold when the body ends.

    When the body raises, ``path`` stays as it was. Raises OSError with the path in it.
    """
    with _naming(path):
        beside = _beside(path)
        file = _opened(path) if beside is None else beside.open("xb")

    def write(data: bytes | memoryview) -> None:
        with _naming(path):
            file.write(data)

    try:
        # What the body raises is its own, and is not about this path.
        with _closing(file, path):
            yield write
        if beside is not None:
            with _naming(path):
                _put_in_place(beside, path)
    except BaseException:
        if beside is not None:
            beside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def building_whole(path: Path) -> Iterator[BinaryIO]:
    """Yield a file, written anywhere in it, that becomes ``path`` when the body ends.

    What is never written stays a hole. When the body raises, ``path`` stays as it was.
    Raises OSError with the path in it, as well where ``path`` is no regular file.
    """
    with _naming(path):
        beside = _beside(path)
        if beside is None:
            raise OSError(errno.ESPIPE, "what has holes goes to a regular file only")
        file = beside.open("x+b")
    try:
        with _closing(file, path):
            yield file
        with _naming(path):
            _put_in_place(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> Path | None:
    """Return where to write until it is whole; None if it is to be written as it is."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if mode is not None and not stat.S_ISREG(mode):
        return None
    # A rename would not ask: the folder's permissions are what counts for it.
    if mode is not None and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if path.absolute().parent in _OPEN_FILES:
        return None
    # A link stays a link: what it leads to is replaced.
    return path.resolve().with_name(f".vfiomig-{secrets.token_hex(8)}.partial")


def _opened(path: Path) -> BinaryIO:
    """Open what is no file; a pipe that nobody reads is refused, not waited for."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    descriptor = os.open(path, flags)
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "wb")


def _put_in_place(beside: Path, path: Path) -> None:
    place = path.resolve()
    with contextlib.suppress(FileNotFoundError):
        beside.chmod(stat.S_IMODE(place.stat().st_mode))
    beside.replace(place)


@contextlib.contextmanager
def _closing(file: BinaryIO, path: Path) -> Iterator[None]:
    """Close ``file``; of two errors the body's counts, not that of the last flush."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        raise
    with _naming(path):
        file.close()


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put ``path`` into an OSError that comes out of the body."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    except ValueError as error:  # a NUL in it
        raise OSError(errno.EINVAL, str(error), str(path)) from error
