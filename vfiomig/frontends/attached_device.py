"""A device that a real QEMU has open: what crosses its fd is seen, and added up.

It stands between the broker and the device fd.  The history, the snapshots and the
account of what moved are made here, at the very access that they belong to.
"""

from __future__ import annotations

import errno
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vfiomig.client.recorder import HistoryWriter, Recorder
from vfiomig.client.region import find_migration_region
from vfiomig.frontends.noted_bench import NotedBench
from vfiomig.protocol.bench import bench_of
from vfiomig.protocol.v1.registers import Register
from vfiomig.protocol.v1.states import DEFAULT_STATE, DeviceState, named_state
from vfiomig.uapi.ioctl import VFIO_DEVICE_RESET

if TYPE_CHECKING:
    from pathlib import Path

    from vfiomig.frontends.fail_steps import FailStep
    from vfiomig.host.device_fd import DeviceFd
    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.host.user_process import UserProcess

_RESET: Final = VFIO_DEVICE_RESET()
_RESUMING: Final = (DeviceState.RESUMING,)


@dataclass(slots=True, kw_only=True)
class Account:
    """What a device saw of one program.

    ``states`` are those that it was brought to, in order; bytes are those of data.
    ``at_stop``, ``at_start`` and ``at_continue`` are digests of its snapshot: where it
    last stopped running, where it began to run as a destination, and where it went on
    as a source that did not leave; ``is_whole`` says whether that was as it had
    stopped.  ``has_snapshot`` says whether there are any.
    """

    states: list[str] = field(default_factory=list)
    saved_buffers: int = 0
    saved_bytes: int = 0
    loaded_buffers: int = 0
    loaded_bytes: int = 0
    resets: int = 0
    refusals: int = 0
    at_stop: str | None = None
    at_start: str | None = None
    at_continue: str | None = None
    is_whole: bool | None = None
    has_snapshot: bool = False
    is_in_error: bool = False
    has_failed: bool = False


class AttachedDevice:
    """A `HostFile` in front of a `DeviceFd`.

    Each time it stops, but not to load another state, its snapshot becomes a file in
    the folder ``snapshots``, if there is one: NAME.1 the first, with ``-`` for the
    ``/`` in its name.
    """

    def __init__(
        self,
        name: str,
        fd: DeviceFd,
        driver: TrappedDriver,
        log: HistoryWriter,
        *,
        fault: FailStep | None = None,
        snapshots: Path | None = None,
    ) -> None:
        self.name = name
        self._fd = fd
        self._bench = NotedBench(driver, bench_of(driver), name, log)
        has_snapshot = self._bench.members.snapshot is not None
        self.account = Account(has_snapshot=has_snapshot)
        self._fault = fault
        self._snapshots = snapshots
        self._stops = itertools.count(1)
        self.region = find_migration_region(fd)
        self._recorder = Recorder(fd, self.region, log, device=name)
        self._state: DeviceState | None = DEFAULT_STATE
        self._has_offset = False

    @property
    def is_running(self) -> bool:
        """Whether the device runs, as far as was seen."""
        return self._state is not None and self._state.is_running

    def work(self, amount: int) -> None:
        """Let guest traffic reach the device, if it runs and has any.

        Raises:
            DriverDiedError: the driver raised.
        """
        if self.is_running:
            self._bench.work(amount)

    def unseen(self, access: str, offset: int, size: int) -> None:
        """Note data that may have gone through a mapping."""
        self._recorder.unseen(access, offset, size)

    # -- the file ----------------------------------------------------------------------

    def user_ioctl(self, request: int, argument: int, user: UserProcess) -> int:
        """Perform an ioctl; a reset is recorded."""
        if request != _RESET:
            return self._fd.user_ioctl(request, argument, user)
        self._recorder.ioctl(request)
        self._state, self._has_offset = DEFAULT_STATE, False
        self.account.resets += 1
        return 0

    def pread(self, size: int, offset: int) -> bytes:
        """Read, and record what came."""
        register = offset - self.region.offset
        if self._fault is not None:
            self._fail_at("read", register, 0)
        data = self._recorder.pread(size, offset)
        if register == Register.DEVICE_STATE.offset and size == 4:
            state = named_state(int.from_bytes(data, "little"))
            self.account.is_in_error = state is DeviceState.ERROR
        elif size == 8 and len(data) == 8:
            self._follow_read(register, int.from_bytes(data, "little"))
        return data

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Write, and record what went."""
        register = offset - self.region.offset
        is_state = register == Register.DEVICE_STATE.offset and len(data) == 4
        if self._fault is not None:
            self._fail_at("write", register, int.from_bytes(data[:8], "little"))
        try:
            taken = self._recorder.pwrite(data, offset)
        except OSError:
            if is_state:
                self.account.refusals += 1
            raise
        if is_state:
            self._enter(int.from_bytes(data, "little"))
        elif register == Register.DATA_SIZE.offset and self._state in _RESUMING:
            self.account.loaded_buffers += 1
            self.account.loaded_bytes += int.from_bytes(data, "little")
        return taken

    def close(self) -> None:
        """Close the device fd, and record it; no guest works on it any more."""
        self._state = None
        self._recorder.close()

    # -- what it means -----------------------------------------------------------------

    def _follow_read(self, register: int, value: int) -> None:
        if self._state in _RESUMING:
            return
        if register == Register.DATA_OFFSET.offset:
            self._has_offset = True
        elif register == Register.DATA_SIZE.offset and self._has_offset:
            self._has_offset = False
            self.account.saved_buffers += 1
            self.account.saved_bytes += value

    def _enter(self, value: int) -> None:
        before, after = self._state, named_state(value)
        self._state = after
        if after is None or after is before:
            return
        self.account.states.append(after.name)
        if before is not None and before.is_running and not after.is_running:
            self.account.at_stop = self._digest(keep=after not in _RESUMING)
        elif after.is_running and before is DeviceState.RESUMING:
            self.account.at_start = self._digest()
        elif after.is_running and before is not None and not before.is_running:
            self.account.at_continue = self._digest()
            self.account.is_whole = self.account.at_continue == self.account.at_stop

    def _fail_at(self, access: str, register: int, asked: int) -> None:
        """Arm the fault that was asked for, if this is its access."""
        fault = self._fault
        if fault is None or not fault.is_at(access, register, self._state, asked):
            return
        self._fault = None
        self.account.has_failed = True
        if self._bench.members.fail is None:  # the host fails the access itself
            raise OSError(errno.EIO, f"{self.name}: failed on request")
        self._bench.fail(fault.register.value, errno.EIO)

    def _digest(self, *, keep: bool = False) -> str | None:
        taken = self._bench.snapshot()
        if taken is None:
            return None
        if keep and self._snapshots is not None:
            name = f"{self.name.replace('/', '-')}.{next(self._stops)}"
            (self._snapshots / name).write_bytes(taken.state)
        return taken.digest
