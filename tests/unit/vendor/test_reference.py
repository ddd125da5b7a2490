"""The reference driver against the v1 rules, as kernel_uapi.md A.3 numbers them.

Transitions are in test_reference_transitions.py, streams that are wrong in
test_reference_streams.py, faults in test_reference_faults.py.
"""

from __future__ import annotations

import errno
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.vendor.open_device import (
    BASE,
    DATA_OFFSET,
    DATA_SIZE,
    ERROR,
    KINDS,
    MODELS,
    PAGE,
    PENDING_BYTES,
    PRE_COPY,
    RESERVED,
    RESUMING,
    RUNNING,
    STATES,
    STOP,
    STOP_AND_COPY,
    WIDTHS,
    Make,
    OpenDevice,
    assert_restores,
    refusal,
    saved,
)
from vfiomig.vendor.scratchpad import ScratchpadModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

every_state = pytest.mark.parametrize("state", STATES)
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
every_kind = pytest.mark.parametrize("kind", KINDS)
saving = pytest.mark.parametrize("state", [PRE_COPY, STOP_AND_COPY])

READS = sorted(WIDTHS.items())
MISFITS = [
    *((0, width) for width in (0, 1, 2, 3, 8, 16, 32)),
    *((place, 4) for place in (1, 2, 3, 5, 8, 12, 16, 20, 24, 28, 30)),
    *((place, 8) for place in (1, 4, 7, 12, 20, 28)),
    *((3, 1), (7, 1), (8, 7), (20, 12), (8, 16), (24, 16), (31, 1), (24, PAGE)),
]


def refusal_of_read(device: OpenDevice, place: int, width: int) -> int:
    return refusal(lambda: device.fd.pread(width, BASE + place))


def refusal_of_write(device: OpenDevice, place: int, width: int) -> int:
    return refusal(lambda: device.fd.pwrite(b"\xff" * width, BASE + place))


@pytest.fixture
def device() -> Iterator[OpenDevice]:
    with OpenDevice() as device:
        device.work()
        yield device


# -- register access -------------------------------------------------------------------


@every_state
def test_any_other_width_or_alignment_is_refused_and_changes_nothing(
    device: OpenDevice, state: int
) -> None:
    device.bring_to(state)
    before = (device.read(PENDING_BYTES), device.snapshot)
    for place, width in MISFITS:
        # V1-ACC-02, AMB-29, AMB-31
        assert refusal_of_read(device, place, width) == errno.EINVAL
        assert refusal_of_write(device, place, width) == errno.EINVAL
        assert device.state == state  # V1-ACC-03
    assert (device.read(PENDING_BYTES), device.snapshot) == before


@saving
def test_a_misfit_in_the_middle_of_an_iteration_does_not_disturb_it(
    device: OpenDevice, state: int
) -> None:
    device.state = state
    assert device.read(PENDING_BYTES)
    buffer = device.prepare()
    first = device.fetch(*buffer)
    for place, width in MISFITS:  # V1-ACC-03
        refusal_of_read(device, place, width)
        refusal_of_write(device, place, width)
    assert device.prepare() == buffer
    assert device.fetch(*buffer) == first
    device.state = STOP_AND_COPY
    chunks = [first, *device.save()]
    assert_restores(MODELS["scratchpad"], chunks, device.snapshot)


@every_state
def test_every_register_is_read_whole_in_every_state(
    device: OpenDevice, state: int
) -> None:
    device.bring_to(state)
    for register, width in READS:
        assert len(device.fd.pread(width, BASE + register)) == width  # V1-ACC-04


@every_kind
@pytest.mark.parametrize("pages", [1, 2, 3, 16])
def test_areas_are_whole_pages_of_the_data_section_alone(kind: str, pages: int) -> None:
    with OpenDevice(kind=kind, section=pages * PAGE) as device:
        region = device.region
        assert region.size > 32  # V1-DISC-05
        assert bool(region.areas) == (kind != "trapped")  # V1-MMAP-01
        end = 32  # V1-ACC-05
        for area in region.areas:  # V1-MMAP-07
            assert area.offset >= end
            assert area.offset % PAGE == area.size % PAGE == 0
            assert area.size
            end = area.offset + area.size
        assert end <= region.size
        code = refusal(lambda: device.fd.mmap(PAGE, BASE))
        assert code == errno.EINVAL  # V1-ACC-05


