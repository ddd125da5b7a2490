"""The CONFIGURATION record: the machine type, and what validatable capabilities add.

Source: QEMU 7.2.22 and 10.0.13, migration/savevm.c (``vmstate_configuration``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.protocol.qemu_stream.cursor import decode_text, encode_text
from vfiomig.protocol.qemu_stream.records import Configuration, VmState
from vfiomig.protocol.qemu_stream.vmstate import field
from vfiomig.uapi.qemu_stream import QEMU_VM_SUBSECTION

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.protocol.qemu_stream.cursor import Cursor
    from vfiomig.protocol.qemu_stream.records import Field

_WHAT: Final = "the configuration"
_NAME: Final = "configuration"
_VERSION: Final = 1
_UUID_SIZE: Final = 16
_PAGE_BITS: Final = range(9, 31)


def read_configuration(source: Cursor) -> Configuration:
    """Read what follows the type of the record.

    Raises:
        StreamError: a subsection that is not known, or not where it should be.
    """
    machine = decode_text(source.take(source.be32(_WHAT), _WHAT))
    found: dict[str, object] = {}
    for name, (key, read) in _SUBSECTIONS.items():
        if _subsection_is_next(source, name):
            found[key] = read(source)
    if source.peek(1) == bytes([QEMU_VM_SUBSECTION]):
        raise source.error("a subsection that no configuration has here")
    return Configuration(machine=machine, **found)  # type: ignore[arg-type]


def configuration_state(configuration: Configuration) -> VmState:
    """Return the record as the vmstate that it is, to be written and described."""
    machine = encode_text(configuration.machine)
    subsections = []
    if configuration.target_page_bits is not None:
        bits = field("target_page_bits", "uint32", configuration.target_page_bits)
        subsections.append(_state("target-page-bits", bits))
    if configuration.capabilities is not None:
        subsections.append(_capabilities(configuration.capabilities))
    if configuration.uuid is not None:
        uuid = field("uuid.data", "uint8", tuple(configuration.uuid))
        subsections.append(_state("uuid", uuid))
    return VmState(
        vmsd_name=_NAME,
        version=_VERSION,
        fields=(
            field("len", "uint32", len(machine)),
            field("name", "buffer", machine),
        ),
        subsections=tuple(subsections),
    )


def _capabilities(names: tuple[str, ...]) -> VmState:
    count = field("caps_count", "uint32", len(names))
    if not names:
        return _state("capabilities", count)
    array = names if len(names) > 1 else names[0]
    return _state("capabilities", count, field("capabilities", "capability", array))


def _state(name: str, *fields: Field) -> VmState:
    full = f"{_NAME}/{name}"
    return VmState(vmsd_name=full, version=_VERSION, fields=fields)


def _subsection_is_next(source: Cursor, name: str) -> bool:
    """Skip the frame of a subsection if it is the one with this name."""
    full = f"{_NAME}/{name}".encode()
    frame = bytes([QEMU_VM_SUBSECTION, len(full)]) + full
    frame += _VERSION.to_bytes(4, "big")
    if source.peek(len(frame)) != frame:
        return False
    source.position += len(frame)
    return True


def _read_page_bits(source: Cursor) -> int:
    began = source.position
    bits = source.be32(_WHAT)
    if bits not in _PAGE_BITS:
        raise source.error(f"no target has pages of 1 << {bits} bytes", began)
    return bits


def _read_capabilities(source: Cursor) -> tuple[str, ...]:
    count = source.be32(_WHAT)
    return tuple(source.counted_string(_WHAT) for _ in range(count))


def _read_uuid(source: Cursor) -> bytes:
    return bytes(source.take(_UUID_SIZE, _WHAT))


# In the order of the stream.
_SUBSECTIONS: Final[dict[str, tuple[str, Callable[[Cursor], object]]]] = {
    "target-page-bits": ("target_page_bits", _read_page_bits),
    "capabilities": ("capabilities", _read_capabilities),
    "uuid": ("uuid", _read_uuid),
}
