"""Migrations of scripted devices, and steps that are performed by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import repeat
from typing import TYPE_CHECKING

from tests.unit.client.scripted_driver import OpenDevice, Refusal, ScriptedDriver
from vfiomig.migration.clock import Channel, LinkModel, VirtualClock
from vfiomig.migration.convergence import DowntimeEstimate, Limits
from vfiomig.migration.destination import Destination
from vfiomig.migration.exchange import Party, Receive, Send, Steps, exchange
from vfiomig.migration.metrics import Metrics
from vfiomig.migration.source import Source
from vfiomig.migration.transport import make_memory_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vfiomig.migration.side import Ending
    from vfiomig.migration.transport import ByteStream

# Small enough that pre-copy goes on until nothing is pending, as QEMU's does before
# it has measured a bandwidth.
PATIENT = Limits(downtime=0, rounds=1000)
LINK = LinkModel(bandwidth=1 << 30, latency=1000)

BUFFER = (0x1000, 8)


def opened(
    *,
    pending: Sequence[int | Callable[[], int]] = (),
    state: int = 1,
    refusals: Sequence[Refusal] = (),
    resets_to: int = 1,
) -> OpenDevice:
    """Open a scripted device whose buffers are all 8 bytes at 0x1000."""
    driver = ScriptedDriver(
        pending=pending,
        buffers=repeat(BUFFER),
        state=state,
        refusals=[replace(refusal) for refusal in refusals],
        resets_to=resets_to,
    )
    return OpenDevice(driver)


@dataclass(slots=True)
class ScriptedGuest:
    """Does something at each look at the pending bytes, in turn."""

    actions: Iterator[Callable[[], object] | None]

    def run_until(self, now: int) -> None:
        if (action := next(self.actions, None)) is not None:
            action()


def migrate(
    source: OpenDevice | Sequence[OpenDevice],
    destination: OpenDevice | Sequence[OpenDevice] | None = None,
    *,
    guest: Sequence[Callable[[], object] | None] = (),
    limits: Limits = PATIENT,
    link: Callable[[ByteStream], ByteStream] | None = None,
    starts_vm: bool = True,
) -> tuple[Ending, Ending]:
    """Migrate; without a destination to look at, to one that takes everything."""
    devices = [source] if isinstance(source, OpenDevice) else list(source)
    if destination is None:
        spares = [OpenDevice(ScriptedDriver()) for _ in devices]
    else:
        spares = []
        if isinstance(destination, OpenDevice):
            destination = [destination]
    there, here = VirtualClock(), VirtualClock()
    out, back = make_memory_pair()
    near = out if link is None else link(out)
    sending = Source(
        [device.participant for device in devices],
        clock=there,
        estimate=DowntimeEstimate(link=LINK),
        limits=limits,
        metrics=Metrics(),
        guest=ScriptedGuest(iter(guest)),
    )
    names = [device.participant.name for device in devices]
    receiving = Destination(
        [
            device.participant._replace(name=name)
            for name, device in zip(names, destination or spares, strict=True)
        ],
        clock=here,
        metrics=Metrics(),
        starts_vm=starts_vm,
    )
    forth = Channel(LINK, there, here)
    left = Party(sending.migrate(), near, outgoing=forth)
    right = Party(receiving.load(), back, incoming=forth)
    exchange(left, right)
    for spare in spares:
        spare.__exit__()
    return left.result(), right.result()


def sent_by(steps: Steps[Ending]) -> tuple[bytes, Ending]:
    """Perform steps that only send."""
    stream = bytearray()
    try:
        step = next(steps)
        while True:
            assert isinstance(step, Send)
            stream += step.view
            step = steps.send(len(step.view))
    except StopIteration as end:
        return bytes(stream), end.value


def given_to(steps: Steps[Ending], stream: bytes) -> Ending:
    """Perform steps that only receive; the stream is all there is."""
    try:
        step = next(steps)
        while True:
            assert isinstance(step, Receive)
            piece, stream = stream[: len(step.view)], stream[len(step.view) :]
            step.view[: len(piece)] = piece
            step = steps.send(len(piece))
    except StopIteration as end:
        ending: Ending = end.value
        return ending
