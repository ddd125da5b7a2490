"""The link of a scenario: what carries the stream, how fast, and what breaks it.

The rules are those of `frontends.scenario`.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final, NamedTuple

from vfiomig.frontends.toml_values import (
    REQUIRED,
    BadKeyError,
    Key,
    Table,
    duration,
    one_of,
    shown,
    size,
    whole,
)
from vfiomig.migration.transport.rsocket.stream import DEFAULT_WAY, WAYS

RSOCKET_TRANSPORT: Final = "rsocket"
RSOCKET_MODEL: Final = "rsocket-model"
RSOCKETS: Final = (RSOCKET_MODEL, RSOCKET_TRANSPORT)
TRANSPORTS: Final = ("memory", "unix", "tcp", *RSOCKETS)
_WAYS: Final = tuple(WAYS)


class Flip(NamedTuple):
    """One bit of the stream that arrives flipped; both count from 0."""

    byte: int
    bit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The link: bytes a second, nanoseconds one way, and what breaks it.

    ``cut`` is the position of the first byte of the stream that does not arrive.
    """

    bandwidth: int
    latency: int
    cut: int | None
    flip: Flip | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rsocket:
    """How rsockets are waited for, and the address of the RDMA interface.

    The model needs no ``address``.
    """

    wait: str
    address: str | None


RSOCKET_DEFAULT: Final = Rsocket(wait=DEFAULT_WAY, address=None)


def _ipv4(value: object) -> str:
    try:
        if isinstance(value, str):
            return str(ipaddress.IPv4Address(value))
    except ipaddress.AddressValueError:
        pass
    message = f'must be an IPv4 address such as "10.78.0.1", not {shown(value)}'
    raise ValueError(message)


def rsocket_of(values: dict[str, object]) -> None:
    """Hold ``[rsocket]`` and the transport together, in the values of a scenario.

    Raises:
        BadKeyError: one is missing, or goes with another.
    """
    transport, given = values["transport"], values["rsocket"]
    if given is not None and transport not in RSOCKETS:
        raise BadKeyError("rsocket", f"does not go with transport = {shown(transport)}")
    if given is None:
        given = values["rsocket"] = RSOCKET_DEFAULT
    assert isinstance(given, Rsocket)
    if transport == RSOCKET_TRANSPORT and given.address is None:
        reason = 'is missing: the RDMA interface\'s (address = "10.78.0.1")'
        raise BadKeyError("rsocket.address", reason)


_FLIP: Final = Table(
    written="flip = { byte = 1000, bit = 3 }",
    make=Flip,
    keys={"byte": Key(whole(0), REQUIRED), "bit": Key(whole(0, 7), 0)},
)
LINK: Final = Table(
    written="[link]",
    make=Link,
    keys={
        "bandwidth": Key(size(1), 128 << 20),
        "latency": Key(duration, 100_000),
        "cut": Key(whole(0)),
        "flip": Key(_FLIP),
    },
)
RSOCKET: Final = Table(
    written="[rsocket]",
    make=Rsocket,
    keys={"wait": Key(one_of(*_WAYS), RSOCKET_DEFAULT.wait), "address": Key(_ipv4)},
)
