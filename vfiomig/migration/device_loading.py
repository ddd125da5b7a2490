"""A VFIO device's part in the stream at the destination: hw/vfio/migration.c of 7.2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.migration.clock import SECOND
from vfiomig.protocol.errors import DriverDiedError, ProtocolError, StreamError
from vfiomig.protocol.qemu_stream import framing
from vfiomig.uapi.qemu_stream import (
    VFIO_MIG_FLAG_DEV_DATA_STATE,
    VFIO_MIG_FLAG_END_OF_STATE,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.migration.clock import VirtualClock
    from vfiomig.migration.exchange import Steps
    from vfiomig.migration.incoming import Incoming
    from vfiomig.migration.metrics import Metrics
    from vfiomig.migration.observer import Observer
    from vfiomig.migration.side import MigratingDevice

# What is missing of a short buffer is given to the driver up to so many bytes beyond
# the piece in hand.  QEMU, told of a length beyond reason, would be at it for ever.
_MISSING_LIMIT: Final = 1 << 16


class DeviceLoading:
    """One device, a `LoadHandler`.

    ``load_bandwidth`` is the rate at which it takes data, in bytes a second; ``None``
    for no time at all.
    """

    def __init__(
        self,
        device: MigratingDevice,
        incoming: Incoming,
        *,
        clock: VirtualClock,
        metrics: Metrics,
        observer: Observer,
        load_bandwidth: int | None,
    ) -> None:
        self._device = device
        self._client = device.client
        self._incoming = incoming
        self._clock = clock
        self._metrics = metrics
        self._observer = observer
        self._load_bandwidth = load_bandwidth
        self._loaded = 0
        self.name = device.name

    def load_start(self, section: int) -> Steps[None]:
        """Read the START section, which says nothing but whose it is."""
        rest = framing.start_rest(self._device.idstr) + framing.section_foot(section)
        yield from self._incoming.expect(rest, f"the START section of {self.name}")

    def load_part(self, section: int) -> Steps[None]:
        """Take one buffer in, or the sign of none."""
        head = yield from self._incoming.take(framing.DATA_HEAD.size)
        tag, size = framing.DATA_HEAD.unpack(head)
        if tag != VFIO_MIG_FLAG_DEV_DATA_STATE:
            self._incoming.fail(f"unknown tag {tag:#x}")
        yield from self._load_data(size)
        rest = framing.END_OF_STATE + framing.section_foot(section)
        yield from self._incoming.expect(rest, "the end of a PART section")

    def load_end(self, section: int) -> Steps[None]:
        """Take in all that the stopped source had."""
        tag = yield from self._take_tag()
        while tag == VFIO_MIG_FLAG_DEV_DATA_STATE:
            yield from self._load_data((yield from self._take_tag()))
            tag = yield from self._take_tag()
        if tag != VFIO_MIG_FLAG_END_OF_STATE:
            self._incoming.fail(f"unknown tag {tag:#x}")
        foot = framing.section_foot(section)
        yield from self._incoming.expect(foot, "a section's footer")

    def load_state(self, section: int) -> Steps[None]:
        """Take in the configuration space.

        Raises:
            StreamError: it is not the one of this device.
        """
        own = self._device.config
        if own is None:
            self._incoming.fail(f"{self.name} has no FULL section")
        began = self._incoming.position
        rest = framing.full_rest(self._device.idstr)
        yield from self._incoming.expect(rest, f"the FULL section of {self.name}")
        config = yield from self._incoming.take(len(own))
        if (place := framing.first_difference(config, own)) is not None:
            message = (
                f"{self.name}: byte {place:#04x} of its configuration space is "
                f"{config[place]:#04x}, and here {own[place]:#04x}"
            )
            raise StreamError(message, position=began + len(rest) + place)
        own[:] = config
        rest = framing.config_rest(section)
        yield from self._incoming.expect(rest, "the end of a FULL section")

    def _load_data(self, size: int) -> Steps[None]:
        """Give one buffer to the device, straight from the stream."""
        if not size:  # QEMU loads no buffer for a record of nothing
            return
        self._observer.buffer_will_load(self.name, self._loaded, size)
        places = self._client.load_buffer(size)
        for view in places:
            try:
                yield from self._incoming.fill(view)
            except (OSError, StreamError):
                if self._client.conduct.commits_short_buffers:
                    _give_short_buffer(places)
                raise
        self._loaded += 1
        self._metrics.loaded_device_bytes += size
        if self._load_bandwidth is not None:
            self._clock.advance(size * SECOND // self._load_bandwidth)

    def _take_tag(self) -> Steps[int]:
        tag = yield from self._incoming.take(framing.TAG.size)
        return int.from_bytes(tag, "big")


def _give_short_buffer(places: Iterator[memoryview]) -> None:
    """Let the driver have a buffer whose rest never came: vfio_load_buffer.

    What lies in the window, or was never written, stands for the rest.  If the driver
    refuses it, that is no news: the stream's end is.
    """
    given = 0
    try:
        while given < _MISSING_LIMIT:
            given += len(next(places))
    except StopIteration:
        return
    except DriverDiedError:
        raise
    except (OSError, ProtocolError):
        return
