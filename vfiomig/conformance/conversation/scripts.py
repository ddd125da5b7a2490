"""Conversations that are always held, before any that chance makes.

They are steps, so that they are stored, replayed and shortened like all others:
sequences and sessions first, single accesses last.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.conversation import access_scripts, session_scripts

if TYPE_CHECKING:
    from vfiomig.conformance.conversation.steps import Step

_GROUPS: Final = (
    session_scripts.round_trips,
    session_scripts.interrupted_sessions,
    session_scripts.repeated_reads,
    access_scripts.arcs,
    access_scripts.stopped_devices,
    session_scripts.damaged_streams,
    access_scripts.stray_accesses,
    access_scripts.faults,
)


@cache
def scripts() -> tuple[tuple[Step, ...], ...]:
    """Return all of them, in the order in which they are held."""
    return tuple(tuple(steps) for group in _GROUPS for steps in group())
