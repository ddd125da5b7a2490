"""Streams that are wrong: refused with an errno, and never half applied."""

from __future__ import annotations

import errno
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.vendor.open_device import (
    DATA_OFFSET,
    DATA_SIZE,
    ERROR,
    MODELS,
    PAGE,
    PRE_COPY,
    RESUMING,
    RUNNING,
    STOP_AND_COPY,
    Make,
    OpenDevice,
    assert_restores,
    refusal,
    saved,
)
from vfiomig.vendor.accelerator import AcceleratorModel
from vfiomig.vendor.chunk import AGAIN, HEADER_SIZE, unseal
from vfiomig.vendor.opaque import OpaqueModel
from vfiomig.vendor.scratchpad import ScratchpadModel
from vfiomig.vendor.serial import SerialModel

every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
both_histories = pytest.mark.parametrize("work", [0, 9], ids=["fresh", "used"])

# The same devices in another shape.
OTHERS: dict[str, Make] = {
    "scratchpad": lambda: ScratchpadModel(5 * PAGE),
    "accelerator": lambda: AcceleratorModel(4 * PAGE),
    "opaque": lambda: OpaqueModel(20_000),
    "serial": lambda: SerialModel(1),
}


def stream_of(make: Make) -> tuple[list[bytes], bytes]:
    """Return a stream of at least three chunks, with pre-copy where there is one."""
    with OpenDevice(make()) as device:
        device.work()
        device.state = PRE_COPY
        chunks = device.save(3)
        device.work(7)
        device.state = STOP_AND_COPY
        return chunks + device.save(), device.snapshot


def replaced_stream(make: Make) -> list[bytes]:
    """Return a stream of which one chunk takes the place of another."""
    with OpenDevice(make()) as device:
        device.state = PRE_COPY
        chunks = device.save(1)
        device.take()
        device.state = STOP_AND_COPY
        chunks += device.save()
        assert unseal(memoryview(chunks[1])).flags & AGAIN
        return chunks


def assert_refused(make: Make, chunks: list[bytes], *, work: int = 0) -> None:
    """Give a stream to a device, which must not run with it nor with a part of it."""
    with OpenDevice(make()) as device:
        power_on = device.snapshot
        device.work(work)
        before = device.snapshot
        device.state = RESUMING
        has_refused = False
        for chunk in chunks:
            try:
                device.give(chunk)
            except OSError:
                has_refused |= len(chunk) >= HEADER_SIZE  # less is no chunk at all
        for target in (RUNNING, RUNNING, STOP_AND_COPY):
            assert device.refusal_of(target) == errno.EINVAL  # V1-TRANS-27
            assert device.state in (RESUMING, ERROR)  # V1-TRANS-03, AMB-12
        if has_refused:  # it takes no more data, so it says ERROR
            assert device.state == ERROR
            assert device.snapshot == before
        device.work()
        assert device.state in (RESUMING, ERROR)
        device.reset()
        assert (device.state, device.snapshot) == (RUNNING, power_on)  # V1-RST-04
        good, snapshot = saved(make)
        device.load(good)
        assert device.snapshot == snapshot


@every_model
@both_histories
def test_an_empty_stream_is_refused(make: Make, work: int) -> None:
    assert_refused(make, [], work=work)


@every_model
@both_histories
def test_a_stream_that_ends_early_is_refused(make: Make, work: int) -> None:
    chunks, _ = stream_of(make)
    for end in range(len(chunks)):
        assert_refused(make, chunks[:end], work=work)


@every_model
@both_histories
def test_a_stream_that_lacks_a_chunk_is_refused(make: Make, work: int) -> None:
    chunks, _ = stream_of(make)
    for lost in range(len(chunks)):
        assert_refused(make, chunks[:lost] + chunks[lost + 1 :], work=work)


@every_model
def test_a_stream_that_lacks_its_beginning_is_refused(make: Make) -> None:
    chunks, _ = stream_of(make)
    for first in range(1, len(chunks)):
        assert_refused(make, chunks[first:])


def test_a_first_chunk_has_the_number_0() -> None:
    with OpenDevice(MODELS["scratchpad"]()) as device:
        device.state = PRE_COPY
        device.save()
        device.state = RUNNING  # in the second session all is sent once more ...
        device.state = PRE_COPY
        device.save()
        device.work(2000)
        device.state = STOP_AND_COPY  # ... and here again: every page, but not chunk 0
        chunks = device.save()
    assert_refused(MODELS["scratchpad"], chunks)


@every_model
@both_histories
def test_a_chunk_that_comes_twice_is_refused(make: Make, work: int) -> None:
    chunks, _ = stream_of(make)
    for twice in range(len(chunks)):
        stream = chunks[: twice + 1] + chunks[twice:]
        assert_refused(make, stream, work=work)


@pytest.mark.parametrize("name", ["scratchpad", "accelerator"])
def test_a_chunk_that_takes_a_place_comes_once(name: str) -> None:
    chunks = replaced_stream(MODELS[name])
    assert_refused(MODELS[name], [*chunks[:2], *chunks[1:]])


@pytest.mark.parametrize("name", ["scratchpad", "accelerator"])
def test_a_chunk_takes_the_place_of_the_last_one_alone(name: str) -> None:
    chunks = replaced_stream(MODELS[name])
    assert_refused(MODELS[name], [*chunks[:3], chunks[1], *chunks[3:]])
    assert_refused(MODELS[name], chunks[1:])


