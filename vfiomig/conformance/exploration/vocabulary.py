"""The steps that the explorer takes everywhere: single accesses, each in one way.

``load`` alone is several accesses: a chunk is given by the steps of the header, or
else there is nothing to judge.
"""

from __future__ import annotations

from typing import Final

from vfiomig.conformance.conversation.steps import Step, step

ROLE: Final = "source"

# All that are valid, one that is not, and ERROR.
_STATES: Final = (1, 2, 3, 4, 0, 5, 6)

VOCABULARY: Final[tuple[Step, ...]] = (
    *(step("enter", ROLE, state) for state in _STATES),
    step("read_device_state", ROLE),
    step("read_pending_bytes", ROLE),
    step("read_data_offset", ROLE),
    step("read_data_size", ROLE),
    step("read_data", ROLE),
    step("load", ROLE),
    step("watch_work", ROLE, 1),
    step("reset", ROLE),
    step("reopen", ROLE),
    step("write_register", ROLE, "reserved", 0xFFFF_FFFF),
    step("write_register", ROLE, "pending_bytes", 0),
    step("write_register", ROLE, "data_offset", 0),
    step("write_register", ROLE, "data_size", 1),
    step("read_odd", ROLE, 8, 4),
    step("write_odd", ROLE, 0, 1),
)

# What is never tried, in words for a report.
NOT_TRIED: Final = (
    "faults inside the device",
    "accesses of other widths, to other places, with other values",
    "data that is read in pieces, or through a mapping",
    "streams that are damaged, or of another device",
    "a second device at the same time",
    "the same guest traffic behind another history of it",
)
