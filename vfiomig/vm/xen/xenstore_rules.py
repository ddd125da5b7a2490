"""The rules of XenStore that need no store: paths, permissions, refusals.

A path is kept as the names in it: ``/local/domain`` is ``("local", "domain")`` and the
root is ``()``.  From QEMU's hw/i386/kvm/xenstore_impl.c, 10.0.
"""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from vfiomig.protocol.qemu_stream.cursor import decode_text
from vfiomig.uapi.xen_xs_wire import XENSTORE_ABS_PATH_MAX, XENSTORE_REL_PATH_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

Names: TypeAlias = tuple[str, ...]
Perms: TypeAlias = tuple[str, ...]
Text: TypeAlias = str | bytes

NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_PATH: Final = re.compile(r"[A-Za-z0-9/_-]+")
_PERM: Final = re.compile(r"[nrwb][0-9]{1,5}")
_READ: Final = "rb"
_WRITE: Final = "wb"


def refuse(code: int, reason: str) -> NoReturn:
    """Raise the ``OSError`` of an errno."""
    raise OSError(code, f"{os.strerror(code)}: {reason}")


def as_text(text: Text) -> str:
    """Return text that may have come as bytes; any bytes come back as they were."""
    return text if isinstance(text, str) else decode_text(text)


def home(domid: int) -> str:
    """Return the path, with a slash behind it, that relative paths begin at."""
    return f"/local/domain/{domid}/"


def absolute(path: str, domid: int, *, slash_may_end: bool) -> str:
    """Return a path as an absolute one; ``domid`` is whose it is.

    Raises ``OSError``: EINVAL for what is no path, E2BIG for one that is too long.
    """
    if not _PATH.fullmatch(path) or "//" in path:
        refuse(errno.EINVAL, f"no path: {path[:80]!r}")
    if path.endswith("/") and len(path) > 1 and not slash_may_end:
        refuse(errno.EINVAL, f"a path does not end with a slash: {path[:80]!r}")
    is_absolute = path.startswith("/")
    limit = XENSTORE_ABS_PATH_MAX if is_absolute else XENSTORE_REL_PATH_MAX
    if len(path) > limit:
        refuse(errno.E2BIG, f"a path of {len(path)} characters: at most {limit}")
    return path if is_absolute else home(domid) + path


def names_of(path: str) -> Names:
    """Return the names in an absolute path; a slash at its end says nothing."""
    return tuple(path.strip("/").split("/")) if path != "/" else ()


def path_of(names: Names) -> str:
    """Return the absolute path; the root is empty, as watches have it."""
    return "".join([f"/{name}" for name in names])


def are_permissions(perms: Sequence[str]) -> bool:
    """Tell whether it is a letter and a domain each, and at least one."""
    return bool(perms) and all(_PERM.fullmatch(each) for each in perms)


def owner(perms: Perms) -> int:
    """Return the domain that owns a node."""
    return int(perms[0][1:])


def may_read(domid: int, perms: Perms) -> bool:
    """Tell whether a domain may read a node with these permissions."""
    return domid in (0, owner(perms)) or _letter(domid, perms) in _READ


def may_write(domid: int, perms: Perms) -> bool:
    """Tell whether a domain may change a node with these permissions."""
    return domid in (0, owner(perms)) or _letter(domid, perms) in _WRITE


def _letter(domid: int, perms: Perms) -> str:
    """Return what counts for a domain: the last entry that names it, or the default."""
    for each in reversed(perms[1:]):
        if int(each[1:]) == domid:
            return each[0]
    return perms[0][0]
