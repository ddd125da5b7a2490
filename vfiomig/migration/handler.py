"""What takes part in a stream, one after another: QEMU's SaveVMHandlers.

RAM is one, and so is every device.  The methods carry the names of the handlers in
QEMU's include/migration/register.h; those that send are steps (`exchange`), and each
counts what it sent in the metrics that it was made with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vfiomig.migration.exchange import Steps
    from vfiomig.migration.metrics import Round


class SaveHandler(Protocol):
    """One participant; ``name`` is what a person calls it."""

    @property
    def name(self) -> str:
        """What to call it in an error."""

    def save_setup(self) -> Steps[None]:
        """Begin: the START section."""

    def pending_estimate(self) -> int:
        """Return bytes that are pending, without looking closely (since QEMU 8.0)."""

    def pending_exact(self, threshold: int) -> int:
        """Return bytes that are pending; below ``threshold`` RAM looks for new ones."""

    def save_iterate(self, current: Round) -> Steps[bool]:
        """Take a turn of pre-copy; True when nothing is left for now."""

    def save_complete_precopy(self) -> Steps[None]:
        """Send all that is left, the machine being stopped: the END section."""

    def save_state(self) -> Steps[None]:
        """Send what goes in one piece: the FULL section, if it has one."""


class LoadHandler(Protocol):
    """One participant at the destination.

    Each method reads one section, from behind its id to its footer included, and
    raises ``StreamError`` at what is not right there.
    """

    @property
    def name(self) -> str:
        """What to call it in an error."""

    def load_start(self, section: int) -> Steps[None]:
        """Hold the START section against what this side has."""

    def load_part(self, section: int) -> Steps[None]:
        """Load a PART section."""

    def load_end(self, section: int) -> Steps[None]:
        """Load the END section."""

    def load_state(self, section: int) -> Steps[None]:
        """Load the FULL section, if it has one."""
