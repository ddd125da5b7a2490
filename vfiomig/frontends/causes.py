"""Why a migration did not complete, in one line: the cause, not its echo."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vfiomig.protocol.errors import StreamError

if TYPE_CHECKING:
    from vfiomig.frontends.run_report import Death
    from vfiomig.migration.side import Ending


def cause_of(source: Ending, destination: Ending) -> str:
    """Name the side that failed first, its device, and the error.

    A side whose peer is gone fails with a broken stream: that is the echo.
    """
    if isinstance(source.error, ConnectionError) and destination.error is not None:
        return f"destination{_at(destination)}: {in_words(destination.error)}"
    return f"source{_at(source)}: {in_words(source.error)}"


def words_of_death(death: Death) -> str:
    """Say which driver died, of what, at which access, and where in its source."""
    what = f"{death.error} at {death.access} ({death.where})"
    return f"{death.party}, {death.device}: died: {what}"


def in_words(error: Exception | None) -> str:
    """Write an error down for a person: an errno by its name."""
    if isinstance(error, OSError) and error.errno is not None:
        name = errno.errorcode.get(error.errno, str(error.errno))
        return f"{name} ({error.strerror})"
    return str(error)


def _at(ending: Ending) -> str:
    """Name the device that an error came from, if it came from one."""
    is_of_device = not isinstance(ending.error, StreamError | ConnectionError)
    return f", {ending.device}" if ending.device and is_of_device else ""
