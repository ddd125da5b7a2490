"""The other channels of a migration, beside the two parties of `exchange`.

What goes wrong with a channel is raised inside the party that it belongs to, where its
step is; when a party is over, so are its channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vfiomig.migration.ram_channels import ReceivingChannels, SendingChannels
from vfiomig.migration.transport.waiting import Waiting
from vfiomig.protocol.errors import VfiomigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.migration.exchange import Party
    from vfiomig.migration.ram_loading import PagePlaces
    from vfiomig.migration.transport import ByteStream, IncomingChannels, Listener

_LOOK: Final = 0.05  # seconds: a transport without a descriptor is looked at so often


class ChannelsBeside:
    """The channels of one party; a `Beside`.  ``let_go`` ends them with the party."""

    def __init__(
        self,
        party: Party[Any],
        channels: SendingChannels | ReceivingChannels,
        let_go: Callable[[], None],
    ) -> None:
        self._party = party
        self._channels = channels
        self._let_go = let_go
        self._has_ended = False

    def step(self) -> bool:
        """Move what can be moved; end with the party."""
        if self._has_ended:
            return False
        if self._party.is_over:
            self._has_ended = True
            self._let_go()
            return True
        try:
            return self._channels.step()
        except (OSError, VfiomigError) as error:
            self._has_ended = True
            self._party.fail(error)
            return True

    def wait_on(self, waiting: Waiting) -> None:
        """Add the channels that wait."""
        if not self._has_ended:
            self._channels.wait_on(waiting)


def sending_beside(source: Party[Any], channels: SendingChannels) -> ChannelsBeside:
    """Return the source's channels: they finish, or are cut off where some is left."""

    def let_go() -> None:
        if channels.is_idle:
            channels.finish()
        else:
            channels.close()

    return ChannelsBeside(source, channels, let_go)


def receiving_beside(
    destination: Party[Any], channels: ReceivingChannels
) -> ChannelsBeside:
    """Return the destination's channels."""
    return ChannelsBeside(destination, channels, channels.close)


class Outgoing(NamedTuple):
    """The source's ends: the main stream, and the channels that pages go by."""

    main: ByteStream
    channels: SendingChannels
    streams: tuple[ByteStream, ...]


def connect_all(listener: Listener, count: int) -> Outgoing:
    """Connect the main channel and ``count`` others.

    Raises:
        OSError: the listener refuses.
    """
    main = listener.connect()
    others = tuple(listener.connect() for _ in range(count))
    return Outgoing(main, SendingChannels(others), others)


def accept_all(
    incoming: IncomingChannels, source: Party[Any], sending: ChannelsBeside
) -> None:
    """Let the source go on until all its channels have come and were told apart.

    Raises:
        ChannelsError, OSError: one did not come, or should not have.
    """
    while not incoming.is_complete:
        moved = source.step()
        moved |= sending.step()
        moved |= incoming.step()
        if moved or incoming.is_complete:
            continue
        waiting = Waiting()
        incoming.wait_on(waiting)
        waiting.wait(min(_LOOK, incoming.remaining()))


def receive_all(incoming: IncomingChannels, places: PagePlaces) -> ReceivingChannels:
    """Return the destination's channels, all of which have come."""
    channels = incoming.channels
    receiving = ReceivingChannels(places.place, wanted=len(channels), room=places.room)
    for number, stream in channels.items():
        receiving.add(number, stream)
    return receiving
