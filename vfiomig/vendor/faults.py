"""Faults that a bench arms and an access sets off (`Bench.fail`)."""

from __future__ import annotations

import errno
import os
from typing import Final

FAULT_SITES: Final = (
    "device_state",
    "pending_bytes",
    "data_offset",
    "data_size",
    "data",
)


class ArmedFaults:
    """At most one fault for each kind of access; each goes off once."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def arm(self, on: str, code: int) -> None:
        """Make the next access ``on`` fail with the positive errno ``code``.

        Raises:
            ValueError: there is no such access, or ``code`` is no errno.
        """
        if on not in FAULT_SITES:
            message = f"no access is called {on!r}: {', '.join(FAULT_SITES)}"
            raise ValueError(message)
        if code not in errno.errorcode:
            message = f"{code} is not an errno"
            raise ValueError(message)
        self._codes[on] = code

    def __bool__(self) -> bool:
        return bool(self._codes)

    def trip(self, *sites: str) -> None:
        """Raise the ``OSError`` of the first of these accesses that is armed."""
        for site in sites:
            if (code := self._codes.pop(site, None)) is not None:
                message = f"{os.strerror(code)}: fault injected on {site}"
                raise OSError(code, message)

    def clear(self) -> None:
        """Disarm all."""
        self._codes.clear()
