"""What a driver may raise, and what is its death.

Rule: an OSError with an errno reaches the user application, as what a driver in C
returns does.  Anything else kills the driver: `DriverDiedError`, with the access and
the line of its source.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
from typing import NoReturn

from vfiomig.protocol.errors import DriverDiedError, class_of


def reraise(driver: object, error: BaseException, access: str, member: str) -> NoReturn:
    """Let through what a driver may raise; anything else is its death.

    ``member`` is what this access asked of the driver.
    """
    if isinstance(error, KeyboardInterrupt | DriverDiedError):
        raise error
    if isinstance(error, OSError) and _is_errno(error.errno):
        raise error
    if isinstance(error, OSError) and _is_lone_errno(error.args):
        code = error.args[0]
        raise OSError(code, errno.errorcode.get(code, "")) from error
    died = DriverDiedError.of(driver, access, error)
    if error.__traceback__ is None or error.__traceback__.tb_next is None:
        where = _place_of(driver, member)  # the driver was not even entered
        died = DriverDiedError(access, where, died.error)
    raise died from error


def answer_of(driver: object, data: object, size: int, access: str) -> bytes:
    """Take any kind of bytes for an answer, but never more than were asked for."""
    answer = _bytes_of(driver, data, access, "read")
    if len(answer) <= size:
        return answer
    got = f"it answered with {len(answer)} bytes"
    raise DriverDiedError(access, _place_of(driver, "read"), got)


def bar_answer_of(driver: object, data: object, size: int, access: str) -> bytes:
    """Take any kind of bytes, of a BAR: a bus has no short reads."""
    answer = _bytes_of(driver, data, access, "read_bar")
    if len(answer) == size:
        return answer
    got = f"it answered with {len(answer)} bytes"
    raise DriverDiedError(access, _place_of(driver, "read_bar"), got)


def impossible(driver: object, access: str, what: str) -> DriverDiedError:
    """Make an error of what a driver says of itself and no function can be."""
    return DriverDiedError(access, _place_of(driver, ""), what)


def _bytes_of(driver: object, data: object, access: str, member: str) -> bytes:
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    got = f"it answered with {type(data).__name__}"
    raise DriverDiedError(access, _place_of(driver, member), got)


def _is_lone_errno(arguments: tuple[object, ...]) -> bool:
    """Tell ``OSError(errno.EINVAL)``, which Python takes for a message."""
    return len(arguments) == 1 and _is_errno(arguments[0])


def _is_errno(code: object) -> bool:
    # A negative one is a habit of C: nobody above would know it.
    return isinstance(code, int) and code > 0


def _place_of(driver: object, member: str) -> str:
    """Name the line where a driver defines a member, or else its class."""
    for place in (getattr(type(driver), member, None), type(driver)):
        with contextlib.suppress(OSError, TypeError):  # not there, or not in Python
            line = inspect.getsourcelines(place)[1]  # type: ignore[arg-type]
            return f"{inspect.getsourcefile(place)}:{line}"  # type: ignore[arg-type]
    return class_of(driver)
