"""Sv39 as a running hart meets it: what is mapped, for whom, and what faults."""

from __future__ import annotations

import pytest

from tests.unit.vm.riscv.guests import (
    CODE,
    DATA,
    HANDLER,
    KERNEL_PAGE,
    RAM,
    SV39,
    TABLES,
    USER_PAGE,
    Guest,
)
from vfiomig.uapi.kvm_riscv import KVM_RISCV_MODE_S, KVM_RISCV_MODE_U
from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.layout import VIRT_RAM
from vfiomig.vm.riscv.pages import A, D, R, U, V, W, X

S_MODE, U_MODE = KVM_RISCV_MODE_S, KVM_RISCV_MODE_U
SUM, MXR = 1 << 18, 1 << 19
PAGE = 0x40_0000  # where the page of the tests is mapped
ACCESSES = {"load": "ld a0, 0(a1)", "store": "sd a0, 0(a1)", "fetch": "jr a1"}
CAUSES = {"load": 13, "store": 15, "fetch": 12}


def met(flags: int, mode: int, access: str, sstatus: int = 0, at: int = PAGE) -> int:
    """Return the cause that an access to a page of these flags has; 3 is success."""
    with Guest() as guest:
        # Code for either mode, a handler of none, and the page in question.
        code = CODE | (USER_PAGE if mode == U_MODE else KERNEL_PAGE)
        guest.map({CODE: code, PAGE: DATA | flags})
        guest.put(ACCESSES[access] + "\nebreak", CODE)
        guest.put("ebreak", DATA)
        guest.hart.mode = mode
        guest.set(a1=at)
        guest.set_csr(sstatus=sstatus)
        cause, pc, value = guest.trap()
        if cause != 3:
            assert value == at
            assert pc == (at if access == "fetch" else CODE)
        return cause


@pytest.mark.parametrize("access", ACCESSES)
@pytest.mark.parametrize(
    ("flags", "mode", "sstatus", "allowed"),
    [
        (KERNEL_PAGE, S_MODE, 0, "load store fetch"),
        (KERNEL_PAGE, U_MODE, 0, ""),
        (USER_PAGE, U_MODE, 0, "load store fetch"),
        (USER_PAGE, S_MODE, 0, ""),
        (USER_PAGE, S_MODE, SUM, "load store"),  # a fetch never
        (USER_PAGE, U_MODE, SUM, "load store fetch"),
        (V | A | R, S_MODE, 0, "load"),
        (V | A | D | R | W, S_MODE, 0, "load store"),
        (V | A | X, S_MODE, 0, "fetch"),
        (V | A | X, S_MODE, MXR, "load fetch"),
        (V | A | X | U, U_MODE, MXR, "load fetch"),
        (V | R | W | X | D, S_MODE, 0, ""),  # A is clear
        (V | R | W | X | A, S_MODE, 0, "load fetch"),  # D is clear
        (V | A | D | W | X, S_MODE, 0, ""),  # reserved
        (R | W | X | A | D, S_MODE, 0, ""),  # not valid
    ],
)
def test_who_may_do_what_with_a_page(
    flags: int, mode: int, sstatus: int, allowed: str, access: str
) -> None:
    expected = 3 if access in allowed.split() else CAUSES[access]
    assert met(flags, mode, access, sstatus) == expected


@pytest.mark.parametrize(
    "at", [PAGE + 0x1000, PAGE + (1 << 39), PAGE | 1 << 63, 1 << 38, 0]
)
def test_addresses_that_nobody_mapped(at: int) -> None:
    for access in ACCESSES:
        assert met(KERNEL_PAGE, S_MODE, access, at=at) == CAUSES[access]


def test_the_highest_addresses_are_canonical() -> None:
    high = (1 << 64) - 0x1000
    with Guest("ld a0, 8(a1)\nend: ebreak") as guest:
        guest.map({CODE: CODE | KERNEL_PAGE, high: DATA | KERNEL_PAGE})
        guest.set(a1=high)
        guest.set_word(DATA + 8, 77)
        guest.run(1)
        assert guest.register("a0") == 77


@pytest.mark.parametrize(("shift", "index"), [(30, 2), (21, 0)])
def test_large_pages(shift: int, index: int) -> None:
    with Guest("ld a0, 8(a1)\nend: ebreak") as guest:
        guest.map({CODE: CODE | KERNEL_PAGE})
        table = TABLES if shift == 30 else TABLES + 0x1000
        guest.set_word(table + 8 * index, VIRT_RAM >> 12 << 10 | KERNEL_PAGE)
        guest.set(a1=DATA)
        guest.set_word(DATA + 8, 77)
        guest.run(1)
        assert guest.register("a0") == 77
        # One that does not begin where its size says is none.
        guest.set_word(table + 8 * index, (VIRT_RAM + 4096) >> 12 << 10 | KERNEL_PAGE)
        guest.hart.pc = CODE
        guest.run(1)
        assert guest.csr("scause") == 12


