"""Several channels of one migration, from a real QEMU and to one."""

from __future__ import annotations

import contextlib
import itertools
import re
import selectors
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import pytest

from vfiomig.migration.ram_channels import Batch, ReceivingChannels, SendingChannels
from vfiomig.migration.transport import IncomingChannels, connect_unix, listen_unix
from vfiomig.migration.transport.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from vfiomig.migration.transport import ByteStream, SocketStream

pytestmark = pytest.mark.slow

QEMU: Final = (
    *("qemu-system-x86_64", "-M", "pc", "-m", "16", "-accel", "tcg", "-S"),
    *("-nodefaults", "-display", "none", "-monitor", "stdio"),
)
# What `-M pc` has at the end of its first 4 GiB (Debian's seabios package).
BIOS: Final = Path("/usr/share/seabios/bios-256k.bin")
LIMIT: Final = 60.0  # seconds, for anything that takes a fraction of one
PAGE: Final = 4096
Qemu: TypeAlias = "subprocess.Popen[str]"
UUID: Final = "00112233-4455-6677-8899-aabbccddeeff"


class Ram:
    """What the channels bring: blocks by name, zero where nothing came."""

    def __init__(self) -> None:
        self.blocks: dict[str, bytearray] = {}
        self.pages = 0
        self.batches: list[list[Batch]] = [[]]  # by the SYNC behind them

    def place(
        self, block: str, offsets: NDArray[np.uint64], pages: NDArray[np.uint8] | None
    ) -> None:
        room = self.blocks.setdefault(block, bytearray(32 << 20))
        assert pages is not None, "7.2 sends zero pages by the main channel"
        for offset, page in zip(offsets.tolist(), pages, strict=True):
            room[offset : offset + PAGE] = page.tobytes()
        self.pages += len(offsets)
        self.batches[-1].append(Batch(block, offsets, pages.copy()))


