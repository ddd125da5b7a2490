"""What a bench does to a device, noted in its history, and who died of it.

It is called on the driver itself, beside every handle; what it raises kills the driver
as surely as what an access raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import xxhash

from vfiomig.protocol.errors import DriverDiedError
from vfiomig.protocol.history import BenchEvent

if TYPE_CHECKING:
    from vfiomig.client.recorder import HistoryWriter
    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.protocol.bench import BenchAccess


class Snapshot(NamedTuple):
    """All state that a migration must carry, and its digest (xxh3-128, in hex)."""

    state: bytes | bytearray | memoryview
    digest: str


class NotedBench:
    """What there is of a driver's `Bench`; a history calls the device ``label``.

    ``device`` (party and name) is told of a driver that dies.
    """

    def __init__(
        self,
        driver: TrappedDriver,
        members: BenchAccess,
        label: str,
        log: HistoryWriter | None,
        *,
        device: tuple[str, str] | None = None,
    ) -> None:
        self._driver = driver
        self.members = members
        self._label = label
        self._log = log
        self._device = device

    def work(self, amount: int) -> None:
        """Let guest traffic reach the device, if it has any.

        Raises:
            DriverDiedError: the driver raised.
        """
        if self.members.work is None or not amount:
            return
        try:
            self.members.work(amount)
        except Exception as error:
            raise self._died(f"work({amount})", error) from error
        self._note(BenchEvent(self._label, "work", amount=amount))

    def snapshot(self) -> Snapshot | None:
        """Return the device's snapshot; ``None`` if it offers none.

        Raises:
            DriverDiedError: the driver raised, or returned something else.
        """
        if self.members.snapshot is None:
            return None
        try:
            state = self.members.snapshot()
            if not isinstance(state, bytes | bytearray | memoryview):
                message = f"it returned {type(state).__name__}, not bytes"
                raise TypeError(message)
            digest = xxhash.xxh3_128_hexdigest(state)
        except Exception as error:
            raise self._died("snapshot()", error) from error
        self._note(BenchEvent(self._label, "snapshot", digest=f"xxh3-128:{digest}"))
        return Snapshot(state, digest)

    def fail(self, on: str, code: int) -> None:
        """Arm a fault inside the device, which offers `fail`.

        Raises:
            DriverDiedError: the driver raised.
        """
        assert self.members.fail is not None, "whoever asks has looked"
        try:
            self.members.fail(on, code)
        except Exception as error:
            raise self._died(f"fail({on!r}, {code})", error) from error
        self._note(BenchEvent(self._label, "fail", on=on, errno=code))

    def _note(self, event: BenchEvent) -> None:
        if self._log is not None:
            self._log.append(event)

    def _died(self, access: str, error: Exception) -> DriverDiedError:
        death = DriverDiedError.of(self._driver, access, error)
        death.device = self._device
        return death
