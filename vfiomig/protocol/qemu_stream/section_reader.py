"""Reading one FULL section that has to be ours, piece by piece, as it arrives.

Rule 1: a name, an instance or a version that is not the one wanted is refused, and so
is a subsection that is not known, or comes twice, which QEMU would load twice.
Subsections come in any order, and each may be missing.

Rule 2: what may be long is asked for 1 MiB at a time: a size that lies makes nobody
hold more than was really sent.

Source: QEMU 11.0.0, migration/vmstate.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream.cursor import decode_text
from vfiomig.uapi.qemu_stream import QEMU_VM_SECTION_FOOTER, QEMU_VM_SUBSECTION

if TYPE_CHECKING:
    from collections.abc import Container, Generator, Mapping
    from typing import TypeAlias

    _Result = TypeVar("_Result")
    # Asks for so many bytes, is sent them, and returns what they were.
    Reading: TypeAlias = Generator[int, bytes | bytearray | memoryview, _Result]

_PIECE: Final = 1 << 20


class SubsectionHead(NamedTuple):
    """The name of a subsection, and where in the stream its first byte is."""

    name: str
    position: int


class SectionReader:
    """Reads the parts of one section, and knows where in the stream it is.

    Every method asks for the next bytes of the stream and raises ``StreamError`` where
    they are not what has to come, or are fewer than it asked for.
    """

    def __init__(self, idstr: str, instance: int, position: int) -> None:
        self.name = f"section {idstr!r}, instance {instance}"
        self.position = position
        self._idstr = idstr
        self._instance = instance

    def head(self, version: int) -> Reading[None]:
        """Read the name, the instance and the version, each of which must be ours."""
        began = self.position
        idstr = yield from self.text()
        if idstr != self._idstr:
            raise StreamError(f"{idstr!r} is no {self.name}", position=began)
        began = self.position
        instance = yield from self.number(4)
        if instance != self._instance:
            raise StreamError(
                f"instance {instance} of {self._idstr!r} comes before {self._instance}",
                position=began,
            )
        yield from self.version(self.name, version)

    def subsection(
        self, versions: Mapping[str, int], found: Container[str]
    ) -> Reading[SubsectionHead | None]:
        """Read the head of the next subsection; ``None``: the footer has begun.

        ``versions`` has those that are known, ``found`` those that came before.
        """
        began = self.position
        (kind,) = yield from self.take(1)
        if kind == QEMU_VM_SECTION_FOOTER:
            return None
        if kind != QEMU_VM_SUBSECTION:
            message = f"{self.name}: {kind:#04x} begins no subsection or footer"
            raise StreamError(message, position=began)
        name = yield from self.text()
        if name not in versions or name in found:
            what = "comes twice" if name in found else "is not known"
            message = f"{self.name}: subsection {name!r} {what}"
            raise StreamError(message, position=began)
        yield from self.version(f"{self.name}: {name}", versions[name])
        return SubsectionHead(name, began)

    def footer(self, section_id: int) -> Reading[None]:
        """Read the id in the footer, whose first byte `subsection` has read."""
        began = self.position
        got = yield from self.number(4)
        if got != section_id:
            message = f"{self.name}: the footer of section {got}, not of {section_id}"
            raise StreamError(message, position=began)

    def version(self, what: str, wanted: int) -> Reading[None]:
        """Read a version, which must be the one that is wanted."""
        began = self.position
        version = yield from self.number(4)
        if version != wanted:
            message = f"{what}: version {version} cannot be loaded, only {wanted}"
            raise StreamError(message, position=began)

    def text(self) -> Reading[str]:
        """Read a text with a byte of length before it."""
        size = yield from self.number(1)
        return decode_text(bytes((yield from self.take(size))))

    def number(self, size: int) -> Reading[int]:
        """Read a number of so many bytes."""
        return int.from_bytes((yield from self.take(size)), "big")

    def bounded(self, what: str, most: int) -> Reading[int]:
        """Read a length or a count of 32 bits, which must be ``most`` or less."""
        began = self.position
        number = yield from self.number(4)
        if number > most:
            message = f"{self.name}: {what} {number}: at most {most}"
            raise StreamError(message, position=began)
        return number

    def large(self, size: int) -> Reading[bytes]:
        """Read what may be long."""
        pieces, left = [], size
        while left:
            piece = yield from self.take(min(left, _PIECE))
            pieces.append(bytes(piece))
            left -= len(piece)
        return b"".join(pieces)

    def take(self, size: int) -> Reading[bytes | bytearray | memoryview]:
        """Read so many bytes, which are the sender's until it is asked again."""
        data = (yield size) if size else b""
        if len(data) < size:
            position = self.position + len(data)
            raise StreamError(f"the stream ends within {self.name}", position=position)
        self.position += size
        return data
