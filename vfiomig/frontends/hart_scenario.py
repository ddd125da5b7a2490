"""The harts of a scenario's machine: ``[machine.harts]``.

The rules are those of `frontends.scenario`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vfiomig.frontends.toml_values import (
    REQUIRED,
    BadKeyError,
    Key,
    Table,
    duration_up_to,
    flag,
    list_of,
    one_of,
    whole,
)
from vfiomig.vm.riscv import kernel
from vfiomig.vm.riscv.program import Role
from vfiomig.vm.riscv.sync import POLICIES

# RAM from its start on, which the guest program has to itself.
PROGRAM_SIZE: Final = kernel.END - kernel.ENTRY
_ROLES: Final = tuple(role.value for role in Role)
_POLICIES: Final = tuple(POLICIES)


@dataclass(frozen=True, slots=True, kw_only=True)
class HartsSpec:
    """The harts of a guest, what each of them does, and how QEMU synchronises them.

    ``roles`` are by hart.  ``policy`` is a key of `POLICIES`, the destination's may be
    another.  ``mp_state``: whether that side's KVM has KVM_CAP_MP_STATE.
    ``instructions`` each hart does in a virtual second.  ``run_on`` is how long the
    destination goes on when all has moved, in virtual nanoseconds.
    """

    roles: tuple[Role, ...]
    policy: str
    destination_policy: str
    mp_state: bool
    destination_mp_state: bool
    instructions: int
    run_on: int

    def policy_of(self, party: str) -> str:
        """Return the policy of a side."""
        return self.policy if party == "source" else self.destination_policy

    def has_mp_state(self, party: str) -> bool:
        """Tell whether the KVM of a side tells mp_state."""
        return self.mp_state if party == "source" else self.destination_mp_state


def _make_harts(
    *, roles: tuple[str, ...], policy: str, destination_policy: str | None, **rest: int
) -> HartsSpec:
    if roles[0] == Role.NEVER_STARTED.value:
        raise BadKeyError("roles[0]", f'cannot be "{roles[0]}": hart 0 boots the guest')
    return HartsSpec(
        roles=tuple(map(Role, roles)),
        policy=policy,
        destination_policy=destination_policy or policy,
        mp_state=bool(rest["mp_state"]),
        destination_mp_state=bool(rest["destination_mp_state"]),
        instructions=rest["instructions"],
        run_on=rest["run_on"],
    )


HARTS: Final = Table(
    written="[machine.harts]",
    make=_make_harts,
    keys={
        "roles": Key(
            list_of(one_of(*_ROLES), least=1, most=kernel.MOST_HARTS),
            REQUIRED,
        ),
        "policy": Key(one_of(*_POLICIES), "mp-state"),
        "destination_policy": Key(one_of(*_POLICIES)),
        "mp_state": Key(flag, default=True),
        "destination_mp_state": Key(flag, default=True),
        "instructions": Key(whole(1_000, 1_000_000_000), 1_000_000),
        "run_on": Key(duration_up_to(100), 20_000_000),
    },
)
