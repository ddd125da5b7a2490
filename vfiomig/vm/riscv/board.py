"""The ``virt`` board under KVM: its harts, and the order in which QEMU drives them.

::

    made          FULL on all, a reset of the system, RESET on all
    source        stop (kick, get the timers), get what is not had, save
    destination   pre_load, load each, FULL on all, start
    running       put the timers; before KVM_RUN, RUNTIME for who is dirty

Rule 1: what the guest did depends on the virtual time alone, not on how often it was
asked for: harts run in rounds, by index, a slice each, at times that are reckoned.

Rule 2: while the machine is stopped the host's clock of this board stands: all that a
guest sees of time goes through its timer's registers.

Sources: QEMU 11.1.0, accel/kvm/kvm-all.c, system/runstate.c, migration/savevm.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.protocol.errors import StateError, VfiomigError
from vfiomig.vm.riscv.cpu import Cpu
from vfiomig.vm.riscv.execute import Engine
from vfiomig.vm.riscv.hart import FREQUENCY, Hart
from vfiomig.vm.riscv.hart_state import HartState
from vfiomig.vm.riscv.kernel import ENTRY, ROLES
from vfiomig.vm.riscv.kvm import KvmVcpu
from vfiomig.vm.riscv.program import is_settled, load_program, read_progress
from vfiomig.vm.riscv.sync import PutLevel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.protocol.qemu_stream.riscv_cpu import RiscvCpu
    from vfiomig.vm.memory import GuestMemory
    from vfiomig.vm.riscv.program import Role
    from vfiomig.vm.riscv.sync import SyncPolicy

INSTRUCTIONS: Final = 100_000  # a second and hart
_SLICE: Final = 500  # instructions of one hart before the next has its turn, at most
_ROUNDS: Final = 1_000  # a second, at least, if a hart is so fast

_MOST_BOOTING: Final = 1 << 18  # instructions of a hart until all do what they are to

_SECOND: Final = 1_000_000_000  # nanoseconds
_PERCENT: Final = 100
_MOST_THROTTLE: Final = 99  # per cent, as in QEMU


class PutError(VfiomigError):
    """KVM refused a FULL put or a timer, and QEMU ends."""


class BootError(VfiomigError):
    """The guest did not come to where its harts do what they are to do."""


class VirtBoard:
    """A machine of ``count`` harts, as a QEMU with ``policy`` made it, and reset it.

    ``instructions`` is how many a hart retires in a second of virtual time.
    ``has_mp_state``, ``has_vector`` and ``frequency`` are of the host's KVM.
    ``internal_error`` says why the machine cannot run (run state internal-error);
    ``reports`` is what QEMU printed and went on.

    Raises:
        PutError: KVM refused what the policy puts.
        ValueError: no harts, or no speed.
    """

    def __init__(
        self,
        memory: GuestMemory,
        count: int,
        policy: SyncPolicy,
        *,
        instructions: int = INSTRUCTIONS,
        has_mp_state: bool = True,
        has_vector: bool = True,
        frequency: int = FREQUENCY,
    ) -> None:
        if count < 1 or instructions < 1:
            message = f"{count} harts, {instructions} instructions a second"
            raise ValueError(message)
        self.memory = memory
        self.policy = policy
        self.instructions = instructions
        self.frequency = frequency
        self.is_running = False
        self.internal_error: str | None = None
        self.reports: list[str] = []
        self.harts = tuple(Hart(hart_id=index) for index in range(count))
        self.vcpus = tuple(
            KvmVcpu(
                hart,
                self.ticks,
                has_mp_state=has_mp_state,
                has_vector=has_vector,
                frequency=frequency,
            )
            for hart in self.harts
        )
        self.cpus = tuple(Cpu(vcpu, policy) for vcpu in self.vcpus)
        self._slice = max(1, min(_SLICE, instructions // _ROUNDS))
        self._ahead = [0] * count  # instructions beyond the slices that each had
        self._engine = Engine(memory, self.harts, self.ticks)
        self._percent = 0  # throttle
        self._host = 0  # ns that the host's clock has been running
        self._now = 0  # of virtual time, where that stands for
        self._work = 0  # towards the next round: instructions x ns/s x per cent
        self._retired_before = [(0, 0)] * count
        for cpu in self.cpus:
            cpu.reset(ENTRY, ROLES)
        self.post_init()
        self.system_reset()

    @property
    def has_mp_state(self) -> bool:
        """Whether this KVM has KVM_CAP_MP_STATE."""
        return self.vcpus[0].has_mp_state

    def ticks(self) -> int:
        """Return the host's time in ticks of its timer."""
        return self._host * self.frequency // _SECOND

    # -- what QEMU does with all harts

    def post_init(self) -> None:
        """Put FULL: once the machine is made, and once it is loaded.

        Raises:
            PutError: KVM refused: QEMU exits.
        """
        for cpu in self.cpus:
            try:
                cpu.put_registers(PutLevel.FULL)
            except OSError as error:
                raise PutError(_refused(cpu, PutLevel.FULL, error)) from error

    def system_reset(self) -> None:
        """Reset all harts, and put RESET (qemu_system_reset).

        A put that KVM refuses stops the machine: ``internal_error`` says why.
        """
        self._kick()
        self.synchronize_all_states()
        for cpu in self.cpus:
            cpu.reset(ENTRY, ROLES)
        for cpu in self.cpus:
            self._put(cpu, PutLevel.RESET)

    def synchronize_all_states(self) -> None:
        """Get the state of all harts that QEMU does not have yet."""
        for cpu in self.cpus:
            cpu.synchronize()

    def save(self) -> tuple[RiscvCpu, ...]:
        """Return what the stream carries of each hart, by index.

        Raises:
            StateError: the machine runs.
        """
        self._require_stopped("save the harts")
        self.synchronize_all_states()
        return tuple(cpu.save() for cpu in self.cpus)

    def pre_load(self) -> None:
        """Get ready for an incoming stream: what QEMU has is what counts (pre_loadvm).

        Raises:
            StateError: the machine runs.
        """
        self._require_stopped("load the harts")
        for cpu in self.cpus:
            cpu.is_dirty = True

    def load(self, index: int, values: RiscvCpu) -> None:
        """Take over the values of one hart; ``post_init`` hands them to KVM.

        Raises:
            OSError: ENOTSUP, an mp_state that KVM cannot take.
        """
        self.cpus[index].load(values)

    def vm_start(self, now: int) -> None:
        """Let the harts run from ``now`` (ns) on (vm_start).

        Raises:
            StateError: an internal error has stopped the machine for good.
            PutError: KVM refused a timer: QEMU aborts.
        """
        if self.internal_error is not None:
            message = f"the machine cannot run: {self.internal_error}"
            raise StateError(message, state="internal-error", required="no error")
        if self.is_running:
            return
        self.is_running = True
        self._now = now
        self._begin_anew()
        for cpu in self.cpus:
            try:
                report = cpu.put_timer()
            except OSError as error:
                self.is_running = False
                message = f"hart {cpu.index}: KVM refused the timer: {error.strerror}"
                raise PutError(message) from error
            if report is not None:
                self.reports.append(report)
            cpu.vcpu.has_run = True

    def vm_stop(self) -> None:
        """Stop the harts where they are, and get their timers (vm_stop)."""
        if not self.is_running:
            return
        self.is_running = False
        self._kick()
        for cpu in self.cpus:
            cpu.get_timer()

    # -- running

    def run_until(self, now: int) -> None:
        """Let the harts run until ``now`` (ns), if they do; a past time is nothing."""
        speed = self.instructions * (_PERCENT - self._percent)
        due = self._slice * _SECOND * _PERCENT
        while self.is_running and self._now < now:
            wanted = -(-(due - self._work) // speed)  # ns up to the next round
            step = min(wanted, now - self._now)
            self._now += step
            self._host += step
            self._work += speed * step
            if self._work >= due:
                self._work -= due
                self._round()

    def throttle(self, now: int, percent: int) -> None:
        """Take ``percent`` of their time from the harts, from ``now`` (ns) on.

        Raises:
            ValueError: it is not 0 to 99.
        """
        if not 0 <= percent <= _MOST_THROTTLE:
            message = f"a throttle of {percent} per cent"
            raise ValueError(message)
        self.run_until(now)
        self._percent = percent

    def _round(self) -> None:
        """Run each hart for a slice."""
        for cpu in self.cpus:
            if cpu.is_dirty and not self._put(cpu, PutLevel.RUNTIME):
                return
            budget = self._slice - self._ahead[cpu.index]
            ran = self._engine.run(cpu.vcpu.hart, budget) if budget > 0 else 0
            self._ahead[cpu.index] = max(0, ran - budget)

    def boot(self, roles: Sequence[Role]) -> None:
        """Load the guest program, run until each hart is in its role, and stop there.

        ``roles`` are by hart.  Time begins again with the next start.

        Raises:
            BootError: they do not come there.
            StateError: an internal error has stopped the machine for good.
            ValueError: the program does not take these roles, or fits no RAM.
        """
        if len(roles) != len(self.harts):
            message = f"{len(roles)} roles for {len(self.harts)} harts"
            raise ValueError(message)
        load_program(self.memory, roles)
        self.vm_start(0)
        step = -(-_SLICE * _SECOND // self.instructions)
        for _ in range(_MOST_BOOTING // _SLICE):
            self.run_until(self._now + step)
            if is_settled(self.memory, self.harts):
                self.vm_stop()
                return
        self.vm_stop()
        raise BootError(self._why_unsettled())

    def _why_unsettled(self) -> str:
        """Say which harts did not come to their roles."""
        if self.internal_error is not None:
            return f"the guest did not boot: {self.internal_error}"
        facts = read_progress(self.memory, len(self.harts))
        late = [
            f"hart {state.index} is at {state.pc:#x} in {state.mode}"
            + (f" after trap {progress.panic.cause}" if progress.panic else "")
            for state, progress in zip(self.states(), facts.harts, strict=True)
            if not progress.reached
        ]
        where = "; ".join(late) or "a hart that is to stop runs"
        return f"the guest did not boot in {_MOST_BOOTING} instructions: {where}"

    # -- what is told

    def states(self) -> tuple[HartState, ...]:
        """Return every hart as KVM shows it."""
        return tuple(
            HartState.of(vcpu, before)
            for vcpu, before in zip(self.vcpus, self._retired_before, strict=True)
        )

    # -- parts

    def _put(self, cpu: Cpu, level: PutLevel) -> bool:
        """Put; tell whether KVM took it.  If not, the machine stops for good."""
        try:
            cpu.put_registers(level)
        except OSError as error:
            self.internal_error = _refused(cpu, level, error)
            self.vm_stop()
            return False
        return True

    def _kick(self) -> None:
        for vcpu in self.vcpus:
            vcpu.kick()

    def _begin_anew(self) -> None:
        """Begin a round, and count from here on."""
        self._work = 0
        self._ahead = [0] * len(self.harts)
        self._retired_before = [(h.retired[0], h.retired[1]) for h in self.harts]

    def _require_stopped(self, what: str) -> None:
        if self.is_running:
            message = f"cannot {what}: they run"
            raise StateError(message, state="running", required="stopped")


def _refused(cpu: Cpu, level: PutLevel, error: OSError) -> str:
    return f"hart {cpu.index}: KVM refused a {level.name} put: {error.strerror}"
