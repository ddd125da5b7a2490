"""The link within one process: one copy, into the buffer that the peer posted."""

from __future__ import annotations

import tracemalloc

import pytest

from vfiomig.migration.transport import make_memory_pair


def test_nothing_is_taken_before_the_peer_posts_a_buffer() -> None:
    source, destination = make_memory_pair()
    assert source.send(memoryview(b"early")) == 0
    assert destination.receive_into(memoryview(bytearray(8))) is None


def test_a_send_fills_the_posted_buffer_itself() -> None:
    source, destination = make_memory_pair()
    room = bytearray(b"........")
    assert destination.receive_into(memoryview(room)) is None
    assert source.send(memoryview(b"chunk")) == 5
    assert room == b"chunk..."
    assert destination.receive_into(memoryview(room)) == 5


def test_a_send_takes_no_more_than_the_posted_buffer_holds() -> None:
    source, destination = make_memory_pair()
    room = bytearray(4)
    destination.receive_into(memoryview(room))
    assert source.send(memoryview(b"longer")) == 4
    assert source.send(memoryview(b"er")) == 0
    assert destination.receive_into(memoryview(room)) == 4
    assert room == b"long"


def test_two_sends_fill_one_buffer_one_after_the_other() -> None:
    source, destination = make_memory_pair()
    room = bytearray(4)
    destination.receive_into(memoryview(room))
    assert source.send(memoryview(b"ab")) == 2
    assert source.send(memoryview(b"cde")) == 2
    assert destination.receive_into(memoryview(room)) == 4
    assert room == b"abcd"


def test_every_count_is_told_once() -> None:
    source, destination = make_memory_pair()
    room = memoryview(bytearray(4))
    destination.receive_into(room)
    source.send(memoryview(b"once"))
    assert destination.receive_into(room) == 4
    assert destination.receive_into(room) is None


def test_another_buffer_than_the_one_with_bytes_is_refused() -> None:
    source, destination = make_memory_pair()
    room = bytearray(4)
    destination.receive_into(memoryview(room))
    source.send(memoryview(b"ab"))
    with pytest.raises(ValueError, match="2 bytes wait in another buffer"):
        destination.receive_into(memoryview(bytearray(4)))
    assert destination.receive_into(memoryview(room)) == 2


def test_a_part_of_the_posted_buffer_is_another_buffer() -> None:
    source, destination = make_memory_pair()
    room = memoryview(bytearray(4))
    destination.receive_into(room)
    source.send(memoryview(b"ab"))
    with pytest.raises(ValueError, match="another buffer"):
        destination.receive_into(room[:2])


def test_a_buffer_that_nothing_came_into_may_be_replaced() -> None:
    source, destination = make_memory_pair()
    first, second = bytearray(4), bytearray(4)
    assert destination.receive_into(memoryview(first)) is None
    assert destination.receive_into(memoryview(second)) is None
    first.append(0)  # resizing raises BufferError while a view is held
    assert source.send(memoryview(b"ab")) == 2
    assert destination.receive_into(memoryview(second)) == 2
    assert second == b"ab\0\0"


def test_a_read_only_buffer_is_refused() -> None:
    _, destination = make_memory_pair()
    with pytest.raises(TypeError):
        destination.receive_into(memoryview(b"read only"))


def test_the_peers_close_lets_go_of_an_empty_buffer_at_once() -> None:
    source, destination = make_memory_pair()
    room = bytearray(4)
    destination.receive_into(memoryview(room))
    source.close()
    room.append(0)
    assert destination.receive_into(memoryview(room)) == 0


def test_a_full_buffer_is_read_after_the_peers_close() -> None:
    source, destination = make_memory_pair()
    room = memoryview(bytearray(4))
    destination.receive_into(room)
    source.send(memoryview(b"full"))
    source.close()
    assert destination.receive_into(room) == 4
    assert destination.receive_into(room) == 0


def test_a_peers_close_refuses_a_send_though_a_buffer_was_posted() -> None:
    source, destination = make_memory_pair()
    destination.receive_into(memoryview(bytearray(4)))
    destination.close()
    with pytest.raises(BrokenPipeError, match="the peer has closed"):
        source.send(memoryview(b"x"))


def test_bytes_are_copied_once() -> None:
    size = 4 << 20
    payload, room = bytes(range(256)) * (size // 256), bytearray(size)
    source, destination = make_memory_pair()
    view, buffer = memoryview(payload), memoryview(room)
    tracemalloc.start()
    try:
        destination.receive_into(buffer)
        assert source.send(view) == size
        assert destination.receive_into(buffer) == size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert room == payload
    assert peak < 16 << 10
