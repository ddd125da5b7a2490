"""The rsocket model as a transport, against the unix transport: the same bytes by each.

One thread serves both ends by turns, a mebibyte at a time, as `exchange` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.bench.figures import best_of, show, timed
from vfiomig.migration.exchange import Party, Receive, Send, Steps, exchange
from vfiomig.migration.transport import make_unix_pair
from vfiomig.migration.transport.rsocket.model import RsocketModel
from vfiomig.migration.transport.rsocket.stream import WAYS, make_rsocket_pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.migration.transport import Pair

SIZE = 64 << 20
PIECE = 1 << 20
PAYLOAD = memoryview(bytes(range(256)) * (SIZE // 256))


def send() -> Steps[None]:
    for start in range(0, SIZE, PIECE):
        yield Send(PAYLOAD[start : start + PIECE])


def receive(room: memoryview) -> Steps[None]:
    for start in range(0, SIZE, PIECE):
        yield Receive(room[start : start + PIECE])


def carry(make_pair: Callable[[], Pair], room: memoryview) -> None:
    near, far = make_pair()
    source, destination = Party(send(), near), Party(receive(room), far)
    exchange(source, destination)
    source.result()
    destination.result()
    for end in (near, far):
        end.close()


@pytest.mark.parametrize("way", WAYS)
def test_the_rsocket_model_carries_half_of_what_a_unix_socket_does(way: str) -> None:
    room = memoryview(bytearray(SIZE))
    ours, unix = best_of(
        lambda: timed(
            lambda: carry(lambda: make_rsocket_pair(RsocketModel(), way), room)
        ),
        lambda: timed(lambda: carry(make_unix_pair, room)),
    )
    # Half of its rate.
    show(f"the rsocket model ({way})", ours / unix, 2, "the unix transport")
    assert room == PAYLOAD
