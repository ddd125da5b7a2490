"""Steps that are fed by hand: a stream in pieces, and a source whose bytes are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vfiomig.migration.exchange import (
    Consumed,
    OffersRows,
    Receive,
    ReceiveRows,
    ReceiveSome,
    Send,
)

if TYPE_CHECKING:
    from vfiomig.migration.clock import LinkModel, VirtualClock
    from vfiomig.migration.exchange import Step, Steps


def feed(
    steps: Steps[Any], stream: bytes, piece: int = 1 << 20, *, rows: bool = False
) -> tuple[int, int]:
    """Give ``stream`` to steps that receive, where they look ahead in pieces.

    With ``rows`` they may receive into rows. Return how many bytes they took, and how
    many of those they said they used.
    """
    taken = used = 0
    try:
        step = next(steps)
        while True:
            if isinstance(step, Consumed):
                used += step.size
                step = steps.send(0)
                continue
            if isinstance(step, OffersRows):
                step = steps.send(int(rows))
                continue
            if isinstance(step, ReceiveRows):
                size = _into_rows(step, memoryview(stream)[taken:], piece)
                taken += size
                step = steps.send(size)
                continue
            assert isinstance(step, Receive | ReceiveSome)
            most = len(step.view)
            if isinstance(step, ReceiveSome):
                most = min(most, max(piece, step.least))
            part = stream[taken : taken + most]
            step.view[: len(part)] = part
            taken += len(part)
            if isinstance(step, Receive):
                used += len(part)
            step = steps.send(len(part))
    except StopIteration:
        return taken, used


def _into_rows(step: ReceiveRows, stream: memoryview, piece: int) -> int:
    """Fill rows piece by piece while they agree; return how much that was."""
    span, size = step.view, 0
    while size < len(span) and size < len(stream):
        part = stream[size : min(size + piece, len(span))]
        part = part[:piece]
        span[size : size + len(part)].copy_from(part)
        size += len(part)
        if not step.agrees(size):
            break
    return size


def sent(
    steps: Steps[Any],
    clock: VirtualClock | None = None,
    link: LinkModel | None = None,
) -> list[bytes]:
    """Perform steps that send, one piece each; the link, if any, takes its time."""
    pieces: list[bytes] = []
    try:
        step: Step = next(steps)
        while True:
            assert isinstance(step, Send)
            pieces.append(b"".join(bytes(part) for part in (step.view, *step.more)))
            if clock is not None and link is not None:
                clock.advance(link.duration(step.size))
            step = steps.send(step.size)
    except StopIteration:
        return pieces
