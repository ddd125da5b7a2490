"""The reference driver's transitions: the 8x8 table, and V1-TRANS-01 to -30."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from tests.unit.vendor.open_device import (
    DATA_OFFSET,
    ERROR,
    KINDS,
    MODELS,
    PENDING_BYTES,
    PRE_COPY,
    RESUMING,
    RUNNING,
    STATES,
    STOP,
    STOP_AND_COPY,
    TABLE,
    Make,
    OpenDevice,
    assert_restores,
    refusal,
    saved,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRATCHPAD = MODELS["scratchpad"]
WITH_PRE_COPY = {name: MODELS[name] for name in ("scratchpad", "accelerator")}

every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
every_kind = pytest.mark.parametrize("kind", KINDS)
every_pre_copy_model = pytest.mark.parametrize(
    "make", WITH_PRE_COPY.values(), ids=WITH_PRE_COPY.keys()
)

REFUSED = ("INV", "ERRW", "XERR")
REQUESTS = [
    pytest.param(source, target, name, id=f"{source:03b}-{target:03b}-{name}")
    for (source, target), name in TABLE.items()
    if name != "UNR"
]
every_request = pytest.mark.parametrize(("source", "target", "name"), REQUESTS)


@pytest.fixture
def device() -> Iterator[OpenDevice]:
    with OpenDevice() as device:
        device.work()
        yield device


def test_the_table_has_the_totals_of_the_specification() -> None:
    names = list(TABLE.values())
    totals = {name: names.count(name) for name in sorted(set(names))}
    assert totals == {
        "ERRW": 5,
        "EXP": 5,
        "INV": 10,
        "OPT": 8,
        "REQ": 7,
        "SELF": 5,
        "UNR": 16,
        "XERR": 8,
    }


class Conversation:
    """A device in the middle of whatever its state is for, and how that goes on."""

    def __init__(self, device: OpenDevice, state: int) -> None:
        self.device = device
        self.state = state
        self.chunks: list[bytes] = []
        self.stream, self.loaded = saved(SCRATCHPAD, work=99)
        device.bring_to(state)
        if state in (PRE_COPY, STOP_AND_COPY):
            self.chunks = device.save(2)
            assert device.read(PENDING_BYTES)
            self.buffer = device.prepare()
        elif state == RESUMING:
            for chunk in self.stream[:2]:
                device.give(chunk)
        self.rest = self.stream[2:]
        self.before = device.snapshot

    def give_the_rest(self) -> None:
        for chunk in self.rest:
            self.device.give(chunk)
        self.rest = []
        self.before = self.device.snapshot

    def assert_goes_on(self) -> None:
        """Nothing happened: the session ends as if nothing had been asked."""
        device = self.device
        assert device.state == self.state
        assert device.snapshot == self.before
        if self.state in (PRE_COPY, STOP_AND_COPY):
            assert device.prepare() == self.buffer
            self.chunks.append(device.fetch(*self.buffer))
            self.chunks += device.save()
            device.state = STOP_AND_COPY
            self.chunks += device.save()
            assert_restores(SCRATCHPAD, self.chunks, device.snapshot)
        elif self.state == RESUMING:
            self.give_the_rest()
            device.state = RUNNING
            assert device.snapshot == self.loaded
        elif self.state == ERROR:
            device.reset()
            assert device.state == RUNNING


@every_request
@pytest.mark.parametrize("reserved", [0, 1 << 31 | 1 << 3])
def test_every_request_in_every_state_comes_out_as_its_class_says(
    device: OpenDevice, source: int, target: int, name: str, reserved: int
) -> None:
    conversation = Conversation(device, source)
    if source == RESUMING and name in ("REQ", "OPT"):
        conversation.give_the_rest()  # healthy is: all of its data came
    code = None
    try:
        device.state = reserved | target
    except OSError as refused:
        code = refused.errno
    if code is None:
        assert name in ("REQ", "EXP", "SELF", "OPT")
        assert device.state & 7 == target  # V1-STATE-14
    else:
        assert name in (*REFUSED, "OPT")
        assert code == errno.EINVAL
        assert device.state == source  # V1-STATE-10, -11, V1-TRANS-07
    if name == "SELF" or code is not None:
        conversation.assert_goes_on()  # V1-TRANS-29, V1-TRANS-30
    else:
        assert_behaves(device, target, conversation)


def assert_behaves(device: OpenDevice, state: int, conversation: Conversation) -> None:
    """The state that was entered is one that the device is really in (V1-STATE-16)."""
    if conversation.state == RESUMING:
        assert device.snapshot == conversation.loaded
    before = device.snapshot
    device.work()
    assert (device.snapshot != before) == (state in (RUNNING, PRE_COPY))
    if state == RESUMING:
        for chunk in conversation.stream:
            device.give(chunk)
        device.state = RUNNING
        assert device.snapshot == conversation.loaded
    elif state == STOP_AND_COPY and conversation.state == PRE_COPY:
        chunks = conversation.chunks + device.save()
        assert_restores(SCRATCHPAD, chunks, device.snapshot)
    else:  # no session is under way, or a fresh one
        device.state = STOP_AND_COPY
        assert_restores(SCRATCHPAD, device.save(), device.snapshot)


@pytest.mark.parametrize("target", [STOP, RUNNING, STOP_AND_COPY, PRE_COPY])
def test_leaving_resuming_before_all_came_fails_and_late_data_is_taken(
    device: OpenDevice, target: int
) -> None:
    conversation = Conversation(device, RESUMING)
    for _ in range(2):
        assert device.refusal_of(target) == errno.EINVAL  # V1-TRANS-27
        assert device.state == RESUMING  # V1-TRANS-03
    conversation.assert_goes_on()  # V1-TRANS-28


@every_model
@pytest.mark.parametrize("taken", [0, 1, 2, 1000])
def test_a_new_session_has_nothing_of_the_one_before(make: Make, taken: int) -> None:
    with OpenDevice(make()) as device:
        device.work()
        for first in (PRE_COPY, STOP_AND_COPY):
            device.state = first
            device.save(taken)
            device.prepare()
            device.state = RUNNING  # V1-TRANS-23
            device.work()
        device.state = STOP_AND_COPY  # V1-TRANS-25
        assert_restores(make, device.save(), device.snapshot)


@every_model
def test_resuming_discards_what_an_earlier_session_left(make: Make) -> None:
    chunks, snapshot = saved(make)
    with OpenDevice(make()) as device:
        before = device.snapshot
        device.state = RESUMING
        device.give(chunks[0])
        refusal(lambda: device.give(b"garbage" * 10))
        refusal(lambda: setattr(device, "state", RUNNING))
        device.reset()
        assert device.snapshot == before
        device.load(chunks)  # V1-TRANS-26
        assert device.snapshot == snapshot


def test_a_chunk_of_an_earlier_session_is_not_taken_again() -> None:
    chunks, _ = saved(MODELS["opaque"])
    with OpenDevice(MODELS["opaque"]()) as device:
        device.load(chunks)
        device.state = STOP_AND_COPY
        device.take()
        device.state = STOP
        device.state = RESUMING  # what was saved lies in the data section
        code = refusal(lambda: device.write(24, len(chunks[0])))
        assert code == errno.EINVAL  # V1-TRANS-26


@every_kind
@every_pre_copy_model
@pytest.mark.parametrize("sent", [True, False], ids=["sent", "not sent"])
@pytest.mark.parametrize("before", [0, 1, 2, 4])
@pytest.mark.parametrize("work", [0, 40])
def test_a_chunk_prepared_at_the_switch_over_loses_nothing(
    make: Make, kind: str, sent: bool, before: int, work: int
) -> None:
    with OpenDevice(make(), kind=kind) as device:
        device.state = PRE_COPY
        chunks = device.save(before)
        if not device.read(PENDING_BYTES):
            device.work()
        device.read(DATA_OFFSET)
        chunk = device.take()
        device.work(work)
        if sent:
            chunks.append(chunk)
        device.state = STOP_AND_COPY  # V1-TRANS-17, V1-SAVE-07
        chunks += device.save()
        assert_restores(make, chunks, device.snapshot)


@every_pre_copy_model
def test_a_chunk_that_was_acknowledged_is_not_offered_again(make: Make) -> None:
    with OpenDevice(make()) as device:
        device.state = PRE_COPY
        (chunk,) = device.save(1)
        assert device.read(PENDING_BYTES)
        device.state = STOP_AND_COPY
        chunks = device.save()
        assert chunk not in chunks
        assert_restores(make, [chunk, *chunks], device.snapshot)


@pytest.mark.parametrize("source", [state for state in STATES if state != ERROR])
def test_error_is_entered_by_a_failed_transition_and_left_by_a_reset_alone(
    device: OpenDevice, source: int
) -> None:
    device.bring_to(source)
    before = device.snapshot
    target = next(t for t in range(5) if TABLE[source, t] in ("REQ", "EXP"))
    device.driver.fail("device_state", errno.ENOTRECOVERABLE)
    assert device.state == source  # V1-TRANS-06: it takes a request
    assert device.refusal_of(target) == errno.ENOTRECOVERABLE  # V1-TRANS-02
    assert device.state == ERROR  # V1-STATE-17
    for value in range(8):
        assert device.refusal_of(value) == errno.EINVAL  # V1-TRANS-07
        assert device.state == ERROR
    assert device.snapshot == before
    device.reset()  # V1-RST-01
    assert device.state == RUNNING
    device.state = STOP_AND_COPY
    assert_restores(SCRATCHPAD, device.save(), device.snapshot)


@pytest.mark.parametrize("source", [state for state in STATES if state != ERROR])
def test_a_transition_that_fails_leaves_the_state_that_was(
    device: OpenDevice, source: int
) -> None:
    conversation = Conversation(device, source)
    for target in range(5):
        if TABLE[source, target] in ("REQ", "EXP"):
            device.driver.fail("device_state", errno.EBUSY)
            assert device.refusal_of(target) == errno.EBUSY
            assert device.state == source  # V1-TRANS-03
    conversation.assert_goes_on()


@every_kind
@every_model
def test_a_device_goes_to_and_fro_on_the_same_two_drivers(
    make: Make, kind: str
) -> None:
    with OpenDevice(make(), kind=kind) as one, OpenDevice(make(), kind=kind) as two:
        source, destination = one, two
        for _ in range(4):
            source.work()
            source.state = PRE_COPY
            chunks = source.save()
            source.work(7)
            source.state = STOP_AND_COPY
            chunks += source.save()
            source.state = STOP
            destination.load(chunks)  # from RUNNING at first, later from STOP
            assert destination.snapshot == source.snapshot
            source, destination = destination, source
