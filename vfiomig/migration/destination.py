"""The destination: it loads what comes, then runs; or it gives up, and says so.

It believes nothing of the stream: every field is held against the one value that may
stand there, in the order in which sections may come, and a device runs only when all
of them had their end.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from vfiomig.migration.device_loading import DeviceLoading
from vfiomig.migration.exchange import Close, Send, Steps
from vfiomig.migration.incoming import Incoming
from vfiomig.migration.metrics import Metrics, Outcome
from vfiomig.migration.observer import Observer, Unobserved
from vfiomig.migration.ram_loading import RamLoading
from vfiomig.migration.side import (
    Ending,
    MigratingDevice,
    MigratingMachine,
    StateNotes,
    description_of,
)
from vfiomig.migration.state_loading import (
    StateLoading,
    loading_of_hart,
    loadings_of_xen,
)
from vfiomig.protocol.errors import DriverDiedError, VfiomigError
from vfiomig.protocol.qemu_stream import framing
from vfiomig.uapi.qemu_stream import (
    QEMU_VM_EOF,
    QEMU_VM_SECTION_END,
    QEMU_VM_SECTION_FULL,
    QEMU_VM_SECTION_PART,
    QEMU_VM_SECTION_START,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from vfiomig.migration.clock import VirtualClock
    from vfiomig.migration.handler import LoadHandler


class Destination:
    """One side of a migration: `load` is what it does, step by step.

    ``load_bandwidth`` is the rate at which its devices take data, in bytes a second;
    ``None`` for no time at all.  Unless it ``starts_vm`` (QEMU: -S, or a source that
    was paused), the devices stay RESUMING until the VM is told to go on.
    """

    def __init__(
        self,
        devices: Sequence[MigratingDevice],
        *,
        clock: VirtualClock,
        metrics: Metrics,
        load_bandwidth: int | None = None,
        starts_vm: bool = True,
        observer: Observer | None = None,
        machine: MigratingMachine | None = None,
    ) -> None:
        self._devices = devices
        self._clock = clock
        self._metrics = metrics
        self._starts_vm = starts_vm
        self._observer = observer or Unobserved()
        self._machine = machine
        self._states = StateNotes("destination", clock, metrics, self._observer)
        self._incoming = Incoming()
        self._busy_with = ""
        handlers: list[LoadHandler] = [
            DeviceLoading(
                device,
                self._incoming,
                clock=clock,
                metrics=metrics,
                observer=self._observer,
                load_bandwidth=load_bandwidth,
            )
            for device in devices
        ]
        # Until the stream ends: who sends a FULL section, and has not yet.
        self._states_to_come: list[LoadHandler] = [
            handler
            for handler, device in zip(handlers, devices, strict=True)
            if device.config is not None
        ]
        if machine is not None:
            memory = machine.machine.memory
            ram = RamLoading(
                memory, self._incoming, metrics, machine.channels, machine.places
            )
            handlers.insert(0, ram)
        self._before: list[StateLoading[Any]] = []
        self._behind: list[StateLoading[Any]] = []
        if machine is not None and (board := machine.machine.board) is not None:
            self._before = [
                loading_of_hart(board, index, self._incoming)
                for index in range(len(board.harts))
            ]
        if machine is not None and (xen := machine.machine.xen) is not None:
            self._behind = loadings_of_xen(xen, self._incoming)
        self._states_to_come = [*self._before, *self._states_to_come, *self._behind]
        self._waiting = handlers
        self._open_sections: dict[int, LoadHandler] = {}
        self._numbered: dict[int, LoadHandler] = {}
        self._running: list[MigratingDevice] = []

    def load(self) -> Steps[Ending]:
        """Take all devices in, let them run and say so; return how it ended."""
        try:
            yield from self.load_stream()
            yield Send(framing.return_path_shut(0))
        except (OSError, VfiomigError) as error:
            yield Close()
            return self.give_up(error)
        return Ending(Outcome.COMPLETED)

    def give_up(self, error: Exception) -> Ending:
        """Leave the devices as they are, but for those that run: the source will."""
        for device in self._devices:
            device.client.load_cleanup()
        for device in reversed(self._running):
            with contextlib.suppress(OSError, VfiomigError):
                device.client.vm_state_change(running=False)
        self._metrics.resumed_at = None
        died = isinstance(error, DriverDiedError)
        outcome = Outcome.DIED if died else Outcome.FAILED
        return Ending(outcome, error, self._busy_with)

    def load_stream(self) -> Steps[None]:
        """Take all devices in and let them run.

        Raises:
            StreamError: the stream is not what a source sends.
            OSError, VfiomigError: a device refused or failed.
        """
        head = framing.STREAM_HEAD
        yield from self._incoming.expect(head, "the header of a QEMU stream")
        if self._machine is not None:
            machine_type = self._machine.machine.machine_type
            wanted = framing.configuration(machine_type)
            yield from self._incoming.expect(wanted, f"a machine {machine_type!r}")
            if self._machine.machine.board is not None:
                self._machine.machine.board.pre_load()
            if self._machine.machine.xen is not None:
                self._machine.machine.xen.pre_load()
        for device in self._devices:
            self._busy_with = device.name
            device.client.load_setup()
            self._states.note(device)
        while (yield from self._load_section()):
            pass
        if self._machine is not None:
            before, behind = (
                [state.description for state in states if state.description is not None]
                for states in (self._before, self._behind)
            )
            document = description_of(self._devices, before, behind)
            wanted = framing.vm_description(document)
            yield from self._incoming.expect(wanted, "the description of this machine")
            if self._machine.machine.board is not None:
                self._machine.machine.board.post_init()
        for device in self._devices:
            device.client.load_cleanup()
        if self._starts_vm:
            self._start_vm()

    # -- sections --------------------------------------------------------------------

    def _load_section(self) -> Steps[bool]:
        """Load one section; False at the end of the stream."""
        (section_type,) = yield from self._incoming.take(1)
        if section_type == QEMU_VM_EOF:
            missing = [*self._waiting, *self._open_sections.values()]
            missing += [h for h in self._states_to_come if h not in missing]
            if missing:
                names = ", ".join(handler.name for handler in missing)
                self._incoming.fail(f"the stream ends before {names} did")
            return False
        if section_type not in _SECTIONS:
            self._incoming.fail(f"unknown section type {section_type:#04x}")
        number = yield from self._incoming.take(framing.SECTION_ID.size)
        yield from _SECTIONS[section_type](self, int.from_bytes(number, "big"))
        return True

    def _load_start(self, section: int) -> Steps[None]:
        """Open the section of the next handler, in the order of the source."""
        if not self._waiting or section in self._numbered:
            self._incoming.fail(
                f"section {section} belongs to no device of this machine"
            )
        handler = self._waiting.pop(0)
        yield from handler.load_start(section)
        self._open_sections[section] = self._numbered[section] = handler

    def _load_part(self, section: int) -> Steps[None]:
        yield from self._opened(section).load_part(section)

    def _load_end(self, section: int) -> Steps[None]:
        yield from self._opened(section).load_end(section)
        del self._open_sections[section]

    def _load_full(self, section: int) -> Steps[None]:
        """Load what a handler sends in one piece, once all that iterate are over."""
        handler = self._numbered.get(section) or self._next_state()
        if handler is None or self._open_sections or self._waiting:
            self._incoming.fail(f"a FULL section {section} has no place here")
        if handler not in self._states_to_come:
            self._incoming.fail(f"no FULL section of {handler.name} is due")
        self._states_to_come.remove(handler)
        self._numbered[section] = handler
        self._busy_with = handler.name
        yield from handler.load_state(section)

    def _next_state(self) -> LoadHandler | None:
        """Return the first part whose section has not come: no START names it."""
        states = (*self._before, *self._behind)
        return next((state for state in states if state.description is None), None)

    def _opened(self, section: int) -> LoadHandler:
        if section not in self._open_sections:
            self._incoming.fail(f"section {section} is not open")
        handler = self._open_sections[section]
        self._busy_with = handler.name
        return handler

    # -- the end ---------------------------------------------------------------------

    def _start_vm(self) -> None:
        for device in self._devices:
            self._observer.destination_will_run(device.name)
        for device in self._devices:
            self._busy_with = device.name
            device.client.vm_state_change(running=True)
            self._running.append(device)
            self._observer.destination_runs(device.name)
            self._states.note(device)
        if self._machine is not None:
            # The vCPUs last: vm_prepare_start tells the devices, then all are resumed.
            self._machine.machine.start(self._clock.now)
        self._metrics.resumed_at = self._clock.now


_SECTIONS: Final[Mapping[int, Callable[[Destination, int], Steps[None]]]] = {
    QEMU_VM_SECTION_START: Destination._load_start,
    QEMU_VM_SECTION_PART: Destination._load_part,
    QEMU_VM_SECTION_END: Destination._load_end,
    QEMU_VM_SECTION_FULL: Destination._load_full,
}
