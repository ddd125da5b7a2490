"""QEMU's view of a hart (CPURISCVState), and how it is kept the same as KVM's.

Rule 1: the names are QEMU's, the CSRs by KVM's: ``sstatus`` is ``env.mstatus`` there,
``sie`` ``env.mie`` and ``sip`` ``env.mip``.

Rule 2: what is got and put is the policy's to say; in which order is said here.

Rule 3: fcsr and vcsr are got of no KVM, put into none and sent to nobody: whatever the
guest had in them, after a migration they are 0.

Sources: QEMU 11.1.0, target/riscv/kvm/kvm-cpu.c (kvm_riscv_get_regs_fp and _vector, and
what puts), accel/kvm/kvm-all.c.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.qemu_stream.riscv_cpu import (
    KvmTimer,
    MpStatePlace,
    RiscvCpu,
    Vectors,
)
from vfiomig.uapi.kvm_riscv import (
    KVM_MP_STATE_RUNNABLE,
    KVM_MP_STATE_STOPPED,
    KVM_RISCV_CSRS,
    KVM_RISCV_TIMER_STATE_OFF,
    PRV_M,
)
from vfiomig.vm.riscv.hart import VLENB
from vfiomig.vm.riscv.registers import GPR_NAMES
from vfiomig.vm.riscv.sync import MpStatePut, PutLevel

if TYPE_CHECKING:
    from vfiomig.vm.riscv.kvm import KvmVcpu
    from vfiomig.vm.riscv.sync import SyncPolicy

_A0: Final = 10
_A1: Final = 11
_U32: Final = (1 << 32) - 1
_VECTOR: Final = (1 << 8 * VLENB) - 1

# CSRs by KVM's name and QEMU's, where that is another.
_ENV_NAMES: Final = {"sstatus": "mstatus", "sie": "mie", "sip": "mip"}


class Cpu:
    """The CPU of one index: what QEMU has of its vCPU.

    ``is_dirty`` (vcpu_dirty): QEMU has the state, and puts it before the vCPU runs.
    ``timer_is_dirty`` is the same for the timer, which goes by itself.
    ``timer_frequency`` is that of the KVM which ``timer`` was got of, where it is
    known: no stream carries it.  ``vector`` is ``None`` where misa has no V: of the
    vCPU, and once something is loaded of what was.
    """

    def __init__(self, vcpu: KvmVcpu, policy: SyncPolicy) -> None:
        self.index = vcpu.hart.hart_id
        self.vcpu = vcpu
        self.policy = policy
        self.pc = 0
        self.gpr = [0] * 32
        self.fpr = [0] * 32
        self.vector = Vectors() if vcpu.has_extension("V") else None
        self.csr = dict.fromkeys(KVM_RISCV_CSRS, 0)
        self.priv = policy.reset_priv
        self.mp_state = KVM_MP_STATE_RUNNABLE
        self.mp_state_is_loaded = False
        self.timer = KvmTimer(0, 0, KVM_RISCV_TIMER_STATE_OFF)
        self.timer_frequency: int | None = None
        self.timer_is_dirty = False
        self.is_dirty = True

    def reset(self, entry: int, table: int) -> None:
        """Set what a hart has before the kernel's first instruction.

        ``entry`` is the kernel's, ``table`` the device tree's address.  FP and V stay
        as they are: neither riscv_cpu_reset_hold nor kvm_riscv_reset_vcpu clears them.
        """
        self.pc = entry
        self.gpr = [0] * 32
        self.gpr[_A0], self.gpr[_A1] = self.index, table
        self.csr = dict.fromkeys(KVM_RISCV_CSRS, 0)
        self.priv = self.policy.reset_priv

    # -- KVM to QEMU

    def synchronize(self) -> None:
        """Get the state, if QEMU does not have it (cpu_synchronize_state)."""
        if not self.is_dirty:
            self.get_registers()
            self.is_dirty = True

    def get_registers(self) -> None:
        """Get what the policy gets (kvm_arch_get_registers)."""
        vcpu = self.vcpu
        self.pc = vcpu.get("pc")
        self.gpr[1:] = [vcpu.get(name) for name in GPR_NAMES]
        if self.policy.gets_mode:
            self.priv = vcpu.get("mode")
        self.csr = {name: vcpu.get(name) for name in KVM_RISCV_CSRS}
        self.csr["scounteren"] &= _U32  # of 32 bits in QEMU
        self.fpr = [vcpu.get(f"f{number}") for number in range(32)]
        if self.vector is not None:
            self.vector = self._get_vector()
        if self.policy.gets_mp_state and vcpu.has_mp_state:
            self.mp_state = vcpu.get_mp_state()

    def get_timer(self) -> None:
        """Get the timer when the machine stops, once."""
        if self.timer_is_dirty:
            return
        names = (f"timer.{name}" for name in KvmTimer._fields)
        self.timer = KvmTimer(*map(self.vcpu.get, names))
        self.timer_frequency = self.vcpu.get("timer.frequency")
        self.timer_is_dirty = True

    # -- QEMU to KVM

    def put_registers(self, level: PutLevel) -> None:
        """Put what the policy puts at ``level`` (kvm_arch_put_registers).

        QEMU does not have the state any more after that.

        Raises:
            OSError: KVM refused; or M would be put, which KVM takes for U.
        """
        vcpu = self.vcpu
        vcpu.set("pc", self.pc)
        for name, value in zip(GPR_NAMES, self.gpr[1:], strict=True):
            vcpu.set(name, value)
        if self.policy.puts_mode:
            self._put_mode()
        for name, value in self.csr.items():
            vcpu.set(name, value)
        if level is not PutLevel.RUNTIME:  # since 11.1
            for number, value in enumerate(self.fpr):
                vcpu.set(f"f{number}", value)
            self._put_vector()
        self._put_mp_state(level)
        self.is_dirty = False

    def put_timer(self) -> str | None:
        """Put the timer when the machine starts, if QEMU has it.

        Return what QEMU reports: the frequency is not the one that it had.

        Raises:
            OSError: KVM refused.
        """
        if not self.timer_is_dirty:
            return None
        time, compare, state = self.timer
        self.vcpu.set("timer.time", time)
        self.vcpu.set("timer.compare", compare)
        if state != KVM_RISCV_TIMER_STATE_OFF:  # KVM refuses to turn off what is off
            self.vcpu.set("timer.state", state)
        self.timer_is_dirty = False
        own = self.vcpu.get("timer.frequency")
        if self.timer_frequency in (None, own):
            return None
        return (
            f"hart {self.index}: the timer has {own} Hz here, and had "
            f"{self.timer_frequency} Hz"
        )

    def _get_vector(self) -> Vectors:
        get = self.vcpu.get
        v = tuple(get(f"v{number}") for number in range(32))
        # Of 32 bits in QEMU: the last two.
        return Vectors(v, get("vtype"), get("vl") & _U32, get("vstart") & _U32)

    def _put_vector(self) -> None:
        """Put what there is; vlenb, which is put as well, is the vCPU's own."""
        if self.vector is None:
            return
        for name in ("vstart", "vl", "vtype"):
            self.vcpu.set(name, getattr(self.vector, name))
        for number, value in enumerate(self.vector.v):
            self.vcpu.set(f"v{number}", value & _VECTOR)

    def _put_mode(self) -> None:
        if self.priv != PRV_M:
            self.vcpu.set("mode", self.priv)
        elif not self.policy.skips_m:
            message = "priv is M (3): KVM has no such mode, and would take it for U"
            raise OSError(errno.EINVAL, message)

    def _put_mp_state(self, level: PutLevel) -> None:
        put = self.policy.mp_state_put(level)
        is_boot_hart = self.index == self.policy.boot_hart
        if put is MpStatePut.BY_INDEX:
            stopped, runnable = KVM_MP_STATE_STOPPED, KVM_MP_STATE_RUNNABLE
            self.mp_state = runnable if is_boot_hart else stopped
            self.mp_state_is_loaded = False
            self._set_mp_state(self.mp_state)
        elif put is MpStatePut.SECONDARIES_RUNNABLE:
            if self.index:
                self._set_mp_state(KVM_MP_STATE_RUNNABLE)
        elif put is MpStatePut.ALWAYS or (
            put is MpStatePut.IF_LOADED and self.mp_state_is_loaded
        ):
            self._set_mp_state(self.mp_state)

    def _set_mp_state(self, value: int) -> None:
        """Set it, if KVM can (kvm_riscv_sync_mpstate_to_kvm)."""
        if self.vcpu.has_mp_state:
            self.vcpu.set_mp_state(value)

    # -- the stream

    def save(self) -> RiscvCpu:
        """Return what the stream is to carry."""
        place = self.policy.layout.mp_state
        is_sent = place is MpStatePlace.FIELD or (
            place is MpStatePlace.SUBSECTION and self.vcpu.has_mp_state
        )
        csr = {_ENV_NAMES.get(name, name): value for name, value in self.csr.items()}
        return RiscvCpu(
            gpr=tuple(self.gpr),
            fpr=tuple(self.fpr),
            pc=self.pc,
            priv=self.priv,
            mhartid=self.index,
            timer=self.timer,
            mp_state=self.mp_state if is_sent else None,
            vector=self.vector,
            **csr,
        )

    def load(self, values: RiscvCpu) -> None:
        """Take over what a stream carried; KVM has it after the next put.

        Raises:
            OSError: ENOTSUP, there is an mp_state (subsection) and KVM can take none.
        """
        is_subsection = self.policy.layout.mp_state is MpStatePlace.SUBSECTION
        is_sent = values.mp_state is not None
        if is_subsection and is_sent and not self.vcpu.has_mp_state:
            message = f"hart {self.index}: KVM has no KVM_CAP_MP_STATE here"
            raise OSError(errno.ENOTSUP, message)
        self.gpr, self.fpr = list(values.gpr), list(values.fpr)
        self.vector = values.vector
        self.pc, self.priv = values.pc, values.priv
        self.csr = {
            name: getattr(values, _ENV_NAMES.get(name, name)) for name in KVM_RISCV_CSRS
        }
        self.mp_state_is_loaded = is_sent
        if values.mp_state is not None:
            self.mp_state = values.mp_state
        if values.timer is not None:
            self.timer = values.timer
            self.timer_is_dirty = True