def test_a_page_that_is_no_ram_is_an_access_fault() -> None:
    for access, cause in (("load", 5), ("store", 7), ("fetch", 1)):
        with Guest(ACCESSES[access]) as guest:
            nowhere = VIRT_RAM + RAM
            guest.map({CODE: CODE | KERNEL_PAGE, PAGE: nowhere | KERNEL_PAGE})
            guest.set(a1=PAGE)
            assert guest.trap()[0] == cause


def test_a_table_that_is_no_ram_is_an_access_fault() -> None:
    with Guest("ld a0, 0(a1)") as guest:
        guest.set_csr(satp=SV39 | 1)
        guest.run(1)
        assert guest.trapped() == (1, CODE, CODE)


@pytest.mark.parametrize("bit", [4, 6, 7])  # U, A, D
def test_bits_that_only_a_leaf_may_have(bit: int) -> None:
    with Guest("nop") as guest:
        guest.map({CODE: CODE | KERNEL_PAGE})
        guest.set_word(TABLES + 16, guest.word(TABLES + 16) | 1 << bit)
        guest.run(1)
        assert guest.trapped()[0] == 12


@pytest.mark.parametrize("bit", [54, 60, 61, 63])
def test_bits_of_extensions_that_are_not_there(bit: int) -> None:
    with Guest("ld a0, 0(a1)") as guest:
        guest.map({CODE: CODE | KERNEL_PAGE, PAGE: DATA | KERNEL_PAGE})
        leaf = next(
            at
            for at in range(TABLES, TABLES + 0x8000, 8)
            if guest.word(at) == DATA >> 12 << 10 | KERNEL_PAGE
        )
        guest.set_word(leaf, guest.word(leaf) | 1 << bit)
        guest.set(a1=PAGE)
        guest.run(1)
        assert guest.trapped()[0] == 13


# -- what drops a translation; all of it within one run, for each begins with none


def test_another_satp_is_another_memory() -> None:
    other = TABLES + 0x8000
    with Guest("ld a0, 0(a1)\ncsrw satp, a2\nld a3, 0(a1)\nend: ebreak") as guest:
        for root, page in ((other, DATA + 0x1000), (TABLES, DATA)):
            guest.map({CODE: CODE | KERNEL_PAGE, PAGE: page | KERNEL_PAGE}, root)
            guest.set_word(page, page)
        # `map` clears what is behind a root: the first is built again.
        guest.map({CODE: CODE | KERNEL_PAGE, PAGE: DATA + 0x1000 | KERNEL_PAGE}, other)
        guest.set_csr(satp=SV39 | TABLES >> 12)
        guest.set(a1=PAGE, a2=SV39 | other >> 12)
        guest.run(3)
        assert guest.hart.pc == guest.labels["end"]
        assert (guest.register("a0"), guest.register("a3")) == (DATA, DATA + 0x1000)


def test_another_satp_is_other_code() -> None:
    other, behind = TABLES + 0x8000, DATA + 0x1000
    with Guest("csrw satp, a2\nli a0, 1\nebreak") as guest:
        guest.put("nop\nli a0, 2\nend: ebreak", behind)
        guest.map({CODE: behind | KERNEL_PAGE}, other)
        guest.map({CODE: CODE | KERNEL_PAGE})
        # That cleared what is behind its root.
        guest.map({CODE: behind | KERNEL_PAGE}, other)
        guest.set_csr(satp=SV39 | TABLES >> 12)
        guest.set(a2=SV39 | other >> 12)
        guest.run(2)
        assert (guest.register("a0"), guest.hart.pc) == (2, CODE + 8)


@pytest.mark.parametrize(
    ("text", "flags", "mode"),
    [("sret", KERNEL_PAGE, S_MODE), ("ecall", USER_PAGE, U_MODE)],
)
def test_code_of_one_mode_is_none_of_the_other(
    text: str, flags: int, mode: int
) -> None:
    with Guest(f"{text}\nnop") as guest:
        guest.map({CODE: CODE | flags})
        guest.hart.mode = mode
        guest.set_csr(sepc=CODE + 4, stvec=CODE + 4)
        guest.run(2)
        told = tuple(guest.csr(name) for name in ("scause", "sepc", "stval"))
        assert told == (12, CODE + 4, CODE + 4)