class Main:
    """The main channel, all of it."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.said = bytearray()
        self.is_over = False
        self._room = memoryview(bytearray(1 << 16))

    def step(self) -> bool:
        """Read what is there."""
        count = None if self.is_over else self.stream.receive_into(self._room)
        self.is_over = self.is_over or count == 0
        self.said += self._room[: count or 0]
        return count is not None


@contextlib.contextmanager
def started(*commands: str, more: tuple[str, ...] = ()) -> Iterator[Qemu]:
    """Run a QEMU that is told these things first."""
    with subprocess.Popen(
        [*QEMU, "-uuid", UUID, *more], stdin=-1, stdout=-1, stderr=-2, text=True
    ) as qemu:
        assert qemu.stdin is not None
        try:
            for command in commands:
                qemu.stdin.write(f"{command}\n")
            qemu.stdin.flush()
            yield qemu
        finally:
            qemu.kill()


def with_channels(number: int) -> tuple[str, str]:
    """Return what a QEMU is told of its channels, whichever side it is."""
    return (
        "migrate_set_capability multifd on",
        f"migrate_set_parameter multifd-channels {number}",
    )


def said_of(qemu: Qemu, *questions: str) -> str:
    """Ask how the migration ended, let it quit, and return all that it said."""
    lines = "\n".join(("info migrate", *questions, "quit", ""))
    said, _ = qemu.communicate(lines, timeout=LIMIT)
    return said


def admitted(incoming: IncomingChannels) -> IncomingChannels:
    """Wait until all channels have come."""
    with selectors.DefaultSelector() as selector:
        number = incoming.fileno()
        assert number is not None
        selector.register(number, selectors.EVENT_READ)
        while not incoming.is_complete:
            if not incoming.step():
                selector.select(incoming.remaining())
    return incoming


def read_to_the_end(main: Main, receiving: ReceivingChannels, ram: Ram) -> None:
    """Read all channels until they end."""
    deadline = time.monotonic() + LIMIT
    while not (main.is_over and receiving.is_over):
        assert time.monotonic() < deadline, f"{len(main.said)} bytes"
        moved = [main.step(), receiving.step()]
        if receiving.is_synced:
            receiving.resume()
            ram.batches.append([])
        elif not any(moved):
            waiting = Waiting()
            receiving.wait_on(waiting)
            if not main.is_over:
                waiting.add(main.stream, selectors.EVENT_READ)
            assert waiting.wait(LIMIT), "nothing more comes"


def received(folder: Path, channels: int) -> tuple[Main, Ram, str]:
    """Let a QEMU migrate to us: its main channel, its RAM, and what it said."""
    path = folder / "from.sock"
    incoming = IncomingChannels(
        listen_unix(str(path)),
        wanted=channels,
        uuid=bytes.fromhex(UUID.replace("-", "")),
        patience=LIMIT,
    )
    commands = (*with_channels(channels), f"migrate -d unix:{path}")
    with started(*commands) as qemu, contextlib.closing(incoming):
        admitted(incoming)
        assert not path.exists()
        assert sorted(incoming.channels) == list(range(channels))
        assert incoming.main is not None
        ram, main = Ram(), Main(incoming.main)
        receiving = ReceivingChannels(ram.place, wanted=channels)
        for channel, stream in incoming.channels.items():
            receiving.add(channel, stream)
        read_to_the_end(main, receiving, ram)
        return main, ram, said_of(qemu)


def connected(path: Path) -> SocketStream:
    """Connect to a QEMU that will listen soon."""
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            return connect_unix(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            assert time.monotonic() < deadline, f"nobody listens at {path}"
            time.sleep(0.002)


def send_all(main: SocketStream, said: bytearray, sending: SendingChannels) -> None:
    """Send all channels until they end."""
    rest, deadline = memoryview(said), time.monotonic() + LIMIT
    while rest or not sending.is_over:
        assert time.monotonic() < deadline, f"{len(rest)} bytes are left"
        taken = main.send(rest)
        rest = rest[taken:]
        if not (sending.step() or taken):
            waiting = Waiting()
            sending.wait_on(waiting)
            if rest:
                waiting.add(main, selectors.EVENT_WRITE)
            assert waiting.wait(LIMIT), "nothing more is taken"
    main.finish()


def wait_for_the_end(main: SocketStream) -> None:
    """Wait until QEMU has closed its end: then it has loaded all, or given up."""
    with selectors.DefaultSelector() as selector:
        number = main.fileno()
        assert number is not None
        selector.register(number, selectors.EVENT_READ)
        assert selector.select(LIMIT), "it still loads"
        assert main.receive_into(memoryview(bytearray(1))) == 0


def rewrite(ram: Ram, block: str, offset: int, words: bytes) -> None:
    """Change what the channels brought of a block."""
    first, fresh = offset % PAGE, np.frombuffer(words, np.uint8)
    changed = 0
    for batch in itertools.chain.from_iterable(ram.batches):
        rows = np.flatnonzero(batch.offsets == offset - first)
        if batch.block == block and rows.size:
            assert isinstance(batch.pages, np.ndarray)
            batch.pages[rows, first : first + len(words)] = fresh
            changed += 1
    assert changed


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_qemus_channels_bring_its_ram(folder: Path, channels: int) -> None:
    main, ram, said = received(folder, channels)
    assert "Migration status: completed" in said
    assert f"normal: {ram.pages} pages" in said
    # SYNCs stand before the first round, behind it and behind the last, at least.
    assert len(ram.batches) > 3
    assert main.said[:8] == b"QEVM\0\0\0\3"
    assert ram.blocks["pc.bios"].startswith(BIOS.read_bytes())


def test_qemu_takes_what_our_channels_send(folder: Path) -> None:
    main, ram, _ = received(folder, 2)
    # What no QEMU has there by itself: where the BIOS ends, below 4 GiB.
    written = b"sent by channels"
    rewrite(ram, "pc.bios", BIOS.stat().st_size - len(written), written)
    path = folder / "to.sock"
    commands = (*with_channels(3), f"migrate_incoming unix:{path}")
    with (
        started(*commands, more=("-incoming", "defer")) as qemu,
        contextlib.ExitStack() as opened,
    ):
        streams = [connected(path) for _ in range(4)]
        for stream in streams:
            opened.callback(stream.close)
        sending = SendingChannels(
            streams[1:], uuid=bytes.fromhex(UUID.replace("-", ""))
        )
        for batches in ram.batches[:-1]:
            for batch in batches:
                sending.put(batch)
            sending.sync()
        sending.finish()
        send_all(streams[0], main.said, sending)
        wait_for_the_end(streams[0])
        said = said_of(qemu, "info status", "xp /16xb 0xfffffff0")
    assert "Migration status: completed" in said
    shown = re.findall(r"0x([0-9a-f]{2})(?= |$)", said.rpartition("xp /16xb")[2], re.M)
    assert bytes.fromhex("".join(shown)) == written
