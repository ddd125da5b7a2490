"""Conversations that Hypothesis makes: one rule an action, named for it.

The weights follow what published bugs were (bugs.md, section 1): sequences and whole
sessions before single accesses.  Nothing is asserted here; each step is judged as it
is performed, and whoever holds the conversation looks at its rulings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    rule,
    run_state_machine_as_test,
)

from vfiomig.conformance.conversation.damage import DAMAGES, REARRANGEMENTS
from vfiomig.conformance.conversation.steps import Argument, Step, step
from vfiomig.conformance.seed_alone import of_the_seed_alone

if TYPE_CHECKING:
    from collections.abc import Callable

    Hold = Callable[[], "Holder"]

STEPS: Final = 30  # a conversation, at most

_SAVED: Final = "source"
_LOADED: Final = "destination"
_ROLES: Final = st.sampled_from((_SAVED, _SAVED, _SAVED, _LOADED))
_WAYS: Final = st.sampled_from(
    ("whole", "whole", "mapped", "halves", "odd", "bytes", "sevens")
)
_VALUES: Final = st.sampled_from((0, 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1))
_CODES: Final = st.sampled_from((5, 12, 131))  # EIO, ENOMEM, ENOTRECOVERABLE
_SITES: Final = st.sampled_from(
    ("device_state", "pending_bytes", "data_offset", "data_size", "data")
)


class Holder(Protocol):
    """What performs the steps of one conversation, and is told when it is over."""

    def perform(self, each: Step) -> None:
        """Perform one step."""

    def finish(self) -> None:
        """End the conversation."""


class ConversationMachine(RuleBasedStateMachine):
    """One rule an action; ``hold`` begins the conversation that performs them."""

    hold: Hold

    def __init__(self) -> None:
        super().__init__()
        self._held = type(self).hold()

    def _do(self, name: str, *arguments: Argument) -> None:
        self._held.perform(step(name, *arguments))

    # -- whole sessions ----------------------------------------------------------------

    @rule(how=_WAYS)
    def save_all(self, how: str) -> None:
        """Stop the source and save all that is left."""
        self._do("enter", _SAVED, 2)
        self._do("drain", _SAVED, how)

    @rule(how=_WAYS, rounds=st.integers(0, 4), amount=st.integers(0, 40))
    def pre_copy(self, how: str, rounds: int, amount: int) -> None:
        """Save while the source runs and works."""
        self._do("enter", _SAVED, 3)
        for _ in range(rounds):
            self._do("iterate", _SAVED, 2, how)
            self._do("work", _SAVED, amount)

    @rule(how=_WAYS)
    def arrive(self, how: str) -> None:
        """Resume at the destination, and let it run."""
        self._do("enter", _LOADED, 4)
        self._do("load", _LOADED, how)
        self._do("enter", _LOADED, 1)

    @rule(
        damage=st.sampled_from(DAMAGES + REARRANGEMENTS), place=st.integers(0, 1 << 16)
    )
    def arrive_damaged(self, damage: str, place: int) -> None:
        """Give the destination what it may not run with."""
        self._do("enter", _LOADED, 4)
        self._do("load_damaged", _LOADED, damage, place)
        self._do("enter", _LOADED, 1)

    @rule()
    def come_back(self) -> None:
        """Migrate from the destination to the source."""
        self._do("enter", _LOADED, 2)
        self._do("drain", _LOADED)
        self._do("enter", _SAVED, 4)
        self._do("load", _SAVED)
        self._do("enter", _SAVED, 1)

    # -- parts of sessions -------------------------------------------------------------

    @rule(role=_ROLES, state=st.sampled_from((0, 1, 1, 2, 3, 4)))
    def enter(self, role: str, state: int) -> None:
        """Ask for a valid state."""
        self._do("enter", role, state)

    @rule(role=_ROLES, state=st.sampled_from((5, 6, 7, 0x80000001)))
    def enter_what_is_not_valid(self, role: str, state: int) -> None:
        """Ask for what is no state, or set bits that are reserved."""
        self._do("enter", role, state)

    @rule(role=_ROLES, amount=st.integers(1, 60))
    def work(self, role: str, amount: int) -> None:
        """Let guest traffic reach the device."""
        self._do("work", role, amount)

    @rule(role=_ROLES, buffers=st.integers(1, 3), how=_WAYS)
    def iterate(self, role: str, buffers: int, how: str) -> None:
        """Save a few buffers."""
        self._do("iterate", role, buffers, how)

    @rule(role=_ROLES, again=st.integers(1, 3))
    def read_pending_bytes(self, role: str, again: int) -> None:
        """Read pending_bytes, perhaps more than once."""
        for _ in range(again):
            self._do("read_pending_bytes", role)

    @rule(role=_ROLES)
    def begin_buffer(self, role: str) -> None:
        """Queue a buffer, and leave it."""
        self._do("read_pending_bytes", role)
        self._do("read_data_offset", role)

    @rule(role=_ROLES)
    def read_data_offset(self, role: str) -> None:
        """Read data_offset."""
        self._do("read_data_offset", role)

    @rule(role=_ROLES)
    def read_data_size(self, role: str) -> None:
        """Read data_size."""
        self._do("read_data_size", role)

    @rule(role=_ROLES, how=_WAYS)
    def read_data(self, role: str, how: str) -> None:
        """Read the current buffer."""
        self._do("read_data", role, how)

    @rule(role=_ROLES)
    def reset(self, role: str) -> None:
        """Reset the device."""
        self._do("reset", role)

    @rule(role=_ROLES)
    def reopen(self, role: str) -> None:
        """Close the device, and open a fresh one."""
        self._do("reopen", role)

    @rule(role=_ROLES, on=_SITES, code=_CODES)
    def fail(self, role: str, on: str, code: int) -> None:
        """Arm a fault inside the device."""
        self._do("fail", role, on, code)

    # -- single accesses ---------------------------------------------------------------

    @rule(
        role=_ROLES,
        is_write=st.booleans(),
        offset=st.integers(0, 31),
        size=st.sampled_from((1, 2, 3, 4, 8, 12, 16, 32)),
    )
    def access_odd(self, role: str, is_write: bool, offset: int, size: int) -> None:  # noqa: FBT001
        """Access the registers at another width or place than their own."""
        if (offset, size) not in ((0, 4), (4, 4), (8, 8), (16, 8), (24, 8)):
            self._do("write_odd" if is_write else "read_odd", role, offset, size)

    @rule(
        role=_ROLES,
        register=st.sampled_from(
            ("reserved", "pending_bytes", "data_offset", "data_size")
        ),
        value=_VALUES,
    )
    def write_register(self, role: str, register: str, value: int) -> None:
        """Write a register that is not there to be written now."""
        self._do("write_register", role, register, value)

    def teardown(self) -> None:
        """End the conversation."""
        self._held.finish()


def converse(hold: Hold, *, conversations: int, seed_number: int) -> None:
    """Hold so many conversations; the same seed holds the same."""
    with of_the_seed_alone():
        _converse(hold, conversations, seed_number)


def settings_for(conversations: int) -> settings:
    """Return how Hypothesis makes so many conversations: all of them, and no more."""
    return settings(
        max_examples=conversations,
        stateful_step_count=STEPS,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        print_blob=False,
        report_multiple_bugs=False,
    )


def _converse(hold: Hold, conversations: int, seed_number: int) -> None:
    machine = type("Conversation", (ConversationMachine,), {"hold": staticmethod(hold)})
    run_state_machine_as_test(
        seed(seed_number)(machine),
        settings=settings_for(conversations),
    )
