"""What a session asks of whoever drives the device: the imperative half of an access.

A session is a generator of these.  The answer to `ReadRegister` is the register's
value; `ReadData` and `WriteData` are answered when the data has been moved, and
`WriteRegister` when the write has returned.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from vfiomig.protocol.v1.registers import Register


class ReadRegister(NamedTuple):
    """Read a register at its native width."""

    register: Register


class WriteRegister(NamedTuple):
    """Write a register at its native width."""

    register: Register
    value: int


class ReadData(NamedTuple):
    """Move ``size`` bytes at ``offset`` of the region to where the stream goes."""

    offset: int
    size: int


class WriteData(NamedTuple):
    """Move the next ``size`` bytes of the chunk to ``offset`` of the region."""

    offset: int
    size: int


Request = ReadRegister | WriteRegister | ReadData | WriteData

READ_DEVICE_STATE: Final = ReadRegister(Register.DEVICE_STATE)
READ_PENDING_BYTES: Final = ReadRegister(Register.PENDING_BYTES)
READ_DATA_OFFSET: Final = ReadRegister(Register.DATA_OFFSET)
READ_DATA_SIZE: Final = ReadRegister(Register.DATA_SIZE)
