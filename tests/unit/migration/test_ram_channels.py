"""RAM over several channels: all of it, each page before and behind its SYNC."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from vfiomig.migration.channel_packets import send_batch
from vfiomig.migration.clock import SECOND, Channel, LinkModel, VirtualClock
from vfiomig.migration.ram_channels import (
    Batch,
    ChannelError,
    ReceivingChannels,
    SendingChannels,
)
from vfiomig.migration.transport import (
    LISTENERS,
    CutLink,
    IncomingChannels,
    make_memory_pair,
    make_unix_pair,
)
from vfiomig.migration.transport.waiting import Waiting
from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.multifd import (
    INITIAL_SIZE,
    PACKET_SIZE,
    InitialPacket,
    Layout,
    Packet,
    encode_initial,
    encode_packet,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from vfiomig.migration.transport import ByteStream, Pair

PAGE = 4096
UUID = b"a virtual machin"


class Ram:
    """What was placed: the last word on each page, and how often it came."""

    def __init__(self) -> None:
        self.pages: dict[tuple[str, int], bytes] = {}
        self.came: list[tuple[str, int]] = []

    def place(
        self, block: str, offsets: NDArray[np.uint64], pages: NDArray[np.uint8] | None
    ) -> None:
        content = np.zeros((len(offsets), PAGE), np.uint8) if pages is None else pages
        for offset, page in zip(offsets.tolist(), content, strict=True):
            self.pages[block, offset] = page.tobytes()
            self.came.append((block, offset))


def batch(*words: int, block: str = "pc.ram", first: int = 0) -> Batch:
    """Return pages that are full of a byte each."""
    offsets = np.arange(first, first + len(words), dtype=np.uint64) * PAGE
    return Batch(
        block, offsets, np.repeat(np.array(words, np.uint8), PAGE).reshape(-1, PAGE)
    )


class Migration:
    """Both ends of a migration's channels, over one of the transports."""

    def __init__(
        self, make: str, wanted: int, layout: Layout = Layout.QEMU_7_2
    ) -> None:
        listener = LISTENERS[make]()
        self.incoming = IncomingChannels(listener, wanted=wanted, uuid=UUID)
        self.main = listener.connect()
        streams = [listener.connect() for _ in range(wanted)]
        self.ram = Ram()
        self.sending = SendingChannels(streams, uuid=UUID, layout=layout)
        self.receiving = ReceivingChannels(self.ram.place, wanted=wanted, layout=layout)
        self._added: set[int] = set()
        self._said = memoryview(b"QEVM")

    def until(self, condition: Callable[[], bool]) -> None:
        """Let all go on until something holds; waits have a limit."""
        idle = 0
        while not condition():
            idle = 0 if self._step() else idle + 1
            if idle > 2 and not self._wait():
                pytest.fail("nothing more comes")

    def _step(self) -> bool:
        moved = [self.sending.step(), self.incoming.step(), self.receiving.step()]
        self._said = self._said[self.main.send(self._said) :]
        for channel, stream in self.incoming.channels.items():
            if channel not in self._added:
                self._added.add(channel)
                self.receiving.add(channel, stream)
        return any(moved)

    def _wait(self) -> bool:
        waiting = Waiting()
        for each in (self.sending, self.receiving, self.incoming):
            each.wait_on(waiting)
        return waiting.wait(5)

    def close(self) -> None:
        self.sending.close()
        self.main.close()
        self.incoming.close()


@contextlib.contextmanager
def migration(
    make: str, wanted: int, layout: Layout = Layout.QEMU_7_2
) -> Iterator[Migration]:
    with contextlib.closing(Migration(make, wanted, layout)) as made:
        yield made


TRANSPORTS = pytest.mark.parametrize("make", LISTENERS)


# -- pages and SYNCs ------------------------------------------------------------------


@TRANSPORTS
@pytest.mark.parametrize("wanted", [1, 2, 5])
def test_what_is_put_arrives_once(make: str, wanted: int) -> None:
    sent = [
        batch(*range(first, first + 30), first=first) for first in range(0, 210, 30)
    ]
    with migration(make, wanted) as running:
        for each in sent:
            running.sending.put(each)
        running.sending.sync()
        running.until(lambda: running.receiving.is_synced)
        expected = {
            ("pc.ram", word * PAGE): bytes([word]) * PAGE for word in range(210)
        }
        assert running.ram.pages == expected
        assert len(running.ram.came) == 210
        running.receiving.resume()
        assert not running.receiving.is_synced
        running.sending.finish()
        running.until(lambda: running.receiving.is_over)
        assert running.sending.is_over


