"""Reads the payload of a VFIO device's section: tags, and what hangs on them.

START, PART, END and FULL are read alike, of protocol v1 (QEMU 7.2) and v2: tags until
one that ends the payload.  The configuration does not say how long it is: with a VM
description the payload's size is known, else its shape and what follows it tell.

Sources: QEMU 7.2.22 and 10.0.13, hw/vfio/migration.c, hw/vfio/pci.c, hw/pci/pci.c.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream.cursor import Cursor
from vfiomig.protocol.qemu_stream.framing import (
    END_OF_STATE,
    TAG,
    VFIO_SUFFIX,
    section_foot,
)
from vfiomig.protocol.qemu_stream.records import (
    MsixState,
    VfioConfig,
    VfioData,
    VfioEndOfState,
    VfioInitDataSent,
    VfioSetup,
)
from vfiomig.protocol.qemu_stream.vmstate import VmStateReader
from vfiomig.uapi.qemu_stream import (
    VFIO_MIG_FLAG_DEV_CONFIG_STATE,
    VFIO_MIG_FLAG_DEV_DATA_STATE,
    VFIO_MIG_FLAG_DEV_INIT_DATA_SENT,
    VFIO_MIG_FLAG_DEV_SETUP_STATE,
    VFIO_MIG_FLAG_END_OF_STATE,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from vfiomig.protocol.qemu_stream.records import VmState

    VfioRecord: TypeAlias = (
        VfioSetup | VfioData | VfioConfig | VfioInitDataSent | VfioEndOfState
    )
VFIO_IDSTR: Final = "vfio"

IRQ: Final = struct.Struct(">4I")
_VERSION: Final = 4
_SPACES: Final = (256, 4096)  # PCI_CONFIG_SPACE_SIZE, PCIE_CONFIG_SPACE_SIZE
_MSIX_ENTRY: Final = 16
_MSIX_VECTORS: Final = range(1, 2048 + 1)
_MARKS: Final[dict[int, type[VfioSetup | VfioInitDataSent | VfioEndOfState]]] = {
    VFIO_MIG_FLAG_DEV_SETUP_STATE: VfioSetup,
    VFIO_MIG_FLAG_DEV_INIT_DATA_SENT: VfioInitDataSent,
    VFIO_MIG_FLAG_END_OF_STATE: VfioEndOfState,
}

# What QEMU 10.0 adds for a ramfb, in the words of the VM description.
_DISPLAY: Final = {
    "vmsd_name": "VFIOPCIDevice/VFIODisplay",
    "version": 1,
    "fields": [
        {
            "name": "dpy",
            "type": "struct",
            "struct": {
                "vmsd_name": "VFIODisplay",
                "version": 1,
                "fields": [
                    {
                        "name": "ramfb",
                        "type": "struct",
                        "struct": {
                            "vmsd_name": "ramfb",
                            "version": 1,
                            "fields": [{"name": "cfg", "type": "buffer", "size": 28}],
                        },
                        "size": 28,
                    }
                ],
            },
            "size": 28,
        }
    ],
}
_DISPLAY_SIZE: Final = 1 + 1 + len("VFIOPCIDevice/VFIODisplay") + 4 + 28


def is_vfio(idstr: str) -> bool:
    """Tell whether a section is a VFIO device's."""
    return idstr == VFIO_IDSTR or idstr.endswith(VFIO_SUFFIX)


def read_vfio(
    source: Cursor, section_id: int, described: int | None
) -> Iterator[VfioRecord]:
    """Yield the records of one payload of the section ``section_id``.

    ``described`` is the size of a FULL section's payload where a VM description has
    it.

    Raises:
        StreamError: there is something that no VFIO section has.
    """
    began = source.position
    footer = section_foot(section_id)
    while True:
        here = source.position
        tag = source.be64("a section of a VFIO device")
        record: VfioRecord
        if tag in _MARKS:
            record = _MARKS[tag]()
        elif tag == VFIO_MIG_FLAG_DEV_DATA_STATE:
            size = source.be64("the head of a VFIO device's data")
            record = VfioData(source.take(size, "a VFIO device's data"))
        elif tag == VFIO_MIG_FLAG_DEV_CONFIG_STATE:
            end = None if described is None else began + described - TAG.size
            record = _config(source, footer, end)
        else:
            source.position = here
            raise source.error(f"no VFIO section has a tag {tag:#x}")
        yield record
        if isinstance(record, VfioEndOfState | VfioInitDataSent):
            return
        # A source whose save_setup fails early leaves its SETUP alone.
        if isinstance(record, VfioSetup) and source.peek(len(footer)) == footer:
            return


def _config(source: Cursor, footer: bytes, described: int | None) -> VfioConfig:
    """Read the configuration up to the first end that gives it a shape that it has.

    No size is that of two shapes: with n vectors it grows by 16 n + n / 8, rounded
    up, which is nowhere 4096 - 256.
    """
    for end in _ends(source, footer, described):
        config = _shaped(source.data[source.position : end])
        if config is not None:
            source.position = end
            return config
    raise source.error("a configuration of a VFIO device that has no known shape")


def _ends(source: Cursor, footer: bytes, described: int | None) -> Iterator[int]:
    if described is not None and source.position < described <= len(source.data):
        yield described
    least = source.position + _VERSION + _SPACES[0] + IRQ.size
    most = source.position + _VERSION + _SPACES[1] + IRQ.size
    most += _msix_size(_MSIX_VECTORS[-1]) + _DISPLAY_SIZE
    window = source.data[: most + len(END_OF_STATE) + len(footer)]
    for found in re.compile(re.escape(END_OF_STATE + footer)).finditer(window, least):
        yield found.start()
    for found in re.compile(re.escape(END_OF_STATE)).finditer(window, least):
        yield found.start()


def _shaped(body: memoryview) -> VfioConfig | None:
    for tail in (0, _DISPLAY_SIZE):
        display = _display(body[len(body) - tail :]) if tail else None
        if tail and display is None:
            continue
        for space in _SPACES:
            fixed = _VERSION + space + IRQ.size
            vectors = _vectors(len(body) - tail - fixed)
            if vectors is None:
                continue
            table = fixed + vectors * _MSIX_ENTRY
            return VfioConfig(
                version=int.from_bytes(body[:_VERSION], "big"),
                config=body[_VERSION : _VERSION + space],
                irq=IRQ.unpack(body[_VERSION + space : fixed]),
                msix=MsixState(body[fixed:table], body[table : len(body) - tail])
                if vectors
                else None,
                display=display,
            )
    return None


def _display(tail: memoryview) -> VmState | None:
    reader = VmStateReader(Cursor(tail))
    try:
        return reader.subsection(_DISPLAY)
    except StreamError:
        return None


def _msix_size(vectors: int) -> int:
    return vectors * _MSIX_ENTRY + -(-vectors // 8)


def _vectors(size: int) -> int | None:
    """Return how many vectors MSI-X has whose state takes so many bytes."""
    if size == 0:
        return 0
    vectors = size * 8 // (_MSIX_ENTRY * 8 + 1)
    fits = vectors in _MSIX_VECTORS and _msix_size(vectors) == size
    return vectors if fits else None
