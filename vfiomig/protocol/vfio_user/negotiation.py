"""VFIO_USER_VERSION: which version is spoken, and what each party can take.

A party says what it takes in JSON, behind its version and in front of a NUL; what it
leaves out has a default.  Unknown keys are left alone: minor versions add some.
"""

from __future__ import annotations

import errno
import json
import struct
from dataclasses import dataclass
from typing import Final, NoReturn, Self

from vfiomig.protocol.errors import MessageError
from vfiomig.uapi.vfio_user import (
    VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE,
    VFIO_USER_DEFAULT_MAX_MSG_FDS,
    VFIO_USER_MAJOR,
    VFIO_USER_MINOR,
)

_VERSION: Final = struct.Struct("<HH")
_MOST_FDS: Final = 1024  # what a server takes for a number of them
_U32: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a party takes in one message, and the page size of its dirty bitmaps.

    ``max_data_xfer_size`` are bytes of data, without headers; ``pgsize`` is None for
    one that has no migration; ``has_twin_socket`` asks for a second socket, for the
    server's own commands.
    """

    max_msg_fds: int = VFIO_USER_DEFAULT_MAX_MSG_FDS
    max_data_xfer_size: int = VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE
    pgsize: int | None = None
    has_twin_socket: bool = False

    def as_json(self) -> bytes:
        """Return them as they are sent, without the NUL."""
        said: dict[str, object] = {
            "max_msg_fds": self.max_msg_fds,
            "max_data_xfer_size": self.max_data_xfer_size,
        }
        if self.pgsize is not None:
            said["migration"] = {"pgsize": self.pgsize}
        if self.has_twin_socket:
            said["twin_socket"] = {"supported": True}
        return json.dumps({"capabilities": said}, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Read what a peer said.

        Raises:
            MessageError: EINVAL: it is no JSON, or a value cannot be.
        """
        try:
            document = json.loads(text.decode())
        except (ValueError, RecursionError) as error:
            _refuse(f"capabilities that are no JSON: {error}")
        said = _part(_table(document, "the version data"), "capabilities")
        migration = _part(said, "migration")
        twin = _part(said, "twin_socket")
        supported = twin.get("supported", False)
        if not isinstance(supported, bool):
            _refuse(f"twin_socket.supported is {supported!r}, neither true nor false")
        return cls(
            max_msg_fds=_number(
                said,
                "max_msg_fds",
                default=VFIO_USER_DEFAULT_MAX_MSG_FDS,
                highest=_MOST_FDS,
            ),
            max_data_xfer_size=_number(
                said,
                "max_data_xfer_size",
                default=VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE,
                lowest=1,
            ),
            pgsize=_number(migration, "pgsize", lowest=1) if migration else None,
            has_twin_socket=supported,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What VFIO_USER_VERSION carries, both ways."""

    major: int = VFIO_USER_MAJOR
    minor: int = VFIO_USER_MINOR
    capabilities: Capabilities = Capabilities()

    def encode(self) -> bytes:
        """Return the payload."""
        said = self.capabilities.as_json()
        return _VERSION.pack(self.major, self.minor) + said + b"\0"

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read the payload; version data may be missing.

        Raises:
            MessageError: EINVAL.
        """
        if len(payload) < _VERSION.size:
            _refuse(f"a version of {len(payload)} bytes, less than {_VERSION.size}")
        major, minor = _VERSION.unpack_from(payload)
        data = payload[_VERSION.size :]
        if not data:
            return cls(major=major, minor=minor)
        if data[-1]:
            _refuse("version data without a NUL at their end")
        capabilities = Capabilities.from_json(data[:-1])
        return cls(major=major, minor=minor, capabilities=capabilities)


def agreed(client: Version, own: Capabilities) -> Version:
    """Return a server's reply to what a client proposed.

    Raises:
        MessageError: EINVAL: another major version, or pages of another size.
    """
    if client.major != VFIO_USER_MAJOR:
        _refuse(f"major version {client.major}: here is {VFIO_USER_MAJOR}")
    asked = client.capabilities.pgsize
    if asked is not None and own.pgsize is not None and asked != own.pgsize:
        _refuse(f"dirty pages of {asked} bytes: here they have {own.pgsize}")
    return Version(minor=min(client.minor, VFIO_USER_MINOR), capabilities=own)


def require_agreement(proposed: Version, reply: Version) -> None:
    """See that a server's reply fits what a client proposed.

    Raises:
        MessageError: EINVAL: it does not.
    """
    if reply.major != proposed.major:
        said = f"{reply.major}.{reply.minor}"
        _refuse(f"version {said} in reply to {proposed.major}.{proposed.minor}")
    if reply.minor > proposed.minor:
        _refuse(f"minor version {reply.minor} in reply to {proposed.minor}")


def _table(value: object, name: str) -> dict[str, object]:
    if not isinstance(value, dict):
        _refuse(f"{name}: not a JSON object")
    return value


def _part(table: dict[str, object], name: str) -> dict[str, object]:
    """Return the object of that name; an absent one is empty."""
    return _table(table.get(name, {}), name)


def _number(
    table: dict[str, object],
    name: str,
    *,
    default: int | None = None,
    lowest: int = 0,
    highest: int = _U32,
) -> int:
    value = table.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        _refuse(f"{name} is {value!r}, not a number")
    if not lowest <= value <= highest:
        _refuse(f"{name} is {value}: it is {lowest} to {highest}")
    return value


def _refuse(why: str) -> NoReturn:
    raise MessageError(why, code=errno.EINVAL)
