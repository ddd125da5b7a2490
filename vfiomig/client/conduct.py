"""How a user application behaves where the specification leaves room, or is ignored.

There is one client.  What differs between QEMU and the specification is a row here,
with the function of QEMU 7.2 that does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from vfiomig.uapi.migration_v1 import (
    VFIO_DEVICE_STATE_MASK,
    VFIO_DEVICE_STATE_RESUMING,
    VFIO_DEVICE_STATE_RUNNING,
    VFIO_DEVICE_STATE_SAVING,
)


class StateWrite(NamedTuple):
    """One write of device_state: what stays of the value read, and what is added."""

    mask: int
    value: int


SAVE_SETUP: Final = StateWrite(~0, VFIO_DEVICE_STATE_SAVING)
SAVE_COMPLETE_FIRST: Final = StateWrite(
    ~VFIO_DEVICE_STATE_RUNNING, VFIO_DEVICE_STATE_SAVING
)
SAVE_COMPLETE_LAST: Final = StateWrite(~VFIO_DEVICE_STATE_SAVING, 0)
LOAD_SETUP: Final = StateWrite(~VFIO_DEVICE_STATE_MASK, VFIO_DEVICE_STATE_RESUMING)
VM_RUNS: Final = StateWrite(~VFIO_DEVICE_STATE_MASK, VFIO_DEVICE_STATE_RUNNING)
VM_GOES_ON_SAVING: Final = StateWrite(
    ~VFIO_DEVICE_STATE_RESUMING, VFIO_DEVICE_STATE_RUNNING
)
VM_STOPPED: Final = StateWrite(~VFIO_DEVICE_STATE_RUNNING, 0)
VM_STOPPED_FOR_SAVEVM: Final = StateWrite(
    ~VFIO_DEVICE_STATE_RUNNING, VFIO_DEVICE_STATE_SAVING
)
MIGRATION_FAILED: Final = StateWrite(
    ~(VFIO_DEVICE_STATE_SAVING | VFIO_DEVICE_STATE_RESUMING), VFIO_DEVICE_STATE_RUNNING
)
MIGRATION_FAILED_PAUSED: Final = StateWrite(~VFIO_DEVICE_STATE_MASK, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """One user application's habits; the comments name the rule that each touches."""

    name: str

    # The widths that trapped data is moved in, widest first, each aligned on the
    # fd's offset; none: a trapped part is one access (V1-SAVE-04 allows any).
    data_widths: tuple[int, ...]

    # The device_state write that begins saving.
    save_setup: StateWrite

    # The write after a failed or cancelled migration whose VM is paused, and the
    # one when a VM that was stopped while saving goes on.
    failed_while_paused: StateWrite
    runs_while_saving: StateWrite

    # A buffer of size 0 ends stop-and-copy, whatever is pending (V1-PEND-12).
    stops_at_empty_buffer: bool

    # An error of the pending_bytes read between rounds counts as 0 (V1-SAVE-10).
    ignores_pending_errors: bool

    # A buffer larger than the region's room becomes several (V1-RES-03).
    splits_large_buffers: bool

    # data_offset and data_size are held against the region (V1-OFF-03, V1-OFF-07).
    checks_buffers: bool

    # A stream that ends within a buffer: the driver is given the buffer all the same,
    # with what was in the window for the rest, before the end is noticed (V1-RES-02).
    commits_short_buffers: bool

    # A savevm that failed takes the device of a stopped VM out of saving.
    ends_failed_savevm: bool

    # A device in ERROR is reset (V1-TRANS-08); without it the process aborts.
    resets_from_error: bool


QEMU_7_2: Final = Conduct(
    name="QEMU 7.2",
    data_widths=(8, 4, 2, 1),  # vfio_mig_access
    save_setup=SAVE_SETUP._replace(mask=VFIO_DEVICE_STATE_MASK),  # vfio_save_setup
    failed_while_paused=MIGRATION_FAILED,  # vfio_migration_state_notifier
    runs_while_saving=VM_RUNS,  # vfio_vmstate_change
    stops_at_empty_buffer=True,  # vfio_save_complete_precopy
    ignores_pending_errors=True,  # vfio_save_pending
    splits_large_buffers=True,  # vfio_load_buffer
    checks_buffers=False,  # vfio_save_buffer, vfio_load_buffer
    commits_short_buffers=True,  # vfio_load_buffer
    ends_failed_savevm=False,  # qemu_savevm_state calls no notifier
    resets_from_error=False,  # vfio_migration_set_state: hw_error
)

STRICT: Final = Conduct(
    name="the specification",
    data_widths=(),
    save_setup=SAVE_SETUP,
    failed_while_paused=MIGRATION_FAILED_PAUSED,
    runs_while_saving=VM_GOES_ON_SAVING,
    stops_at_empty_buffer=False,
    ignores_pending_errors=False,
    splits_large_buffers=False,
    checks_buffers=True,
    commits_short_buffers=False,
    ends_failed_savevm=True,
    resets_from_error=True,
)

CONDUCTS: Final = {"qemu-7.2": QEMU_7_2, "strict": STRICT}
