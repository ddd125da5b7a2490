"""The v1 device states and the transitions between them.

Rule 1: whatever decides which device_state may follow which lives in this file.
What fits a table is in ``ARCS``; the rest is code, but still here.

Rule 2: nothing in this file knows whether it runs on behalf of the user application
or of the vendor driver, so both are held to the same arcs.

Rule 3: a device_state is three bits of a 32-bit register.  The others are reserved:
they are masked off before a value is looked up here, and written back as they were
read (V1-STATE-12).

Sources that rows cite: "H" is the comment in linux/vfio.h (v5.8 to v5.17), with the
number of the line of its drawing; "A20" and "A21" are Alex Williamson's answers and
draft of those years; "QEMU" is the client of 5.2 to 7.2, with the function that
writes the arc.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from vfiomig.uapi.migration_v1 import (
    VFIO_DEVICE_STATE_MASK,
    VFIO_DEVICE_STATE_RESUMING,
    VFIO_DEVICE_STATE_RUNNING,
    VFIO_DEVICE_STATE_SAVING,
    VFIO_DEVICE_STATE_STOP,
)


class DeviceState(enum.IntEnum):
    """The named values of device_state; the two others, 5 and 7, are invalid."""

    STOP = VFIO_DEVICE_STATE_STOP
    RUNNING = VFIO_DEVICE_STATE_RUNNING
    STOP_AND_COPY = VFIO_DEVICE_STATE_SAVING
    PRE_COPY = VFIO_DEVICE_STATE_SAVING | VFIO_DEVICE_STATE_RUNNING
    RESUMING = VFIO_DEVICE_STATE_RESUMING
    ERROR = VFIO_DEVICE_STATE_SAVING | VFIO_DEVICE_STATE_RESUMING

    @property
    def is_running(self) -> bool:
        """Tell whether the device runs (V1-STATE-03)."""
        return bool(self & VFIO_DEVICE_STATE_RUNNING)

    @property
    def is_saving(self) -> bool:
        """Tell whether state is handed out through the region (V1-STATE-07)."""
        return self in (DeviceState.PRE_COPY, DeviceState.STOP_AND_COPY)


DEFAULT_STATE: Final = DeviceState.RUNNING  # V1-STATE-01


def named_state(value: int) -> DeviceState | None:
    """Return the state that a register value stands for; ``None`` for 5 and 7."""
    try:
        return DeviceState(value & VFIO_DEVICE_STATE_MASK)
    except ValueError:
        return None


def state_name(value: int) -> str:
    """Name a register value for a person: the state, or its three bits."""
    state = named_state(value)
    return state.name if state is not None else f"{value & 7:03b}b"


class ArcClass(enum.Enum):
    """What must come of a write to device_state (kernel_uapi.md, section B)."""

    REQ = "drawn or described in the header: must succeed"
    EXP = "undrawn, but an abort or the real client needs it: should succeed"
    OPT = "undrawn: success, or an errno with device_state as it was"
    SELF = "the same value: succeeds, and the session goes on"
    INV = "an invalid target: fails, device_state and session as they were"
    ERRW = "ERROR is not for the user to ask for: fails, nothing changes"
    XERR = "only a reset leaves ERROR: fails, device_state stays ERROR"
    UNR = "no device is ever in this state"


class Arc(NamedTuple):
    """What a write of ``target`` does to a device in ``source``, and who says so."""

    source: int
    target: int
    arc_class: ArcClass
    clause: str


# The bits alone, so that a row reads as the drawing does.
_STOP, _RUNNING, _STOP_AND_COPY, _PRE_COPY, _RESUMING = 0, 1, 2, 3, 4
_INVALID: Final = (0b101, 0b111)
_ERROR: Final = 0b110
_VALID: Final = (_STOP, _RUNNING, _STOP_AND_COPY, _PRE_COPY, _RESUMING)

_VALID_ARCS: Final = (
    Arc(_RUNNING, _STOP, ArcClass.REQ, "H 1: shutdown; support, never require"),
    Arc(_RUNNING, _STOP_AND_COPY, ArcClass.REQ, "H 2: suspend; stop, save, hand out"),
    Arc(_RUNNING, _PRE_COPY, ArcClass.REQ, "H 3: even with no data to offer"),
    Arc(_RUNNING, _RESUMING, ArcClass.REQ, "H 4: the resume phase begins"),
    Arc(_STOP_AND_COPY, _STOP, ArcClass.REQ, "H 2 and 3: the end of saving"),
    Arc(_PRE_COPY, _STOP_AND_COPY, ArcClass.REQ, "H 3: whatever is pending"),
    Arc(_RESUMING, _RUNNING, ArcClass.REQ, "H 5: the data was given"),
    Arc(_STOP, _RUNNING, ArcClass.EXP, "QEMU vfio_vmstate_change: the VM goes on"),
    Arc(_STOP, _STOP_AND_COPY, ArcClass.EXP, "QEMU vfio_save_setup of a stopped VM"),
    Arc(_STOP, _RESUMING, ArcClass.EXP, "QEMU vfio_load_setup of loadvm"),
    Arc(_STOP_AND_COPY, _RUNNING, ArcClass.EXP, "A21: the least abort; QEMU failure"),
    Arc(_PRE_COPY, _RUNNING, ArcClass.EXP, "A21: the least abort; QEMU cancel"),
    Arc(_STOP, _PRE_COPY, ArcClass.OPT, "A21: any valid state from any other"),
    Arc(_STOP_AND_COPY, _PRE_COPY, ArcClass.OPT, "A21: downtime exceeded, go back"),
    Arc(_STOP_AND_COPY, _RESUMING, ArcClass.OPT, "A21: ping-pong migration"),
    Arc(_PRE_COPY, _STOP, ArcClass.OPT, "A21: both bits cleared at once"),
    Arc(_PRE_COPY, _RESUMING, ArcClass.OPT, "A21: no use named"),
    Arc(_RESUMING, _STOP, ArcClass.OPT, "A21; the base arc of v2"),
    Arc(_RESUMING, _STOP_AND_COPY, ArcClass.OPT, "A21: compare data out with data in"),
    Arc(_RESUMING, _PRE_COPY, ArcClass.OPT, "A21: live ping-pong"),
    Arc(_STOP, _STOP, ArcClass.SELF, "as STOP_AND_COPY to itself"),
    Arc(_RUNNING, _RUNNING, ArcClass.SELF, "QEMU vfio_vmstate_change at VM start"),
    Arc(
        _STOP_AND_COPY,
        _STOP_AND_COPY,
        ArcClass.SELF,
        "H silent; QEMU vfio_save_complete_precopy writes it in every migration",
    ),
    Arc(_PRE_COPY, _PRE_COPY, ArcClass.SELF, "as STOP_AND_COPY to itself"),
    Arc(_RESUMING, _RESUMING, ArcClass.SELF, "as STOP_AND_COPY to itself"),
)

ARCS: Final = (
    *_VALID_ARCS,
    *(
        Arc(source, target, ArcClass.INV, "H: VALID(); A20: must fail")
        for source in _VALID
        for target in _INVALID
    ),
    *(Arc(source, _ERROR, ArcClass.ERRW, "A20: not for the user") for source in _VALID),
    *(
        Arc(_ERROR, target, ArcClass.XERR, "H, A20: recovered by VFIO_DEVICE_RESET")
        for target in range(8)
    ),
    *(
        Arc(source, target, ArcClass.UNR, "H: VALID(); never reported")
        for source in _INVALID
        for target in range(8)
    ),
)

_ARC_AT: Final = {(arc.source, arc.target): arc for arc in ARCS}


def arc_between(source: int, target: int) -> Arc:
    """Return the row for a write of ``target`` in state ``source``.

    Both are register values; their reserved bits do not count.
    """
    return _ARC_AT[source & VFIO_DEVICE_STATE_MASK, target & VFIO_DEVICE_STATE_MASK]
