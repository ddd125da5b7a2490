"""A vCPU as KVM shows it to QEMU: registers by their ids, and mp_state.

Rule 1: what a register answers is what the kernel's code does, odd as it is.  ``mode``
is no field there, but SPP of the host's view: written with 1 it is S, with anything
else U; M (3) as well.

Rule 2: a start that SBI HSM queued is the kernel's own.  No register shows it, and
mp_state is RUNNABLE as soon as it is queued.

Left out: the kernel's SET of a timer's state to ON arms it with the *state* (1) in
place of ``compare``, so that it fires at once; here it is armed with ``compare``.

Sources: arch/riscv/kvm/{vcpu,vcpu_onereg,vcpu_timer,vcpu_fp}.c, Linux 6.16.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.uapi.kvm_riscv import (
    KVM_MP_STATE_RUNNABLE,
    KVM_MP_STATE_STOPPED,
    KVM_REG_RISCV_CORE,
    KVM_REG_RISCV_CORE_MODE,
    KVM_REG_RISCV_CORE_PC,
    KVM_REG_RISCV_CSR,
    KVM_REG_RISCV_FP_D,
    KVM_REG_RISCV_TIMER,
    KVM_REG_RISCV_TIMER_COMPARE,
    KVM_REG_RISCV_TIMER_FREQUENCY,
    KVM_REG_RISCV_TIMER_TIME,
    KVM_RISCV_MODE_S,
    KVM_RISCV_MODE_U,
    KVM_RISCV_TIMER_STATE_OFF,
    KVM_RISCV_TIMER_STATE_ON,
)
from vfiomig.vm.riscv.hart import FREQUENCY
from vfiomig.vm.riscv.registers import NUMBERS, REGISTERS, RegisterId, name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.vm.riscv.hart import Hart

_WORD: Final = 1 << 64
_TYPES: Final = (
    KVM_REG_RISCV_CORE,
    KVM_REG_RISCV_CSR,
    KVM_REG_RISCV_TIMER,
    KVM_REG_RISCV_FP_D,
)
_WORD_SIZE: Final = 8


class KvmVcpu:
    """The vCPU that runs ``hart``: ioctls of its fd, as methods.

    ``ticks`` tells the host's time, ``frequency`` of them a second.  A vCPU is created
    in mode S; that of index 0 is on, all others are off.
    """

    def __init__(
        self,
        hart: Hart,
        ticks: Callable[[], int],
        *,
        has_mp_state: bool = True,
        frequency: int = FREQUENCY,
    ) -> None:
        self.hart = hart
        self.has_mp_state = has_mp_state  # KVM_CAP_MP_STATE
        self.frequency = frequency
        self._ticks = ticks
        hart.mode = KVM_RISCV_MODE_S
        hart.is_stopped = hart.hart_id != 0

    # -- registers

    def get_one_reg(self, number: int) -> int:
        """Return the value of a register (KVM_GET_ONE_REG).

        Raises:
            OSError: ENOENT, no such register; EINVAL, not of that size.
        """
        register = _known(number)
        hart, index = self.hart, register.index
        if register.type == KVM_REG_RISCV_TIMER:
            return self._get_timer(index)
        if register.type == KVM_REG_RISCV_CSR:
            return hart.csr[index]
        if register.type == KVM_REG_RISCV_FP_D:
            return hart.f[index]
        if index == KVM_REG_RISCV_CORE_PC:
            return hart.pc
        return hart.mode if index == KVM_REG_RISCV_CORE_MODE else hart.x[index]

    def set_one_reg(self, number: int, value: int) -> None:
        """Write a register (KVM_SET_ONE_REG).

        Raises:
            OSError: ENOENT, no such register; EINVAL, not of that size, or a value
                that it cannot take.
        """
        register = _known(number)
        if not 0 <= value < _WORD:
            message = f"{name_of(number)}: {value} is no value of 64 bits"
            raise OSError(errno.EINVAL, message)
        hart, index = self.hart, register.index
        if register.type == KVM_REG_RISCV_TIMER:
            self._set_timer(index, value)
        elif register.type == KVM_REG_RISCV_CSR:
            hart.csr[index] = value
        elif register.type == KVM_REG_RISCV_FP_D:
            hart.f[index] = value
        elif index == KVM_REG_RISCV_CORE_PC:
            hart.pc = value
        elif index == KVM_REG_RISCV_CORE_MODE:
            is_s = value == KVM_RISCV_MODE_S
            hart.mode = KVM_RISCV_MODE_S if is_s else KVM_RISCV_MODE_U
        else:
            hart.x[index] = value

    def get(self, name: str) -> int:
        """Return a register by its name; raises ``KeyError`` for what is none."""
        return self.get_one_reg(NUMBERS[name])

    def set(self, name: str, value: int) -> None:
        """Write a register by its name; raises ``KeyError``, and as `set_one_reg`."""
        self.set_one_reg(NUMBERS[name], value)

    # -- mp_state

    def get_mp_state(self) -> int:
        """Return KVM_MP_STATE_STOPPED or _RUNNABLE; one in WFI is runnable.

        Raises:
            OSError: EINVAL, this KVM has no KVM_CAP_MP_STATE.
        """
        self._require_mp_state()
        return KVM_MP_STATE_STOPPED if self.hart.is_stopped else KVM_MP_STATE_RUNNABLE

    def set_mp_state(self, value: int) -> None:
        """Stop the vCPU, or make it runnable as it is: no reset, no wake-up.

        Raises:
            OSError: EINVAL, another state, or no KVM_CAP_MP_STATE.
        """
        self._require_mp_state()
        if value not in (KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_STOPPED):
            message = f"mp_state {value}: RISC-V has 0 (RUNNABLE) and 5 (STOPPED)"
            raise OSError(errno.EINVAL, message)
        self.hart.is_stopped = value == KVM_MP_STATE_STOPPED
        if self.hart.is_stopped:
            self.kick()

    def kick(self) -> None:
        """Take the vCPU out of KVM_RUN: it waits in no WFI any more."""
        self.hart.is_waiting = False

    def _require_mp_state(self) -> None:
        if not self.has_mp_state:
            message = "this KVM has no KVM_CAP_MP_STATE"
            raise OSError(errno.EINVAL, message)

    # -- the timer

    def _get_timer(self, index: int) -> int:
        if index == KVM_REG_RISCV_TIMER_FREQUENCY:
            return self.frequency
        if index == KVM_REG_RISCV_TIMER_TIME:
            return (self._ticks() + self.hart.time_delta) % _WORD
        if index == KVM_REG_RISCV_TIMER_COMPARE:
            return self.hart.timer_compare
        return self.hart.timer_state

    def _set_timer(self, index: int, value: int) -> None:
        hart = self.hart
        if index == KVM_REG_RISCV_TIMER_FREQUENCY:
            if value != self.frequency:
                message = f"a timer of {value} Hz: the host's has {self.frequency} Hz"
                raise OSError(errno.EINVAL, message)
        elif index == KVM_REG_RISCV_TIMER_TIME:
            hart.time_delta = (value - self._ticks()) % _WORD
        elif index == KVM_REG_RISCV_TIMER_COMPARE:
            hart.timer_compare = value
        elif value == KVM_RISCV_TIMER_STATE_ON:
            hart.timer_state = KVM_RISCV_TIMER_STATE_ON
        elif hart.timer_state == KVM_RISCV_TIMER_STATE_OFF:
            raise OSError(errno.EINVAL, "the timer is off already")
        else:
            hart.timer_state = KVM_RISCV_TIMER_STATE_OFF


_REGISTERS: Final = {NUMBERS[name]: register for name, register in REGISTERS.items()}


def _known(number: int) -> RegisterId:
    """Return the register of an id.

    Raises:
        OSError: ENOENT, there is none; EINVAL, it is not of that size.
    """
    if number in _REGISTERS:
        return _REGISTERS[number]
    try:
        register = RegisterId.decode(number)
    except ValueError as error:
        raise OSError(errno.ENOENT, str(error)) from None
    if register.type in _TYPES and register.size != _WORD_SIZE:
        message = f"{number:#018x}: the register has {_WORD_SIZE} bytes"
        raise OSError(errno.EINVAL, message)
    raise OSError(errno.ENOENT, f"there is no register {number:#018x}")
