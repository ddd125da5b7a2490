"""The accelerator and the pages that its memory travels in."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest

from vfiomig.vendor.accelerator import (
    HEAD_SIZE,
    RING_SIZE,
    AcceleratorHead,
    AcceleratorModel,
)
from vfiomig.vendor.scratchpad import ScratchpadModel

PAGE = 4096
HEADER = struct.Struct("=IIQ")  # type, pages, first page
HEAD, MEMORY = 1, 2
HEAD_PAGES = HEAD_SIZE // PAGE


def records_of(payload: memoryview) -> list[tuple[int, int, int]]:
    """Return the records of a payload as (type, pages, first page)."""
    found, at = [], 0
    while at < len(payload):
        found.append(HEADER.unpack_from(payload, at))
        at += HEADER.size + found[-1][1] * PAGE
    assert at == len(payload)
    return found


def save(model: AcceleratorModel, pages: int, *, running: bool) -> memoryview:
    """Save into a payload with room for ``pages`` pages in one record."""
    payload = memoryview(bytearray(HEADER.size + pages * PAGE))
    return payload[: model.save(payload, running=running)]


def drained(model: AcceleratorModel) -> AcceleratorModel:
    """Return the model in a session in which pre-copy has nothing left."""
    model.begin_saving()
    while model.pending(running=True):
        save(model, 64, running=True)
    return model


def load(model: AcceleratorModel, payloads: list[memoryview]) -> None:
    model.begin_loading()
    for payload in payloads:
        model.load(payload)
    model.finish_loading()


def record(kind: int, first: int, pages: int, content: bytes = b"") -> memoryview:
    return memoryview(HEADER.pack(kind, pages, first) + content)


# -- pre-copy


def test_pre_copy_sends_local_memory_and_never_the_head() -> None:
    model = AcceleratorModel(16 * PAGE)
    model.work(10)
    model.begin_saving()
    assert model.pending(running=True) == 16 * PAGE
    assert model.pending(running=False) == 16 * PAGE + HEAD_SIZE
    kinds = set()
    while model.pending(running=True):
        kinds |= {kind for kind, _, _ in records_of(save(model, 3, running=True))}
    assert kinds == {MEMORY}
    assert model.pending(running=False) == HEAD_SIZE


def test_once_stopped_the_head_goes_as_a_record_of_its_own() -> None:
    model = drained(AcceleratorModel(16 * PAGE))
    assert records_of(save(model, 64, running=False)) == [(HEAD, HEAD_PAGES, 0)]
    assert model.pending(running=False) == 0


def test_pre_copy_sends_what_jobs_changed_again() -> None:
    model = drained(AcceleratorModel(16 * PAGE, spread=PAGE))
    model.work(100)
    assert model.pending(running=True) == PAGE
    assert records_of(save(model, 8, running=True)) == [(MEMORY, 1, 0)]


def test_a_job_dirties_at_most_a_page() -> None:
    model = drained(AcceleratorModel(1 << 20))
    model.work(5)
    assert PAGE <= model.pending(running=True) <= 5 * PAGE


def test_adjacent_dirty_pages_go_in_one_record() -> None:
    model = AcceleratorModel(16 * PAGE)
    model.begin_saving()
    assert records_of(save(model, 16, running=True)) == [(MEMORY, 16, 0)]


def test_scattered_dirty_pages_share_a_payload() -> None:
    model = drained(AcceleratorModel(1 << 20))
    model.work(20)
    dirty = model.pending(running=True) // PAGE
    assert dirty > 10
    payload = save(model, 32, running=True)
    assert model.pending(running=True) == 0
    assert sum(pages for _, pages, _ in records_of(payload)) == dirty


def test_pages_that_stay_dirty_do_not_keep_the_others_waiting() -> None:
    """The first two pages are written all the time, and a save takes one page."""
    model = AcceleratorModel(16 * PAGE, spread=2 * PAGE)
    model.begin_saving()
    sent = []
    for _ in range(18):
        ((_, _, first),) = records_of(save(model, 1, running=True))
        sent.append(first)
        model.work(50)
    assert sent == [*range(16), 0, 1]


def test_what_is_sent_is_what_is_there() -> None:
    model = AcceleratorModel(4 * PAGE)
    model.work(300)
    model.begin_saving()
    assert save(model, 4, running=True)[HEADER.size :] == model.snapshot()[HEAD_SIZE:]


def test_a_requeued_head_goes_again() -> None:
    model = drained(AcceleratorModel(4 * PAGE))
    first = save(model, 64, running=False)
    model.requeue()
    assert model.pending(running=False) == HEAD_SIZE
    assert save(model, 64, running=False) == first


def test_all_runs_of_a_save_are_requeued() -> None:
    model = drained(AcceleratorModel(1 << 20))
    model.work(20)
    dirty = model.pending(running=True)
    payload = save(model, 32, running=True)
    assert len(records_of(payload)) > 1
    model.requeue()
    assert model.pending(running=True) == dirty


def test_only_the_last_save_is_requeued() -> None:
    model = AcceleratorModel(4 * PAGE)
    model.begin_saving()
    save(model, 1, running=True)
    save(model, 1, running=True)
    model.requeue()
    model.requeue()
    assert model.pending(running=True) == 3 * PAGE


# -- jobs


def test_jobs_are_counted_and_some_are_always_under_way() -> None:
    model = AcceleratorModel(16 * PAGE)
    for _ in range(3):
        model.work(RING_SIZE)
    registers = AcceleratorHead.from_buffer_copy(model.snapshot()).registers
    assert registers.jobs_done == 3 * RING_SIZE
    assert 0 < registers.jobs_submitted - registers.jobs_done <= RING_SIZE


def test_the_oldest_job_is_the_next_one_done() -> None:
    model = AcceleratorModel(16 * PAGE)
    model.work(RING_SIZE)
    head = AcceleratorHead.from_buffer_copy(model.snapshot())
    job = head.ring[head.registers.jobs_done % RING_SIZE]
    model.work(1)
    stored = model.snapshot()[HEAD_SIZE + job.address :][:8]
    assert int.from_bytes(stored, "little") == job.value


def test_a_spread_bounds_what_jobs_touch() -> None:
    model = AcceleratorModel(16 * PAGE, spread=4 * PAGE)
    model.work(200)
    memory = model.snapshot()[HEAD_SIZE:]
    touched = [any(memory[at : at + PAGE]) for at in range(0, len(memory), PAGE)]
    assert touched == [True] * 4 + [False] * 12


@pytest.mark.parametrize("memory", [-PAGE, 0, 1, PAGE + 1, (4 << 30) + PAGE])
def test_local_memory_is_whole_pages_up_to_4_gib(memory: int) -> None:
    with pytest.raises(ValueError, match="local memory"):
        AcceleratorModel(memory)


@pytest.mark.parametrize("spread", [-PAGE, 0, 1, 3 * PAGE])
def test_a_spread_is_whole_pages_of_local_memory(spread: int) -> None:
    with pytest.raises(ValueError, match="spread"):
        AcceleratorModel(2 * PAGE, spread=spread)


@pytest.mark.parametrize("state", [-PAGE, 0, 1, PAGE + 1])
def test_a_scratchpad_is_whole_pages(state: int) -> None:
    with pytest.raises(ValueError, match=str(state)):
        ScratchpadModel(state)


# -- loading


def stream_of(model: AcceleratorModel) -> list[memoryview]:
    model.begin_saving()
    payloads = []
    while model.pending(running=False):
        payloads.append(save(model, 64, running=False))
    return payloads


@pytest.mark.parametrize(
    "payload",
    [
        record(0, 0, 1, bytes(PAGE)),
        record(3, 0, 1, bytes(PAGE)),
        record(MEMORY, 0, 0),
        record(MEMORY, 4, 1, bytes(PAGE)),
        record(MEMORY, 3, 2, bytes(2 * PAGE)),
        record(MEMORY, (1 << 64) - 1, 1, bytes(PAGE)),
        record(MEMORY, (1 << 64) - 1, 2, bytes(2 * PAGE)),
        record(MEMORY, 0, (1 << 32) - 1, bytes(PAGE)),
        record(HEAD, HEAD_PAGES, 1, bytes(PAGE)),
        record(HEAD, 0, HEAD_PAGES + 1, bytes(HEAD_SIZE + PAGE)),
        record(MEMORY, 0, 1, bytes(PAGE - 1)),
        record(MEMORY, 0, 1, bytes(PAGE + 1)),
        record(MEMORY, 0, 1)[:-1],
    ],
)
def test_a_record_that_does_not_fit_is_refused_with_its_whole_payload(
    payload: memoryview,
) -> None:
    model = AcceleratorModel(4 * PAGE)
    good = record(MEMORY, 1, 1, b"\7" * PAGE)
    model.begin_loading()
    with pytest.raises(OSError, match=r"record|pages") as refused:
        model.load(memoryview(bytes(good) + bytes(payload)))
    assert refused.value.errno == errno.EINVAL
    assert not any(bytes(model.snapshot()))


@pytest.mark.parametrize("used", [0, 9])
@pytest.mark.parametrize(
    ("offset", "value", "why"),
    [
        (AcceleratorHead.registers.offset, 1 << 32, "jobs in a ring"),
        (HEAD_SIZE - 16, 4 * PAGE, "a job at"),
        (HEAD_SIZE - 16, 4, "a job at"),
        (HEAD_SIZE - 16, (1 << 64) - 8, "a job at"),
        (AcceleratorHead.ring.offset, 1 << 40, "a job at"),
        (AcceleratorHead.ring.offset - 8, 1, "reserved"),
    ],
)
def test_a_head_that_makes_no_sense_is_refused(
    used: int, offset: int, value: int, why: str
) -> None:
    source, model = AcceleratorModel(4 * PAGE), AcceleratorModel(4 * PAGE)
    source.work(20)
    model.work(used)
    before = bytes(model.snapshot())
    payloads = stream_of(source)
    (payload,) = payloads
    *_, (kind, _, _) = records_of(payload)
    assert kind == HEAD
    payload[len(payload) - HEAD_SIZE + offset :][:8] = value.to_bytes(8, "little")
    with pytest.raises(OSError, match=why) as refused:
        load(model, payloads)
    assert refused.value.errno == errno.EINVAL
    model.drop_loading()
    assert bytes(model.snapshot()) == before


def test_counters_that_turned_over_are_a_state_like_any_other() -> None:
    source, model = AcceleratorModel(4 * PAGE), AcceleratorModel(4 * PAGE)
    source.work(20)
    payloads = stream_of(source)
    head = payloads[0][len(payloads[0]) - HEAD_SIZE :]
    head[:16] = struct.pack("=QQ", 60, (1 << 64) - 4)
    load(model, payloads)
    model.work(10)
    registers = AcceleratorHead.from_buffer_copy(model.snapshot()).registers
    assert (registers.jobs_submitted, registers.jobs_done) == (70, 6)


def test_a_full_ring_stays_full_and_loses_no_job() -> None:
    source, model = AcceleratorModel(4 * PAGE), AcceleratorModel(4 * PAGE)
    payloads = stream_of(source)
    ring = memoryview(bytearray(16 * RING_SIZE)).cast("Q")
    for number in range(RING_SIZE):
        ring[2 * number], ring[2 * number + 1] = 8 * number, number + 1
    head = payloads[0][len(payloads[0]) - HEAD_SIZE :]
    head[:16] = struct.pack("=QQ", RING_SIZE, 0)
    head[HEAD_SIZE - 16 * RING_SIZE :] = ring.cast("B")
    load(model, payloads)
    model.work(RING_SIZE)
    memory = model.snapshot()[HEAD_SIZE:].cast("Q")
    assert memory[:RING_SIZE].tolist() == list(range(1, RING_SIZE + 1))


@pytest.mark.parametrize("place", [16, PAGE - 1])
def test_a_scratchpad_with_a_reserved_byte_set_is_refused(place: int) -> None:
    model = ScratchpadModel(PAGE)
    head = bytearray(PAGE)
    head[place] = 1
    model.begin_loading()
    model.load(record(HEAD, 0, 1, bytes(head)))
    model.load(record(MEMORY, 0, 1, bytes(PAGE)))
    with pytest.raises(OSError, match="reserved") as refused:
        model.finish_loading()
    assert refused.value.errno == errno.EINVAL


# -- the memory itself


def test_a_snapshot_is_a_view_and_no_copy() -> None:
    model = AcceleratorModel(4 * PAGE)
    snapshot = model.snapshot()
    assert len(snapshot) == HEAD_SIZE + 4 * PAGE
    model.work(1)
    assert any(bytes(snapshot))


def test_closing_unmaps_and_a_snapshot_that_is_held_stays_readable() -> None:
    model = AcceleratorModel(4 * PAGE)
    model.work(50)
    snapshot = model.snapshot()
    content = bytes(snapshot)
    model.begin_loading()
    model.close()
    model.close()
    assert bytes(snapshot) == content


def test_a_snapshot_from_before_a_load_keeps_what_it_showed() -> None:
    source, model = AcceleratorModel(4 * PAGE), AcceleratorModel(4 * PAGE)
    source.work(50)
    model.work(9)
    snapshot = model.snapshot()
    content = bytes(snapshot)
    load(model, stream_of(source))
    assert bytes(snapshot) == content
    assert bytes(model.snapshot()) == bytes(source.snapshot())


@pytest.mark.parametrize(("used", "mappings"), [(0, 0), (1, 1)])
def test_loading_needs_a_second_memory_only_where_the_first_was_used(
    used: int, mappings: int
) -> None:
    size = 16 << 20
    model = AcceleratorModel(size)
    model.work(used)
    before = _mapped_bytes()
    model.begin_loading()
    assert (_mapped_bytes() - before + size // 2) // size == mappings
    model.drop_loading()
    assert (_mapped_bytes() - before + size // 2) // size == 0
    model.power_on()
    model.begin_loading()
    assert (_mapped_bytes() - before + size // 2) // size == 0
    model.close()


def _mapped_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    return int(pages) * PAGE
