"""Passages: the stretches of steps that scripts are made of."""

from __future__ import annotations

from typing import Final

from vfiomig.conformance.conversation.steps import Step, step
from vfiomig.protocol.v1.states import DeviceState

SOURCE: Final = "source"
DESTINATION: Final = "destination"
THIRD: Final = "third"

STOP: Final = int(DeviceState.STOP)
RUNNING: Final = int(DeviceState.RUNNING)
STOP_AND_COPY: Final = int(DeviceState.STOP_AND_COPY)
PRE_COPY: Final = int(DeviceState.PRE_COPY)
RESUMING: Final = int(DeviceState.RESUMING)

VALID: Final = (STOP, RUNNING, STOP_AND_COPY, PRE_COPY, RESUMING)
SAVING: Final = (PRE_COPY, STOP_AND_COPY)
NEVER_VALID: Final = (5, 6, 7)

Steps = list[Step]


def enter(role: str, *states: int) -> Steps:
    """Return the steps that ask for states, one after the other."""
    return [step("enter", role, state) for state in states]


def way_to(role: str, state: int) -> Steps:
    """Return the steps that bring a device just opened into a state."""
    return [] if state == RUNNING else enter(role, state)


def work(role: str = SOURCE, amount: int = 40) -> Step:
    """Return the step that lets guest traffic reach a device."""
    return step("work", role, amount)


def arrive(role: str = DESTINATION, how: str = "whole") -> Steps:
    """Return the steps of a whole resume."""
    return [*enter(role, RESUMING), step("load", role, how), *enter(role, RUNNING)]


def save(role: str = SOURCE, how: str = "whole") -> Steps:
    """Return the steps that stop a device and save all that is left."""
    return [*enter(role, STOP_AND_COPY), step("drain", role, how)]


def pre_copy(role: str = SOURCE, how: str = "whole", rounds: int = 2) -> Steps:
    """Return the steps of some rounds of pre-copy, with work between them."""
    steps = enter(role, PRE_COPY)
    for _ in range(rounds):
        steps += [step("iterate", role, 3, how), work(role, 5)]
    return steps


def buffer(role: str, how: str = "whole") -> Steps:
    """Return the accesses that save one buffer, up to its acknowledgement."""
    return [
        step("read_pending_bytes", role),
        step("read_data_offset", role),
        step("read_data_size", role),
        step("read_data", role, how),
    ]
