"""Source and destination: rounds and ends, moments and numbers, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.unit.client.scripted_driver import (
    OFFSET,
    SIZE,
    STATE,
    OpenDevice,
    Refusal,
    ScriptedDriver,
    words,
)
from tests.unit.client.scripted_migration import LINK, migrate, opened
from vfiomig.migration import device_saving
from vfiomig.migration.clock import VirtualClock
from vfiomig.migration.convergence import Limits
from vfiomig.migration.destination import Destination
from vfiomig.migration.exchange import Receive
from vfiomig.migration.metrics import Metrics, Outcome
from vfiomig.migration.observer import Unobserved
from vfiomig.migration.transport import PAIRS, CutLink, Tee
from vfiomig.protocol.errors import DriverDiedError, StreamError, VendorDriverError
from vfiomig.protocol.qemu_stream import framing

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator, Sequence

    from vfiomig.migration.exchange import Steps

START, PART, END, FULL, FOOTER = 1, 2, 3, 4, 0x7E


def names_lost(lost: Sequence[tuple[str, Exception]]) -> list[str]:
    return [name for name, _ in lost]


# -- which devices --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "here", "refusal"),
    [
        ("ab", "ba", "is not the START section of b"),
        ("a", "b", "is not the START section of b"),
        ("a", "ab", "the stream ends before b did"),
        ("ab", "a", "section 2 belongs to no device of this machine"),
        ("ab", "ac", "is not the START section of c"),
    ],
    ids=["out of order", "unknown", "missing", "too many", "another"],
)
def test_other_devices_than_the_sources_are_refused(
    there: str, here: str, refusal: str
) -> None:
    sources = [opened(name=name, pending=[8, 0]).start_vm() for name in there]
    targets = [opened(name=name) for name in here]
    ending, other = migrate(sources, targets)
    assert ending.outcome is other.outcome is Outcome.FAILED
    assert isinstance(ending.error, ConnectionError)
    assert isinstance(other.error, StreamError)
    assert refusal in str(other.error)
    assert [device.driver.state for device in sources] == [1] * len(sources)
    assert not any(device.client.vm_is_running for device in targets)
    for device in (*sources, *targets):
        device.__exit__()


# -- streams that no source sends -----------------------------------------------------


def head(kind: int, number: int) -> bytes:
    return framing.section_head(kind, number)


def start(number: int, name: str = "a") -> bytes:
    return framing.start_section(number, f"{name}/vfio")


def part(number: int, size: int = 0) -> bytes:
    record = framing.data_head(size) + bytes(size)
    return head(PART, number) + record + framing.END_OF_STATE + foot(number)


def end(number: int) -> bytes:
    return head(END, number) + framing.END_OF_STATE + foot(number)


def foot(number: int) -> bytes:
    return framing.section_foot(number)


def run(steps: Steps[None], stream: bytes) -> None:
    """Let steps receive a stream, and its end."""
    step = next(steps)
    while True:
        assert isinstance(step, Receive)
        piece, stream = stream[: len(step.view)], stream[len(step.view) :]
        step.view[: len(piece)] = piece
        try:
            step = steps.send(len(piece))
        except StopIteration:
            assert not stream
            return


def load(stream: bytes, names: str = "a") -> list[int]:
    """Load a stream after its header; return the states that the devices are in."""
    devices = [opened(name=name) for name in names]
    destination = Destination(
        [device.participant for device in devices],
        clock=VirtualClock(),
        metrics=Metrics(),
    )
    try:
        run(destination.load_stream(), framing.STREAM_HEAD + stream)
    finally:
        states = [device.driver.state for device in devices]
        for device in devices:
            device.client.load_cleanup()
            device.__exit__()
    return states


def test_the_shortest_stream_is_taken() -> None:
    assert load(start(1) + end(1) + b"\0") == [1]


def test_section_ids_are_the_sources_to_choose() -> None:
    stream = start(39) + start(7, "b") + part(7, 8) + part(39) + end(39) + end(7)
    assert load(stream + b"\0", "ab") == [1, 1]


UNHEARD_OF = {
    "an end without a device": b"\0",
    "a device without an end": start(1) + b"\0",
    "a part of no device": part(1),
    "an end of no device": end(1),
    "a part after the end": start(1) + end(1) + part(1),
    "a second end": start(1) + end(1) + end(1),
    "a second start": start(1) + start(1),
    "a second start by another id": start(1) + start(2),
    "the id of another device": start(1) + start(1, "b"),
    "another section type": start(1) + head(FULL, 1),
    "a footer alone": start(1) + foot(1),
    "another footer": start(1)[:-5] + foot(2),
    "a part with another footer": start(1) + part(1)[:-5] + foot(2),
    "an end with another footer": start(1) + end(1)[:-5] + foot(2),
    "a part without a record": start(1)
    + head(PART, 1)
    + framing.END_OF_STATE
    + bytes(8)
    + foot(1),
    "a part with two records": start(1)
    + head(PART, 1)
    + framing.data_head(0) * 2
    + framing.END_OF_STATE
    + foot(1),
    "an end with another tag": start(1) + head(END, 1) + bytes(8) + foot(1),
    "another instance": start(1).replace(b"vfio\0\0\0\0", b"vfio\0\0\0\1"),
    "another version": start(1).replace(b"\0\0\0\1\xff", b"\0\0\0\2\xff"),
    "a name with another length": start(1).replace(b"\x06a/vfio", b"\x05a/vfi"),
}


@pytest.mark.parametrize("stream", UNHEARD_OF.values(), ids=UNHEARD_OF.keys())
def test_a_stream_that_no_source_sends_is_refused(stream: bytes) -> None:
    # What follows would be in order again.
    with pytest.raises(StreamError) as raised:
        load(stream + part(1) + end(1) + b"\0", "ab")
    assert 0 <= raised.value.position <= 8 + len(stream) + 34


@pytest.mark.parametrize("size", [1, 7, 8])
def test_a_stream_that_ends_says_where(size: int) -> None:
    stream = start(1) + part(1)
    with pytest.raises(StreamError, match=rf"it ends, {size} bytes early") as raised:
        load((stream + end(1))[: len(stream) + 5 + 8 - size])
    assert raised.value.position == 8 + len(stream) + 5 + 8 - size


# -- how a source ends ----------------------------------------------------------------


def test_a_source_that_does_not_converge_gives_up_and_goes_on() -> None:
    limits = Limits(downtime=1, rounds=3)
    with opened(pending=[8] * 100) as device:
        device.start_vm()
        metrics = Metrics()
        ending, _ = migrate(device, limits=limits, metrics=metrics)
        assert ending.outcome is Outcome.NOT_CONVERGED
        assert "after 3 rounds 8 bytes are pending" in str(ending.error)
        assert len(metrics.rounds) == 3
        assert device.told() == words(f"""
            R4=1 W4=3
            {"R8=8 R16=1000 R24=8 r8@1000 " * 3}
            R8=8
            R4=3 W4=1
        """)


def test_a_source_that_may_goes_over_although_it_does_not_converge() -> None:
    limits = Limits(downtime=1, rounds=2, switches_anyway=True)
    with opened(pending=[8, 8, 8, 0]) as device:
        device.start_vm()
        ending, other = migrate(device, limits=limits)
        assert ending.outcome is other.outcome is Outcome.COMPLETED


def test_a_round_is_what_was_pending_when_it_began() -> None:
    # Rounds end by what was sent, not by what pending_bytes says next (V1-PEND-07).
    metrics = Metrics()
    with opened(pending=[24, 24, 24, 16, 16, 0]) as device:
        device.start_vm()
        migrate(device, metrics=metrics)
    told = [(r.number, r.pending_bytes, r.device_bytes) for r in metrics.rounds]
    assert told == [(1, 24, 24), (2, 16, 16)]
    assert [r.buffers for r in metrics.rounds] == [3, 2]


def test_empty_buffers_do_not_keep_pre_copy_going_for_ever() -> None:
    script = ScriptedDriver(pending=[8] * 1000)
    with OpenDevice(script) as device:
        device.start_vm()
        ending, _ = migrate(device, limits=Limits(downtime=0, rounds=5))
        assert ending.outcome is Outcome.NOT_CONVERGED


def test_a_device_without_an_end_fails_the_migration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device_saving, "_BUFFERS_LIMIT", 10)
    with opened(pending=[0, *[1] * 1000]) as device:
        device.start_vm()
        ending, _ = migrate(device)
        assert ending.outcome is Outcome.FAILED
        assert isinstance(ending.error, VendorDriverError)
        assert "a has no end: 10 buffers while stopped" in str(ending.error)
        assert device.driver.state == 1


class Dying(ScriptedDriver):
    """A driver that divides by zero at its first data_offset."""

    __slots__ = ()

    def read(self, offset: int, size: int) -> bytes:
        if offset == OFFSET:
            raise ZeroDivisionError
        return ScriptedDriver.read(self, offset, size)


def test_a_driver_that_dies_is_an_outcome_of_its_own() -> None:
    with opened() as innocent, OpenDevice(Dying(pending=[0, 8]), name="b") as dying:
        for device in (innocent, dying):
            device.start_vm()
        ending, other = migrate([innocent, dying])
        assert ending.outcome is Outcome.DIED
        assert other.outcome is Outcome.FAILED
        assert ending.device == "b"
        assert isinstance(ending.error, DriverDiedError)
        assert innocent.driver.state == 1


def test_a_destination_that_dies_is_an_outcome_of_its_own() -> None:
    with opened(pending=[8, 0]) as source, OpenDevice(Dying()) as target:
        source.start_vm()
        ending, other = migrate(source, target)
        assert ending.outcome is Outcome.FAILED
        assert other.outcome is Outcome.DIED
        assert source.driver.state == 1


# -- how it goes on after a failure ----------------------------------------------------


def test_a_device_that_cannot_be_brought_back_is_named_and_the_others_run() -> None:
    stuck = [Refusal("write", STATE, 1, after=1, times=99)]
    with opened(refusals=stuck) as first, opened(name="b", pending=[8]) as second:
        second.driver.refusals.append(Refusal("read", SIZE))
        for device in (first, second):
            device.start_vm()
        ending, _ = migrate([first, second])
        assert ending.device == "b"
        assert names_lost(ending.lost) == ["a"]
        assert second.driver.state == 1


def test_a_device_that_comes_back_at_the_second_try_is_not_lost() -> None:
    # vm_start is refused, the notifier's write is not.
    refusals = [Refusal("read", OFFSET), Refusal("write", STATE, 1, after=1)]
    with opened(pending=[0, 8], refusals=refusals) as device:
        device.start_vm()
        ending, _ = migrate(device)
        assert ending.lost == ()
        assert device.driver.state == 1


def test_a_destination_that_cannot_start_one_device_stops_the_others() -> None:
    refusals = [Refusal("write", STATE, 1)]
    sources = [opened(name=name, pending=[8, 0]).start_vm() for name in "ab"]
    targets = [opened(name="a"), opened(name="b", refusals=refusals)]
    ending, other = migrate(sources, targets)
    assert ending.outcome is other.outcome is Outcome.FAILED
    assert other.device == "b"
    assert [device.driver.state for device in sources] == [1, 1]
    assert targets[0].told().endswith("R4=4 W4=1 R4=1 W4=0")
    assert targets[1].told().endswith("R4=4 W4=1-EIO R4=4")
    for device in (*sources, *targets):
        device.__exit__()


def test_a_failed_migration_can_be_tried_again() -> None:
    with opened(pending=[8, 0, 8, 0, 8, 0]) as device:
        device.start_vm()
        failed, _ = migrate(device, link=lambda stream: CutLink(stream, 100))
        assert failed.outcome is Outcome.FAILED
        device.told()
        ending, other = migrate(device)
        assert ending.outcome is other.outcome is Outcome.COMPLETED
        assert device.told().startswith("R4=1 W4=3 ")
        assert device.told() == ""


@pytest.mark.parametrize("areas", [(), ((0x1000, 0x2000),)], ids=["trapped", "mapped"])
@pytest.mark.parametrize("place", [60, 90, 130, 200])
def test_nothing_stays_mapped_after_a_failure(
    areas: tuple[tuple[int, int], ...], place: int
) -> None:
    script = ScriptedDriver(areas=areas, pending=[99] * 9, buffers=[(0x1000, 99)] * 9)
    with OpenDevice(script) as source, OpenDevice(ScriptedDriver(areas=areas)) as far:
        mappings = [spy_on_mmap(device) for device in (source, far)]
        source.start_vm()
        endings = migrate(source, far, link=lambda stream: CutLink(stream, place))
        assert [ending.outcome for ending in endings] == [Outcome.FAILED] * 2
        for made in mappings:
            assert len(made) == len(areas)
            assert all(mapping.closed for mapping in made)


def test_the_destination_unmaps_before_a_device_leaves_resuming() -> None:
    # vfio_load_cleanup comes from qemu_loadvm_state, vm_start behind it.
    areas = ((0x1000, 0x2000),)
    seen: list[bool] = []

    class Watcher(Unobserved):
        def destination_will_run(self, device: str) -> None:
            seen.extend(mapping.closed for mapping in there + here)

    script = ScriptedDriver(areas=areas, pending=[8, 0], buffers=[(0x1000, 8)])
    with OpenDevice(script) as source, OpenDevice(ScriptedDriver(areas=areas)) as far:
        there, here = spy_on_mmap(source), spy_on_mmap(far)
        source.start_vm()
        migrate(source, far, observer=Watcher())
        # The source's are needed until it knows how it ended, and no longer.
        assert seen == [False, True]
        assert [mapping.closed for mapping in there] == [True]


def spy_on_mmap(device: OpenDevice) -> list[mmap.mmap]:
    """Keep what a device maps, to look at it later."""
    made: list[mmap.mmap] = []
    handle = device.handle
    do_map = handle.mmap

    def keeping(length: int, offset: int) -> mmap.mmap:
        made.append(do_map(length, offset))
        return made[-1]

    handle.mmap = keeping  # type: ignore[method-assign]  # this one object's
    return made


# -- moments --------------------------------------------------------------------------


@dataclass(slots=True)
class Diary:
    """An observer that notes every moment, and what the device's state was then."""

    devices: dict[str, OpenDevice]
    moments: list[str] = field(default_factory=list)

    def round_began(self, number: int, pending_bytes: int) -> None:
        self.moments.append(f"round {number}: {pending_bytes}")

    def buffer_sent(self, device: str, size: int, now: int) -> None:
        self.moments.append(f"sent {size} of {device}")

    def pages_sent(self, count: int, now: int) -> None:
        self.moments.append(f"sent {count} pages")

    def source_stopped(self, device: str) -> None:
        self._note("stopped", "source", device)

    def source_stops_copying(self) -> None:
        self.moments.append("stop-and-copy")

    def source_will_continue(self, device: str) -> None:
        self._note("will continue", "source", device)

    def source_continues(self, device: str) -> None:
        self._note("continues", "source", device)

    def buffer_will_load(self, device: str, number: int, size: int) -> None:
        self.moments.append(f"will load {number}: {size} of {device}")

    def destination_will_run(self, device: str) -> None:
        self._note("will run", "destination", device)

    def destination_runs(self, device: str) -> None:
        self._note("runs", "destination", device)

    def state_changed(self, party: str, device: str, state: str, now: int) -> None:
        self.moments.append(f"{party} {device} {state}")

    def _note(self, what: str, party: str, device: str) -> None:
        state = self.devices[party].driver.state
        self.moments.append(f"{device} {what} in {state}")


