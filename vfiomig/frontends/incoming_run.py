"""Loading a stream of QEMU into a simulated destination, from the file to a report."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vfiomig import __version__
from vfiomig.client.config_space import read_config_space
from vfiomig.client.recorder import HistoryWriter
from vfiomig.frontends.causes import in_words
from vfiomig.frontends.incoming_report import IncomingReport, LoadedDevice, LoadedRam
from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.run_report import DeviceReport, Digests, Verdict
from vfiomig.frontends.scenario import ScenarioError
from vfiomig.frontends.simulated_guest import RAM
from vfiomig.frontends.simulated_machine import SimulatedMachine
from vfiomig.frontends.verdicts import judge_devices
from vfiomig.migration.clock import VirtualClock
from vfiomig.migration.image_loading import ImageLoading, vfio_sections
from vfiomig.migration.metrics import Outcome
from vfiomig.migration.qemu_image import ImageError, open_image
from vfiomig.migration.side import MigratingDevice
from vfiomig.protocol.errors import DriverDiedError, StreamError, VfiomigError
from vfiomig.protocol.history import Header, RegionShape
from vfiomig.protocol.qemu_stream.framing import VFIO_SUFFIX
from vfiomig.protocol.qemu_stream.records import Configuration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vfiomig.frontends.device_scenario import DeviceSpec
    from vfiomig.frontends.scenario import Scenario
    from vfiomig.frontends.simulated_machine import SimulatedDevice
    from vfiomig.migration.qemu_image import QemuImage


_NOT_LOADED: Final = {"harts": "harts are", "xen": "a Xen guest is"}


def load_incoming(
    scenario: Scenario,
    file: Path,
    *,
    expected: Mapping[str, str] | None = None,
    history: Callable[[bytes], object] | None = None,
) -> IncomingReport:
    """Load the stream in ``file`` into the scenario's devices, and report on it.

    ``expected`` are digests by the device's name (`read_expectations`).

    Raises:
        OSError: the file cannot be opened.
        ImageError: it holds no migration stream, or one that breaks off at once.
        ScenarioError: the scenario's devices are not those of the stream.
        TargetError, TargetStartError: as `load_target`.
    """
    for key, what in _NOT_LOADED.items():
        if getattr(scenario.machine, key, None) is not None:
            file_name = plain(str(scenario.file))
            message = f"{file_name}: machine.{key}: {what} not loaded from a file"
            raise ScenarioError(message)
    with contextlib.ExitStack() as things:
        image = things.enter_context(open_image(file))
        sections = sections_of(scenario.devices, vfio_sections(image.records()), file)
        folder = things.enter_context(tempfile.TemporaryDirectory(prefix="vfiomig-"))
        log = HistoryWriter(history) if history is not None else None
        machine = SimulatedMachine(
            "destination", scenario, folder=Path(folder), clock=VirtualClock(), log=log
        )
        things.callback(machine.close)
        if log is not None:
            things.callback(log.flush)
            shapes = {
                each.label: RegionShape.of(each.region) for each in machine.devices
            }
            log.begin(Header(recorded_by=f"vfiomig {__version__}", devices=shapes))
        return _Loading(scenario, machine, sections, image).go(expected)


def sections_of(
    specs: Sequence[DeviceSpec], found: Sequence[str], file: Path
) -> list[str]:
    """Return the section of each device: that of its slot, else the next in order.

    Raises:
        ScenarioError: there is none, or there are more sections than devices.
    """
    slots = [None if s.slot is None else _idstr_of(s.slot) for s in specs]
    rest = [idstr for idstr in found if idstr not in slots]
    free = [number for number, idstr in enumerate(slots) if idstr is None]
    lacking = [idstr for idstr in slots if idstr is not None and idstr not in found]
    if lacking or len(rest) != len(free):
        there = ", ".join(map(plain, found)) or "no VFIO device"
        wanted = ", ".join(
            plain(spec.name if idstr is None else f"{spec.name} at {idstr}")
            for spec, idstr in zip(specs, slots, strict=True)
        )
        message = f"{plain(str(file))}: it has {there}, and the scenario {wanted}"
        raise ScenarioError(message)
    order = iter(rest)
    return [next(order) if idstr is None else idstr for idstr in slots]


def _idstr_of(slot: int) -> str:
    return f"0000:00:{slot:02x}.0{VFIO_SUFFIX}"


class _Loading:
    """One stream on its way into one machine."""

    def __init__(
        self,
        scenario: Scenario,
        machine: SimulatedMachine,
        sections: Sequence[str],
        image: QemuImage,
    ) -> None:
        self._machine = machine
        self._image = image
        self._memory = machine.guest.memory if machine.guest is not None else None
        self._by_section = dict(zip(sections, machine.devices, strict=True))
        self._loading = ImageLoading(
            {idstr: _participant(d) for idstr, d in self._by_section.items()},
            self._memory,
            machine.guest.machine_type if machine.guest is not None else None,
        )
        self._ram = Digests()
        self._report = IncomingReport(
            file=image.name, size=image.size, scenario=scenario.name
        )
        for idstr, device in self._by_section.items():
            entry = DeviceReport(
                name=device.spec.name, target=device.spec.target, digests=Digests()
            )
            self._report.devices.append(LoadedDevice(report=entry, idstr=idstr))

    def go(self, expected: Mapping[str, str] | None) -> IncomingReport:
        """Load, let it run, compare."""
        report = self._report
        try:
            self._load()
        except (ImageError, StreamError) as error:
            report.is_unreadable = True
            self._fail(error)
        except (OSError, VfiomigError) as error:
            self._fail(error)
        self._note_what_came()
        self._judge(expected)
        for name, failure in self._machine.close():
            report.notes.append(f"{name}: {in_words(failure)}")
        return report

    def _load(self) -> None:
        loading, end = self._loading, 0
        if self._memory is not None:
            self._ram.destination_before = self._memory.digest()
        for each in self._report.devices:
            before = self._device(each.report.name).digest()
            each.report.digests.destination_before = before
        loading.begin()
        for located in self._image.records():
            if isinstance(located.record, Configuration):
                self._report.machine_type = located.record.machine
            loading.take(located)
            end = located.offset
        loading.end(end)
        if self._memory is not None and loading.ram.is_loaded:
            self._ram.destination_after = self._memory.digest()
        for device in self._by_section.values():
            device.take_config()
        loading.run(self._has_run)

    def _has_run(self, device: MigratingDevice) -> None:
        """Take the snapshot before anything else reaches the device."""
        digest = self._device(device.name).digest()
        entry = next(e for e in self._report.reports if e.name == device.name)
        entry.digests.destination_after = digest

    def _fail(self, error: Exception) -> None:
        died = isinstance(error, DriverDiedError)
        self._report.outcome = Outcome.DIED if died else Outcome.FAILED
        text = in_words(error)
        if isinstance(error, ImageError):
            text = str(error)
        elif isinstance(error, StreamError):
            text = f"{self._image.name}: {error}"
        elif self._loading.busy_with:
            text = f"{self._loading.busy_with}: {text}"
        self._report.reason = text
        with contextlib.suppress(OSError, VfiomigError):  # the first is the news
            self._loading.give_up()

    def _note_what_came(self) -> None:
        report, loaded = self._report, self._loading.loaded()
        for each in report.devices:
            took = loaded[each.report.name]
            each.buffers, each.size = took.buffers, took.size
            each.changed_config = took.changed_config
            state = self._device(each.report.name).client.device_state
            each.device_state = "invalid" if state is None else state.name
        ram = self._loading.ram
        report.passed_over = self._loading.passed_over
        report.commands = self._loading.commands
        report.ram = LoadedRam(
            pages=ram.pages,
            encoded=ram.encoded,
            missing=ram.missing,
            left_out=ram.left_out,
        )
        if ram.is_loaded and self._memory is not None:
            target = f"{self._memory.size} bytes"
            report.ram.report = DeviceReport(name=RAM, target=target, digests=self._ram)

    def _judge(self, expected: Mapping[str, str] | None) -> None:
        """Compare with what is known of the source: nothing, unless it was given."""
        report = self._report
        for each in report.reports:
            each.digests.source_at_stop = (expected or {}).get(each.name)
        judge_devices(report.reports, report.outcome)
        for each in report.reports:
            has_arrived = each.digests.destination_after is not None
            if each.verdict is Verdict.UNVERIFIED and has_arrived:
                known = "the report has no digest of it"
                each.reason = "nothing to compare with" if expected is None else known
        ram = report.ram
        doubtful = (Verdict.UNVERIFIED, Verdict.DIFFERS)
        if ram.missing and ram.report is not None and ram.report.verdict in doubtful:
            ram.report.reason = f"{ram.missing} of its pages are not in the stream"

    def _device(self, name: str) -> SimulatedDevice:
        return next(
            each for each in self._by_section.values() if each.spec.name == name
        )


def _participant(device: SimulatedDevice) -> MigratingDevice:
    config = device.config
    if config is None:
        config = bytearray(read_config_space(device.fd))
    return MigratingDevice(device.spec.name, device.client, device.path, config)
