"""What a Xen guest's program knows, as plain numbers and bytes: so it can move."""

from __future__ import annotations

import ctypes
from typing import Final

from vfiomig.protocol.xenstore import MESSAGE_MAX

MOST_HELD: Final = 10  # transactions that a guest may have open
_U32: Final = ctypes.c_uint32
_U64: Final = ctypes.c_uint64


class Registers(ctypes.Structure):
    """What the guest knows; it is put into its RAM when it stops.

    ``handled`` counts events that it took, ``completed`` responses, ``times_back`` how
    often the ``time`` that it saw was before the last one.  It looks at the
    store's ring when it ``is_told``.  ``held`` are the transactions that it has open
    for no purpose but to be moved, ``ends_held`` that it is to end them; then they
    count as ``committed``, ``conflicted`` (EAGAIN), or ``unknown``.  ``error`` is the
    errno of what it did not expect, in ``step``: it does nothing more then.
    """

    _fields_ = (
        ("handled", _U64),
        ("completed", _U64),
        ("time", _U64),
        ("times_back", _U32),
        ("connections", _U32),
        ("watch_events", _U32),
        ("renegotiates_at", _U64),
        ("sleeps_until", _U64),
        ("step", _U32),
        ("asked", _U32),
        ("is_told", _U32),
        ("has_changed", _U32),
        ("tx", _U32),
        ("req_id", _U32),
        ("rsp_cons", _U32),
        ("store_port", _U32),
        ("disk_port", _U32),
        ("error", _U32),
        ("ends_held", _U32),
        ("held_count", _U32),
        ("held", _U32 * MOST_HELD),
        ("committed", _U32),
        ("conflicted", _U32),
        ("unknown", _U32),
        ("out_at", _U32),
        ("out_size", _U32),
        ("in_size", _U32),
        ("out", ctypes.c_ubyte * MESSAGE_MAX),
        ("in_", ctypes.c_ubyte * MESSAGE_MAX),
    )
