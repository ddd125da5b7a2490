"""Our client in QEMU's place: the same calls of its handlers, on the same devices.

The devices are those that the broker gives to a QEMU, with all that it has around them,
in this process: what is recorded is recorded by the same hand.  Guest traffic comes
where it came in QEMU's history.
"""

from __future__ import annotations

import mmap
import tempfile
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.unit.client.scripted_migration import given_to, sent_by
from vfiomig.client.recorder import HistoryWriter
from vfiomig.client.region import find_migration_region
from vfiomig.client.v1 import ApplicationAbortedError, V1Client
from vfiomig.frontends.attached_machine import AttachedMachine
from vfiomig.host.user_process import LocalProcess
from vfiomig.migration.metrics import Outcome
from vfiomig.migration.savevm import load_vm, save_vm
from vfiomig.migration.side import MigratingDevice
from vfiomig.protocol.history import Access, BenchEvent, Record
from vfiomig.serve.broker.device_file import DeviceFile
from vfiomig.uapi.ioctl import (
    VFIO_DEVICE_RESET,
    VFIO_GROUP_GET_DEVICE_FD,
    VFIO_GROUP_SET_CONTAINER,
    VFIO_SET_IOMMU,
)
from vfiomig.uapi.iommu_type1 import VFIO_TYPE1v2_IOMMU

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.interop.handler_calls import Call
    from vfiomig.frontends.fail_steps import FailStep

Buffers = list[deque[bytes]]  # a queue for each device

_RESET: Final = VFIO_DEVICE_RESET()


class OurClient:
    """Our client with devices of the same targets; ``buffers`` are those it saved.

    ``history`` is QEMU's, for the work in it; ``to_load`` what a source saved, unless
    it ``loads_its_own``.
    ``mappings`` are offset and size of what was mapped, in order.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        targets: tuple[str, ...],
        history: Sequence[Record],
        *,
        to_load: Buffers | None = None,
        loads_its_own: bool = False,
        fault: FailStep | None = None,
    ) -> None:
        self._log = HistoryWriter()
        self.mappings: list[tuple[int, int]] = []
        sysfs = Path(tempfile.mkdtemp(dir=folder))
        machine = AttachedMachine(targets, sysfs, self._log, party=name, fault=fault)
        self._work = _Work(history, machine)
        handles = _opened(machine, self._work, self.mappings)
        self._handles = handles
        self._clients = [
            V1Client(each, find_migration_region(each)) for each in handles
        ]
        self.buffers: Buffers = [deque() for _ in targets]
        self._to_load = self.buffers if loads_its_own else to_load
        self._stop_failed = False

    @property
    def records(self) -> list[Record]:
        """What crossed the fds, and what was done to the devices behind them."""
        return self._log.records

    def make(self, calls: Iterable[Call]) -> None:
        """Make the calls of a QEMU, and let go of the devices as one that ends."""
        for call in calls:
            handler = getattr(self, f"_{call.handler}")
            chosen = range(len(self._clients)) if call.device is None else [call.device]
            try:
                for number in chosen:
                    handler(number)
            except ApplicationAbortedError:  # and so did QEMU: this call was its last
                break
            except OSError:  # QEMU says so, and goes on as it did
                continue
        self._close()

    def save_and_load(self, *, stops_first: bool) -> None:
        """Perform a savevm and a loadvm with our own loops, in the life of a VM."""
        devices = [MigratingDevice(str(n), c) for n, c in enumerate(self._clients)]
        for client in reversed(self._clients):
            client.reset()
        self._run(running=True)
        if stops_first:
            self._run(running=False)
        stream, saved = sent_by(save_vm(devices))
        loaded = given_to(load_vm(devices), stream)
        assert saved.outcome is loaded.outcome is Outcome.COMPLETED
        self._run(running=False)
        self._close()

    def _run(self, *, running: bool) -> None:
        for client in self._clients if running else reversed(self._clients):
            client.vm_state_change(running=running)

    def _close(self) -> None:
        for handle in reversed(self._handles):  # as the broker does for a process
            handle.close()

    # -- the handlers, by number of device ---------------------------------------------

    def _reset(self, number: int) -> None:
        self._clients[number].reset()

    def _vm_starts(self, number: int) -> None:
        self._clients[number].vm_state_change(running=True)

    def _vm_stops(self, number: int) -> None:
        try:
            self._clients[number].vm_state_change(running=False)
        except OSError:
            self._stop_failed = True
            raise

    def _vm_stops_for_savevm(self, number: int) -> None:
        self._clients[number].vm_state_change(running=False, for_savevm=True)

    def _migration_failed(self, number: int) -> None:
        self._clients[number].migration_failed()

    def _save_setup(self, number: int) -> None:
        self._clients[number].save_setup()

    def _save_pending(self, number: int) -> None:
        self._clients[number].save_pending()

    def _save_iterate(self, number: int) -> None:
        queue, before = self.buffers[number], len(self.buffers[number])
        for buffer in self._clients[number].save_iterate():
            queue.append(b"".join(buffer.views))
        if len(queue) == before:
            queue.append(b"")  # the record of nothing, which QEMU sends as well

    def _save_complete_precopy(self, number: int) -> None:
        client, failed = self._clients[number], self._stop_failed
        for buffer in client.save_complete_precopy(stream_failed=failed):
            self.buffers[number].append(b"".join(buffer.views))

    def _save_cleanup(self, number: int) -> None:
        self._clients[number].save_cleanup()

    def _load_setup(self, number: int) -> None:
        self._clients[number].load_setup()

    def _load_buffer(self, number: int) -> None:
        assert self._to_load is not None
        buffer = memoryview(self._to_load[number].popleft())
        if not buffer:
            return
        done = 0
        for view in self._clients[number].load_buffer(len(buffer)):
            view[:] = buffer[done : done + len(view)]
            done += len(view)

    def _load_cleanup(self, number: int) -> None:
        self._clients[number].load_cleanup()


class _Work:
    """Lets the devices do, before each access, what QEMU's devices did before it."""

    def __init__(self, history: Iterable[Record], machine: AttachedMachine) -> None:
        self._left = deque(history)
        self._machine = machine

    def before_access(self) -> None:
        while self._left:
            record = self._left.popleft()
            if isinstance(record, Access) and not record.unseen:
                return
            if isinstance(record, BenchEvent) and record.bench == "work":
                for device in self._machine.devices:
                    if device.name == record.device:
                        device.work(record.amount)


