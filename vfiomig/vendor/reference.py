"""The reference driver: it obeys every v1 rule, for whatever device stands behind it.

Rule 1: a transition happens wholly inside the write to device_state, or not at all;
a write that fails leaves the state that was, or ERROR (V1-TRANS-03).

Rule 2: a buffer is queued by a read of data_offset and by nothing else, and only a
read of pending_bytes takes it back (V1-PEND-04).  Every other access may be repeated.

Rule 3: what a stream says is believed after it was checked, and a device never runs
with a part of it (V1-TRANS-27, V1-RES-07).
"""

from __future__ import annotations

import errno
import mmap
from typing import TYPE_CHECKING, Final, NoReturn

from vfiomig.protocol.v1.registers import REGISTER_AT, Register
from vfiomig.protocol.v1.states import (
    DEFAULT_STATE,
    ArcClass,
    DeviceState,
    arc_between,
)
from vfiomig.uapi.migration_v1 import (
    VFIO_DEVICE_STATE_MASK,
    vfio_device_migration_info,
)
from vfiomig.vendor.data_section import PAGE, DataSection
from vfiomig.vendor.faults import ArmedFaults
from vfiomig.vendor.loading import LoadingSession
from vfiomig.vendor.saving import SavingSession

if TYPE_CHECKING:
    from vfiomig.protocol.region import MigrationRegion, SparseMmapArea
    from vfiomig.vendor.device_model import DeviceModel

_REFUSED: Final = (ArcClass.INV, ArcClass.ERRW, ArcClass.XERR)

# Undrawn, and after stop-and-copy said 0 pending the stream has ended: a driver may
# decline, and this one does (AMB-14).
_DECLINED: Final = (DeviceState.STOP_AND_COPY, DeviceState.PRE_COPY)

_MAPPED_PART: Final = {"trapped": 0, "mapped": 1.0, "split": 0.5}
DATA_SECTION_KINDS: Final = tuple(_MAPPED_PART)