def test_a_table_that_changed_counts_after_a_fence() -> None:
    text = "ld a0, 0(a1)\nsd a2, 0(a4)\nsfence.vma\nld a3, 0(a1)\nend: ebreak"
    with Guest(text) as guest:
        guest.map({CODE: CODE | KERNEL_PAGE, PAGE: DATA | KERNEL_PAGE})
        leaf = next(
            at
            for at in range(TABLES, TABLES + 0x8000, 8)
            if guest.word(at) == DATA >> 12 << 10 | KERNEL_PAGE
        )
        guest.map(
            {
                CODE: CODE | KERNEL_PAGE,
                PAGE: DATA | KERNEL_PAGE,
                PAGE + 0x1000: leaf & -4096 | KERNEL_PAGE,
            }
        )
        assert guest.word(leaf) == DATA >> 12 << 10 | KERNEL_PAGE
        guest.set(a1=PAGE, a4=PAGE + 0x1000 + leaf % 4096)
        guest.set(a2=(DATA + 0x1000) >> 12 << 10 | KERNEL_PAGE)
        guest.set_word(DATA, 1)
        guest.set_word(DATA + 0x1000, 2)
        guest.run(4)
        assert guest.hart.pc == guest.labels["end"]
        assert (guest.register("a0"), guest.register("a3")) == (1, 2)


def test_a_table_and_a_satp_that_others_changed_count_in_the_next_run() -> None:
    with Guest("loop: ld a0, 0(a1)\nj loop") as guest:
        pages = {CODE: CODE | KERNEL_PAGE, PAGE: DATA | KERNEL_PAGE}
        guest.map(pages)
        guest.set(a1=PAGE)
        guest.set_word(DATA, 1)
        guest.set_word(DATA + 0x1000, 2)
        guest.run(100)
        assert guest.register("a0") == 1
        guest.map(pages | {PAGE: DATA + 0x1000 | KERNEL_PAGE})
        guest.run(100)
        assert guest.register("a0") == 2
        guest.set_csr(satp=0)
        assert guest.trap()[0] == 5  # PAGE is no RAM


def test_sum_that_is_cleared_hides_what_was_seen() -> None:
    text = """
        csrs sstatus, a2
        ld   a0, 0(a1)
        csrc sstatus, a2
        ld   a3, 0(a1)
    """
    with Guest(text) as guest:
        guest.map({CODE: CODE | KERNEL_PAGE, PAGE: DATA | USER_PAGE})
        guest.set(a1=PAGE, a2=SUM)
        guest.set_word(DATA, 9)
        guest.run(4)
        assert guest.trapped() == (13, CODE + 12, PAGE)
        assert guest.register("a0") == 9


def test_each_mode_has_its_own_translations() -> None:
    # The same load, in S and then in U, of a page of the kernel.
    with Guest("ld a0, 0(a1)\nsret") as guest:
        guest.map(
            {CODE: CODE | KERNEL_PAGE, PAGE: DATA | KERNEL_PAGE, 0: CODE | USER_PAGE}
        )
        guest.set(a1=PAGE)
        guest.set_csr(sepc=0)
        guest.run(3)
        assert guest.trapped() == (13, 0, PAGE)
        assert guest.hart.retired == [0, 2]


def test_a_user_page_in_supervisor_mode_is_never_executed() -> None:
    with Guest("addi a0, a0, 1\nj -4") as guest:
        guest.map({0x1_0000: CODE | USER_PAGE, HANDLER: HANDLER | KERNEL_PAGE})
        guest.put("wfi", HANDLER)
        guest.hart.pc, guest.hart.mode = 0x1_0000, U_MODE
        guest.set_csr(sstatus=SUM)
        assert guest.run(100) == 100
        pc = guest.hart.pc
        # What a migration does that forgets the mode.
        guest.hart.mode = S_MODE
        guest.run(100)
        assert (guest.csr("scause"), guest.csr("sepc")) == (12, pc)
        assert guest.hart.is_waiting
        assert guest.hart.retired == [100, 1]


def test_a_store_through_pages_marks_the_physical_page() -> None:
    with Guest("sd a0, 0(a1)\nend: ebreak") as guest:
        guest.map({CODE: CODE | KERNEL_PAGE, PAGE: DATA | KERNEL_PAGE})
        guest.memory.start_log(LogUser.KERNEL)
        guest.set(a1=PAGE)
        guest.run(1)
        log = guest.memory.log(LogUser.KERNEL, guest.memory.blocks[0])
        assert log is not None
        assert log.ranges().tolist() == [[(DATA - VIRT_RAM) >> 12, 1]]


def test_a_satp_of_another_mode_is_not_taken() -> None:
    with Guest("csrw satp, a1\nend: ebreak") as guest:
        for mode, taken in ((1, False), (9, False), (10, False), (0, True), (8, True)):
            guest.hart.pc = CODE
            guest.set_csr(satp=0)
            value = mode << 60 | TABLES >> 12
            guest.set(a1=value)
            guest.run(1)
            assert guest.csr("satp") == (value if taken else 0)


def test_a_satp_that_no_guest_can_set_maps_nothing() -> None:
    with Guest("nop") as guest:
        guest.set_csr(satp=9 << 60)
        assert guest.trap() == (12, CODE, CODE)
