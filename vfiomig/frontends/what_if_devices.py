"""Asks drivers what they do in a migration: their `DeviceProfile`s.

Fresh drivers of the targets are opened as for a simulated migration, worked, saved and
loaded on their own, a few times and with bounded effort.  Nothing here depends on the
time that it takes, so the same scenario gives the same profiles.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.client.config_space import read_config_space
from vfiomig.frontends.causes import in_words
from vfiomig.frontends.device_scenario import paths_of
from vfiomig.frontends.simulated_machine import SimulatedMachine
from vfiomig.migration.clock import VirtualClock
from vfiomig.migration.side import MigratingDevice, description_of
from vfiomig.migration.what_if.profile import AccessTimes, Curve, DeviceProfile, Seen
from vfiomig.protocol.errors import DriverDiedError, VfiomigError
from vfiomig.protocol.qemu_stream import framing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.client.v1 import Buffer, V1Client
    from vfiomig.frontends.scenario import Scenario
    from vfiomig.frontends.simulated_machine import SimulatedDevice

# What one pre-copy is followed for at most; the rest is taken to be like it.
_MOST_BYTES: Final = 1 << 30
_MOST_BUFFERS: Final = 1 << 14
# A stopped device has no end after so many (`device_saving`).
_MOST_LAST_BUFFERS: Final = 1 << 20
# Units of guest traffic in all: what is pending after the sum so far.
_MOST_WORK: Final = 1 << 16
_STEP: Final = 1.5
_LEAST_WORK: Final = 256
# So many steps that change nothing show that no more will.
_PATIENCE: Final = 6
_LEAST_CHANGE: Final = 0.001
# Drivers that are stopped, each after another share of that work.
_STOPS: Final = (0.0, 0.25, 1.0)


class ProbeError(VfiomigError):
    """A driver died, or refused what every migration asks of it (exit 1)."""


class Profiles(NamedTuple):
    """All devices of a scenario, and what is known of them together.

    ``begins_at`` is the virtual time that starting their VM takes.
    """

    devices: tuple[DeviceProfile, ...]
    description_bytes: int
    begins_at: int


def ask_devices(scenario: Scenario) -> Profiles:
    """Ask each device of a scenario what it does.

    Raises:
        TargetError, TargetStartError: as `simulate`.
        ProbeError: a driver died or refused.
    """
    alone = dataclasses.replace(scenario, machine=None, faults=())
    asked = [_Asked(alone, share) for share in _STOPS]
    cut_off = _Asked(alone, 0.0, after_one_buffer=True)
    for each in (*asked, cut_off):
        with tempfile.TemporaryDirectory(prefix="vfiomig-") as folder:
            each.ask(Path(folder), with_configs=scenario.machine is not None)
    idle = asked[0]
    paths = [""] * len(scenario.devices)
    if scenario.machine is not None:
        paths = paths_of(scenario.devices)
    devices = tuple(
        _profile(
            scenario,
            number,
            path,
            [each.devices[number] for each in asked],
            cut_off.devices[number],
        )
        for number, path in enumerate(paths)
    )
    participants = [
        MigratingDevice(spec.name, client, path, seen.config)
        for spec, client, path, seen in zip(
            scenario.devices, idle.clients, paths, idle.devices, strict=True
        )
    ]
    text = framing.vm_description(description_of(participants))
    return Profiles(devices, len(text), idle.begins_at)


@dataclasses.dataclass(slots=True)
class _Seen:
    """What one driver did in one session."""

    config: bytearray | None = None
    first_pending: int = 0
    left_pending: int = 0  # when pre-copy was followed to its end, or far enough
    sizes: list[int] = dataclasses.field(default_factory=list)
    growth: list[Seen] = dataclasses.field(default_factory=list)
    worked: int = 0
    stopped_pending: int = 0
    last_sizes: list[int] = dataclasses.field(default_factory=list)
    loads: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    times: dict[str, int] = dataclasses.field(default_factory=dict)


class _Asked:
    """All devices asked once, stopped after a ``share`` of the most work.

    Or stopped ``after_one_buffer``, behind which pending_bytes is not asked for.
    """

    def __init__(
        self, scenario: Scenario, share: float, *, after_one_buffer: bool = False
    ) -> None:
        self._scenario = scenario
        self._after_one_buffer = after_one_buffer
        self._share = share
        self._clock, self._far = VirtualClock(), VirtualClock()
        self.devices: list[_Seen] = []
        self.clients: list[V1Client] = []
        self.begins_at = 0

    def ask(self, folder: Path, *, with_configs: bool) -> None:
        """Open both sides, and go through a session of each device."""
        with contextlib.ExitStack() as opened:
            source = self._open("source", self._clock, folder, opened)
            destination = self._open("destination", self._far, folder, opened)
            for device in source.devices:
                with _blaming("source", device):
                    device.client.vm_state_change(running=True)
                    device.work(self._scenario.warm_up)
            self.begins_at = self._clock.now
            for device, other in zip(source.devices, destination.devices, strict=True):
                seen = _Seen()
                with _blaming("source", device):
                    if with_configs:
                        seen.config = bytearray(read_config_space(device.fd))
                    self._save(device, other, seen)
                self.devices.append(seen)
                self.clients.append(device.client)

    def _open(
        self,
        party: str,
        clock: VirtualClock,
        folder: Path,
        opened: contextlib.ExitStack,
    ) -> SimulatedMachine:
        place = folder / party
        place.mkdir()
        machine = SimulatedMachine(
            party, self._scenario, folder=place, clock=clock, log=None
        )
        opened.callback(machine.close)
        return machine

    def _save(
        self, device: SimulatedDevice, other: SimulatedDevice, seen: _Seen
    ) -> None:
        client = device.client
        with _blaming("destination", other):
            other.client.load_setup()
        with self._timed(seen, "set_up"):
            client.save_setup()
        with self._timed(seen, "poll"):
            seen.first_pending = client.save_pending()
        if self._after_one_buffer:
            self._one_buffer(client, other, seen)
        else:
            self._pre_copy(client, other, seen)
            self._work(device, seen)
            seen.stopped_pending = client.save_pending()
        with self._timed(seen, "stop"):
            client.vm_state_change(running=False)
        self._complete(client, other, seen)
        began = self._far.now
        with _blaming("destination", other):
            other.client.load_cleanup()
            other.client.vm_state_change(running=True)
        seen.times["run"] = self._far.now - began
        client.save_cleanup()

    def _one_buffer(
        self, client: V1Client, other: SimulatedDevice, seen: _Seen
    ) -> None:
        for buffer in client.save_iterate():
            seen.sizes.append(buffer.size)
            self._load(other, buffer, seen)

    def _pre_copy(self, client: V1Client, other: SimulatedDevice, seen: _Seen) -> None:
        """Follow pre-copy until nothing is pending, or no less than before."""
        pending, moved, idle = seen.first_pending, 0, 0
        while pending and moved < _MOST_BYTES and len(seen.sizes) < _MOST_BUFFERS:
            with self._timed(seen, "buffer"):
                for buffer in client.save_iterate():
                    seen.sizes.append(buffer.size)
                    moved += buffer.size
                    self._load(other, buffer, seen)
            before, pending = pending, client.save_pending()
            idle = idle + 1 if pending >= before else 0
            if idle >= _PATIENCE:
                break
        seen.left_pending = pending

    def _work(self, device: SimulatedDevice, seen: _Seen) -> None:
        """Let it work, and see what becomes pending of that."""
        most = round(_MOST_WORK * self._share)
        quiet = 0
        seen.growth.append(Seen(0, seen.left_pending))
        while seen.worked < most and device.spec.work:
            step = max(round(seen.worked * (_STEP - 1)), 1)
            amount = min(step, most - seen.worked)
            device.work(amount)
            seen.worked += amount
            pending = device.client.save_pending()
            change = pending - seen.growth[-1].value
            seen.growth.append(Seen(seen.worked, pending))
            quiet = quiet + 1 if change <= _LEAST_CHANGE * pending else 0
            if quiet >= _PATIENCE and seen.worked >= _LEAST_WORK:
                break

    def _complete(self, client: V1Client, other: SimulatedDevice, seen: _Seen) -> None:
        """Save the stopped device to its end."""
        asked = self._clock.now
        for number, buffer in enumerate(client.save_complete_precopy()):
            if number == _MOST_LAST_BUFFERS:
                message = f"it has no end: {number} buffers while stopped"
                raise ProbeError(message)
            now = self._clock.now
            name = "last_buffer" if seen.last_sizes else "complete"
            seen.times[name] = max(seen.times.get(name, 0), now - asked)
            seen.last_sizes.append(buffer.size)
            self._load(other, buffer, seen)
            asked = self._clock.now
        seen.times["end"] = self._clock.now - asked

    def _load(self, other: SimulatedDevice, buffer: Buffer, seen: _Seen) -> None:
        data, began, at = b"".join(buffer.views), self._far.now, 0
        if not data:
            return
        with _blaming("destination", other):
            for place in other.client.load_buffer(len(data)):
                place[:] = data[at : at + len(place)]
                at += len(place)
        seen.loads.append((len(data), self._far.now - began))

    @contextlib.contextmanager
    def _timed(self, seen: _Seen, name: str) -> Iterator[None]:
        began = self._clock.now
        yield
        seen.times[name] = max(seen.times.get(name, 0), self._clock.now - began)


@contextlib.contextmanager
def _blaming(party: str, device: SimulatedDevice) -> Iterator[None]:
    """Say which driver it was; raises ProbeError."""
    try:
        yield
    except ProbeError:
        raise
    except DriverDiedError as error:
        what = f"died: {error.error} at {error.access} ({error.where})"
        message = f"{party}, {device.spec.name}: {what}"
        raise ProbeError(message) from error
    except (OSError, VfiomigError) as error:
        message = f"{party}, {device.spec.name}: {in_words(error)}"
        raise ProbeError(message) from error


def _profile(
    scenario: Scenario,
    number: int,
    path: str,
    sessions: list[_Seen],
    cut_off: _Seen,
) -> DeviceProfile:
    spec, idle, longest = scenario.devices[number], sessions[0], sessions[-1]
    idstr = (path or spec.name) + framing.VFIO_SUFFIX
    config_bytes = 0
    if idle.config is not None:
        config_bytes = len(framing.full_section(1, idstr, idle.config))
    drop = _drop(idle)
    is_whole = idle.left_pending < idle.first_pending
    growth = [
        Seen(each.at, each.value - longest.left_pending) for each in longest.growth
    ]
    extra = {
        scenario.warm_up + each.worked: sum(each.last_sizes)
        - (each.stopped_pending - _stuck(each)) / drop
        for each in sessions
    }
    return DeviceProfile(
        name=spec.name,
        idstr=idstr,
        work=spec.work,
        warm_up=scenario.warm_up,
        config_bytes=config_bytes,
        first_pending=idle.first_pending,
        idle_pending=_stuck(idle) if is_whole else idle.first_pending,
        buffer=max(idle.sizes, default=0),
        drop=drop,
        growth=Curve(tuple(growth)),
        extra=Curve(tuple(Seen(at, extra[at]) for at in sorted(extra))),
        last_buffer=max(max(each.last_sizes, default=0) for each in sessions),
        offers_again=_offers_again(cut_off, idle),
        times=_times(idle, longest),
    )


def _stuck(seen: _Seen) -> int:
    """Return what stays pending although pre-copy was followed to its end."""
    was_cut = sum(seen.sizes) >= _MOST_BYTES or len(seen.sizes) >= _MOST_BUFFERS
    return 0 if was_cut else seen.left_pending


def _drop(seen: _Seen) -> float:
    """Return how many pending bytes go with a byte of a buffer."""
    sent, gone = sum(seen.sizes), seen.first_pending - seen.left_pending
    return gone / sent if sent and gone > 0 else 1.0


def _offers_again(cut_off: _Seen, idle: _Seen) -> bool:
    """Tell whether a buffer that nobody asked behind came once more."""
    sent = sum(cut_off.sizes)
    both = sum(idle.sizes) + sum(idle.last_sizes)
    return bool(sent) and sent + sum(cut_off.last_sizes) >= both + sent // 2


def _times(idle: _Seen, longest: _Seen) -> AccessTimes:
    times = longest.times | idle.times
    load, load_byte = _line(idle.loads + longest.loads)
    # What comes before the first buffer has that one's time in it.
    last_buffer = times.get("last_buffer", 0)
    complete = max(times.get("complete", 0) - last_buffer, 0)
    return AccessTimes(
        set_up=times.get("set_up", 0),
        poll=times.get("poll", 0),
        buffer=times.get("buffer", 0),
        stop=times.get("stop", 0),
        complete=complete,
        last_buffer=last_buffer,
        end=times.get("end", 0),
        load=load,
        load_byte=load_byte,
        run=times.get("run", 0),
    )


def _line(points: list[tuple[int, int]]) -> tuple[int, float]:
    """Return the line through the smallest and the largest: at 0, and its slope."""
    if not points:
        return 0, 0.0
    (low, fast), (high, slow) = min(points), max(points)
    slope = (slow - fast) / (high - low) if high > low else 0.0
    return max(round(fast - low * slope), 0), max(slope, 0.0)
