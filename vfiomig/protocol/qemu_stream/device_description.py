"""The JSON that describes the FULL sections of VFIO devices, as QEMU writes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_PAGE_SIZE: Final = 4096
_BRACE: Final = 0x7B


def describe_devices(devices: Iterable[tuple[str, int]]) -> bytes:
    """Return the text for devices (idstr, bytes of the payload of its FULL section).

    QEMU's own script finds the text by the first brace behind the last NUL byte of the
    file, and so its length must have none there; a space at the end helps.
    """
    document = {
        "page_size": _PAGE_SIZE,
        "devices": [
            {
                "name": idstr,
                "instance_id": 0,
                "size": size,
                "fields": [{"name": "data", "size": size, "type": "buffer"}],
            }
            for idstr, size in devices
        ],
    }
    text = json.dumps(document).encode()
    while _BRACE in len(text).to_bytes(4, "big").rpartition(b"\0")[2]:
        text += b" "
    return text
