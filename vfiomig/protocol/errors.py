"""The exceptions of vfiomig.

::

    VfiomigError
    |-- ProtocolError              a peer said what the protocol does not allow
    |   |-- UserApplicationError
    |   |-- MessageError           a message of vfio-user that cannot be read
    |   `-- VendorDriverError
    |       `-- DriverDiedError    it raised what no errno stands for
    |           `-- DriverLostError  and what held it is gone: a server
    |-- StateError               asked for in the wrong state
    `-- StreamError              a migration stream that cannot be read

What crosses the simulated system calls is an ``OSError`` with an errno, as it would
be; it is not one of these.
"""

from __future__ import annotations

import traceback
from typing import Self


class VfiomigError(Exception):
    """Anything that vfiomig itself finds wrong; ``str()`` is one line for a person."""


class ProtocolError(VfiomigError):
    """A peer said something that the protocol does not allow."""


class UserApplicationError(ProtocolError):
    """The user application is at fault."""


class VendorDriverError(ProtocolError):
    """The vendor driver is at fault."""


class DriverDiedError(VendorDriverError):
    """The vendor driver raised something that is not an ``OSError``.

    ``access`` says what it was asked, ``where`` names the line of its source that
    raised, and ``error`` is the exception in one line.  ``device`` is set by who
    called it beside its fd, and knows which one that was.
    """

    device: tuple[str, str] | None = None  # party and name

    def __init__(self, access: str, where: str, error: str) -> None:
        super().__init__(f"died at {access}: {error} ({where})")
        self.access = access
        self.where = where
        self.error = error

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, str]]:
        """Cross from a worker to its parent: by default the message alone would."""
        return type(self), (self.access, self.where, self.error)

    @classmethod
    def of(cls, driver: object, access: str, error: BaseException) -> Self:
        """Make it of what a call into ``driver`` raised."""
        return cls(access, _where(driver, error), _in_one_line(error))


class DriverLostError(DriverDiedError):
    """What held the vendor driver is gone: a server that ended, hung, or talks garbage.

    ``where`` names it.  No other driver can be had of it.
    """


class MessageError(ProtocolError):
    """A message of vfio-user or XenStore that cannot be read; ``code`` is its errno."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class StateError(VfiomigError):
    """Something was asked for in a state that does not allow it.

    ``state`` is the one found and ``required`` names what would have done.
    """

    def __init__(self, message: str, *, state: object, required: object) -> None:
        super().__init__(message)
        self.state = state
        self.required = required


class StreamError(VfiomigError):
    """A migration stream that cannot be read.

    ``position`` is the byte of the stream, counted from 0, where that showed;
    ``reason`` is the message without it.
    """

    def __init__(self, message: str, *, position: int) -> None:
        super().__init__(f"byte {position} of the stream: {message}")
        self.position = position
        self.reason = message


def class_of(driver: object) -> str:
    """Name the class of a driver."""
    return f"{type(driver).__module__}.{type(driver).__qualname__}"


def _where(driver: object, error: BaseException) -> str:
    """Name the innermost line of the driver's own file that the error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    if len(frames) < 2:  # it was not even entered: the first frame is the caller's
        return class_of(driver)
    own = frames[1].filename
    line = [frame.lineno for frame in frames if frame.filename == own][-1]
    return f"{own}:{line}"


def _in_one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
