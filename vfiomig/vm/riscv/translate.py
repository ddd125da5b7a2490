"""From a stretch of RV64I to a Python function that does the same, much faster.

A block begins at one address and goes on through direct jumps, over branches that are
not taken, up to what Python cannot do alone: an instruction of the system, a jump to
where a register says, the end of the page.  A branch over a few plain instructions is
an ``if``; a branch back to where the block begins is a loop inside the function.

Rule 1: registers are locals, written back at the end, whatever ends it.

Rule 2: a load or a store remembers its page in locals (``near``, ``page``) as long as
the function runs, and asks the hart's `Tlb` only for another page.  An offset that is
outside of the page or misaligned has a bit that ``&`` with a negative number finds.

Rule 3: where it stands is known only when something traps: ``at`` is set before what
may, and counts the instructions of this round that are done.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vfiomig.vm.riscv.instructions import BY_NAME, Format, Instruction, decode
from vfiomig.vm.riscv.pages import PAGE
from vfiomig.vm.riscv.templates import (
    ABOVE,
    BELOW,
    BESIDE_ZERO,
    CONDITIONS,
    CONSTANTS,
    DOWNWARD,
    EXTENDED,
    LOADED,
    PLAIN,
    STORED,
    UPWARD,
    VALUES,
    WORDS,
)
from vfiomig.vm.riscv.trap import FETCH_MISALIGNED, Trap

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.vm.riscv.hart import Hart
    from vfiomig.vm.riscv.templates import Kind

    Near = tuple[int, memoryview, int]  # page less imm, its memory, offset in it
    Reach = Callable[[int, int, Kind], Near]  # base, imm, what is reached
    Run = Callable[[Hart, int, Reach, Reach], int]  # returns what is left

_LONGEST: Final = 64  # instructions of a block
_SKIPPED: Final = 8  # instructions under an `if`
_KEPT: Final = 2048  # blocks
_ALL: Final = (1 << 64) - 1


class Block(NamedTuple):
    """A translated block; or one instruction that is for others, None if illegal."""

    run: Run | None
    instruction: Instruction | None
    word: int


@functools.lru_cache(maxsize=_KEPT)
def translate(page: bytes, pc: int) -> Block:
    """Translate what is at ``pc``, which lies in a page (4096 bytes) of that contents.

    ``run(hart, left, load, store)`` performs at least one instruction, then goes on
    until nothing is left, or out of the block; it returns what is left, which a round
    may take below 0.

    The function raises ``Trap``: the pc is at the instruction then, all before it is
    done, and ``Trap.left`` is what was left.
    """
    word = _word(page, pc)
    writer = _Writer(page, pc)
    writer.write_block()
    if not writer.done:
        return Block(None, decode(word), word)
    scope: dict[str, Any] = {"Trap": Trap}
    exec(compile(writer.source(), f"<guest {pc:#x}>", "exec"), scope)
    return Block(scope["block"], None, word)


def python_of(page: bytes, pc: int) -> str:
    """Return the source of a block's function, for those who want to read it."""
    writer = _Writer(page, pc)
    writer.write_block()
    return writer.source()


