"""The link of a scenario: a transport, what breaks it, and the channels over it."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

from vfiomig.frontends.link_scenario import RSOCKET_MODEL, RSOCKETS
from vfiomig.frontends.scenario import ScenarioError
from vfiomig.migration.companions import (
    accept_all,
    connect_all,
    receive_all,
    receiving_beside,
    sending_beside,
)
from vfiomig.migration.exchange import Party, exchange
from vfiomig.migration.metrics import Outcome
from vfiomig.migration.ram_loading import PagePlaces
from vfiomig.migration.ram_pages import ChannelPages
from vfiomig.migration.side import Ending
from vfiomig.migration.transport import (
    LISTENERS,
    PAIRS,
    IncomingChannels,
    RsocketModel,
    Rsockets,
)
from vfiomig.migration.transport.faults import CutLink, FlipBit, Tee
from vfiomig.migration.transport.rsocket.librdmacm import Librdmacm
from vfiomig.migration.transport.rsocket.stream import ANYWHERE
from vfiomig.protocol.errors import VfiomigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vfiomig.frontends.scenario import Scenario
    from vfiomig.frontends.simulated_machine import SimulatedMachine
    from vfiomig.migration.clock import Channel
    from vfiomig.migration.exchange import Steps
    from vfiomig.migration.side import MigratingMachine
    from vfiomig.migration.transport.base import ByteStream, Listener, Pair
    from vfiomig.migration.transport.rsocket.library import Address

    Side = Callable[[MigratingMachine | None], Steps[Ending]]


class SimulatedLink:
    """What source and destination talk through; it closes all of it.

    ``tee`` is told of the stream as the destination gets it.  ``has_flipped`` and
    ``was_cut`` tell what the scenario did to it.
    """

    def __init__(
        self, scenario: Scenario, tee: Callable[[memoryview], object] | None
    ) -> None:
        self._scenario = scenario
        self._tee = tee
        self._streams: list[ByteStream] = []
        self._incoming: IncomingChannels | None = None
        self._cut: CutLink | None = None
        self._flip: FlipBit | None = None

    @property
    def was_cut(self) -> bool:
        """Whether the scenario's cut came."""
        return self._cut is not None and self._cut.happened

    @property
    def flips(self) -> bool:
        """Whether a bit arrives flipped."""
        return self._flip is not None

    def run(
        self,
        source: Side,
        destination: Side,
        machines: tuple[SimulatedMachine, SimulatedMachine],
        dated: tuple[Channel, Channel],
    ) -> list[Ending]:
        """Let both sides run to their ends.

        Raises:
            OSError, VfiomigError: the link does not come to stand.
        """
        if self._scenario.parameters.multifd:
            return self._run_by_channels(source, destination, machines, dated)
        forth, back = dated
        near, far = self._pair()
        self._streams += near, far
        first = Party(
            source(machines[0].migrating()),
            self._damaged(near),
            outgoing=forth,
            incoming=back,
        )
        second = Party(
            destination(machines[1].migrating()), far, outgoing=back, incoming=forth
        )
        exchange(first, second)
        return [first.result(), second.result()]

    def _run_by_channels(
        self,
        source: Side,
        destination: Side,
        machines: tuple[SimulatedMachine, SimulatedMachine],
        dated: tuple[Channel, Channel],
    ) -> list[Ending]:
        forth, back = dated
        count = self._scenario.parameters.multifd_channels
        leaving, arriving = machines[0].migrating(), machines[1].migrating()
        assert leaving is not None, "multifd is of a machine"
        assert arriving is not None, "both sides have one"
        listener = self._listener()
        incoming = self._incoming = IncomingChannels(listener, wanted=count)
        out = connect_all(listener, count)
        self._streams += out.main, *out.streams
        sender = ChannelPages(out.channels, count)
        first = Party(
            source(leaving._replace(sender=sender)),
            self._damaged(out.main),
            outgoing=forth,
            incoming=back,
        )
        sending = sending_beside(first, out.channels)
        try:
            accept_all(incoming, first, sending)
        except (OSError, VfiomigError) as error:  # the destination never came to be
            first.fail(error)
            return [first.result(), Ending(Outcome.FAILED, error)]
        places = PagePlaces(arriving.machine.memory)
        received = receive_all(incoming, places)
        assert incoming.main is not None, "all have come"
        second = Party(
            destination(arriving._replace(channels=received, places=places)),
            incoming.main,
            outgoing=back,
            incoming=forth,
        )
        exchange(first, second, sending, receiving_beside(second, received))
        return [first.result(), second.result()]

    def _pair(self) -> Pair:
        """Return both ends of the main stream."""
        if (rsockets := self._rsockets()) is None:
            return PAIRS[self._scenario.transport]()
        with self._named():
            return rsockets.pair(self._address())

    def _listener(self) -> Listener:
        """Return where all channels come to."""
        if (rsockets := self._rsockets()) is None:
            return LISTENERS[self._scenario.transport]()
        with self._named():
            return rsockets.listen(self._address())

    def _rsockets(self) -> Rsockets | None:
        """Return the rsockets of this run, which wait as the scenario says."""
        if self._scenario.transport not in RSOCKETS:
            return None
        is_model = self._scenario.transport == RSOCKET_MODEL
        with self._named():
            library = RsocketModel() if is_model else Librdmacm()
        return Rsockets(library, self._scenario.rsocket.wait)

    def _address(self) -> Address:
        host = self._scenario.rsocket.address
        return ANYWHERE if host is None else (host, 0)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Say of an error what it is about: RDMA is not everywhere."""
        try:
            yield
        except OSError as error:
            where = self._scenario.rsocket.address or ""
            why = error.strerror or str(error)
            file = self._scenario.file or "the built-in scenario"
            message = f"{file}: rsocket.address: {where}: {why}"
            if error.errno == errno.ENODEV:
                message += f' for RDMA; transport = "{RSOCKET_MODEL}" needs none'
            raise ScenarioError(message) from error

    def require_faults(self, sent: int) -> None:
        """Refuse a scenario that breaks a stream of ``sent`` bytes behind its end.

        Raises:
            ScenarioError: naming the key.
        """
        for key, fault in (("flip.byte", self._flip), ("cut", self._cut)):
            if fault is not None and not fault.happened:
                file = self._scenario.file or "the built-in scenario"
                reason = f"the stream has only {sent} bytes"
                raise ScenarioError(f"{file}: link.{key}: {reason}")

    def close(self) -> None:
        """Let everything go that is still held."""
        for stream in self._streams:
            stream.close()
        if self._incoming is not None:
            self._incoming.close()

    def _damaged(self, near: ByteStream) -> ByteStream:
        """Return the source's end with what the scenario wants of it in front."""
        if self._tee is not None:
            near = Tee(near, self._tee)
        link = self._scenario.link
        if link.flip is not None:
            near = self._flip = FlipBit(near, link.flip.byte, link.flip.bit)
        if link.cut is not None:
            near = self._cut = CutLink(near, link.cut)
        return near