class ReferenceDriver:
    """A vendor driver for one `DeviceModel`.

    ``section`` is the size of the data section in bytes, whole pages.
    ``data_section`` says how it is reached: "trapped" by pread and pwrite alone,
    "mapped" in one area, "split" so that only the first half is mapped and a chunk
    straddles both parts.  ``ValueError`` for anything else.
    """

    def __init__(
        self,
        model: DeviceModel,
        *,
        section: int = 16 * PAGE,
        data_section: str = "mapped",
    ) -> None:
        if data_section not in _MAPPED_PART:
            message = f"{data_section!r} is not one of {', '.join(DATA_SECTION_KINDS)}"
            raise ValueError(message)
        self.model = model
        self._section = DataSection(section)
        self._clear_section()  # the pages are there from the start
        share = int(section * _MAPPED_PART[data_section])
        self.migration_region: MigrationRegion = self._section.region(
            mapped=-(-share // PAGE) * PAGE
        )
        self._bank = mmap.mmap(-1, PAGE)
        self._registers = vfio_device_migration_info.from_buffer(self._bank)
        self._registers.data_offset = self._section.offset
        self._faults = ArmedFaults()
        self._saving: SavingSession | None = None
        self._loading: LoadingSession | None = None
        self._state = DEFAULT_STATE
        self._set_state(DEFAULT_STATE)
        self._readers = {
            (Register.DEVICE_STATE.offset, 4): self._read_device_state,
            (Register.RESERVED.offset, 4): lambda: bytes(4),
            (Register.PENDING_BYTES.offset, 8): self._read_pending_bytes,
            (Register.DATA_OFFSET.offset, 8): self._read_data_offset,
            (Register.DATA_SIZE.offset, 8): self._read_data_size,
        }

    # -- the contract --------------------------------------------------------------

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read; EINVAL for any but a register or the data section."""
        reader = self._readers.get((offset, size))
        if reader is not None:
            return reader()
        if offset < self._section.offset:
            _refuse(f"no register of {size} bytes is at {offset:#x}")
        if self._faults:
            self._faults.trip("data")
        return self._section.read(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        """Take a trapped write; EINVAL for any but a register or the data section."""
        if offset >= self._section.offset:
            self._write_data(offset, data)
            return
        # Header: "Field accesses from this structure are only supported at their
        # native width and alignment."
        match REGISTER_AT.get((offset, len(data))):
            case Register.DEVICE_STATE:
                self._write_device_state(int.from_bytes(data, "little"))
            case Register.DATA_SIZE:
                self._write_data_size(int.from_bytes(data, "little"))
            case Register.RESERVED:
                pass  # V1-ACC-08
            case None:
                _refuse(f"no register of {len(data)} bytes is at {offset:#x}")
            case register:
                _refuse(f"{register.value} is read only")

    def mmap(self, area: SparseMmapArea) -> tuple[int, int]:
        """Return the file behind the area of the data section, and its place there."""
        return self._section.mmap(area)

    def reset(self) -> None:
        """Go back to power-on and RUNNING, from any state (V1-RST-01 to -04)."""
        self._end_sessions()
        self.model.power_on()
        self._faults.clear()
        self._clear_section()
        self._set_state(DEFAULT_STATE)

    def close(self) -> None:
        """Let model, registers and data section go."""
        self._end_sessions()
        self._registers = vfio_device_migration_info()  # the old one pins the bank
        self._bank.close()
        self._section.close()
        close_model = getattr(self.model, "close", None)  # optional
        if close_model is not None:
            close_model()

    # -- the bench -----------------------------------------------------------------

    def work(self, amount: int) -> None:
        """Let guest traffic reach the device, if it runs (V1-STATE-05)."""
        if self._state.is_running:
            self.model.work(amount)

    def snapshot(self) -> memoryview:
        """Return the state that a migration must carry."""
        return self.model.snapshot()

    def fail(self, on: str, code: int) -> None:
        """Arm a fault; on "device_state" it goes off at the next transition.

        ENOTRECOVERABLE there takes the device to ERROR; any other errno leaves the
        state that was.  "data" goes off at a trapped data access, or, where data is
        mapped, at the register access that follows (V1-SAVE-09).
        """
        self._faults.arm(on, code)

    # -- reads ---------------------------------------------------------------------

    def _read_device_state(self) -> bytes:
        return self._bank[0:4]

    def _read_pending_bytes(self) -> bytes:
        if self._faults:
            has_buffer = self._saving is not None and self._saving.has_buffer
            self._trip("pending_bytes", after_data=has_buffer)
        if self._saving is not None:
            self._registers.pending_bytes = self._saving.pending_bytes()
        return self._bank[8:16]

    def _read_data_offset(self) -> bytes:
        if self._faults:
            self._faults.trip("data_offset")
        if self._saving is not None:
            self._registers.data_size = self._saving.queue_buffer()
        return self._bank[16:24]

    def _read_data_size(self) -> bytes:
        if self._faults:
            self._faults.trip("data_size")
        return self._bank[24:32]

    # -- writes --------------------------------------------------------------------

    def _write_data(self, offset: int, data: bytes) -> None:
        if self._faults:
            self._faults.trip("data")
        if self._loading is None:
            _refuse("the data section is written in RESUMING")
        self._section.write(offset, data)

    def _write_data_size(self, size: int) -> None:
        if self._loading is None:
            _refuse("data_size is written in RESUMING")
        if self._faults:
            self._trip("data_size", after_data=True)
        self._loading.take(size)

    def _write_device_state(self, value: int) -> None:
        arc = arc_between(self._state, value)
        if arc.arc_class in _REFUSED or (arc.source, arc.target) == _DECLINED:
            _refuse(f"{self._state.name} to {arc.target:03b}b: {arc.arc_class.value}")
        if arc.arc_class is not ArcClass.SELF:
            self._enter(DeviceState(value & VFIO_DEVICE_STATE_MASK))

    # -- transitions ---------------------------------------------------------------

    def _enter(self, target: DeviceState) -> None:
        """Make one transition: leave first, then begin (V1-TRANS-22)."""
        try:
            self._faults.trip("device_state")
            if self._loading is not None:
                self._loading.finish()
        except OSError as failure:
            refused = self._loading is not None and self._loading.is_refused
            if refused or failure.errno == errno.ENOTRECOVERABLE:
                self._end_sessions()
                self._set_state(DeviceState.ERROR)
            raise
        # It may be refused the memory that it needs: before anything else is ended.
        is_resuming = target is DeviceState.RESUMING
        view = self._section.view
        begun = LoadingSession(self.model, view) if is_resuming else None
        self._loading = None
        if self._saving is not None and not target.is_saving:
            self._end_sessions()
        self._loading = begun
        if target.is_saving:
            self._save(running=target.is_running)
        self._set_state(target)

    def _save(self, *, running: bool) -> None:
        if self._saving is None:
            view = self._section.view
            self._saving = SavingSession(self.model, view, running=running)
        elif not running:
            self._saving.stop()

    def _clear_section(self) -> None:
        self._section.view[:] = bytes(self._section.size)

    def _end_sessions(self) -> None:
        if self._saving is not None:
            self._saving.end()
        if self._loading is not None:
            self._loading.drop()
        self._saving = self._loading = None

    def _set_state(self, state: DeviceState) -> None:
        self._state = state
        self._registers.device_state = state
        # Outside of saving neither has a meaning: 0 is what A21 recommends.
        if self._saving is None:
            self._registers.pending_bytes = self._registers.data_size = 0

    def _trip(self, site: str, *, after_data: bool) -> None:
        """Set off a fault here, or one on data that no trap could notice before."""
        if after_data and self.migration_region.areas:
            self._faults.trip(site, "data")
        else:
            self._faults.trip(site)


def _refuse(why: str) -> NoReturn:
    raise OSError(errno.EINVAL, why)
