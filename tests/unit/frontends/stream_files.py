"""Migration streams made by hand, byte by byte, as QEMU's sources lay them out."""

from __future__ import annotations

import json
import struct
from typing import Final

EOS: Final = 0xFFFFFFFFEF100001
CONFIG: Final = 0xFFFFFFFFEF100002
SETUP: Final = 0xFFFFFFFFEF100003
DATA: Final = 0xFFFFFFFFEF100004
INIT_DATA_SENT: Final = 0xFFFFFFFFEF100005

START, PART, END, FULL = 1, 2, 3, 4
HEADER: Final = b"QEVM" + struct.pack(">I", 3)
END_OF_FILE: Final = b"\0"
PAGE: Final = 4096


def be32(number: int) -> bytes:
    return struct.pack(">I", number)


def be64(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}Q", *numbers)


def counted(name: bytes) -> bytes:
    return bytes([len(name)]) + name


def section(
    kind: int, number: int, payload: bytes, name: bytes | None = None, version: int = 1
) -> bytes:
    head = bytes([kind]) + be32(number)
    if name is not None:
        head += counted(name) + be32(0) + be32(version)
    return head + payload + b"\x7e" + be32(number)


def configuration(machine: bytes) -> bytes:
    return b"\x07" + be32(len(machine)) + machine


def ram_start(number: int = 2, **blocks: int) -> bytes:
    listed = b"".join(
        counted(name.encode()) + be64(size) for name, size in blocks.items()
    )
    total = be64(sum(blocks.values()) | 0x04)
    return section(START, number, total + listed + be64(0x10), b"ram", 4)


def page(address: int, content: bytes, block: bytes | None = b"ram0") -> bytes:
    """Return a full page; without a name it continues the block."""
    if block is None:
        return be64(address | 0x28) + content
    return be64(address | 0x08) + counted(block) + content


def zero_page(address: int, block: bytes = b"ram0") -> bytes:
    return be64(address | 0x02) + counted(block) + b"\0"


def ram(kind: int, *pages: bytes, number: int = 2) -> bytes:
    return section(kind, number, b"".join(pages) + be64(0x10))


def data(content: bytes) -> bytes:
    return be64(DATA, len(content)) + content


def vfio_start(number: int, name: bytes) -> bytes:
    return section(START, number, be64(SETUP, EOS), name)


def vfio(kind: int, number: int, *records: bytes) -> bytes:
    return section(kind, number, b"".join(records) + be64(EOS))


def vfio_full(number: int, name: bytes) -> bytes:
    """Return CONFIG of a PCI function without MSI-X: 276 bytes between its words."""
    body = be32(2) + bytes(range(256)) + be32(0) * 4
    return section(FULL, number, be64(CONFIG) + body + be64(EOS), name)


def described(*devices: dict[str, object]) -> bytes:
    text = json.dumps({"page_size": PAGE, "devices": [*devices]}).encode()
    return b"\x06" + be32(len(text)) + text


def a_vm(*, ram_pages: bytes = b"", buffers: bytes = b"", state: int = 7) -> bytes:
    """Return the stream of a machine with RAM, a VFIO device and one state."""
    name = b"0000:00:04.0/vfio"
    return b"".join(
        (
            HEADER,
            configuration(b"pc-i440fx-7.2"),
            ram_start(ram0=4 * PAGE),
            vfio_start(3, name),
            ram(PART, page(0, b"\x01" * PAGE), zero_page(PAGE)),
            vfio(PART, 3, data(b"pre-copy")),
            ram(END, ram_pages),
            vfio(END, 3, data(b"stopped"), buffers),
            section(FULL, 4, be32(state), b"clock", 1),
            vfio_full(3, name),
            END_OF_FILE,
            described(
                {
                    "name": "clock",
                    "instance_id": 0,
                    "vmsd_name": "clock",
                    "version": 1,
                    "fields": [{"name": "ticks", "type": "uint32", "size": 4}],
                },
                {
                    "name": name.decode(),
                    "instance_id": 0,
                    "size": 292,
                    "fields": [{"name": "data", "size": 292, "type": "buffer"}],
                },
            ),
        )
    )
