"""The user application's half of v1, on any device handle.

The methods carry the names of the handlers in QEMU's hw/vfio/migration.c, and make
its accesses in its order.  They perform the sessions of `protocol.v1`; what QEMU does
against the specification is in the `Conduct`.

Data is never copied here: a saved buffer is handed on as views of the mapping, and a
buffer that is loaded is received straight into it.
"""

from __future__ import annotations

import contextlib
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from vfiomig.client.conduct import (
    LOAD_SETUP,
    MIGRATION_FAILED,
    QEMU_7_2,
    SAVE_COMPLETE_FIRST,
    SAVE_COMPLETE_LAST,
    VM_RUNS,
    VM_STOPPED,
    VM_STOPPED_FOR_SAVEVM,
    Conduct,
    StateWrite,
)
from vfiomig.client.mapped_region import MappedRegion, Unseen
from vfiomig.protocol.errors import StateError
from vfiomig.protocol.v1.device_state import DeviceInErrorStateError, set_device_state
from vfiomig.protocol.v1.registers import Register
from vfiomig.protocol.v1.requests import (
    ReadData,
    ReadRegister,
    Request,
    WriteData,
    WriteRegister,
)
from vfiomig.protocol.v1.resuming import load_buffer
from vfiomig.protocol.v1.saving import save_buffer, save_rest
from vfiomig.protocol.v1.states import DEFAULT_STATE, named_state
from vfiomig.uapi.ioctl import VFIO_DEVICE_RESET

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from vfiomig.client.device import DeviceHandle
    from vfiomig.client.region import FoundRegion
    from vfiomig.protocol.v1.states import DeviceState

_Result = TypeVar("_Result")


class Buffer(NamedTuple):
    """A buffer on its way into the stream; its views are good until the next access."""

    size: int
    views: list[memoryview]


class ApplicationAbortedError(DeviceInErrorStateError):
    """A device went to ERROR, and the user application aborts: it touches none more.

    QEMU does so (hw_error); all devices of its VM are lost with it.
    """

    def __init__(self, error: DeviceInErrorStateError, application: str) -> None:
        StateError.__init__(
            self,
            f"{error}: {application} aborts",
            state=error.state,
            required=error.required,
        )


