"""A file that holds a QEMU migration stream: unpacked where need be, and mapped.

A stream is read as views of a mapping, so a file costs no memory.  What cannot be
mapped (a pipe) or is packed (xz, gzip) goes to a temporary file first, in pieces.
"""

from __future__ import annotations

import contextlib
import errno
import lzma
import mmap
import os
import stat
import tempfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from vfiomig.protocol.errors import StreamError, VfiomigError
from vfiomig.protocol.qemu_stream.reader import read_stream
from vfiomig.uapi.qemu_stream import QEMU_VM_FILE_MAGIC

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from vfiomig.protocol.qemu_stream.records import Located

_PIECE: Final = 1 << 20
# Pages of the file that were read go back to the kernel after so many bytes.
_RELEASED: Final = 64 << 20
# xz -9 needs 65 MiB to unpack; a file may ask for 4 GiB.
_XZ_MEMORY: Final = 256 << 20
_PLAIN: Final = QEMU_VM_FILE_MAGIC.to_bytes(4, "big")
_XZ: Final = b"\xfd7zXZ\0"
_GZIP: Final = b"\x1f\x8b"
_GZIP_FORMAT: Final = 31  # of zlib: with gzip's own header and checksum


class ImageError(VfiomigError):
    """A file that is no migration stream, or not a whole one.

    ``position`` is the byte of the (unpacked) stream where that showed, ``None``
    where there is none; ``reason`` says what is wrong.
    """

    def __init__(self, name: str, reason: str, position: int | None = None) -> None:
        at = "" if position is None else f"byte {position} of the stream: "
        super().__init__(f"{name}: {at}{reason}")
        self.reason = reason
        self.position = position


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuImage:
    """A migration stream in a file, mapped.

    ``packed`` is ``"xz"``, ``"gzip"`` or ``None``; ``damage`` says why the file could
    not be unpacked to its end.
    """

    name: str
    data: memoryview
    mapping: mmap.mmap
    packed: str | None = None
    damage: str | None = None

    @property
    def size(self) -> int:
        """Bytes of the stream, unpacked."""
        return len(self.data)

    def records(self) -> Iterator[Located]:
        """Yield every record from the beginning; views last as long as the image.

        Raises:
            ImageError: the stream is damaged or cut; all that can be known came first.
        """
        released = 0
        try:
            for located in read_stream(self.data):
                yield located
                if located.offset - released > _RELEASED:
                    released = self._release(released, located.offset)
        except StreamError as error:
            reason = str(error).partition(": ")[2]
            if self.damage is not None:
                reason = f"{reason} ({self.damage})"
            raise ImageError(self.name, reason, error.position) from error
        if self.damage is not None:
            raise ImageError(self.name, self.damage)

    def _release(self, start: int, end: int) -> int:
        """Unmap the pages of ``start`` to ``end``: they come again if looked at."""
        end -= end % mmap.PAGESIZE
        self.mapping.madvise(mmap.MADV_DONTNEED, start, end - start)
        return end


@contextlib.contextmanager
def open_image(path: Path) -> Iterator[QemuImage]:
    """Open the migration stream in a file; a pipe that nobody writes is empty.

    Raises:
        OSError: it cannot be opened, with the path in it.
        ImageError: it holds no migration stream.
    """
    with _opened(path) as file, mapped_image(file, str(path)) as image:
        yield image


@contextlib.contextmanager
def mapped_image(file: BinaryIO, name: str) -> Iterator[QemuImage]:
    """Map the migration stream in an open file, packed or not; ``name`` is for people.

    Raises:
        ImageError: it holds no migration stream.
    """
    head = file.read(len(_XZ))
    packed = "xz" if head == _XZ else "gzip" if head.startswith(_GZIP) else None
    if not head:
        raise ImageError(name, "it is empty")
    if packed is None and not head.startswith(_PLAIN):
        begins = f"it begins with {head[:4].hex(' ')}"
        raise ImageError(name, f"it is no migration stream of QEMU: {begins}")
    with contextlib.ExitStack() as files:
        damage = None
        if packed is not None or not _is_whole_file(file, len(head)):
            copy = cast("BinaryIO", files.enter_context(tempfile.TemporaryFile()))
            damage = _copy(_pieces(head, file), packed, copy)
            file = copy
        mapping = _mapped(file, name, damage)
        data = memoryview(mapping)
        files.callback(_close, mapping, data)
        yield QemuImage(
            name=name,
            data=data,
            mapping=mapping,
            packed=packed,
            damage=damage,
        )


def _opened(path: Path) -> BinaryIO:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except ValueError as error:  # a NUL in it
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    os.set_blocking(descriptor, True)
    try:
        return os.fdopen(descriptor, "rb")
    except OSError as error:  # a folder
        os.close(descriptor)
        raise OSError(error.errno, error.strerror, str(path)) from error


def _is_whole_file(file: BinaryIO, head: int) -> bool:
    """Tell whether a file can be mapped from the byte where reading began."""
    is_regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    return is_regular and file.tell() == head


def _mapped(file: BinaryIO, name: str, damage: str | None) -> mmap.mmap:
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:  # of nothing no mapping can be made
        raise ImageError(name, damage or "it is empty") from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error


def _close(mapping: mmap.mmap, data: memoryview) -> None:
    # A view that somebody still holds, as an exception's traceback does, keeps the
    # mapping: then it goes with that view.
    with contextlib.suppress(BufferError):
        data.release()
        mapping.close()


# -- what is packed ----------------------------------------------------------------


def _copy(pieces: Iterator[bytes], packed: str | None, copy: BinaryIO) -> str | None:
    """Write what the pieces hold to ``copy``; return why that is not all of it."""
    damage = None
    try:
        for piece in pieces if packed is None else _unpacked(pieces, packed):
            copy.write(piece)
    except EOFError:
        damage = f"the {packed} file ends too early"
    except (lzma.LZMAError, zlib.error) as error:
        damage = f"the {packed} file is damaged: {error}"
    copy.flush()
    return damage


def _pieces(head: bytes, file: BinaryIO) -> Iterator[bytes]:
    yield head
    while piece := file.read(_PIECE):
        yield piece


def _unpacked(pieces: Iterator[bytes], packed: str) -> Iterator[bytes]:
    """Yield what is packed, 1 MiB at most at a time, of one part after another."""
    unpack = _unpack_xz if packed == "xz" else _unpack_gzip
    for piece in pieces:
        rest = piece
        while rest := rest.lstrip(b"\0"):  # padding, between parts and at the end
            rest = yield from unpack(rest, pieces)


def _unpack_xz(data: bytes, pieces: Iterator[bytes]) -> Generator[bytes, None, bytes]:
    stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    while not stream.eof:
        yield stream.decompress(data, _PIECE)
        data = b""
        if stream.needs_input:
            data = _next(pieces)
    return stream.unused_data


def _unpack_gzip(data: bytes, pieces: Iterator[bytes]) -> Generator[bytes, None, bytes]:
    stream = zlib.decompressobj(_GZIP_FORMAT)
    while not stream.eof:
        unpacked = stream.decompress(data, _PIECE)
        yield unpacked
        data = stream.unconsumed_tail
        if not data and not stream.eof and len(unpacked) < _PIECE:
            data = _next(pieces)
    return stream.unused_data


def _next(pieces: Iterator[bytes]) -> bytes:
    piece = next(pieces, None)
    if piece is None:
        raise EOFError
    return piece
