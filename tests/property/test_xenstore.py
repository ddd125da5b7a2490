"""XenStore equals a naive model, moves unharmed, and takes nothing else for itself."""

from __future__ import annotations

import functools
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.xenstore_steps import (
    BAD_PATHS,
    DOMAINS,
    OPERATIONS,
    PATHS,
    Both,
    Step,
    some_step,
    take,
)
from vfiomig.protocol.errors import ProtocolError, StreamError
from vfiomig.protocol.xenstore import MESSAGE_MAX, Message, message_in, missing_in
from vfiomig.vm.xen.xenstore import XenStore
from vfiomig.vm.xen.xenstore_service import answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

steps: SearchStrategy[Step] = st.builds(
    Step,
    operation=st.sampled_from(OPERATIONS),
    domid=st.sampled_from(DOMAINS),
    which=st.integers(0, 63),
    path=st.sampled_from(PATHS + BAD_PATHS),
    choice=st.integers(0, 63),
)


def busy_store(seed: int) -> XenStore:
    """Return a store in the middle of things."""
    rng = random.Random(seed)
    both = Both()
    for _ in range(60):
        both.take(some_step(rng))
    return both.store


def refusal(action: Callable[[], None]) -> StreamError | None:
    try:
        action()
    except StreamError as error:
        return error
    return None


@functools.cache
def saved_store(seed: int) -> bytes:
    return busy_store(seed).serialize()


@given(st.lists(steps, max_size=50))
def test_the_store_equals_its_model(some: list[Step]) -> None:
    take(some)


@given(st.integers(0, 2**32))
def test_a_long_life_equals_the_model_s(seed: int) -> None:
    rng = random.Random(seed)
    take(some_step(rng) for _ in range(60))


@settings(max_examples=300)
@given(st.integers(0, 7), st.data())
def test_a_damaged_store_is_refused_or_is_another(
    seed: int, data: st.DataObject
) -> None:
    damaged = bytearray(saved_store(seed))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "add", "drop"])):
            case "flip":
                damaged[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del damaged[max(at, 1) :]
            case "add":
                damaged[at:at] = data.draw(st.binary(max_size=8))
            case _:
                del damaged[at : at + 4]
                damaged = damaged or bytearray(1)
    store = XenStore.deserialize(saved_store(0), 1)
    store.watch(0, 0, "/local", "host")
    before = store.serialize(), store.events(0), store.events(1)
    refused = refusal(lambda: store.load(bytes(damaged)))
    if refused:
        assert 0 <= refused.position <= len(damaged)
        assert (store.serialize(), store.events(0), store.events(1)) == before
    else:  # whatever it is, it is one that moves
        again = store.serialize()
        assert XenStore.deserialize(again, 1).serialize() == again


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_a_position_or_are_a_store(data: bytes) -> None:
    store = XenStore(1)
    refused = refusal(lambda: store.load(data))
    assert refused is None or 0 <= refused.position <= len(data)
    assert XenStore.deserialize(store.serialize(), 1).nodes == store.nodes


messages = st.builds(
    Message,
    type=st.integers(0, 23) | st.just(0xFFFF),
    payload=st.binary(max_size=64)
    | st.lists(st.sampled_from([b"a", b"T", b"0", b"", b"n1", b"//"])).map(
        lambda texts: b"".join(text + b"\0" for text in texts)
    ),
    req_id=st.integers(0, 2**32 - 1),
    tx_id=st.integers(0, 3),
)


@given(messages)
def test_a_message_comes_back_as_it_was_sent(message: Message) -> None:
    sent = message.encode()
    assert message_in(sent + b"more") == message
    assert missing_in(sent) == 0
    assert all(message_in(sent[:end]) is None for end in range(len(sent)))


@given(st.lists(messages, max_size=20))
def test_any_request_is_answered(some: list[Message]) -> None:
    store = XenStore(1)
    store.write(0, 0, "/local/domain/1", b"")
    store.set_perms(0, 0, "/local/domain/1", ["n1"])
    for each in some:
        reply = answer(store, each)
        assert len(reply.encode()) <= MESSAGE_MAX
        assert (reply.req_id, reply.tx_id) == (each.req_id, each.tx_id)
        assert (reply.type == each.type) == (reply.code == 0) or each.type == 16


@given(st.binary(min_size=16, max_size=40))
def test_a_header_is_believed_or_refused(data: bytes) -> None:
    if int.from_bytes(data[12:16], "little") > 4096:
        with pytest.raises(ProtocolError):
            missing_in(data)
    else:
        assert missing_in(data) <= MESSAGE_MAX