def observed(
    source: OpenDevice, **options: object
) -> tuple[list[str], Metrics, OpenDevice]:
    target = opened()
    diary, metrics = Diary({"source": source, "destination": target}), Metrics()
    source.start_vm()
    migrate(
        source,
        target,
        observer=diary,
        metrics=metrics,
        **options,  # type: ignore[arg-type]
    )
    target.__exit__()
    return diary.moments, metrics, target


def test_who_watches_is_told_of_each_moment_when_it_is_there() -> None:
    with opened(pending=[8, 0, 8, 0]) as device:
        moments, _, _ = observed(device)
    # The two sides take turns; each keeps its own order.
    loading = [m for m in moments if "load" in m or "destination" in m or "run" in m]
    assert [m for m in moments if m not in loading] == [
        "source a PRE_COPY",
        "round 1: 8",
        "sent 8 of a",
        "a stopped in 2",
        "source a STOP_AND_COPY",
        "stop-and-copy",
        "sent 8 of a",
        "source a STOP",
    ]
    assert loading == [
        "destination a RESUMING",
        "will load 0: 8 of a",
        "will load 1: 8 of a",
        "a will run in 4",
        "a runs in 1",
        "destination a RUNNING",
    ]


def test_who_watches_is_told_when_the_source_goes_on() -> None:
    with opened(pending=[0, 8], refusals=[Refusal("read", OFFSET)]) as device:
        moments, metrics, _ = observed(device)
    assert moments[-3:] == [
        "a will continue in 2",
        "source a RUNNING",
        "a continues in 1",
    ]
    assert metrics.downtime is None
    assert metrics.resumed_at is None