@every_model
@both_histories
def test_a_stream_in_another_order_is_refused(make: Make, work: int) -> None:
    chunks, _ = stream_of(make)
    assert_refused(make, chunks[::-1] if len(chunks) > 1 else [], work=work)
    for at in range(len(chunks) - 1):
        stream = [*chunks[:at], chunks[at + 1], chunks[at], *chunks[at + 2 :]]
        assert_refused(make, stream, work=work)


@every_model
@settings(max_examples=15)
@given(st.data())
def test_no_other_sequence_of_chunks_is_taken(make: Make, data: st.DataObject) -> None:
    chunks, snapshot = stream_of(make)
    numbers = st.integers(0, len(chunks) - 1)
    order = data.draw(st.lists(numbers, max_size=len(chunks) + 2))
    stream = [chunks[number] for number in order]
    if order == list(range(len(chunks))):
        assert_restores(make, stream, snapshot)
    else:
        assert_refused(make, stream)


@every_model
@settings(max_examples=15)
@given(st.data())
def test_one_flipped_bit_is_refused(make: Make, data: st.DataObject) -> None:
    chunks, _ = stream_of(make)  # V1-RES-06
    at = data.draw(st.integers(0, len(chunks) - 1))
    bit = data.draw(st.integers(0, 8 * len(chunks[at]) - 1))
    damaged = bytearray(chunks[at])
    damaged[bit // 8] ^= 1 << bit % 8
    assert_refused(make, [*chunks[:at], bytes(damaged), *chunks[at + 1 :]])


@every_model
@settings(max_examples=15)
@given(st.data())
def test_a_chunk_that_was_cut_split_or_joined_is_refused(
    make: Make, data: st.DataObject
) -> None:
    chunks, _ = stream_of(make)  # V1-RES-04
    at = data.draw(st.integers(0, len(chunks) - 1))
    chunk = chunks[at]
    end = data.draw(st.integers(1, len(chunk) - 1))
    before, after = chunks[:at], chunks[at + 1 :]
    assert_refused(make, [*before, chunk[:end], *after])
    assert_refused(make, [*before, chunk[:end], chunk[end:], *after])
    joined = chunk + chunk[:end]
    if len(joined) <= 2 * PAGE:
        assert_refused(make, [*before, joined, *after])


@every_model
@settings(max_examples=15)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3))
def test_arbitrary_bytes_are_refused(make: Make, garbage: list[bytes]) -> None:
    assert_refused(make, garbage)  # V1-RES-07


@both_histories
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("other", MODELS)
def test_the_stream_of_another_kind_is_refused(
    name: str, other: str, work: int
) -> None:
    if name != other:  # V1-RES-08
        assert_refused(MODELS[name], stream_of(MODELS[other])[0], work=work)


@both_histories
@pytest.mark.parametrize("name", MODELS)
def test_the_stream_of_another_shape_is_refused(name: str, work: int) -> None:
    assert_refused(MODELS[name], stream_of(OTHERS[name])[0], work=work)
    assert_refused(OTHERS[name], stream_of(MODELS[name])[0], work=work)


@pytest.mark.parametrize("name", ["scratchpad", "accelerator", "opaque"])
@both_histories
def test_two_streams_of_the_same_kind_and_shape_cannot_be_mixed(
    name: str, work: int
) -> None:
    one, _ = saved(MODELS[name], work=10)
    other, _ = saved(MODELS[name], work=30)
    assert len(one) == len(other) > 1
    for at in range(1, len(one)):
        assert_refused(MODELS[name], one[:at] + other[at:], work=work)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_foreign_is_known_by_its_first_chunk(name: str) -> None:
    strangers = [make for other, make in MODELS.items() if other != name]
    for make in (OTHERS[name], *strangers):
        (first, *_), _ = stream_of(make)
        with OpenDevice(MODELS[name](), section=8 * PAGE) as device:
            device.state = RESUMING
            assert refusal(partial(device.give, first)) == errno.EINVAL


@every_model
def test_data_size_without_data_is_refused(make: Make) -> None:
    chunks, _ = stream_of(make)
    for given_before in range(len(chunks)):
        with OpenDevice(make()) as device:
            before = device.snapshot
            device.state = RESUMING
            for chunk in chunks[:given_before]:
                device.give(chunk)
            size = len(chunks[max(given_before - 1, 0)])
            # The registers are as the last chunk left them; no data was written since.
            assert refusal(partial(device.write, DATA_SIZE, size)) == errno.EINVAL
            assert device.refusal_of(RUNNING) == errno.EINVAL
            assert (device.state, device.snapshot) == (ERROR, before)


def test_after_a_refusal_no_chunk_is_taken() -> None:
    chunks, _ = stream_of(MODELS["scratchpad"])
    with OpenDevice() as device:
        before = device.snapshot
        device.state = RESUMING
        assert refusal(lambda: device.give(chunks[1])) == errno.EPROTO
        for chunk in chunks:
            assert refusal(partial(device.give, chunk)) == errno.EINVAL
            assert device.state == RESUMING
        assert device.snapshot == before
        assert device.read(DATA_OFFSET) >= 32


def test_a_device_without_state_still_sends_that_it_ends() -> None:
    make = MODELS["opaque"]

    def empty() -> OpaqueModel:
        return OpaqueModel(0)

    with OpenDevice(empty()) as source:
        source.state = PRE_COPY
        assert source.save() == []  # V1-TRANS-15, V1-SAVE-05
        source.state = STOP_AND_COPY
        chunks = source.save()
        assert len(chunks) == 1
    assert_restores(empty, chunks, b"")
    assert_refused(empty, [])
    assert_refused(make, chunks)
