"""The guest's own text: a kernel of a page, and a user program.

A hart boots at the beginning of RAM, as QEMU's virt machine has it under KVM: in S mode
without pages, a0 its id and a1 the table of roles.  Whoever boots counts himself,
clears the counters (as a kernel does its .bss), builds the page tables (Sv39: the
kernel where it lies in RAM, without U; the user program at addresses of its own, with
U) and starts the others.  From ``secondary`` on each hart goes the same way: to its
role.  A second boot makes the same tables in the same place, so that it is seen by the
counters alone and not by what else it would break.

``sscratch`` holds the hart's area at all times, which no boot clears.  A trap that is
no call, timer or software interrupt is a bug: the hart notes cause and pc, and stops.
"""

from __future__ import annotations

from typing import Final

from vfiomig.vm.layout import VIRT_RAM
from vfiomig.vm.riscv import sbi
from vfiomig.vm.riscv.hart import FREQUENCY
from vfiomig.vm.riscv.pages import PAGE

ENTRY: Final = VIRT_RAM
USER_PROGRAM: Final = VIRT_RAM + PAGE  # where it lies in RAM
ROLES: Final = VIRT_RAM + 2 * PAGE  # their number, then each hart's: words of 64 bits
BOOTS: Final = ROLES + PAGE // 2
AREAS: Final = VIRT_RAM + 3 * PAGE  # of the harts
COUNTERS: Final = VIRT_RAM + 4 * PAGE  # of S mode; they and the next are cleared
USER_COUNTERS: Final = VIRT_RAM + 5 * PAGE
_TABLES: Final = VIRT_RAM + 6 * PAGE  # four of them
END: Final = VIRT_RAM + 10 * PAGE

USER_CODE: Final = 0x1_0000  # addresses of the user program
USER_DATA: Final = 0x2_0000
AREA_SIZE: Final = 128
COUNTERS_SIZE: Final = 64  # of a hart, in either page
MOST_HARTS: Final = PAGE // AREA_SIZE
# In words of 64 bits.  Behind an area's is where a trap saves registers.
AREA: Final = ("panicked", "cause", "pc", "returned", "reached", "counting")
HART_COUNTERS: Final = ("loops", "ecalls", "ticks", "wakeups")
_PERIOD: Final = FREQUENCY // 1000  # a millisecond

SYMBOLS: Final = {
    "kernel": ENTRY,
    "user_program": USER_PROGRAM,
    "boots": BOOTS,
    "areas": AREAS,
    "counters": COUNTERS,
    "user_counters": USER_COUNTERS,
    "root": _TABLES,
    "kernel_table": _TABLES + PAGE,
    "user_table": _TABLES + 2 * PAGE,
    "user_pages": _TABLES + 3 * PAGE,
    **{name: 8 * at for at, name in enumerate(AREA)},
    "saved": 8 * len(AREA),
    **{name: 8 * at for at, name in enumerate(HART_COUNTERS)},
}

