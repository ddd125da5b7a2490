"""Guests in the states of table A7, and their move from one board to another."""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING

from vfiomig.protocol.qemu_stream.riscv_cpu import full_section, read_rest
from vfiomig.uapi.kvm_riscv import KVM_RISCV_MODE_S, KVM_RISCV_MODE_U
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.riscv import sbi
from vfiomig.vm.riscv.board import VirtBoard

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vfiomig.protocol.qemu_stream.riscv_cpu import CpuLayout, RiscvCpu
    from vfiomig.vm.riscv.hart_state import HartState
    from vfiomig.vm.riscv.sync import SyncPolicy

RAM = 1 << 16
KERNEL = 0x8000_1000
PROGRAM = 0x1_0000  # of U mode
BEHIND_STOP = 0x8000_2004
STARTS_AT = 0x8000_3000
SECTION_HEAD = 5  # type and id


class Is(enum.Enum):
    """What a hart is about at the source; the simplest first, for hypothesis."""

    SUPERVISOR = "in S"
    USER = "in U"
    WAITING = "in WFI"
    STOPPED = "stopped via HSM"
    NEVER_STARTED = "never started"
    STARTING = "to start, but did not run since"


def name_of(policy: SyncPolicy) -> str:
    return policy.name


def memory() -> GuestMemory:
    return GuestMemory.of_virt(RAM)


@functools.cache
def _shared_memory() -> GuestMemory:
    return memory()


def board(
    policy: SyncPolicy, harts: int, *, has_mp_state: bool = True, frequency: int = 10**7
) -> VirtBoard:
    """Return a board as it is made; nobody is to run in its RAM."""
    return VirtBoard(
        _shared_memory(), harts, policy, has_mp_state=has_mp_state, frequency=frequency
    )


def guest(policy: SyncPolicy, *harts: Is, has_mp_state: bool = True) -> VirtBoard:
    """Return a board that runs, with its harts as told: what a kernel has led to."""
    made = board(policy, len(harts), has_mp_state=has_mp_state)
    made.vm_start(0)
    by_id = {hart.hart_id: hart for hart in made.harts}
    for cpu in made.cpus:
        cpu.is_dirty = False  # as if each had run: KVM has the state
    for hart, state in zip(made.harts, harts, strict=True):
        if state is Is.NEVER_STARTED:
            continue
        if hart.hart_id:
            at = STARTS_AT if state is Is.STARTING else KERNEL
            assert sbi.hart_start(by_id, hart.hart_id, at, 7).error == 0
        if state is Is.STARTING:
            continue
        sbi.take_start(hart)
        hart.pc = PROGRAM if state is Is.USER else KERNEL + 4 * hart.hart_id
        hart.mode = KVM_RISCV_MODE_U if state is Is.USER else KVM_RISCV_MODE_S
        hart.is_waiting = state is Is.WAITING
        if state is Is.STOPPED:
            hart.pc = BEHIND_STOP
            sbi.hart_stop(hart)
    return made


def read_section(
    data: bytes, instance: int, layout: CpuLayout, *, takes_mp_state: bool = True
) -> RiscvCpu:
    """Read one whole FULL section of a CPU; its bytes are a stream of their own."""
    section_id = int.from_bytes(data[1:SECTION_HEAD], "big")
    at = SECTION_HEAD
    reading = read_rest(
        section_id, instance, layout, takes_mp_state=takes_mp_state, position=at
    )
    wanted = next(reading)
    try:
        while True:
            piece, at = data[at : at + wanted], at + wanted
            wanted = reading.send(piece)
    except StopIteration as end:
        assert at == len(data)
        cpu: RiscvCpu = end.value
        return cpu


def move(source: VirtBoard, destination: VirtBoard) -> tuple[HartState, ...]:
    """Move all harts through the bytes of a stream; return them as they were."""
    source.vm_stop()
    before = source.states()
    layout = source.policy.layout
    sections = [
        full_section(40 + index, index, cpu, layout)
        for index, cpu in enumerate(source.save())
    ]
    destination.pre_load()
    for index, section in enumerate(sections):
        cpu = read_section(
            section,
            index,
            destination.policy.layout,
            takes_mp_state=destination.has_mp_state,
        )
        destination.load(index, cpu)
    destination.post_init()
    return before


def shown(states: Iterable[HartState]) -> list[str]:
    """Return mode and mp_state of each hart in the table's words."""
    words = {"runnable": "run", "stopped": "stop"}
    return [f"{words[state.mp_state]} {state.mode}" for state in states]