@every_state
def test_device_state_can_be_read_at_any_time_without_effect(
    device: OpenDevice, state: int
) -> None:
    device.bring_to(state)
    before = device.snapshot
    assert {device.state for _ in range(10)} == {state}  # V1-ACC-06
    assert device.snapshot == before


@every_state
def test_reserved_reads_zero_and_ignores_writes(device: OpenDevice, state: int) -> None:
    device.bring_to(state)
    assert device.read(RESERVED) == 0  # V1-ACC-07
    for value in (0xFFFFFFFF, 1, 0):
        device.write(RESERVED, value)  # V1-ACC-08
        assert device.read(RESERVED) == 0
        assert device.state == state


@every_state
@pytest.mark.parametrize("register", [PENDING_BYTES, DATA_OFFSET])
def test_a_write_to_a_read_only_register_has_no_effect(
    device: OpenDevice, state: int, register: int
) -> None:
    device.bring_to(state)
    if state in (PRE_COPY, STOP_AND_COPY):
        device.prepare()
    before = (device.read(DATA_SIZE), device.read(DATA_OFFSET), device.state)
    for value in (0, 1, 1 << 12, (1 << 64) - 1):
        code = refusal(partial(device.write, register, value))
        assert code == errno.EINVAL  # V1-ACC-09, V1-OFF-01: an error is one of two ways
        after = (device.read(DATA_SIZE), device.read(DATA_OFFSET), device.state)
        assert after == before


@saving
def test_the_dead_space_behind_the_registers_does_not_disturb_a_session(
    device: OpenDevice, state: int
) -> None:
    device.state = state
    buffer = device.prepare()
    assert buffer[0] > 32  # there is dead space
    for place in (32, 40, 100, buffer[0] - 8):  # V1-ACC-10
        refusal_of_read(device, place, 8)
        refusal_of_write(device, place, 8)
    assert device.prepare() == buffer


# -- device_state ----------------------------------------------------------------------


def test_a_device_that_was_just_opened_is_running() -> None:
    with OpenDevice() as device:
        assert device.state == 1  # V1-STATE-01


@every_state
def test_each_open_begins_in_running_whatever_the_last_user_left(state: int) -> None:
    with OpenDevice() as device:
        device.bring_to(state)
    with OpenDevice() as device:
        assert device.state == RUNNING  # V1-STATE-02, V1-RST-06


@every_model
@every_state
def test_a_device_works_while_it_runs_and_only_then(make: Make, state: int) -> None:
    with OpenDevice(make()) as device:
        device.work()
        device.bring_to(state)
        before = device.snapshot
        device.work()
        # V1-STATE-03, -04, -05; in ERROR it is quiesced: V1-STATE-18
        assert (device.snapshot != before) == (state in (RUNNING, PRE_COPY))


@every_state
@pytest.mark.parametrize("reserved", [0, 1 << 3, 1 << 31, 0xFFFFFFF8])
def test_reserved_bits_neither_fail_a_write_nor_become_state(
    device: OpenDevice, state: int, reserved: int
) -> None:
    if state == ERROR:
        device.bring_to(state)
        code = device.refusal_of(reserved | RUNNING)
        assert (code, device.state) == (errno.EINVAL, ERROR)
    else:
        device.state = reserved | state  # V1-STATE-13, AMB-17
        assert device.state & 7 == state  # V1-STATE-14
        assert not device.state & 1 << 3  # V1-DISC-08
        device.state = device.state  # what it reported can be echoed
        assert device.state & 7 == state


@every_state
def test_nothing_but_a_write_or_a_reset_moves_device_state(
    device: OpenDevice, state: int
) -> None:
    device.bring_to(state)
    for _ in range(5):  # V1-STATE-15
        device.work()
        for register in WIDTHS:
            device.read(register)
        assert device.state == state
        assert len(device.snapshot) > 0


# -- pending_bytes, data_offset, data_size ---------------------------------------------


