"""The other channels of a migration, beside the two parties of `exchange`.

What goes wrong with a channel is raised inside the party that it belongs to, where its
step is; when a party is over, so are its channels.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vfiomig.migration.ram_channels import ReceivingChannels, SendingChannels
from vfiomig.protocol.errors import VfiomigError

if TYPE_CHECKING:
    import selectors

    from vfiomig.migration.exchange import Party
    from vfiomig.migration.ram_loading import PagePlaces
    from vfiomig.migration.transport import ByteStream, IncomingChannels, Listener

_LOOK: Final = 0.05  # seconds: a transport without a descriptor is looked at so often


class SendingBeside:
    """The source's channels; a `Beside`."""

    def __init__(self, party: Party[Any], channels: SendingChannels) -> None:
        self._party = party
        self._channels = channels
        self._has_ended = False

    def step(self) -> bool:
        """Send what can be sent; end with the party."""
        if self._has_ended:
            return False
        if self._party.is_over:
            self._has_ended = True
            if self._channels.is_idle:
                self._channels.finish()
            else:
                self._channels.close()
            return True
        try:
            return self._channels.step()
        except (OSError, VfiomigError) as error:
            self._has_ended = True
            self._party.fail(error)
            return True

    def wait_on(self, selector: selectors.BaseSelector) -> bool:
        """Register the channels that wait."""
        return not self._has_ended and self._channels.wait_on(selector)


class ReceivingBeside:
    """The destination's channels; a `Beside`."""

    def __init__(self, party: Party[Any], channels: ReceivingChannels) -> None:
        self._party = party
        self._channels = channels
        self._has_ended = False

    def step(self) -> bool:
        """Receive what is there; end with the party."""
        if self._has_ended:
            return False
        if self._party.is_over:
            self._has_ended = True
            self._channels.close()
            return True
        try:
            return self._channels.step()
        except (OSError, VfiomigError) as error:
            self._has_ended = True
            self._party.fail(error)
            return True

    def wait_on(self, selector: selectors.BaseSelector) -> bool:
        """Register the channels that wait."""
        return not self._has_ended and self._channels.wait_on(selector)


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
    incoming: IncomingChannels, source: Party[Any], sending: SendingBeside
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
        number = incoming.fileno()
        waited = min(_LOOK, incoming.remaining())
        if number is not None:
            select.select([number], [], [], waited)


def receive_all(incoming: IncomingChannels, places: PagePlaces) -> ReceivingChannels:
    """Return the destination's channels, all of which have come."""
    channels = incoming.channels
    receiving = ReceivingChannels(places.place, wanted=len(channels), room=places.room)
    for number, stream in channels.items():
        receiving.add(number, stream)
    return receiving
