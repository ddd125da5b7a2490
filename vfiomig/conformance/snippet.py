"""A finding's conversation as a Python program that needs no suite.

It asks a fresh driver what the bench asked it, access by access, and prints what it
answers beside what it answered before.  Data goes from one device to another by the
digest that the history has of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vfiomig.protocol.history import Access
from vfiomig.protocol.v1.registers import REGISTERS_SIZE, Register

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vfiomig.protocol.history import BenchEvent, Record

_HEAD = """\
from contextlib import suppress

from vfiomig.conformance.target import load_target

make_driver = load_target({target!r}).make_driver
data = {{}}  # what was read, by its digest
"""


def snippet_of(target: str, history: Sequence[Record]) -> str:
    """Return a program that holds the conversation again; empty if there is none."""
    if not history:
        return ""
    lines = [_HEAD.format(target=target)]
    known: set[str] = set()
    for record in history:
        if record.device not in known:
            known.add(record.device)
            lines.append(f"{_name(record)} = make_driver()")
        lines += _lines_of(record)
    return "\n".join(lines) + "\n"


def _name(record: Record) -> str:
    """Return the variable that a device is; any text may name one in a history."""
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in record.device)
    return name if name.isidentifier() else f"device_{name}"


def _lines_of(record: Record) -> Iterator[str]:
    if not isinstance(record, Access):
        yield _event(record)
    elif record.errno and not record.died:
        yield f"with suppress(OSError):  # it was errno {record.errno}"
        yield f"    {_access(record)}"
    else:
        yield _access(record)


def _event(event: BenchEvent) -> str:
    name = _name(event)
    match event.bench:
        case "work":
            return f"{name}.work({event.amount})"
        case "fail":
            return f"{name}.fail({event.on!r}, {event.errno})"
        case _:
            return f"{name}.snapshot()"


def _access(access: Access) -> str:
    name, where = _name(access), f"{access.offset:#x}, "
    match access.access:
        case "read" if access.unseen:
            return f"# {name}: {access.size} bytes at {where}are read in the mapping"
        case "write" if access.unseen:
            return f"# {name}: {access.size} bytes at {where}are written in the mapping"
        case "read":
            return _read(access, f"{name}.read({where}{access.size})")
        case "write":
            return f"{name}.write({where}{_value(access)}){_comment(access)}"
        case "mmap":
            return f"# {name}: {access.size} bytes at {access.offset:#x} are mapped"
        case _:
            return f"{name}.{access.access}()"


def _read(access: Access, call: str) -> str:
    if access.offset < REGISTERS_SIZE:
        was = f"was {access.value}" if access.value else "had no answer"
        return f"print({_register(access)!r}, {call}, {was!r})"
    return f"data[{access.value!r}] = {call}"


def _value(access: Access) -> str:
    if access.value.startswith("0x"):
        return f'({access.value}).to_bytes({access.size}, "little")'
    if ":" in access.value:
        return f"data.get({access.value!r}, bytes({access.size}))"
    return f"bytes.fromhex({access.value!r})"


def _comment(access: Access) -> str:
    return f"  # {_register(access)}" if access.offset < REGISTERS_SIZE else ""


def _register(access: Access) -> str:
    for register in Register:
        if (register.offset, register.width) == (access.offset, access.size):
            return register.value
    return f"{access.size} bytes at {access.offset:#x}"