@every_model
@every_kind
@saving
def test_a_buffer_is_where_the_registers_say_and_inside_the_data_section(
    make: Make, kind: str, state: int
) -> None:
    with OpenDevice(make(), kind=kind) as device:
        device.work()
        device.state = state
        while device.read(PENDING_BYTES):
            offset, size = device.prepare()
            assert offset >= 32  # V1-OFF-03
            assert size > 0  # V1-SIZE-03
            assert offset + size <= device.region.size  # V1-OFF-07
            mapped = [a for a in device.region.areas if a.offset <= offset]
            assert not mapped or offset % PAGE == 0  # V1-OFF-08, V1-MMAP-03
            assert len(device.fetch(offset, size)) == size  # V1-OFF-04, V1-SIZE-01
            assert device.prepare() == (offset, size)  # V1-OFF-05, V1-SIZE-02


@every_model
@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3)), max_size=8))
def test_the_stream_is_the_same_however_often_registers_are_read(
    make: Make, habits: list[tuple[int, int]]
) -> None:
    with OpenDevice(make()) as device:
        device.work()
        device.state = STOP_AND_COPY
        plain = device.save()
        device.state = STOP
        device.state = STOP_AND_COPY
        chunks = []
        for polls, again in [*habits, *[(1, 0)] * 1000]:
            pending = {device.read(PENDING_BYTES) for _ in range(polls)}
            assert len(pending) == 1  # V1-PEND-02, -04, -14
            if pending == {0}:
                break
            chunks.append(device.take())
            for _ in range(again):  # A.4, step 4
                assert device.take() == chunks[-1]  # V1-OFF-05, V1-SAVE-03
        assert chunks == plain  # V1-PEND-06


@pytest.mark.parametrize("name", ["scratchpad", "accelerator"])
def test_0_pending_in_pre_copy_means_nothing_right_now(name: str) -> None:
    with OpenDevice(MODELS[name]()) as device:
        device.state = PRE_COPY
        chunks = device.save()
        assert device.read(PENDING_BYTES) == 0
        device.work()
        assert device.read(PENDING_BYTES) > 0  # V1-PEND-10
        low = device.read(PENDING_BYTES)
        device.work(200)
        assert device.read(PENDING_BYTES) >= low  # V1-PEND-09
        chunks += device.save()
        device.state = STOP_AND_COPY
        assert_restores(MODELS[name], chunks + device.save(), device.snapshot)


@every_model
def test_0_pending_in_stop_and_copy_is_the_end(make: Make) -> None:
    with OpenDevice(make()) as device:
        device.work()
        device.state = STOP_AND_COPY
        assert device.save()  # V1-PEND-13: it comes to an end
        for _ in range(3):
            device.work()
            assert device.read(PENDING_BYTES) == 0  # V1-PEND-11
            device.prepare()
            assert device.read(PENDING_BYTES) == 0


@pytest.mark.parametrize("state", [STOP, RUNNING, RESUMING, ERROR])
def test_outside_of_saving_nothing_is_pending(device: OpenDevice, state: int) -> None:
    device.bring_to(state)
    assert device.read(PENDING_BYTES) == 0  # V1-PEND-16: any value; 0 is recommended
    assert device.read(DATA_SIZE) == 0  # V1-SIZE-09
    assert device.read(DATA_OFFSET) >= 32  # V1-OFF-10


@saving
def test_a_write_of_data_size_while_saving_has_no_effect(
    device: OpenDevice, state: int
) -> None:
    device.state = state
    buffer = device.prepare()
    chunk = device.fetch(*buffer)
    for value in (0, 1, buffer[1], (1 << 64) - 1):
        refusal(partial(device.write, DATA_SIZE, value))  # V1-SIZE-04
    assert device.prepare() == buffer
    assert device.fetch(*buffer) == chunk


@pytest.mark.parametrize("state", [STOP, RUNNING, ERROR])
def test_data_is_neither_taken_nor_written_outside_of_resuming(
    device: OpenDevice, state: int
) -> None:
    device.bring_to(state)
    before = device.snapshot
    offset = device.read(DATA_OFFSET)
    for call in (
        lambda: device.write(DATA_SIZE, 64),
        lambda: device.fd.pwrite(b"\xff" * 64, BASE + offset),
    ):
        assert refusal(call) == errno.EINVAL  # AMB-16, AMB-18
    assert (device.state, device.snapshot) == (state, before)


