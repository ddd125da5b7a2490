"""A bench file, tried on a device before anything is judged by what it reads.

What it names may be the wrong place, or not be there while the device is stopped, as
with a function that reads as all ones then: each round trip would seem to lose state.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NoReturn

from vfiomig.conformance.target_errors import TargetStartError
from vfiomig.protocol.v1.states import DeviceState

if TYPE_CHECKING:
    from vfiomig.client.device import DeviceHandle
    from vfiomig.conformance.vfio_user.bench_file import BlackBox, StateBytes, WorkWrite

_STOPPED: Final = (DeviceState.STOP_AND_COPY, DeviceState.STOP)


def rehearse(black_box: BlackBox, device: DeviceHandle, base: int) -> None:
    """Read the state, work, and read it again while the device is stopped.

    ``base`` is where the migration region is.  The device is not a fresh one after it.

    Raises:
        TargetStartError: a place is not there, or not while the device is stopped.
        DriverLostError: the server is gone.
    """
    running = _states(black_box, device, "while the device runs")
    for number, write in enumerate(black_box.work):
        try:
            write.perform(device, 0)
        except OSError as error:
            _refuse(_place("work", number, write), f": {_why(error)}")
    for state in _STOPPED:
        try:
            device.pwrite(state.to_bytes(4, "little"), base)
        except OSError:
            return  # the rules judge that
        when = f"while the device is stopped ({state.name})"
        for number, data in enumerate(_states(black_box, device, when)):
            if not data.strip(b"\xff") and running[number].strip(b"\xff"):
                what = _place("state", number, black_box.state[number])
                _refuse(
                    what, f", {when}: it reads as all ones, as if nothing were there"
                )


def _states(black_box: BlackBox, device: DeviceHandle, when: str) -> list[bytes]:
    found = []
    for number, each in enumerate(black_box.state):
        try:
            found.append(each.read(device))
        except OSError as error:
            _refuse(_place("state", number, each), f", {when}: {_why(error)}")
    return found


def _place(kind: str, number: int, each: StateBytes | WorkWrite) -> str:
    return f"{kind}[{number}], {each.offset:#x} of BAR {each.bar}"


def _why(error: OSError) -> str:
    return os.strerror(error.errno or 0)


def _refuse(what: str, why: str) -> NoReturn:
    raise TargetStartError(f"the bench file is of no use: {what}{why}")
