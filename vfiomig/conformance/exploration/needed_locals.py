"""Which locals of a waiting generator can still be read: the others are forgotten.

A local that is written before it is read on every way on decides nothing, whatever
it holds.  Two checks that differ in such locals alone remember the same.
"""

from __future__ import annotations

import dis
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import CodeType

_NO_FALL_THROUGH: Final = frozenset(
    (
        "JUMP_FORWARD",
        "JUMP_BACKWARD",
        "JUMP_BACKWARD_NO_INTERRUPT",
        "RETURN_VALUE",
        "RETURN_CONST",
        "RAISE_VARARGS",
        "RERAISE",
    )
)


@cache
def needed_behind(code: CodeType, at: int) -> frozenset[str]:
    """Return the locals that may be read behind the instruction at offset ``at``."""
    instructions = list(dis.get_instructions(code))
    number = {each.offset: place for place, each in enumerate(instructions)}
    ways = [_ways(each, place, number) for place, each in enumerate(instructions)]
    first = next(
        (place for place, each in enumerate(instructions) if each.offset > at),
        len(instructions),
    )
    needed = _needed(instructions, ways)
    # What only an exception leads to: whatever is read there may be read.
    reached = _reached(ways)
    caught = {
        name
        for place, each in enumerate(instructions)
        if place not in reached
        for name in _read(each)
    }
    behind = needed[first] if first < len(instructions) else frozenset()
    return frozenset(behind | caught)


def _needed(
    instructions: list[dis.Instruction], ways: list[tuple[int, ...]]
) -> list[frozenset[str]]:
    """Return what is needed before each instruction."""
    needed: list[frozenset[str]] = [frozenset()] * len(instructions)
    is_settled = False
    while not is_settled:
        is_settled = True
        for place in range(len(instructions) - 1, -1, -1):
            each = instructions[place]
            behind: frozenset[str] = frozenset().union(
                *(needed[way] for way in ways[place])
            )
            now = (behind - _written(each)) | _read(each)
            if now != needed[place]:
                needed[place], is_settled = now, False
    return needed


def _ways(each: dis.Instruction, place: int, number: dict[int, int]) -> tuple[int, ...]:
    """Return the places of the instructions that may come next."""
    found = []
    if each.opname not in _NO_FALL_THROUGH and place + 1 < len(number):
        found.append(place + 1)
    if each.opcode in dis.hasjrel or each.opcode in dis.hasjabs:
        found.append(number[each.argval])
    return tuple(found)


def _reached(ways: list[tuple[int, ...]]) -> set[int]:
    reached: set[int] = set()
    left = [0]
    while left:
        place = left.pop()
        if place not in reached:
            reached.add(place)
            left.extend(ways[place])
    return reached


def _names(each: dis.Instruction) -> frozenset[str]:
    """Return the locals that an instruction names; one may name two."""
    if "FAST" not in each.opname and "DEREF" not in each.opname:
        return frozenset(str(each.argval) for _ in "1" if "CLOSURE" in each.opname)
    names = each.argval if isinstance(each.argval, tuple) else (each.argval,)
    return frozenset(map(str, names))


def _written(each: dis.Instruction) -> frozenset[str]:
    """Return what an instruction surely writes and does not read."""
    return _names(each) if each.opname == "STORE_FAST" else frozenset()


def _read(each: dis.Instruction) -> frozenset[str]:
    """Return what an instruction may read; too much is no harm."""
    return _names(each) - _written(each)
