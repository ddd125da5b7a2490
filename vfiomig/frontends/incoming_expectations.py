"""What a stream should bring: the digests of an earlier report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.scenario import ScenarioError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NO_REPORT: Final = "it is no report of vfiomig migrate --json or vfiomig qemu --json"


class ExpectationError(ScenarioError):
    """A report that nothing can be compared with; ``str()`` is ``FILE: reason``."""


def read_expectations(path: Path) -> dict[str, str]:
    """Return digests of what each device was when its source stopped, by its name.

    RAM's is called ``ram``.  A name of QEMU's side, ``source/serial``, is ``serial``.

    Raises:
        OSError: it cannot be read.
        ExpectationError: it is no report that has such digests.
    """
    try:
        document = msgspec.json.decode(path.read_bytes())
        found = dict(_digests(document["devices"]))
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError, ValueError):
        raise ExpectationError(f"{plain(str(path))}: {_NO_REPORT}") from None
    if not found:
        message = f"{plain(str(path))}: no device of it was stopped as a source"
        raise ExpectationError(message)
    return found


def _digests(devices: Any) -> Iterator[tuple[str, str]]:
    pairs = (
        [(name, account["at_stop"]) for name, account in devices.items()]
        if isinstance(devices, dict)
        else [(each["name"], _at_stop(each)) for each in devices]
    )
    for name, digest in pairs:
        if digest is not None:
            if not isinstance(name, str) or not isinstance(digest, str):
                raise TypeError
            yield name.rpartition("/")[2], digest


def _at_stop(device: Any) -> Any:
    if "snapshots" in device:
        return device["snapshots"]["source_at_stop"]
    return device["source_at_stop"]
