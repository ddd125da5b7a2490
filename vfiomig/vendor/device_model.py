"""What stands behind a migration region.

`ReferenceDriver` speaks the v1 protocol, whatever the device; a model is the device:
its state, and the way of that state into chunks and out of them.  The driver asks,
the model never calls back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vfiomig.host.pci import Bar, Bus, PciIdentity


class DeviceModel(Protocol):
    """A device's state, and its way to and from a stream of chunks."""

    @property
    def kind(self) -> int:
        """Return the 32 bits that tell this device's stream from a foreign one."""

    @property
    def shape(self) -> int:
        """Return the 64 bits in which two devices must agree to share a stream."""

    def work(self, amount: int) -> None:
        """Carry ``amount`` units of guest traffic; only called while RUNNING."""

    def snapshot(self) -> memoryview:
        """Return a read-only view of all state that a migration must carry."""

    def power_on(self) -> None:
        """Take the state of a device that was just reset; saving and loading end."""

    def begin_saving(self) -> None:
        """Start a session: all state is to be sent."""

    def pending(self, *, running: bool) -> int:
        """Return the payload bytes that `save` would still give now."""

    def save(self, payload: memoryview, *, running: bool) -> int:
        """Fill ``payload`` with the next piece of state and return its size.

        The size is positive whenever something is pending.  While the device does
        not run, repeated calls end with nothing pending.
        """

    def requeue(self) -> None:
        """Take the last piece as unread: its state is pending again."""

    def end_saving(self) -> None:
        """End the session; what was not sent is forgotten."""

    def begin_loading(self) -> None:
        """Get ready for pieces; `snapshot` shows none of them before they are all in.

        Where it does, `drop_loading` brings back what was there.
        """

    def load(self, payload: memoryview) -> None:
        """Take one piece, perhaps one that came before (see `requeue`).

        Raises ``OSError(EINVAL)`` for content that no device of this shape sends.
        """

    def finish_loading(self) -> None:
        """Make what came the device's state.

        Raises ``OSError(EINVAL)`` if a part is missing.
        """

    def drop_loading(self) -> None:
        """Forget what came: `snapshot` is what it was before `begin_loading`."""


class PciModel(DeviceModel, Protocol):
    """A model that is a PCI function: `PciReferenceDriver` stands before it."""

    @property
    def identity(self) -> PciIdentity:
        """Return who it is."""

    @property
    def bars(self) -> tuple[Bar, ...]:
        """Return its BARs."""

    def connect(self, bus: Bus) -> None:
        """Get to know the bus; at most once, before anything else."""

    def read_bar(self, bar: int, offset: int, size: int) -> bytes:
        """Answer one access of the guest; only called while RUNNING."""

    def write_bar(self, bar: int, offset: int, data: bytes) -> None:
        """Take one access of the guest; only called while RUNNING."""

    def drive_interrupt(self) -> None:
        """Let the interrupt line be what the state says; `snapshot` is as before.

        Called after a reset and when the device begins to run.
        """