class _Writer:
    """Writes one block."""

    def __init__(self, page: bytes, pc: int) -> None:
        self._page = page
        self._entry = pc
        self._base = pc & -PAGE
        self._lines: list[str] = []
        self._indent = 3
        self._used: set[int] = set()
        self._changed: set[int] = set()
        self._places: list[int] = []
        self._near: list[int] = []

    # -- which instructions

    def write_block(self) -> None:
        """Write from the entry on until the block ends."""
        at = self._entry
        while True:
            it = self._at(at)
            if it is None or self.done >= _LONGEST or at in self._places:
                return self._leave(at)
            if it.name == "jalr":
                return self._write_jalr(at, it)
            if it.name == "jal":
                going_on = self._write_jal(at, it)
                if going_on is None:
                    return None
                at = going_on
            elif it.name in CONDITIONS:
                at = self._write_branch(at, it)
            elif it.name in PLAIN:
                self._write_plain(at, it)
                at += 4
            else:
                return self._leave(at)

    def _at(self, at: int) -> Instruction | None:
        if not 0 <= at - self._base < PAGE:
            return None
        return decode(_word(self._page, at))

    def _skipped(self, at: int, target: int) -> list[Instruction] | None:
        """Return what lies between, if it is little and plain."""
        if not at < target <= at + 4 * (_SKIPPED + 1) or target % 4:
            return None
        between = [self._at(place) for place in range(at + 4, target, 4)]
        plain = [it for it in between if it is not None and it.name in PLAIN]
        return plain if len(plain) == len(between) else None

    # -- what they become

    def _write_plain(self, at: int, it: Instruction) -> None:
        if it.name in LOADED:
            self._write_load(it)
        elif it.name in STORED:
            self._write_store(it)
        elif it.rd:
            self._write_value(at, it)
        self._places.append(at)

    def _write_value(self, at: int, it: Instruction) -> None:
        known, outside = self._value(at, it), None
        if known is None and it.name in DOWNWARD and it.imm <= 0:
            known, outside = self._filled(DOWNWARD[it.name], it), BELOW
        elif known is None:
            known, outside = self._filled(UPWARD[it.name], it), ABOVE
        target = self._target(it.rd)
        self._write(f"{target} = {known}")
        if outside is not None:
            self._write(f"if {target} {outside}:")
            self._write(f"    {target} &= ALL")

    def _value(self, at: int, it: Instruction) -> str | None:
        """Return what an instruction gives, if it cannot leave the 64 bits."""
        if it.name == "auipc":
            return f"{at + it.imm & _ALL:#x}"
        if it.name == "addi" and not it.rs1:
            return f"{it.imm & _ALL:#x}"
        if it.name == "addi" and not it.imm:
            return self._source(it.rs1)
        if it.name in WORDS:
            return EXTENDED.format(self._filled(WORDS[it.name], it))
        return self._filled(VALUES[it.name], it) if it.name in VALUES else None

    def _write_load(self, it: Instruction) -> None:
        kind, shift, value = LOADED[it.name]
        element = self._write_reach("load", it, kind, shift)
        self._write(f"{self._target(it.rd)} = {value.format(element)}")

    def _write_store(self, it: Instruction) -> None:
        kind, shift, value = STORED[it.name]
        element = self._write_reach("store", it, kind, shift)
        self._write(f"{element} = {value.format(self._source(it.rs2))}")

    def _write_reach(self, how: str, it: Instruction, kind: Kind, shift: int) -> str:
        """Write what finds the page of an access; return the element in it."""
        at, base = self.done, self._source(it.rs1)
        self._near.append(at)
        self._write(f"o = {base} - near{at}")
        self._write(f"if o & {(1 << shift) - 1 - PAGE}:")
        self._write(f"    at = {at}")
        self._write(f"    near{at}, page{at}, o = {how}({base}, {it.imm}, '{kind}')")
        return f"page{at}[o >> {shift}]" if shift else f"page{at}[o]"

    def _write_branch(self, at: int, it: Instruction) -> int:
        """Write a branch; return where the block goes on."""
        table = CONDITIONS if it.rs2 else CONDITIONS | BESIDE_ZERO
        condition = self._filled(table[it.name], it)
        target = at + it.imm & _ALL
        skipped = self._skipped(at, target)
        self._write(f"if {condition}:")
        self._indent += 1
        if skipped is None:
            self._jump(at, target)
            self._indent -= 1
            self._places.append(at)
            return at + 4
        self._write(f"left += {len(skipped)}")
        self._indent -= 1
        self._places.append(at)
        if skipped:
            self._write("else:")
            self._indent += 1
            for number, inner in enumerate(skipped, 1):
                self._write_plain(at + 4 * number, inner)
            self._write("pass")
            self._indent -= 1
        return target

    def _jump(self, at: int, target: int) -> None:
        """Write the way out of a branch, or of a jump, at ``at``."""
        if target % 4:
            self._write_misaligned(f"{target:#x}")
            return
        self._write(f"left -= {self.done + 1}")
        if target == self._entry:
            self._write("if left > 0:")
            self._write("    continue")
        else:
            self._write(f"pc = {target:#x}")
        self._write("break")

    def _write_jal(self, at: int, it: Instruction) -> int | None:
        """Write a direct jump; return where the block goes on, if it does."""
        target = at + it.imm & _ALL
        if target % 4:
            self._write_misaligned(f"{target:#x}")
            self._places.append(at)
            return None
        if it.rd:
            self._write(f"{self._target(it.rd)} = {at + 4 & _ALL:#x}")
        if target == self._entry:
            self._jump(at, target)
            self._places.append(at)
            return None
        self._places.append(at)
        return target

    def _write_jalr(self, at: int, it: Instruction) -> None:
        self._write(f"target = {self._source(it.rs1)} + {it.imm} & {_ALL - 1:#x}")
        self._write("if target & 2:")
        self._indent += 1
        self._write_misaligned("target")
        self._indent -= 1
        if it.rd:
            self._write(f"{self._target(it.rd)} = {at + 4 & _ALL:#x}")
        self._places.append(at)
        self._write(f"left -= {self.done}")
        self._write("pc = target")
        self._write("break")

    def _write_misaligned(self, target: str) -> None:
        self._write(f"at = {self.done}")
        self._write(f"raise Trap({FETCH_MISALIGNED}, {target})")

    def _leave(self, at: int) -> None:
        self._write(f"left -= {self.done}")
        self._write(f"pc = {at & _ALL:#x}")
        self._write("break")

    # -- how it is written

    def source(self) -> str:
        """Return the whole function."""
        body = "\n".join(self._lines)
        head = ["def block(hart, left, load, store):", "    x = hart.x"]
        head += [
            f"    {name} = {value}" for name, value in CONSTANTS.items() if name in body
        ]
        head += [f"    x{number} = x[{number}]" for number in sorted(self._used)]
        # No address is near to that: the first access always asks.
        head += [f"    near{at} = -0x10000000000000000" for at in self._near]
        head += [f"    pc = {self._entry:#x}", "    at = 0", "    try:"]
        places = "".join(f"{place:#x}, " for place in self._places)
        tail = [
            "    except Trap as trap:",
            f"        pc = ({places})[at]",
            "        trap.left = left - at",
            "        raise",
            "    finally:",
        ]
        tail += [f"        x[{number}] = x{number}" for number in sorted(self._changed)]
        tail += ["        hart.pc = pc", "    return left"]
        return "\n".join([*head, "        while True:", body, *tail, ""])

    def _write(self, line: str) -> None:
        self._lines.append("    " * self._indent + line)

    @property
    def done(self) -> int:
        """How many instructions are written."""
        return len(self._places)

    def _filled(self, template: str, it: Instruction) -> str:
        has_rs2 = BY_NAME[it.name].format in (Format.R, Format.B)
        b = self._source(it.rs2) if has_rs2 else f"{it.imm & _ALL:#x}"
        return template.format(a=self._source(it.rs1), b=b, imm=it.imm, minus=-it.imm)

    def _source(self, number: int) -> str:
        if not number:
            return "0"
        self._used.add(number)
        return f"x{number}"

    def _target(self, number: int) -> str:
        if not number:
            return "_"
        self._used.add(number)
        self._changed.add(number)
        return f"x{number}"


def _word(page: bytes, at: int) -> int:
    return int.from_bytes(page[at % PAGE : at % PAGE + 4], "little")