# -- saving ----------------------------------------------------------------------------


@every_model
@every_kind
@saving
def test_a_saved_device_is_restored(make: Make, kind: str, state: int) -> None:
    with OpenDevice(make(), kind=kind) as device:
        device.work()
        chunks = []
        device.state = state  # V1-SAVE-02
        chunks += device.save(2)
        device.work()
        chunks += device.save(1)
        device.state = STOP_AND_COPY
        chunks += device.save()  # V1-SAVE-06
        device.state = STOP
        with OpenDevice(make(), kind=kind) as destination:
            destination.work(3)  # V1-TRANS-20: no reset before, whatever it did
            destination.load(chunks)
            assert destination.snapshot == device.snapshot  # V1-TRANS-19
            destination.work()
            device.state = RUNNING
            device.work()
            assert destination.snapshot == device.snapshot  # it goes on as the other


@every_model
@pytest.mark.parametrize("source_kind", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_streams_do_not_depend_on_how_the_data_section_is_reached(
    make: Make, source_kind: str, kind: str
) -> None:
    with OpenDevice(make(), kind=source_kind) as source:
        source.work()
        source.state = STOP_AND_COPY
        chunks = source.save()
        with OpenDevice(make(), kind=kind, section=5 * PAGE) as destination:
            destination.load(chunks)
            assert destination.snapshot == source.snapshot


@every_kind
def test_all_data_can_be_trapped_where_mapping_is_offered(kind: str) -> None:
    streams = []
    for maps in (True, False):  # V1-MMAP-05, V1-MMAP-04
        with OpenDevice(kind=kind, maps=maps) as device:
            device.work()
            device.state = STOP_AND_COPY
            streams.append(device.save())
            snapshot = device.snapshot
        with OpenDevice(kind=kind, maps=maps) as device:
            device.load(streams[0])
            assert device.snapshot == snapshot
    assert streams[0] == streams[1]


def test_a_chunk_of_a_split_section_straddles_both_parts() -> None:
    with OpenDevice(kind="split") as device:
        device.state = STOP_AND_COPY
        (area,) = device.region.areas
        offset, size = device.prepare()  # V1-MMAP-08
        assert area.offset <= offset < area.offset + area.size < offset + size


SPLITS: dict[str, Callable[[int], list[int]]] = {
    "bytes": lambda size: [1] * size,
    "words": lambda size: [8] * (size // 8) + [1] * (size % 8),
    "odd": lambda size: [3] * (size // 3) + [1] * (size % 3),
    "first a byte": lambda size: [1, size - 1],
    "whole": lambda size: [size],
}


@pytest.mark.parametrize("name", ["serial", "opaque"])
@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
def test_data_moves_in_pieces_of_any_width(
    name: str, split: Callable[[int], list[int]]
) -> None:
    chunks, snapshot = saved(MODELS[name])
    with OpenDevice(MODELS[name](), kind="trapped") as device:
        device.state = RESUMING
        for chunk in chunks:
            at, offset = 0, device.read(DATA_OFFSET)
            for width in split(len(chunk)):  # V1-RES-09
                device.fd.pwrite(chunk[at : at + width], BASE + offset + at)
                at += width
            device.write(DATA_SIZE, len(chunk))
        device.state = RUNNING
        assert device.snapshot == snapshot
        device.state = STOP_AND_COPY
        for chunk in chunks:
            assert device.read(PENDING_BYTES)
            offset, size = device.prepare()
            at, pieces = 0, []
            for width in split(size):  # V1-SAVE-04
                pieces.append(device.fd.pread(width, BASE + offset + at))
                at += width
            assert b"".join(pieces) == chunk  # V1-SIZE-10: sizes are odd, too


@every_model
def test_a_stopped_device_is_saved_twice_and_both_restore(make: Make) -> None:
    with OpenDevice(make()) as device:
        device.work()
        for _ in range(2):
            device.state = STOP_AND_COPY
            assert_restores(make, device.save(), device.snapshot)  # V1-SAVE-11
            device.state = STOP


@every_model
@pytest.mark.parametrize("at_most", [0, 1, 2])
def test_stop_and_copy_is_enough_whatever_was_read_before(
    make: Make, at_most: int
) -> None:
    with OpenDevice(make()) as device:
        device.work()
        device.state = PRE_COPY
        chunks = device.save(at_most)  # V1-SAVE-08, V1-TRANS-17
        device.state = STOP_AND_COPY
        assert_restores(make, chunks + device.save(), device.snapshot)


@saving
def test_a_session_outlives_a_refusal_of_what_the_next_one_needs(
    state: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin_loading() -> None:
        raise OSError(errno.ENOMEM, "no memory for a second state")

    model = ScratchpadModel()
    monkeypatch.setattr(model, "begin_loading", begin_loading)
    with OpenDevice(model) as device:
        device.work()
        device.state = state
        first = device.save(1)

        def resume() -> None:
            device.state = RESUMING

        assert refusal(resume) == errno.ENOMEM
        assert device.state == state
        device.state = STOP_AND_COPY
        assert_restores(ScratchpadModel, first + device.save(), device.snapshot)


# -- resuming --------------------------------------------------------------------------


@every_kind
def test_the_data_section_is_free_when_the_write_of_data_size_returns(
    kind: str,
) -> None:
    chunks, snapshot = saved(MODELS["scratchpad"])
    with OpenDevice(kind=kind) as device:
        device.state = RESUMING
        for chunk in chunks:
            device.give(chunk)
            device.put(device.read(DATA_OFFSET), b"\xff" * len(chunk))  # V1-SIZE-06
        device.state = RUNNING
        assert device.snapshot == snapshot


@pytest.mark.parametrize(
    "size", [0, 1, 31, 2 * PAGE + 1, 1 << 31, 1 << 63, (1 << 64) - 1]
)
def test_an_impossible_data_size_is_refused_and_the_session_goes_on(size: int) -> None:
    chunks, snapshot = saved(MODELS["scratchpad"])
    with OpenDevice() as device:
        device.state = RESUMING
        code = refusal(lambda: device.write(DATA_SIZE, size))  # V1-SIZE-08
        assert (code, device.state) == (errno.EINVAL, RESUMING)
        for chunk in chunks:
            device.give(chunk)
        device.state = RUNNING
        assert device.snapshot == snapshot


# -- reset and close -------------------------------------------------------------------


@every_model
@every_state
def test_reset_brings_any_state_back_to_power_on(make: Make, state: int) -> None:
    with OpenDevice(make()) as device:
        power_on = device.snapshot
        device.work()
        device.bring_to(state)
        if state in (PRE_COPY, STOP_AND_COPY):
            device.take()
        if state == RESUMING:
            device.give(saved(make)[0][0])
        device.reset()
        assert device.state == RUNNING  # V1-RST-01, V1-RST-02
        assert device.snapshot == power_on  # V1-RST-04
        assert device.read(PENDING_BYTES) == 0  # V1-RST-03
        offset = device.read(DATA_OFFSET)
        assert not any(device.fetch(offset, device.region.size - offset))
        device.work()
        device.state = STOP_AND_COPY  # and a new session is a clean one
        assert_restores(make, device.save(), device.snapshot)
        device.reset()
        chunks, snapshot = saved(make)
        device.load(chunks)
        assert device.snapshot == snapshot


def test_reset_disarms_faults(device: OpenDevice) -> None:
    device.driver.fail("pending_bytes", errno.EIO)
    device.reset()
    assert device.read(PENDING_BYTES) == 0


def open_things() -> tuple[int, int]:
    fds = len(list(Path("/proc/self/fd").iterdir()))
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    return fds, maps.count("memfd:")


@every_kind
@every_state
def test_closing_in_any_state_leaves_no_fd_and_no_mapping(
    kind: str, state: int
) -> None:
    before = open_things()
    device = OpenDevice(kind=kind)
    device.work()
    device.bring_to(state)
    if state in (PRE_COPY, STOP_AND_COPY):
        device.take()
    device.close()  # V1-RST-06, V1-TRANS-11
    assert open_things() == before


def test_a_driver_that_cannot_be_made_leaves_no_fd() -> None:
    before = open_things()
    with pytest.raises(ValueError, match="bogus"):
        OpenDevice(kind="bogus")
    assert open_things() == before
