"""A vCPU as KVM shows it to QEMU: registers by their ids, and mp_state.

Rule 1: what a register answers is what the kernel's code does, odd as it is.  ``mode``
is no field there, but SPP of the host's view: written with 1 it is S, with anything
else U; M (3) as well.

Rule 2: a start that SBI HSM queued is the kernel's own.  No register shows it, and
mp_state is RUNNABLE as soon as it is queued.

Rule 3: which registers there are is said by CONFIG's ``isa``.  Until the vCPU has run,
F, D and V can be taken from it; no other letter can.

Left out: the kernel's SET of a timer's state to ON arms it with the *state* (1) in
place of ``compare``, so that it fires at once; here it is armed with ``compare``.

Sources: arch/riscv/kvm/{vcpu,vcpu_onereg,vcpu_timer,vcpu_fp,vcpu_vector}.c, Linux
6.16.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.uapi.kvm_riscv import (
    KVM_MP_STATE_RUNNABLE,
    KVM_MP_STATE_STOPPED,
    KVM_REG_RISCV_CONFIG,
    KVM_REG_RISCV_CONFIG_ISA,
    KVM_REG_RISCV_CONFIG_MVENDORID,
    KVM_REG_RISCV_CONFIG_SATP_MODE,
    KVM_REG_RISCV_CORE,
    KVM_REG_RISCV_CSR,
    KVM_REG_RISCV_FP_D,
    KVM_REG_RISCV_FP_D_FCSR,
    KVM_REG_RISCV_FP_F,
    KVM_REG_RISCV_TIMER,
    KVM_REG_RISCV_TIMER_COMPARE,
    KVM_REG_RISCV_TIMER_FREQUENCY,
    KVM_REG_RISCV_TIMER_TIME,
    KVM_REG_RISCV_VECTOR,
    KVM_REG_RISCV_VECTOR_REG_0,
    KVM_RISCV_MODE_S,
    KVM_RISCV_TIMER_STATE_OFF,
    KVM_RISCV_TIMER_STATE_ON,
)
from vfiomig.vm.riscv.hart import FREQUENCY
from vfiomig.vm.riscv.hart_registers import HART_REGISTERS
from vfiomig.vm.riscv.pages import SATP_SV39
from vfiomig.vm.riscv.registers import (
    NUMBERS,
    REGISTERS,
    RegisterId,
    floating,
    name_of,
    vector,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vfiomig.vm.riscv.hart import Hart

_WORD: Final = 1 << 64

# Extensions that a vCPU must have for registers of a type.
_NEEDED: Final[Mapping[int, str]] = {
    KVM_REG_RISCV_FP_F: "F",
    KVM_REG_RISCV_FP_D: "D",
    KVM_REG_RISCV_VECTOR: "V",
}


def _bits(letters: str) -> int:
    return sum(1 << (ord(letter) - ord("A")) for letter in letters)


_FIXED: Final = _bits("ACIM")  # what no write of ``isa`` disables
_LETTERS: Final = 25  # one with more bits is refused: fls() is compared with 26


class KvmVcpu:
    """The vCPU that runs ``hart``: ioctls of its fd, as methods.

    ``ticks`` tells the host's time, ``frequency`` of them a second.  ``has_vector``:
    the host has V.  ``has_run`` is the kernel's ran_atleast_once, for the board to set.
    A vCPU is created in mode S; that of index 0 is on, all others are off.
    """

    def __init__(
        self,
        hart: Hart,
        ticks: Callable[[], int],
        *,
        has_mp_state: bool = True,
        has_vector: bool = True,
        frequency: int = FREQUENCY,
    ) -> None:
        self.hart = hart
        self.has_run = False
        self.has_mp_state = has_mp_state  # KVM_CAP_MP_STATE
        self.frequency = frequency
        self._ticks = ticks
        self._host_isa = self._isa = _bits("ACDFIMV" if has_vector else "ACDFIM")
        hart.mode = KVM_RISCV_MODE_S
        hart.is_stopped = hart.hart_id != 0

    # -- registers

    def get_one_reg(self, number: int) -> int:
        """Return the value of a register (KVM_GET_ONE_REG).

        Raises:
            OSError: ENOENT, no such register; EINVAL, not of that size.
        """
        register = self._known(number)
        if register.type == KVM_REG_RISCV_TIMER:
            return self._get_timer(register.index)
        if register.type == KVM_REG_RISCV_CONFIG:
            return self._get_config(register.index)
        return HART_REGISTERS[register.type].get(self.hart, register.index)

    def set_one_reg(self, number: int, value: int) -> None:
        """Write a register (KVM_SET_ONE_REG).

        Raises:
            OSError: ENOENT, no such register; EINVAL, not of that size, or a value
                that it cannot take; EBUSY, one that it takes only before it runs.
        """
        register = self._known(number)
        if not 0 <= value < 1 << 8 * register.size:
            bits = 8 * register.size
            message = f"{name_of(number)}: {value} is no value of {bits} bits"
            raise OSError(errno.EINVAL, message)
        if register.type == KVM_REG_RISCV_TIMER:
            self._set_timer(register.index, value)
        elif register.type == KVM_REG_RISCV_CONFIG:
            self._set_config(register.index, value)
        else:
            HART_REGISTERS[register.type].set(self.hart, register.index, value)

    def get(self, name: str) -> int:
        """Return a register by its name; raises ``KeyError`` for what is none."""
        return self.get_one_reg(NUMBERS[name])

    def set(self, name: str, value: int) -> None:
        """Write a register by its name; raises ``KeyError``, and as `set_one_reg`."""
        self.set_one_reg(NUMBERS[name], value)

    def has_extension(self, letter: str) -> bool:
        """Whether the guest has an extension of one letter, a capital."""
        return bool(self._isa & _bits(letter))

    def register_names(self) -> tuple[str, ...]:
        """Return the names of all registers (KVM_GET_REG_LIST), in KVM's order."""
        return tuple(name for name, it in REGISTERS.items() if self._has_type(it.type))

    def _has_type(self, type_: int) -> bool:
        return type_ not in _NEEDED or self.has_extension(_NEEDED[type_])

    def _known(self, number: int) -> RegisterId:
        """Return the register of an id.

        Raises:
            OSError: ENOENT, there is none; EINVAL, it is not of that size.
        """
        register = _REGISTERS.get(number)
        if register is not None and self._has_type(register.type):
            return register
        try:
            register = RegisterId.decode(number)
        except ValueError as error:
            raise OSError(errno.ENOENT, str(error)) from None
        size = _size_of(register.type, register.subtype | register.index)
        if self._has_type(register.type) and size not in (None, register.size):
            message = f"{number:#018x}: the register has {size} bytes"
            raise OSError(errno.EINVAL, message)
        raise OSError(errno.ENOENT, f"there is no register {number:#018x}")

    # -- CONFIG

    def _get_config(self, index: int) -> int:
        if index == KVM_REG_RISCV_CONFIG_ISA:
            return self._isa
        if index == KVM_REG_RISCV_CONFIG_SATP_MODE:
            return SATP_SV39
        return self.hart.machine_ids[index - KVM_REG_RISCV_CONFIG_MVENDORID]

    def _set_config(self, index: int, value: int) -> None:
        if index == KVM_REG_RISCV_CONFIG_ISA and value >> _LETTERS:
            message = f"isa {value:#x}: single letters alone"
            raise OSError(errno.EINVAL, message)
        own = self._get_config(index)
        if value == own:
            return
        if index == KVM_REG_RISCV_CONFIG_SATP_MODE:
            message = f"satp_mode {value}: the host's is {own}"
            raise OSError(errno.EINVAL, message)
        if self.has_run:
            message = f"{value:#x} in place of {own:#x}: the vCPU has run"
            raise OSError(errno.EBUSY, message)
        if index == KVM_REG_RISCV_CONFIG_ISA:
            self._isa = (value | _FIXED) & self._host_isa
        else:
            ids = self.hart.machine_ids
            ids[index - KVM_REG_RISCV_CONFIG_MVENDORID] = value

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

# Where all indexes of a type, even those that there are not, have one size.
_SIZES: Final[Mapping[int, int]] = {
    KVM_REG_RISCV_CONFIG: 8,
    KVM_REG_RISCV_CORE: 8,
    KVM_REG_RISCV_CSR: 8,
    KVM_REG_RISCV_TIMER: 8,
    KVM_REG_RISCV_FP_F: 4,
}
_BEHIND_FP_D: Final = KVM_REG_RISCV_FP_D_FCSR + 1
_BEHIND_VECTOR: Final = KVM_REG_RISCV_VECTOR_REG_0 + 32


def _size_of(type_: int, index: int) -> int | None:
    """Return the size that the kernel demands; ``None`` where it has no such index.

    ``index`` has the subtype in it.
    """
    if type_ == KVM_REG_RISCV_FP_D and index < _BEHIND_FP_D:
        return floating(index).size
    if type_ == KVM_REG_RISCV_VECTOR and index < _BEHIND_VECTOR:
        return vector(index).size
    return _SIZES.get(type_)