class _Handle:
    """An fd of a device, as a program has it: a `DeviceHandle`."""

    def __init__(
        self,
        process: LocalProcess,
        number: int,
        work: _Work,
        mappings: list[tuple[int, int]],
    ) -> None:
        self._process, self._number = process, number
        self._before_access = work.before_access
        self._mappings = mappings

    def pread(self, size: int, offset: int) -> bytes:
        self._before_access()
        return self._process.file(self._number).pread(size, offset)

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        self._before_access()
        return self._process.file(self._number).pwrite(data, offset)

    def ioctl(self, request: int, argument: bytearray | None = None) -> int:
        if request == _RESET:
            self._before_access()
        if argument is None:
            return self._process.ioctl(self._number, request)
        return _with_argument(self._process, self._number, request, argument)

    def mmap(self, length: int, offset: int) -> mmap.mmap:
        file = self._process.file(self._number)
        assert isinstance(file, DeviceFile)
        backing = file.backing_fd()
        assert backing is not None
        self._mappings.append((offset, length))
        return mmap.mmap(backing, length, offset=offset)

    def close(self) -> None:
        self._before_access()
        self._process.close(self._number)


def _opened(
    machine: AttachedMachine, work: _Work, mappings: list[tuple[int, int]]
) -> list[_Handle]:
    """Open all devices, each in a container of its own."""
    process = LocalProcess(machine.dev_vfio.open)
    handles = []
    for path in machine.sysfsdevs:
        container = process.open("/dev/vfio/vfio")
        group = process.open(f"/dev/vfio/{(path / 'iommu_group').resolve().name}")
        word = bytearray(container.to_bytes(4, "little"))
        _with_argument(process, group, VFIO_GROUP_SET_CONTAINER(), word)
        process.ioctl(container, VFIO_SET_IOMMU(), VFIO_TYPE1v2_IOMMU)
        name = bytearray(path.name.encode() + b"\0")
        number = _with_argument(process, group, VFIO_GROUP_GET_DEVICE_FD(), name)
        handles.append(_Handle(process, number, work, mappings))
    return handles


def _with_argument(
    process: LocalProcess, number: int, request: int, argument: bytearray
) -> int:
    address = process.memory.place(argument)
    try:
        return process.ioctl(number, request, address)
    finally:
        process.memory.remove(address)
