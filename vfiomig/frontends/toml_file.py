"""From a path to the tables of a TOML file, whatever the path leads to."""

from __future__ import annotations

import re
import stat
import tomllib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST: Final = 1 << 20  # bytes; one that a person wrote has a few thousand
_POSITION: Final = re.compile(r"(.*) \(at (line \d+, column \d+|end of document)\)")


def read_toml(path: Path) -> dict[str, object]:
    """Return what the file holds.

    Raises OSError when it cannot be read, and ValueError when it is not TOML, with the
    line and the reason.
    """
    try:
        return tomllib.loads(_content(path).decode())
    except UnicodeDecodeError as error:
        reason = f"byte {error.start}: not UTF-8"
    except RecursionError:
        reason = "nested too deeply"
    except tomllib.TOMLDecodeError as error:
        found = _POSITION.fullmatch(str(error))
        reason = f"{found[2]}: {found[1]}" if found else str(error)
    raise ValueError(reason)


def _content(path: Path) -> bytes:
    # Opening a pipe, or reading a device to its end, may wait for ever.
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        message = "not a regular file"
        raise ValueError(message)
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        message = f"larger than {_LARGEST >> 20} MiB"
        raise ValueError(message)
    return content
