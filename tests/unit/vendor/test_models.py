"""What every device model owes the driver in front of it (see `DeviceModel`)."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfiomig.vendor.accelerator import AcceleratorModel
from vfiomig.vendor.opaque import OpaqueModel
from vfiomig.vendor.scratchpad import ScratchpadModel
from vfiomig.vendor.serial import SerialModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vfiomig.vendor.device_model import DeviceModel

LEAST_PAYLOAD = 4096 + 64

MODELS: dict[str, Callable[[], DeviceModel]] = {
    "serial-1": lambda: SerialModel(1),
    "serial-2": lambda: SerialModel(2),
    "opaque": lambda: OpaqueModel(9000),
    "opaque-tiny": lambda: OpaqueModel(3),
    "opaque-empty": lambda: OpaqueModel(0),
    "scratchpad": lambda: ScratchpadModel(5 * 4096),
    "accelerator": lambda: AcceleratorModel(6 * 4096),
}

every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
every_stateful_model = pytest.mark.parametrize(
    "make",
    [make for name, make in MODELS.items() if name != "opaque-empty"],
    ids=[name for name in MODELS if name != "opaque-empty"],
)

amounts = st.integers(0, 12)
sizes = st.integers(LEAST_PAYLOAD, LEAST_PAYLOAD + 9000)
rounds = st.lists(
    st.tuples(sizes, amounts, st.sampled_from(["read", "read twice", "lost"])),
    max_size=4,
)


def state_of(model: DeviceModel) -> bytes:
    return bytes(model.snapshot())


def save(model: DeviceModel, size: int, *, running: bool) -> memoryview:
    """Return one payload, saved into ``size`` bytes as the driver would hand out."""
    payload = memoryview(bytearray(size))
    pending = model.pending(running=running)
    filled = model.save(payload, running=running)
    assert 0 <= filled <= size
    assert (filled > 0) == (pending > 0)
    return payload[:filled]


def save_all(
    model: DeviceModel, size: int = LEAST_PAYLOAD, *, running: bool = False
) -> list[memoryview]:
    payloads = []
    while model.pending(running=running):
        payloads.append(save(model, size, running=running))
    return payloads


def stream_of(model: DeviceModel, size: int = LEAST_PAYLOAD) -> list[memoryview]:
    model.begin_saving()
    payloads = save_all(model, size)
    model.end_saving()
    return payloads


def load_all(model: DeviceModel, payloads: list[memoryview]) -> None:
    model.begin_loading()
    for payload in payloads:
        model.load(payload)
    model.finish_loading()


def worked(make: Callable[[], DeviceModel], amount: int) -> DeviceModel:
    model = make()
    model.work(amount)
    return model


def refusal_of(model: DeviceModel, payloads: list[memoryview]) -> OSError | None:
    """Load, and return what was raised if it was an errno; let the rest through."""
    try:
        load_all(model, payloads)
    except OSError as refusal:
        return refusal
    return None


@contextlib.contextmanager
def refused() -> Iterator[None]:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what counts
        yield
    assert caught.value.errno == errno.EINVAL


def exchange(
    source: DeviceModel,
    destination: DeviceModel,
    turns: list[tuple[int, int, str]],
    *,
    running: bool,
) -> None:
    """Send a payload a turn: it is read, read and requeued, or lost and requeued."""
    for size, amount, fate in turns:
        payload = save(source, size, running=running)
        if fate != "lost":
            destination.load(payload)
        if fate != "read":
            source.requeue()
        if running:
            source.work(amount)


@every_model
@settings(max_examples=20, deadline=None)
@given(amounts, rounds, rounds, sizes, amounts)
def test_a_migration_carries_the_whole_state(
    make: Callable[[], DeviceModel],
    before: int,
    precopy: list[tuple[int, int, str]],
    stopped: list[tuple[int, int, str]],
    last: int,
    used: int,
) -> None:
    source, destination = worked(make, before), worked(make, used)
    source.begin_saving()
    destination.begin_loading()
    exchange(source, destination, precopy, running=True)
    exchange(source, destination, stopped, running=False)
    for payload in save_all(source, last):
        destination.load(payload)
    destination.finish_loading()
    source.end_saving()
    assert state_of(destination) == state_of(source)
    source.work(5)
    destination.work(5)
    assert state_of(destination) == state_of(source)


@every_model
@settings(max_examples=10, deadline=None)
@given(rounds, st.integers(1, 12), sizes)
def test_a_device_that_runs_again_in_between_migrates_as_it_stopped_last(
    make: Callable[[], DeviceModel],
    stopped: list[tuple[int, int, str]],
    amount: int,
    size: int,
) -> None:
    source, destination = worked(make, 9), make()
    source.begin_saving()
    destination.begin_loading()
    exchange(source, destination, stopped, running=False)
    source.work(amount)
    for payload in save_all(source, size):
        destination.load(payload)
    destination.finish_loading()
    assert state_of(destination) == state_of(source)


@every_model
def test_pre_copy_of_an_idle_device_ends(make: Callable[[], DeviceModel]) -> None:
    source = worked(make, 20)
    source.begin_saving()
    save_all(source, running=True)
    assert source.pending(running=True) == 0
    assert source.save(memoryview(bytearray(LEAST_PAYLOAD)), running=True) == 0


@every_model
def test_a_second_session_sends_what_the_first_did(
    make: Callable[[], DeviceModel],
) -> None:
    source = worked(make, 20)
    first = stream_of(source)
    assert stream_of(source) == first
    source.begin_saving()
    if source.pending(running=False):
        save(source, LEAST_PAYLOAD, running=False)
    source.end_saving()
    assert stream_of(source) == first


@every_model
def test_outside_of_a_session_nothing_is_pending(
    make: Callable[[], DeviceModel],
) -> None:
    source = worked(make, 3)
    payload = memoryview(bytearray(LEAST_PAYLOAD))
    for _ in range(2):
        assert source.pending(running=False) == 0
        assert source.save(payload, running=False) == 0
        source.begin_saving()
        source.end_saving()


@every_model
def test_saving_changes_no_state(make: Callable[[], DeviceModel]) -> None:
    source = worked(make, 20)
    before = state_of(source)
    stream_of(source)
    assert state_of(source) == before


@every_stateful_model
@pytest.mark.parametrize("amount", [1, 2, 7])
def test_work_changes_the_state_and_the_same_work_does_the_same(
    make: Callable[[], DeviceModel], amount: int
) -> None:
    model, twin = worked(make, 4), worked(make, 4)
    before = state_of(model)
    model.work(amount)
    assert state_of(model) != before
    for _ in range(amount):
        twin.work(1)
    assert state_of(model) == state_of(twin)


@every_model
def test_no_work_changes_nothing(make: Callable[[], DeviceModel]) -> None:
    model = make()
    before = state_of(model)
    model.work(0)
    assert state_of(model) == before


@every_model
def test_a_snapshot_cannot_be_written(make: Callable[[], DeviceModel]) -> None:
    assert make().snapshot().readonly


@every_model
def test_a_device_that_was_sent_whole_and_runs_again_sends_what_changed(
    make: Callable[[], DeviceModel],
) -> None:
    source, destination = worked(make, 9), make()
    source.begin_saving()
    destination.begin_loading()
    for _ in range(3):
        for payload in save_all(source):
            destination.load(payload)
        source.work(2)
    for payload in save_all(source):
        destination.load(payload)
    destination.finish_loading()
    assert state_of(destination) == state_of(source)


@every_model
def test_a_load_that_is_begun_again_starts_from_nothing(
    make: Callable[[], DeviceModel],
) -> None:
    first, second = stream_of(worked(make, 40)), stream_of(worked(make, 4))
    model = make()
    model.begin_loading()
    for payload in first:
        model.load(payload)
    model.begin_loading()
    model.drop_loading()
    assert state_of(model) == state_of(make())
    for payloads, amount in ((first, 40), (second, 4)):
        load_all(model, payloads)
        assert state_of(model) == state_of(worked(make, amount))


@every_stateful_model
def test_a_loaded_device_has_a_state_to_come_back_to(
    make: Callable[[], DeviceModel],
) -> None:
    model = make()
    load_all(model, stream_of(worked(make, 40)))
    model.begin_loading()
    for payload in stream_of(worked(make, 4)):
        model.load(payload)
    model.drop_loading()
    assert state_of(model) == state_of(worked(make, 40))


@every_model
@pytest.mark.parametrize("used", [0, 7])
def test_power_on_is_the_state_of_a_fresh_device_and_ends_sessions(
    make: Callable[[], DeviceModel], used: int
) -> None:
    source, model = worked(make, 30), worked(make, used)
    model.begin_saving()
    model.begin_loading()
    for payload in stream_of(source):
        model.load(payload)
    model.power_on()
    assert state_of(model) == state_of(make())
    assert model.pending(running=False) == 0
    with refused():
        model.finish_loading()
    load_all(model, stream_of(source))
    assert state_of(model) == state_of(source)


@every_model
@pytest.mark.parametrize("used", [0, 6])
def test_a_dropped_load_leaves_what_was_there(
    make: Callable[[], DeviceModel], used: int
) -> None:
    payloads = stream_of(worked(make, 40))
    destination = worked(make, used)
    before = state_of(destination)
    for came in range(len(payloads) + 1):
        destination.begin_loading()
        for payload in payloads[:came]:
            destination.load(payload)
        destination.drop_loading()
        assert state_of(destination) == before
    load_all(destination, payloads)
    destination.drop_loading()  # nothing is loading: no effect
    assert state_of(destination) == state_of(worked(make, 40))


@every_model
def test_a_used_device_shows_nothing_before_loading_is_finished(
    make: Callable[[], DeviceModel],
) -> None:
    destination = worked(make, 6)
    before = state_of(destination)
    destination.begin_loading()
    for payload in stream_of(worked(make, 40)):
        destination.load(payload)
        assert state_of(destination) == before
    destination.finish_loading()
    assert state_of(destination) == state_of(worked(make, 40))


@every_stateful_model
@pytest.mark.parametrize("used", [0, 6])
def test_a_load_with_a_part_missing_is_refused(
    make: Callable[[], DeviceModel], used: int
) -> None:
    payloads = stream_of(worked(make, 40))
    for missing in range(len(payloads)):
        destination = worked(make, used)
        before = state_of(destination)
        destination.begin_loading()
        with refused():
            for payload in payloads[:missing] + payloads[missing + 1 :]:
                destination.load(payload)
            destination.finish_loading()
        destination.drop_loading()
        assert state_of(destination) == before


@every_model
def test_a_device_that_is_not_being_loaded_takes_nothing(
    make: Callable[[], DeviceModel],
) -> None:
    payloads = stream_of(worked(make, 4)) or [memoryview(b"anything")]
    destination = make()
    with refused():
        destination.load(payloads[0])
    with refused():
        destination.finish_loading()
    load_all(destination, stream_of(worked(make, 4)))
    with refused():
        destination.load(payloads[0])


@every_model
def test_an_empty_payload_says_nothing(make: Callable[[], DeviceModel]) -> None:
    source, destination = worked(make, 4), make()
    nothing = memoryview(b"")
    load_all(destination, [nothing, *stream_of(source), nothing])
    assert state_of(destination) == state_of(source)


damage = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, 9000), st.just(0)),
    st.tuples(st.just("grow"), st.integers(1, 9000), st.integers(0, 255)),
    # The headers and the heads stand at the start, so most damage is done there.
    st.tuples(st.just("flip"), st.integers(0, 80), st.integers(1, 255)),
    st.tuples(st.just("flip"), st.integers(0, 9000), st.integers(1, 255)),
)


def damaged(payload: memoryview, how: str, place: int, value: int) -> memoryview:
    content = bytearray(payload)
    match how:
        case "cut":
            del content[place % (len(content) + 1) :]
        case "grow":
            content += bytes([value]) * place
        case _:
            content[place % len(content)] ^= value
    return memoryview(content)


@every_stateful_model
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9), damage, st.sampled_from([0, 6]))
def test_a_damaged_payload_is_refused_or_is_another_state(
    make: Callable[[], DeviceModel], which: int, how: tuple[str, int, int], used: int
) -> None:
    payloads = stream_of(worked(make, 40), LEAST_PAYLOAD + 5000)
    which %= len(payloads)
    payloads[which] = damaged(payloads[which], *how)
    destination = worked(make, used)
    before = state_of(destination)
    refusal = refusal_of(destination, payloads)
    if refusal is not None:
        assert refusal.errno == errno.EINVAL
        if used:
            assert state_of(destination) == before
        destination.drop_loading()
        assert state_of(destination) == before
    destination.work(40)  # whatever was let in, the device can run with


@every_stateful_model
@settings(max_examples=10, deadline=None)
@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_at_all_are_refused_or_taken(
    make: Callable[[], DeviceModel], content: bytes
) -> None:
    destination = worked(make, 6)
    before = state_of(destination)
    destination.begin_loading()
    with contextlib.suppress(OSError):
        destination.load(memoryview(content))
    assert state_of(destination) == before
    with refused():
        destination.finish_loading()
    destination.drop_loading()
    assert state_of(destination) == before


def test_no_two_kinds_of_device_are_the_same() -> None:
    kinds = {make().kind for make in MODELS.values()}
    assert len(kinds) == 4
    assert all(0 < kind < 1 << 32 for kind in kinds)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: SerialModel(1), lambda: SerialModel(2)),
        (lambda: OpaqueModel(1), lambda: OpaqueModel(2)),
        (lambda: ScratchpadModel(4096), lambda: ScratchpadModel(8192)),
        (lambda: AcceleratorModel(4096), lambda: AcceleratorModel(8192)),
    ],
)
def test_devices_of_different_size_differ_in_shape(
    one: Callable[[], DeviceModel], other: Callable[[], DeviceModel]
) -> None:
    assert one().shape != other().shape
