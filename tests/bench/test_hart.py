"""An instruction of a hart, against an iteration of an empty loop of Python's.

At least 0.1 of the iterations a second: an instruction takes at most ten of them.  The
kernel's dirty log is on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.figures import best_of, show, timed
from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.layout import VIRT_RAM
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.riscv import kernel
from vfiomig.vm.riscv.assembler import assemble
from vfiomig.vm.riscv.execute import Engine
from vfiomig.vm.riscv.hart import FREQUENCY, Hart
from vfiomig.vm.riscv.program import Role, is_settled, load_program

if TYPE_CHECKING:
    from collections.abc import Callable

RAM = 1 << 20
BUDGET = 10_000  # instructions a run
ITERATIONS = 50_000  # take about as long: short enough to be left alone at times
ROUNDS = 300
BESIDE = "an iteration of an empty loop"
# Goes through eight pages of elements and changes each.
LOOP = """
    la    s0, elements
    li    s1, 0
    li    s2, 0x7FFF
loop:
    addi  s1, s1, 8
    and   t1, s1, s2
    add   t1, t1, s0
    ld    t2, 0(t1)
    xor   t2, t2, s1
    add   a0, a0, t2
    sd    a0, 0(t1)
    bne   s1, s3, loop
    ebreak
"""


def iterates() -> None:
    for _ in range(ITERATIONS):
        pass


def runs(engine: Engine, hart: Hart) -> Callable[[], float]:
    """Return what measures the seconds of as many instructions as `iterates` has."""

    def measure() -> float:
        before = sum(hart.retired)
        taken = timed(lambda: engine.run(hart, BUDGET))
        return taken / (sum(hart.retired) - before) * ITERATIONS

    return measure


def show_hart(figure: str, engine: Engine, hart: Hart) -> None:
    empty, ours = best_of(lambda: timed(iterates), runs(engine, hart), runs=ROUNDS)
    show(f"{figure} ({empty / ours:.3f} of its rate)", ours / empty, 10, BESIDE)


def test_a_loop_with_a_load_and_a_store() -> None:
    with GuestMemory.of_virt(RAM) as memory:
        memory.start_log(LogUser.KERNEL)
        symbols = {"elements": VIRT_RAM + 0x1_0000}
        words, _ = assemble(LOOP, VIRT_RAM, symbols)
        memory.write(VIRT_RAM, b"".join(word.to_bytes(4, "little") for word in words))
        hart = Hart(hart_id=0, pc=VIRT_RAM)
        hart.x[19] = 1  # s3: no multiple of eight, so that it never ends
        show_hart("an instruction", Engine(memory, [hart], lambda: 0), hart)
        assert hart.retired[1] >= ROUNDS * BUDGET


def test_the_roles_of_the_guest() -> None:
    with GuestMemory.of_virt(RAM) as memory:
        memory.start_log(LogUser.KERNEL)
        roles = [Role.USER, Role.SUPERVISOR]
        entry = load_program(memory, roles)
        harts = [Hart(hart_id=at, is_stopped=at > 0) for at in range(len(roles))]
        harts[0].pc, harts[0].x[11] = entry, kernel.ROLES
        # The clock of a guest that runs 10 million instructions a second.
        engine = Engine(memory, harts, lambda: sum(harts[1].retired))
        assert FREQUENCY == 10_000_000
        while not is_settled(memory, harts):
            for hart in harts:
                assert engine.run(hart, BUDGET)
        for hart, role in zip(harts, roles, strict=True):
            show_hart(f"an instruction of a hart in {role.value}", engine, hart)