@TRANSPORTS
def test_a_page_behind_a_sync_is_placed_behind_it(make: str) -> None:
    """Each channel sends the same pages again: an older one must not come last."""
    rounds, channels = 6, 3
    with migration(make, channels) as running:
        for turn in range(rounds):
            for first in range(0, 40, 10):
                running.sending.put(batch(*[turn] * 10, first=first))
            running.sending.sync()
        for turn in range(rounds):
            running.until(lambda: running.receiving.is_synced)
            assert set(running.ram.pages.values()) == {bytes([turn]) * PAGE}
            assert len(running.ram.came) == 40 * (turn + 1)
            running.receiving.resume()


@TRANSPORTS
def test_a_random_load_arrives_as_it_was(make: str) -> None:
    dice = random.Random(6)
    expected: dict[tuple[str, int], bytes] = {}
    with migration(make, 3, Layout.QEMU_9_0) as running:
        for _ in range(8):
            fresh = {
                block: dice.sample(range(64), dice.randrange(1, 64))
                for block in ("pc.ram", "0000:00:02.0/vga.vram")
            }
            for block, places in fresh.items():
                while places:
                    taken = [places.pop() for _ in range(dice.randint(1, len(places)))]
                    running.sending.put(mixed(block, taken, dice, expected))
            running.sending.sync()
            running.until(lambda: running.receiving.is_synced)
            assert running.ram.pages == expected
            running.receiving.resume()


def mixed(
    block: str,
    places: Sequence[int],
    dice: random.Random,
    expected: dict[tuple[str, int], bytes],
) -> Batch:
    """Return a batch of pages of which some are zero; note them in ``expected``."""
    cut = dice.randrange(len(places) + 1)
    offsets = np.array(places, np.uint64) * PAGE
    pages = [dice.randbytes(PAGE) for _ in places[:cut]]
    content = [*pages, *[bytes(PAGE)] * (len(places) - cut)]
    for offset, page in zip(offsets.tolist(), content, strict=True):
        expected[block, offset] = page
    return Batch(block, offsets[:cut], memoryview(b"".join(pages)), offsets[cut:])


@TRANSPORTS
def test_a_late_channel_lets_the_others_bring_pages(make: str) -> None:
    listener = LISTENERS[make]()
    incoming = IncomingChannels(listener, wanted=2)
    ram = Ram()
    receiving = ReceivingChannels(ram.place, wanted=2)
    with contextlib.ExitStack() as opened:
        opened.callback(incoming.close)
        near = [listener.connect()]
        sending = SendingChannels(near)
        for word in range(5):
            sending.put(batch(word, first=word))
        while len(ram.came) < 5:
            sending.step()
            incoming.step()
            if 0 in incoming.channels and not receiving._lines:
                receiving.add(0, incoming.channels[0])
            receiving.step()
        assert not incoming.is_complete
        assert not receiving.is_over
        late, said = listener.connect(), memoryview(encode_initial(InitialPacket(1)))
        opened.callback(late.close)
        while 1 not in incoming.channels:
            said = said[late.send(said) if said else 0 :]
            incoming.step()
        receiving.add(1, incoming.channels[1])
        late.finish()
        sending.finish()
        while not receiving.is_over:
            receiving.step()
        opened.callback(sending.close)


def test_who_puts_learns_when_enough_waits() -> None:
    near = [make_memory_pair()[0] for _ in range(2)]
    sending = SendingChannels(near)
    assert not sending.is_idle
    put = 0
    while sending.has_room:
        sending.put(batch(1))
        put += 1
    assert put == 4
    assert not sending.step()


def test_nothing_is_resumed_that_does_not_stand() -> None:
    receiving = ReceivingChannels(Ram().place, wanted=2)
    with pytest.raises(ValueError, match="0 of 2 channels are at a SYNC"):
        receiving.resume()