# -- numbers --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PAIRS)
def test_the_numbers_say_what_they_count(kind: str) -> None:
    stream = bytearray()
    metrics = Metrics()
    with opened(pending=[16, 8, 0, 8, 0]) as device, opened() as target:
        device.start_vm()
        migrate(
            device,
            target,
            metrics=metrics,
            link=lambda s: Tee(s, stream.extend),
            make_pair=PAIRS[kind],
        )
    assert metrics.stream_bytes == len(stream)
    assert metrics.precopy_device_bytes == 16
    assert metrics.stop_and_copy_device_bytes == 8
    assert metrics.device_bytes == metrics.loaded_device_bytes == 24
    assert metrics.pending_bytes_at_switch_over == 0
    assert metrics.expected_downtime == LINK.latency
    # A byte is a nanosecond less a fraction; the answer comes back after two latencies.
    assert metrics.stopped_at is not None
    assert metrics.resumed_at is not None
    end_section = 5 + 16 + 8 + 8 + 5 + 1
    sending = LINK.duration(end_section)
    assert metrics.downtime is not None
    assert 0 <= metrics.downtime - sending - LINK.latency <= 1
    assert metrics.ended_at is not None
    assert metrics.ended_at >= metrics.resumed_at + LINK.latency


def test_what_the_destination_needs_to_load_is_downtime() -> None:
    def downtime(load_bandwidth: int | None) -> int:
        metrics = Metrics()
        with opened(pending=[0, 8, 0]) as device:
            device.start_vm()
            migrate(device, metrics=metrics, load_bandwidth=load_bandwidth)
        assert metrics.downtime is not None
        return metrics.downtime

    # 8 bytes at 1000 bytes a second; meanwhile the 14 bytes behind them arrive.
    assert downtime(1000) - downtime(None) == 8_000_000 - LINK.duration(14)


def states(metrics: Metrics) -> Iterator[tuple[str, str]]:
    for change in metrics.state_changes:
        yield change.party, change.device_state


def test_the_states_of_both_sides_are_noted_in_order() -> None:
    metrics = Metrics()
    with opened(pending=[8, 0]) as device:
        device.start_vm()
        migrate(device, metrics=metrics)
    assert [state for party, state in states(metrics) if party == "source"] == [
        "PRE_COPY",
        "STOP_AND_COPY",
        "STOP",
    ]
    assert [state for party, state in states(metrics) if party == "destination"] == [
        "RESUMING",
        "RUNNING",
    ]
    dates = [change.at for change in metrics.state_changes if change.party == "source"]
    assert dates == sorted(dates)