KERNEL: Final = f"""
    la    t0, boots
    ld    t1, 0(t0)
    addi  t1, t1, 1
    sd    t1, 0(t0)
    la    t0, counters
    la    t1, root
clear:
    sd    zero, 0(t0)
    addi  t0, t0, 8
    bne   t0, t1, clear

    la    s0, root
    la    t0, user_table
    srli  t0, t0, 2
    ori   t0, t0, 0x01          # V
    sd    t0, 0(s0)             # the first GiB
    la    t0, kernel_table
    srli  t0, t0, 2
    ori   t0, t0, 0x01
    sd    t0, 16(s0)            # the third: RAM
    la    s0, kernel_table
    la    t0, kernel
    srli  t0, t0, 2
    ori   t0, t0, 0xCF          # D A X W R V
    sd    t0, 0(s0)             # 2 MiB
    la    s0, user_table
    la    t0, user_pages
    srli  t0, t0, 2
    ori   t0, t0, 0x01
    sd    t0, 0(s0)
    la    s0, user_pages
    la    t0, user_program
    srli  t0, t0, 2
    ori   t0, t0, 0x5B          # A U X R V
    sd    t0, {USER_CODE // PAGE * 8}(s0)
    la    t0, user_counters
    srli  t0, t0, 2
    ori   t0, t0, 0xD7          # D A U W R V
    sd    t0, {USER_DATA // PAGE * 8}(s0)

    mv    s1, a0
    mv    s2, a1
    ld    s3, 0(s2)
    li    s4, 0
start:
    beq   s4, s1, next
    slli  t0, s4, 3
    add   t0, t0, s2
    ld    t0, 8(t0)
    li    t1, 4                 # never to be started
    beq   t0, t1, next
    mv    a0, s4
    la    a1, secondary
    mv    a2, s2
    li    a6, 0                 # hart_start; if the hart runs already, so be it
    li    a7, {sbi.HSM}
    ecall
next:
    addi  s4, s4, 1
    bltu  s4, s3, start
    mv    a0, s1
    mv    a1, s2

secondary:
    mv    tp, a0
    mv    s2, a1
    la    gp, counters
    slli  t0, tp, {COUNTERS_SIZE.bit_length() - 1}
    add   gp, gp, t0
    la    s0, areas
    slli  t0, tp, {AREA_SIZE.bit_length() - 1}
    add   s0, s0, t0
    sd    gp, counting(s0)
    csrw  sscratch, s0
    la    t0, trap
    csrw  stvec, t0
    la    t0, root
    srli  t0, t0, 12
    li    t1, 8                 # Sv39
    slli  t1, t1, 60
    or    t0, t0, t1
    csrw  satp, t0
    sfence.vma

    slli  t0, tp, 3
    add   t0, t0, s2
    ld    t0, 8(t0)
    beqz  t0, user
    addi  t0, t0, -1
    beqz  t0, supervisor
    addi  t0, t0, -1
    beqz  t0, waiting
    addi  t0, t0, -1
    beqz  t0, stopped
    j     count                 # never to be started, but here it is

user:
    slli  t0, tp, {COUNTERS_SIZE.bit_length() - 1}
    li    a0, {USER_DATA}
    add   a0, a0, t0
    li    t0, {USER_CODE}
    csrw  sepc, t0
    li    t0, 0x100
    csrc  sstatus, t0           # SPP
    sret

supervisor:
    li    t0, 0x20              # the timer
    csrw  sie, t0
    jal   t1, arm
    li    t0, 1
    sd    t0, reached(s0)
    csrrsi zero, sstatus, 2     # SIE
count:
    ld    t0, loops(gp)
    addi  t0, t0, 1
    sd    t0, loops(gp)
    j     count

waiting:
    li    t0, 0x20
    csrw  sie, t0               # ends a WFI without a trap: SIE is clear
again:
    jal   t1, arm
    li    t0, 1
    sd    t0, reached(s0)
wait:
    wfi
    csrr  t0, sip
    andi  t0, t0, 0x20
    beqz  t0, wait
    ld    t0, wakeups(gp)
    addi  t0, t0, 1
    sd    t0, wakeups(gp)
    j     again

stopped:
    li    t1, 100
few:
    ld    t0, loops(gp)
    addi  t0, t0, 1
    sd    t0, loops(gp)
    addi  t1, t1, -1
    bnez  t1, few
    li    t0, 1
    sd    t0, reached(s0)
stop:
    li    a6, 1                 # hart_stop
    li    a7, {sbi.HSM}
    ecall
    li    t0, 1                 # it never returns, says the specification
    sd    t0, returned(s0)
    j     count

arm:                            # the timer, in a period; back to t1
    csrr  a0, time
    li    t0, {_PERIOD}
    add   a0, a0, t0
    li    a6, 0
    li    a7, {sbi.TIME}
    ecall
    jr    t1

trap:
    csrrw sp, sscratch, sp
    sd    t0, saved(sp)
    sd    t1, saved + 8(sp)
    sd    a0, saved + 16(sp)
    sd    a1, saved + 24(sp)
    sd    a6, saved + 32(sp)
    sd    a7, saved + 40(sp)
    csrr  t0, scause
    bltz  t0, interrupt
    li    t1, 8                 # a call from U
    bne   t0, t1, panic
    ld    t1, counting(sp)
    ld    t0, ecalls(t1)
    addi  t0, t0, 1
    sd    t0, ecalls(t1)
    li    t0, 1
    sd    t0, reached(sp)
    csrr  t0, sepc
    addi  t0, t0, 4
    csrw  sepc, t0
leave:
    ld    t0, saved(sp)
    ld    t1, saved + 8(sp)
    ld    a0, saved + 16(sp)
    ld    a1, saved + 24(sp)
    ld    a6, saved + 32(sp)
    ld    a7, saved + 40(sp)
    csrrw sp, sscratch, sp
    sret
interrupt:
    andi  t0, t0, 0x3F
    li    t1, 5                 # the timer
    beq   t0, t1, tick
    li    t1, 1                 # software: another hart's, for nothing
    bne   t0, t1, panic
    csrrci zero, sip, 2
    j     leave
tick:
    ld    t1, counting(sp)
    ld    t0, ticks(t1)
    addi  t0, t0, 1
    sd    t0, ticks(t1)
    jal   t1, arm
    j     leave
panic:
    csrr  t0, scause
    sd    t0, cause(sp)
    csrr  t0, sepc
    sd    t0, pc(sp)
    li    t0, 1
    sd    t0, panicked(sp)
    mv    s0, sp
    ld    gp, counting(s0)
    j     stop
"""

USER: Final = """
loop:                           # a0: where to count
    ld    t0, 0(a0)
    addi  t0, t0, 1
    sd    t0, 0(a0)
    andi  t1, t0, 0xFF
    bnez  t1, loop
    ecall
    j     loop
"""
