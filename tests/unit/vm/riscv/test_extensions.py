"""FP, V and CONFIG of whole machines: starts, boards with and without V, and runs."""

from __future__ import annotations

import errno

import pytest

from tests.unit.vm.riscv.guests import Guest
from tests.unit.vm.riscv.moving import memory, move
from vfiomig.vm.riscv import sbi
from vfiomig.vm.riscv.board import PutError, VirtBoard
from vfiomig.vm.riscv.hart import Hart, Start, VectorUnit
from vfiomig.vm.riscv.hart_state import differences
from vfiomig.vm.riscv.sync import MP_STATE

V7 = 0x1234_5678_9ABC_DEF0_0FED_CBA9_8765_4321


def test_a_start_clears_fp_and_vectors() -> None:
    # kvm_riscv_vcpu_context_reset() and _vector_reset(): all of the guest's context.
    hart = Hart(hart_id=1, fcsr=5, start=Start(0x8000_0000, 0))
    hart.vector = VectorUnit(v=[7] * 32, vstart=1, vl=2, vtype=3, vcsr=4)
    hart.f[3] = 6
    sbi.take_start(hart)
    assert (hart.fcsr, hart.f, hart.vector) == (0, [0] * 32, VectorUnit())


def test_no_start_clears_nothing() -> None:
    hart = Hart(hart_id=1, fcsr=5)
    hart.vector.v[3] = 9
    sbi.take_start(hart)
    assert (hart.fcsr, hart.vector.v[3]) == (5, 9)


@pytest.mark.parametrize(("function", "at"), [(4, 0), (5, 1), (6, 2)])
def test_a_guest_is_told_the_machine_ids(function: int, at: int) -> None:
    hart = Hart(hart_id=0, machine_ids=[0x5B7, 1 << 63 | 2, 3])
    hart.x[17], hart.x[16] = 0x10, function
    sbi.call(hart, {0: hart})
    assert hart.x[10:12] == [0, (0x5B7, 1 << 63 | 2, 3)[at]]


def test_a_vcpu_has_run_once_the_machine_was_started() -> None:
    with memory() as ram:
        board = VirtBoard(ram, 2, MP_STATE)
        board.vcpus[1].set("config.marchid", 1)
        board.vm_start(0)
        board.vm_stop()
        # The second as well, though it is stopped: its thread waits in KVM_RUN.
        for vcpu in board.vcpus:
            with pytest.raises(OSError, match="has run") as error:
                vcpu.set("config.marchid", 2)
            assert error.value.errno == errno.EBUSY


def test_a_host_without_v_cannot_take_vectors_and_says_so() -> None:
    with memory() as here, memory() as there:
        source = VirtBoard(here, 2, MP_STATE)
        destination = VirtBoard(there, 2, MP_STATE, has_vector=False)
        with pytest.raises(PutError, match="hart 0: KVM refused a FULL put"):
            move(source, destination)


def test_a_guest_without_v_goes_where_v_is_and_back() -> None:
    with memory() as here, memory() as there:
        source = VirtBoard(here, 2, MP_STATE, has_vector=False)
        destination = VirtBoard(there, 2, MP_STATE)
        before = move(source, destination)
        assert differences(before, destination.states()) == ()
        assert all(cpu.vector is None for cpu in destination.save())
        back = VirtBoard(here, 2, MP_STATE, has_vector=False)
        move(destination, back)
        assert differences(before, back.states()) == ()


def test_a_running_guest_leaves_its_vectors_alone() -> None:
    with Guest("loop: addi a0, a0, 1\nj loop") as guest:
        guest.hart.vector.v[7], guest.hart.fcsr = V7, 3
        guest.run(1000)
        assert guest.register("a0") > 100
        assert (guest.hart.vector.v[7], guest.hart.fcsr) == (V7, 3)