class V1Client:
    """One device that migrates by the v1 protocol.

    ``vm_is_running`` says whether the VM runs when the device joins it.  ``unseen`` is
    told of data that went through a mapping.

    ``mapping_failure`` is why all data was trapped although there are areas;
    ``left_behind`` what was pending when stop-and-copy ended at an empty buffer.
    """

    def __init__(
        self,
        handle: DeviceHandle,
        region: FoundRegion,
        *,
        conduct: Conduct = QEMU_7_2,
        vm_is_running: bool = False,
        unseen: Unseen | None = None,
    ) -> None:
        self.conduct = conduct
        self._handle = handle
        self._region = MappedRegion(
            handle, region, widths=conduct.data_widths, unseen=unseen
        )
        self._region_size = region.size if conduct.checks_buffers else None
        self._pending = 0
        self._is_saving = False
        self._vm_is_running = vm_is_running
        self.mapping_failure: OSError | None = None
        self.left_behind = 0
        # What was written last, as QEMU keeps it: nothing is read at the start.
        self._written = int(DEFAULT_STATE)

    @property
    def device_state(self) -> DeviceState | None:
        """The state that this side has brought the device to, as far as it knows."""
        return named_state(self._written)

    @property
    def vm_is_running(self) -> bool:
        """Whether the VM runs, as far as this device was told."""
        return self._vm_is_running

    # -- the VM's run state ----------------------------------------------------------

    def vm_state_change(self, *, running: bool, for_savevm: bool = False) -> None:
        """Follow the VM: vfio_vmstate_change.

        Raises:
            OSError: the driver refused; what the VM does is remembered all the same.
            DeviceInErrorStateError: the driver failed; the device was reset, or this
                is an `ApplicationAbortedError`.
        """
        if running == self._vm_is_running:
            return
        self._vm_is_running = running
        if not running:
            self._set_state(VM_STOPPED_FOR_SAVEVM if for_savevm else VM_STOPPED)
        else:
            saving = self.conduct.runs_while_saving
            self._set_state(saving if self._is_saving else VM_RUNS)

    def give_up_saving(self) -> None:
        """Note that what was saved is not wanted any more; the device is not asked."""
        self._is_saving = False

    def migration_failed(self) -> None:
        """Let the device go on after failure or cancel: vfio_migration_state_notifier.

        Raises:
            OSError: the driver refused.
            DeviceInErrorStateError: as `vm_state_change`.
        """
        self.give_up_saving()
        if self._vm_is_running:
            self._set_state(MIGRATION_FAILED)
        else:
            self._set_state(self.conduct.failed_while_paused)

    def reset(self) -> None:
        """Reset the device: VFIO_DEVICE_RESET, the only way out of ERROR.

        Raises:
            OSError: the driver could not.
        """
        self._handle.ioctl(VFIO_DEVICE_RESET())
        self._written = int(DEFAULT_STATE)
        self._is_saving = False

    # -- saving ----------------------------------------------------------------------

    def save_setup(self) -> None:
        """Map the data section and begin to save: vfio_save_setup."""
        self.mapping_failure = self._region.map()
        self._set_state(self.conduct.save_setup)
        self._is_saving = True

    def save_pending(self) -> int:
        """Ask how many bytes are pending: vfio_save_pending."""
        try:
            self._pending = self._region.read_register(Register.PENDING_BYTES)
        except OSError:
            if not self.conduct.ignores_pending_errors:
                raise
            self._pending = 0
        return self._pending

    def save_iterate(self) -> Iterator[Buffer]:
        """Save at most one buffer: vfio_save_iterate.

        Yields nothing when nothing is pending.  Whoever iterates sends the buffer
        before going on.
        """
        if not self._pending:
            self._pending = self._region.read_register(Register.PENDING_BYTES)
            if not self._pending:
                return
        yield from self._buffers(save_buffer(self._region_size))
        self._pending = 0

    def save_complete_precopy(self, *, stream_failed: bool = False) -> Iterator[Buffer]:
        """Save all that is left, then stop: vfio_save_complete_precopy.

        QEMU gets here with a stream that has failed already, and learns of it only
        behind the first buffer: with ``stream_failed`` the device never stops.
        """
        self._set_state(SAVE_COMPLETE_FIRST)
        buffers = self._buffers(
            save_rest(
                self._region_size,
                stops_at_empty_buffer=self.conduct.stops_at_empty_buffer,
            )
        )
        if stream_failed:
            yield from islice(buffers, 1)
            return
        self.left_behind = yield from buffers
        self._set_state(SAVE_COMPLETE_LAST)
        self._is_saving = False

    def save_cleanup(self) -> None:
        """Unmap the data section: vfio_save_cleanup."""
        self._region.unmap()

    # -- loading ---------------------------------------------------------------------

    def load_setup(self) -> None:
        """Map the data section and begin to resume: vfio_load_setup."""
        self.mapping_failure = self._region.map()
        try:
            self._set_state(LOAD_SETUP)
        except BaseException:
            self._region.unmap()
            raise

    def load_buffer(self, size: int) -> Iterator[memoryview]:
        """Give the driver a buffer of ``size`` bytes: vfio_load_buffer.

        Yields the places that the buffer's bytes go to, in order; each is filled
        before the next is asked for.
        """
        splits = self.conduct.splits_large_buffers
        session = load_buffer(size, self._region.size, splits=splits)
        yield from self._rooms(session)

    def load_cleanup(self) -> None:
        """Unmap the data section: vfio_load_cleanup."""
        self._region.unmap()

    # -- performing sessions -----------------------------------------------------------

    def _set_state(self, write: StateWrite) -> None:
        try:
            self._written = self._perform(set_device_state(*write))
        except DeviceInErrorStateError as error:
            if not self.conduct.resets_from_error:
                raise ApplicationAbortedError(error, self.conduct.name) from error
            with contextlib.suppress(OSError):  # the first failure is the news
                self.reset()
            raise

    def _perform(self, session: Generator[Request, int, _Result]) -> _Result:
        """Perform a session that moves no data."""
        try:
            request = next(session)
            while True:
                request = self._answer(session, request)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # a generator's result

    def _buffers(
        self, session: Generator[Request, int, _Result]
    ) -> Generator[Buffer, None, _Result]:
        """Perform a session; yield each buffer that it reads."""
        try:
            request = next(session)
            while True:
                if request.__class__ is ReadData:
                    views = self._region.data(request.offset, request.size)
                    yield Buffer(request.size, views)
                    request = session.send(0)
                else:
                    request = self._answer(session, request)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # a generator's result

    def _rooms(
        self, session: Generator[Request, int, None]
    ) -> Generator[memoryview, None, None]:
        """Perform a session; yield where each buffer that it writes goes."""
        try:
            request = next(session)
            while True:
                if request.__class__ is WriteData:
                    yield from self._region.room(request.offset, request.size)
                    request = session.send(0)
                else:
                    request = self._answer(session, request)
        except StopIteration:
            return

    def _answer(
        self, session: Generator[Request, int, _Result], request: Request
    ) -> Request:
        """Make a register access for a session, errors included."""
        try:
            if isinstance(request, ReadRegister):
                value = self._region.read_register(request.register)
            else:
                assert isinstance(request, WriteRegister)
                self._region.write_register(request.register, request.value)
                value = 0
        except OSError as failure:
            return session.throw(failure)
        return session.send(value)
