"""The memory that a server may reach: what was mapped for DMA, by IOVA.

A server with its file reaches it itself; any other one asks for it, by commands of its
own, which are answered here.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from vfiomig.client.vfio_user.channel import close_all
from vfiomig.protocol.errors import MessageError
from vfiomig.protocol.vfio_user.dma import DmaAccess, DmaData
from vfiomig.protocol.vfio_user.framing import Header, error_message, reply_message
from vfiomig.uapi.vfio_user import VFIO_USER_DMA_READ, VFIO_USER_DMA_WRITE

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class DmaMapping:
    """``size`` bytes from ``iova`` on: a buffer, a file from ``offset`` on, or neither.

    ``fd`` and the view in ``memory`` are its own, and -1 and None where there is none.
    """

    iova: int
    size: int
    memory: memoryview | None
    fd: int
    offset: int
    readable: bool
    writable: bool

    @property
    def end(self) -> int:
        """The first IOVA behind it."""
        return self.iova + self.size

    def read(self, place: int, size: int) -> bytes:
        """Return bytes of it; OSError(EFAULT) if they cannot be had."""
        if self.memory is not None:
            return bytes(self.memory[place : place + size])
        data = os.pread(self.fd, size, self.offset + place) if self.fd >= 0 else b""
        if len(data) != size:
            _fault(self.iova + place, size)
        return data

    def write(self, place: int, data: memoryview) -> None:
        """Put bytes into it; OSError(EFAULT) if it cannot take them."""
        if self.memory is not None and not self.memory.readonly:
            self.memory[place : place + len(data)] = data
            return
        at, size = self.offset + place, len(data)
        is_file = self.memory is None and self.fd >= 0
        # At its end a file would grow.
        if not is_file or os.fstat(self.fd).st_size < at + size:
            _fault(self.iova + place, size)
        os.pwrite(self.fd, data, at)

    def close(self) -> None:
        """Let go of the buffer and the file."""
        if self.memory is not None:
            self.memory.release()
        if self.fd >= 0:
            close_all((self.fd,))


class DmaMemory:
    """All mappings of a session; none overlaps another.

    ``most`` are the bytes that one command of the server may move.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._mappings: dict[int, DmaMapping] = {}  # by IOVA

    def add(self, mapping: DmaMapping) -> None:
        """Take a mapping; OSError(EEXIST) where there is one already."""
        for other in self._mappings.values():
            if other.iova < mapping.end and mapping.iova < other.end:
                message = f"{other.size:#x} bytes are mapped at {other.iova:#x}"
                raise OSError(errno.EEXIST, message)
        self._mappings[mapping.iova] = mapping

    def remove(self, iova: int, size: int) -> None:
        """Let go of all mappings that lie in a range."""
        for mapping in list(self._mappings.values()):
            if iova <= mapping.iova and mapping.end <= iova + size:
                del self._mappings[mapping.iova]
                mapping.close()

    def close(self) -> None:
        """Let go of all of them."""
        self.remove(0, 1 << 64)

    def answer(self, header: Header, payload: bytes) -> bytes:
        """Return the whole reply to a command of the server's: EINVAL if unknown."""
        try:
            done = self._perform(header.command, payload)
        except MessageError as error:
            return error_message(header.msg_id, header.command, error.code)
        except OSError as error:
            code = error.errno or errno.EFAULT
            return error_message(header.msg_id, header.command, code)
        return reply_message(header.msg_id, header.command, done)

    def _perform(self, command: int, payload: bytes) -> bytes:
        if command == VFIO_USER_DMA_READ:
            asked = DmaAccess.decode(payload)
            return DmaData(
                asked.address, self._read(asked.address, asked.count)
            ).encode()
        if command == VFIO_USER_DMA_WRITE:
            given = DmaData.decode(payload)
            self._write(given.address, given.data)
            return DmaAccess(given.address, len(given.data)).encode()
        raise OSError(errno.EINVAL, f"no server has a command {command}")

    def _read(self, iova: int, count: int) -> bytes:
        pieces = list(self._pieces(iova, count))
        if not all(mapping.readable for mapping, _, _ in pieces):
            _fault(iova, count)
        return b"".join(mapping.read(place, size) for mapping, place, size in pieces)

    def _write(self, iova: int, data: bytes) -> None:
        pieces = list(self._pieces(iova, len(data)))
        if not all(mapping.writable for mapping, _, _ in pieces):
            _fault(iova, len(data))
        with memoryview(data) as rest:
            done = 0
            for mapping, place, size in pieces:
                mapping.write(place, rest[done : done + size])
                done += size

    def _pieces(self, iova: int, count: int) -> Iterator[tuple[DmaMapping, int, int]]:
        """Yield where a range lies, over mappings that touch: each, place and size."""
        if count > self._most:
            message = f"{count} bytes at once: {self._most} were agreed on"
            raise OSError(errno.EINVAL, message)
        end = iova + count
        while iova < end:
            for mapping in self._mappings.values():
                if mapping.iova <= iova < mapping.end:
                    size = min(end, mapping.end) - iova
                    yield mapping, iova - mapping.iova, size
                    iova += size
                    break
            else:
                _fault(iova, end - iova)


def _fault(iova: int, size: int) -> NoReturn:
    raise OSError(errno.EFAULT, f"no {size} bytes at {iova:#x}")
