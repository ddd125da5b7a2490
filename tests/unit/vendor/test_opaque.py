"""The opaque device, and the pieces that a whole image travels in."""

from __future__ import annotations

import errno

import pytest

from vfiomig.vendor.opaque import OpaqueModel

SIZE = 10_000
HEADER = 16
ROOM = 4096 + 64


def pieces_of(model: OpaqueModel, room: int = ROOM) -> list[bytes]:
    pieces = []
    model.begin_saving()
    while model.pending(running=False):
        payload = memoryview(bytearray(room))
        pieces.append(bytes(payload[: model.save(payload, running=False)]))
    model.end_saving()
    return pieces


def load(model: OpaqueModel, pieces: list[bytes]) -> None:
    model.begin_loading()
    for piece in pieces:
        model.load(memoryview(piece))
    model.finish_loading()


def worked(amount: int = 50, size: int = SIZE) -> OpaqueModel:
    model = OpaqueModel(size)
    model.work(amount)
    return model


def test_nothing_goes_in_pre_copy() -> None:
    model = worked()
    model.begin_saving()
    assert model.pending(running=True) == 0
    assert model.save(memoryview(bytearray(ROOM)), running=True) == 0
    assert model.pending(running=False) == SIZE


@pytest.mark.parametrize(
    ("room", "count"), [(ROOM, 3), (5016, 2), (5015, 3), (SIZE + HEADER, 1)]
)
def test_the_image_takes_as_many_pieces_as_it_needs(room: int, count: int) -> None:
    pieces = pieces_of(worked(), room)
    assert len(pieces) == count
    assert b"".join(piece[HEADER:] for piece in pieces) == worked().snapshot()


def test_pending_is_what_is_left_of_the_image() -> None:
    model = worked()
    model.begin_saving()
    payload = memoryview(bytearray(ROOM))
    left = [model.pending(running=False)]
    while model.save(payload, running=False):
        left.append(model.pending(running=False))
    assert left == [SIZE, SIZE - 4144, SIZE - 2 * 4144, 0]


def test_only_the_last_piece_is_requeued() -> None:
    model = worked()
    model.begin_saving()
    payload = memoryview(bytearray(ROOM))
    model.save(payload, running=False)
    left = model.pending(running=False)
    model.save(payload, running=False)
    model.requeue()
    model.requeue()
    assert model.pending(running=False) == left


def test_work_changes_a_byte_a_unit_and_the_generator() -> None:
    model = OpaqueModel(1 << 20)
    model.work(100)
    snapshot = model.snapshot()
    assert any(snapshot[:8])
    assert 90 < sum(map(bool, snapshot[8:])) <= 100


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9])
def test_the_smallest_states_work_and_migrate(size: int) -> None:
    source, destination = worked(9, size), OpaqueModel(size)
    assert any(source.snapshot())
    load(destination, pieces_of(source))
    assert destination.snapshot() == source.snapshot()


def test_without_state_there_is_nothing_to_send_and_nothing_missing() -> None:
    model = worked(9, 0)
    assert pieces_of(model) == []
    load(OpaqueModel(0), [])
    assert len(model.snapshot()) == 0


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        OpaqueModel(-1)


@pytest.mark.parametrize(
    "order", [(1, 0, 2), (0, 2, 1), (2, 1, 0), (0, 1), (1, 2), (0, 1, 0), (0, 0, 2), ()]
)
def test_pieces_out_of_place_are_refused(order: tuple[int, ...]) -> None:
    pieces = pieces_of(worked())
    model = OpaqueModel(SIZE)
    with pytest.raises(OSError, match=r"piece|bytes of the image") as refused:
        load(model, [pieces[index] for index in order])
    assert refused.value.errno == errno.EINVAL
    assert model.snapshot() == OpaqueModel(SIZE).snapshot()


@pytest.mark.parametrize(
    "order", [(0, 0, 1, 1, 2, 2), (0, 1, 0, 1, 2), (0, 1, 2, 0, 1, 2)]
)
def test_a_repeated_piece_and_a_new_beginning_are_taken(order: tuple[int, ...]) -> None:
    source, model = worked(), OpaqueModel(SIZE)
    pieces = pieces_of(source)
    load(model, [pieces[index] for index in order])
    assert model.snapshot() == source.snapshot()


def test_a_requeued_piece_may_be_cut_differently() -> None:
    source, model = worked(), OpaqueModel(SIZE)
    source.begin_saving()
    model.begin_loading()
    for room in (ROOM + 2000, ROOM, ROOM + 500):
        payload = memoryview(bytearray(room))
        model.load(payload[: source.save(payload, running=False)])
        source.requeue()
    while source.pending(running=False):
        payload = memoryview(bytearray(ROOM))
        model.load(payload[: source.save(payload, running=False)])
    model.finish_loading()
    assert model.snapshot() == source.snapshot()


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, SIZE + 1), (1, 100), (SIZE, 100), (1 << 63, 100), (0, 99), (0, 1 << 63)],
)
def test_a_piece_that_does_not_fit_is_refused(offset: int, length: int) -> None:
    content = bytes(length if length < 1 << 20 and length != 99 else 100)
    piece = offset.to_bytes(8, "little") + length.to_bytes(8, "little") + content
    model = OpaqueModel(SIZE)
    model.begin_loading()
    with pytest.raises(OSError, match="a piece of") as refused:
        model.load(memoryview(piece))
    assert refused.value.errno == errno.EINVAL
