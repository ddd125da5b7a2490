"""What may be wrong with a TARGET."""

from __future__ import annotations

from vfiomig.protocol.errors import VfiomigError


class TargetError(VfiomigError):
    """The TARGET cannot be read, or names nothing that makes a driver (exit 2)."""


class TargetStartError(VfiomigError):
    """The code that the TARGET names did not give a driver (exit 3)."""
