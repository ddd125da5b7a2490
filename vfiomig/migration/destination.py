"""The destination: it loads what comes, then runs; or it gives up, and says so.

It believes nothing of the stream: every field is held against the one value that may
stand there, in the order in which sections may come, and a device runs only when all
of them had their end.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, NoReturn

from vfiomig.migration.clock import SECOND, VirtualClock
from vfiomig.migration.exchange import Close, Receive, Send, Steps
from vfiomig.migration.metrics import Metrics, Outcome
from vfiomig.migration.observer import Observer, Unobserved
from vfiomig.migration.side import Ending, MigratingDevice, StateNotes
from vfiomig.protocol.errors import (
    DriverDiedError,
    ProtocolError,
    StreamError,
    VfiomigError,
)
from vfiomig.protocol.qemu_stream import framing
from vfiomig.uapi.qemu_stream import (
    QEMU_VM_EOF,
    QEMU_VM_SECTION_END,
    QEMU_VM_SECTION_PART,
    QEMU_VM_SECTION_START,
    VFIO_MIG_FLAG_DEV_DATA_STATE,
    VFIO_MIG_FLAG_END_OF_STATE,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# What is missing of a short buffer is given to the driver up to so many bytes beyond
# the piece in hand.  QEMU, told of a length beyond reason, would be at it for ever.
_MISSING_LIMIT: Final = 1 << 16


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
    ) -> None:
        self._devices = devices
        self._clock = clock
        self._metrics = metrics
        self._load_bandwidth = load_bandwidth
        self._starts_vm = starts_vm
        self._observer = observer or Unobserved()
        self._states = StateNotes("destination", clock, metrics, self._observer)
        self._position = 0
        self._busy_with = ""
        self._open_sections: dict[int, MigratingDevice] = {}
        self._waiting = list(devices)
        self._loaded = dict.fromkeys((device.name for device in devices), 0)
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
        yield from self._expect(framing.STREAM_HEAD, "the header of a QEMU stream")
        for device in self._devices:
            self._busy_with = device.name
            device.client.load_setup()
            self._states.note(device)
        while (yield from self._load_section()):
            pass
        for device in self._devices:
            device.client.load_cleanup()
        if self._starts_vm:
            self._start_vm()

    # -- sections --------------------------------------------------------------------

    def _load_section(self) -> Steps[bool]:
        """Load one section; False at the end of the stream."""
        (section_type,) = yield from self._take(1)
        if section_type == QEMU_VM_EOF:
            missing = [*self._waiting, *self._open_sections.values()]
            if missing:
                names = ", ".join(device.name for device in missing)
                self._fail(f"the stream ends before {names} did")
            return False
        if section_type == QEMU_VM_SECTION_PART:
            yield from self._load_part()
        elif section_type == QEMU_VM_SECTION_END:
            yield from self._load_end()
        elif section_type == QEMU_VM_SECTION_START:
            yield from self._load_start()
        else:
            self._fail(f"unknown section type {section_type:#04x}")
        return True

    def _load_start(self) -> Steps[None]:
        """Open the section of the next device, in the order of the source."""
        head = yield from self._take(framing.SECTION_ID.size)
        section = int.from_bytes(head, "big")
        if not self._waiting or section in self._open_sections:
            self._fail(f"section {section} belongs to no device of this machine")
        device = self._waiting.pop(0)
        rest = framing.start_rest(device.idstr) + framing.section_foot(section)
        yield from self._expect(rest, f"the START section of {device.name}")
        self._open_sections[section] = device

    def _load_part(self) -> Steps[None]:
        head = yield from self._take(framing.PART_HEAD.size)
        section, tag, size = framing.PART_HEAD.unpack(head)
        device = self._opened(section)
        if tag != VFIO_MIG_FLAG_DEV_DATA_STATE:
            self._fail(f"unknown tag {tag:#x}")
        yield from self._load_data(device, size)
        rest = framing.END_OF_STATE + framing.section_foot(section)
        yield from self._expect(rest, "the end of a PART section")

    def _load_end(self) -> Steps[None]:
        head = yield from self._take(framing.END_HEAD.size)
        section, tag = framing.END_HEAD.unpack(head)
        device = self._opened(section)
        while tag == VFIO_MIG_FLAG_DEV_DATA_STATE:
            yield from self._load_data(device, (yield from self._take_tag()))
            tag = yield from self._take_tag()
        if tag != VFIO_MIG_FLAG_END_OF_STATE:
            self._fail(f"unknown tag {tag:#x}")
        yield from self._expect(framing.section_foot(section), "a section's footer")
        del self._open_sections[section]

    def _opened(self, section: int) -> MigratingDevice:
        if section not in self._open_sections:
            self._fail(f"section {section} is not open")
        return self._open_sections[section]

    def _load_data(self, device: MigratingDevice, size: int) -> Steps[None]:
        """Give one buffer to the device, straight from the stream."""
        if not size:  # QEMU loads no buffer for a record of nothing
            return
        self._busy_with = device.name
        number = self._loaded[device.name]
        self._observer.buffer_will_load(device.name, number, size)
        places = device.client.load_buffer(size)
        for view in places:
            try:
                yield from self._fill(view)
            except (OSError, StreamError):
                if device.client.conduct.commits_short_buffers:
                    _give_short_buffer(places)
                raise
        self._loaded[device.name] = number + 1
        self._metrics.loaded_device_bytes += size
        if self._load_bandwidth is not None:
            self._clock.advance(size * SECOND // self._load_bandwidth)

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
        self._metrics.resumed_at = self._clock.now

    # -- the stream ------------------------------------------------------------------

    def _fill(self, view: memoryview) -> Steps[None]:
        wanted = len(view)
        got = yield Receive(view)
        self._position += got
        if got < wanted:
            self._fail(f"it ends, {wanted - got} bytes early")

    def _take(self, size: int) -> Steps[bytearray]:
        buffer = bytearray(size)
        got = yield Receive(memoryview(buffer))
        self._position += got
        if got < size:
            self._fail(f"it ends, {size - got} bytes early")
        return buffer

    def _take_tag(self) -> Steps[int]:
        return int.from_bytes((yield from self._take(framing.TAG.size)), "big")

    def _expect(self, wanted: bytes, what: str) -> Steps[None]:
        began = self._position
        got = yield from self._take(len(wanted))
        if got != wanted:
            message = f"{got.hex()} is not {what}"
            raise StreamError(message, position=began)

    def _fail(self, why: str) -> NoReturn:
        raise StreamError(why, position=self._position)


def _give_short_buffer(places: Iterator[memoryview]) -> None:
    """Let the driver have a buffer whose rest never came: vfio_load_buffer.

    What lies in the window, or was never written, stands for the rest.  If the driver
    refuses it, that is no news: the stream's end is.
    """
    given = 0
    try:
        while given < _MISSING_LIMIT:
            given += len(next(places))
    except StopIteration:
        return
    except DriverDiedError:
        raise
    except (OSError, ProtocolError):
        return
