"""Where the bytes of a buffer lie, writable or not: what a call in C is given."""

from __future__ import annotations

import numpy as np


def address_of(buffer: memoryview) -> int:
    """Return the address of the first byte; 0 for a buffer without any.

    It is good for as long as the caller holds the buffer.
    """
    return np.frombuffer(buffer, np.uint8).ctypes.data if len(buffer) else 0
