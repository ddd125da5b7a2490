"""Migrations of scripted devices, and steps that are performed by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import TYPE_CHECKING

from tests.unit.client.scripted_driver import OpenDevice, Refusal, ScriptedDriver
from vfiomig.client.conduct import QEMU_7_2, Conduct
from vfiomig.migration.clock import Channel, LinkModel, VirtualClock
from vfiomig.migration.convergence import DowntimeEstimate, Limits
from vfiomig.migration.destination import Destination
from vfiomig.migration.exchange import Party, Receive, Send, Steps, exchange
from vfiomig.migration.metrics import Metrics
from vfiomig.migration.source import Source
from vfiomig.migration.transport import ByteStream, make_memory_pair

if TYPE_CHECKING:
    from vfiomig.migration.observer import Observer
    from vfiomig.migration.side import Ending
    from vfiomig.migration.transport import Pair

# Small enough that pre-copy goes on until nothing is pending, as QEMU's does before
# it has measured a bandwidth.
PATIENT = Limits(downtime=0, rounds=1000)
LINK = LinkModel(bandwidth=1 << 30, latency=1000)

BUFFER = (0x1000, 8)

Wrap = Callable[[ByteStream], ByteStream]


def opened(
    *,
    pending: Sequence[int | Callable[[], int]] = (),
    state: int = 1,
    refusals: Sequence[Refusal] = (),
    resets_to: int = 1,
    name: str = "a",
    conduct: Conduct = QEMU_7_2,
) -> OpenDevice:
    """Open a scripted device whose buffers are all 8 bytes at 0x1000."""
    driver = ScriptedDriver(
        pending=pending,
        buffers=repeat(BUFFER),
        state=state,
        refusals=[replace(refusal) for refusal in refusals],
        resets_to=resets_to,
    )
    return OpenDevice(driver, name=name, conduct=conduct)


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
    link: Wrap = lambda stream: stream,
    return_path: Wrap = lambda stream: stream,
    starts_vm: bool = True,
    metrics: Metrics | None = None,
    observer: Observer | None = None,
    make_pair: Callable[[], Pair] = make_memory_pair,
    load_bandwidth: int | None = None,
) -> tuple[Ending, Ending]:
    """Migrate; without a destination to look at, to one that takes everything."""
    sources = [source] if isinstance(source, OpenDevice) else list(source)
    if destination is None:
        names = [device.participant.name for device in sources]
        targets = spares = [OpenDevice(ScriptedDriver(), name=name) for name in names]
    else:
        spares = []
        if isinstance(destination, OpenDevice):
            destination = [destination]
        targets = list(destination)
    metrics = metrics or Metrics()
    there, here = VirtualClock(), VirtualClock()
    out, back = make_pair()
    sending = Source(
        [device.participant for device in sources],
        clock=there,
        estimate=DowntimeEstimate(link=LINK, load_bandwidth=load_bandwidth),
        limits=limits,
        metrics=metrics,
        guest=ScriptedGuest(iter(guest)),
        observer=observer,
    )
    receiving = Destination(
        [device.participant for device in targets],
        clock=here,
        metrics=metrics,
        starts_vm=starts_vm,
        observer=observer,
        load_bandwidth=load_bandwidth,
    )
    forth, answer = Channel(LINK, there, here), Channel(LINK, here, there)
    left = Party(sending.migrate(), link(out), outgoing=forth, incoming=answer)
    right = Party(receiving.load(), return_path(back), outgoing=answer, incoming=forth)
    exchange(left, right, patience=1)
    for end in (out, back):
        end.close()
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
            stream += b"".join(map(bytes, (step.view, *step.more)))
            step = steps.send(step.size)
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