@pytest.mark.parametrize(
    ("put", "reason"),
    [
        (Batch("b", np.arange(129, dtype=np.uint64), memoryview(b"")), "up to 128"),
        (batch(1)._replace(zero_offsets=np.zeros(1, np.uint64)), "by the main channel"),
    ],
)
def test_a_batch_that_cannot_be_sent_is_not_put(put: Batch, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        SendingChannels([make_memory_pair()[0]]).put(put)


def test_pages_and_their_offsets_are_as_many() -> None:
    short = batch(1, 2)._replace(pages=np.zeros((1, PAGE), np.uint8))
    with pytest.raises(ValueError, match="4096 bytes for 2 pages"):
        next(send_batch(short, 0, Layout.QEMU_7_2))


def test_pages_that_lie_apart_are_sent() -> None:
    every_other = np.repeat(np.arange(6, dtype=np.uint8), PAGE).reshape(-1, PAGE)[::2]
    with migration("memory", 1) as running:
        running.sending.put(batch(0, 2, 4)._replace(pages=every_other))
        running.until(lambda: len(running.ram.came) == 3)
        assert [page[0] for page in running.ram.pages.values()] == [0, 2, 4]


def test_time_passes_for_what_every_channel_sends() -> None:
    near, far = VirtualClock(), VirtualClock()
    model = LinkModel(bandwidth=1000, latency=7 * SECOND)
    links = [Channel(model, near, far) for _ in range(2)]
    pairs = [make_memory_pair() for _ in range(2)]
    ram = Ram()
    sending = SendingChannels([pair[0] for pair in pairs], links=links)
    receiving = ReceivingChannels(ram.place, wanted=2)
    for channel, (_, end) in enumerate(pairs):
        room = memoryview(bytearray(INITIAL_SIZE))
        end.receive_into(room)
        sending.step()
        assert end.receive_into(room) == INITIAL_SIZE
        receiving.add(channel, end, links[channel])
    sending.put(batch(1))
    sending.sync()
    while not receiving.is_synced:
        receiving.step()
        sending.step()
    size = 2 * INITIAL_SIZE + 3 * PACKET_SIZE + PAGE
    assert near.now == size * SECOND // 1000
    assert far.now == near.now + 7 * SECOND


# -- what QEMU 7.2 sends otherwise ----------------------------------------------------


def receiving_from(*packets: bytes, wanted: int = 1) -> tuple[ReceivingChannels, Ram]:
    """Return a destination of which channel 0 was sent that, and ended."""
    ram = Ram()
    receiving = ReceivingChannels(ram.place, wanted=wanted)
    add(receiving, 0, *packets)
    return receiving, ram


def add(receiving: ReceivingChannels, channel: int, *packets: bytes) -> None:
    """Add a channel that was sent that, and ended."""
    near, far = make_unix_pair()
    for packet in packets:
        assert near.send(memoryview(packet)) == len(packet)
    near.close()
    receiving.add(channel, far)


def raw(packet: Packet, pages: bytes = b"") -> bytes:
    return encode_packet(packet, Layout.QEMU_7_2) + pages


ONE = Packet(number=0, block="pc.ram", offsets=np.zeros(1, np.uint64))


def test_pages_that_come_with_a_sync_are_placed_before_it() -> None:
    both = Packet(number=0, block="b", offsets=np.zeros(1, np.uint64), is_sync=True)
    receiving, ram = receiving_from(raw(both, bytes(PAGE)), raw(Packet(number=0)))
    while not receiving.is_synced:
        assert receiving.step()
    assert ram.came == [("b", 0)]
    receiving.resume()
    while not receiving.is_over:
        assert receiving.step()
    receiving.close()


def test_pages_side_by_side_are_received_straight_into_their_memory() -> None:
    memory = bytearray(8 * PAGE)
    asked = []

    def room(block: str, offsets: NDArray[np.uint64]) -> memoryview | None:
        asked.append((block, offsets.tolist()))
        first = int(offsets[0])
        if (np.diff(offsets) != PAGE).any():
            return None
        return memoryview(memory)[first : first + len(offsets) * PAGE]

    near, far = make_memory_pair()
    ram = Ram()
    receiving = ReceivingChannels(ram.place, wanted=1, room=room)
    receiving.add(0, far)
    apart = Packet(number=0, block="b", offsets=np.array([0, 2 * PAGE], np.uint64))
    beside = Packet(number=1, block="b", offsets=np.array([PAGE, 2 * PAGE], np.uint64))
    rest = memoryview(raw(apart, b"apart..." * 1024) + raw(beside, b"beside.." * 1024))
    while rest:
        receiving.step()
        rest = rest[near.send(rest) :]
    near.finish()
    while not receiving.is_over:
        receiving.step()
    assert asked == [("b", [0, 2 * PAGE]), ("b", [PAGE, 2 * PAGE])]
    assert ram.came == [("b", 0), ("b", 2 * PAGE)]
    assert memory == bytes(PAGE) + b"beside.." * 1024 + bytes(5 * PAGE)


def test_room_of_another_size_is_not_filled() -> None:
    receiving, ram = receiving_from(raw(ONE, bytes(PAGE)))
    receiving._room = lambda block, offsets: memoryview(bytearray(PAGE + 1))
    with pytest.raises(ValueError, match="room of 4097 bytes for 4096 of pages"):
        step_to_the_end(receiving)
    assert ram.came == []


def test_a_channel_that_stands_at_a_sync_reads_no_further() -> None:
    sync = raw(Packet(number=0, is_sync=True))
    receiving, ram = receiving_from(sync, raw(ONE, bytes(PAGE)), wanted=2)
    assert receiving.step()
    assert not receiving.step()
    assert not receiving.is_synced
    add(receiving, 1, raw(ONE, b"1" * PAGE), sync)
    while not receiving.is_synced:
        assert receiving.step()
    assert not receiving.step()
    assert ram.pages == {("pc.ram", 0): b"1" * PAGE}
    receiving.resume()
    while not receiving.is_over:
        assert receiving.step()
    assert ram.pages == {("pc.ram", 0): bytes(PAGE)}
    receiving.close()


# -- what is refused ------------------------------------------------------------------


def step_to_the_end(receiving: ReceivingChannels) -> None:
    for _ in range(100):
        receiving.step()


CUT = [
    (raw(ONE)[:100], 64 + 100, "ends after 100 of 1344 bytes of a packet"),
    (raw(ONE), 64 + 1344, "ends after 0 of 4096 bytes of pages"),
    (raw(ONE, bytes(4095)), 64 + 1344 + 4095, "ends after 4095 of 4096"),
    (raw(ONE, bytes(PAGE)) + b"\xff" * 1344, 64 + 1344 + PAGE, "magic 0xffffffff"),
]


@pytest.mark.parametrize(("said", "position", "reason"), CUT)
def test_what_cannot_be_read_is_refused_where_it_stands(
    said: bytes, position: int, reason: str
) -> None:
    receiving, _ = receiving_from(said)
    with pytest.raises(
        ChannelError, match=f"^channel 0: byte {position} .*{reason}"
    ) as e:
        step_to_the_end(receiving)
    assert (e.value.position, e.value.channel) == (position, 0)
    assert receiving._lines[0]._stream.fileno() is None


def test_a_channel_that_ends_where_another_has_synced_is_refused() -> None:
    receiving, _ = receiving_from(wanted=2)
    near, far = make_memory_pair()
    receiving.add(1, far)
    sync = memoryview(raw(Packet(number=0, is_sync=True)))

    def go_on() -> None:
        rest = sync
        for _ in range(10):
            receiving.step()
            rest = rest[near.send(rest) :]

    with pytest.raises(ChannelError, match=r"channel 0: byte 64 .* channel 1 has come"):
        go_on()


def test_a_channel_comes_once() -> None:
    receiving, _ = receiving_from()
    with pytest.raises(ValueError, match="channel 0 was added already"):
        receiving.add(0, make_memory_pair()[0])
    receiving.close()


def refuse(block: str, offsets: object, pages: object) -> None:
    raise StreamError(f"no block {block}", position=0)


def test_a_block_that_is_not_there_is_refused_by_who_knows() -> None:
    receiving, ram = receiving_from(raw(ONE, bytes(PAGE)))
    receiving._place = refuse
    with pytest.raises(StreamError, match=r"channel 0: .*no block pc\.ram"):
        step_to_the_end(receiving)
    assert ram.came == []


@pytest.mark.parametrize("position", [0, 63, 64, 64 + 1344 + 5, 64 + 2 * 1344 + 4096])
def test_a_channel_that_is_lost_closes_all(position: int) -> None:
    pairs: list[Pair] = [make_memory_pair() for _ in range(2)]
    near: list[ByteStream] = [pairs[0][0], CutLink(pairs[1][0], position)]
    sending = SendingChannels(near)
    room = memoryview(bytearray(1 << 20))

    def go_on() -> None:
        for word in range(10):
            sending.put(batch(word))
            for _, far in pairs:
                far.receive_into(room)
            sending.step()
            sending.step()

    with pytest.raises(ConnectionResetError, match="channel 1: "):
        go_on()
    with pytest.raises(ValueError, match="closed"):
        near[0].send(memoryview(b"x"))
