"""Table A7 of the facts: what each policy makes of a hart, row by row.

The outcomes are the table's columns: unpatched (8.2 to 11.1), the third version of the
patch ("all-runnable"), and what was merged ("mp-state").
"""

from __future__ import annotations

import dataclasses

import pytest

from tests.unit.vm.riscv.moving import (
    BEHIND_STOP,
    KERNEL,
    STARTS_AT,
    Is,
    board,
    guest,
    move,
    name_of,
    shown,
)
from vfiomig.protocol.errors import StreamError
from vfiomig.vm.riscv.hart_state import differences
from vfiomig.vm.riscv.sync import (
    ALL_RUNNABLE,
    MP_STATE,
    POLICIES,
    UNPATCHED,
    SyncPolicy,
)

# Row, the harts at the source, and what they are at the destination by policy.
ROWS = [
    pytest.param(
        [Is.SUPERVISOR],
        {
            "unpatched": ["run S"],
            "all-runnable": ["run S"],
            "mp-state": ["run S"],
        },
        id="1 hart 0 runs in S",
    ),
    pytest.param(
        [Is.USER],
        {
            "unpatched": ["run S"],
            "all-runnable": ["run U"],
            "mp-state": ["run U"],
        },
        id="2 hart 0 runs in U",
    ),
    pytest.param(
        [Is.SUPERVISOR, Is.SUPERVISOR],
        {
            "unpatched": ["run S", "stop S"],
            "all-runnable": ["run S", "run S"],
            "mp-state": ["run S", "run S"],
        },
        id="3 a secondary runs in S",
    ),
    pytest.param(
        [Is.SUPERVISOR, Is.USER],
        {
            "unpatched": ["run S", "stop S"],
            "all-runnable": ["run S", "run U"],
            "mp-state": ["run S", "run U"],
        },
        id="4 a secondary runs in U",
    ),
    pytest.param(
        [Is.SUPERVISOR, Is.WAITING],
        {
            "unpatched": ["run S", "stop S"],
            "all-runnable": ["run S", "run S"],
            "mp-state": ["run S", "run S"],
        },
        id="5 a secondary waits in WFI",
    ),
    pytest.param(
        [Is.SUPERVISOR, Is.STOPPED],
        {
            "unpatched": ["run S", "stop S"],
            "all-runnable": ["run S", "run S"],
            "mp-state": ["run S", "stop S"],
        },
        id="6 a secondary was stopped via HSM",
    ),
    pytest.param(
        [Is.SUPERVISOR, Is.NEVER_STARTED],
        {
            "unpatched": ["run S", "stop S"],
            "all-runnable": ["run S", "run S"],
            "mp-state": ["run S", "stop S"],
        },
        id="7 a secondary was never started",
    ),
    pytest.param(
        [Is.STOPPED, Is.SUPERVISOR, Is.SUPERVISOR],
        {
            "unpatched": ["run S", "stop S", "stop S"],
            "all-runnable": ["run S", "run S", "run S"],
            "mp-state": ["stop S", "run S", "run S"],
        },
        id="8 hart 0 is stopped, others run",
    ),
    pytest.param(
        [Is.SUPERVISOR, Is.STARTING],
        {
            "unpatched": ["run S", "stop S"],
            "all-runnable": ["run S", "run S"],
            "mp-state": ["run S", "run S"],
        },
        id="9 a start is pending",
    ),
]


@pytest.mark.parametrize("policy", POLICIES.values(), ids=name_of)
@pytest.mark.parametrize(("harts", "outcomes"), ROWS)
def test_harts_end_as_the_column_of_the_policy_says(
    policy: SyncPolicy, harts: list[Is], outcomes: dict[str, list[str]]
) -> None:
    destination = board(policy, len(harts))
    move(guest(policy, *harts), destination)
    assert shown(destination.states()) == outcomes[policy.name]


def test_a_hart_forced_to_run_goes_on_behind_its_stop_or_at_the_kernels_entry() -> None:
    source = guest(ALL_RUNNABLE, Is.SUPERVISOR, Is.STOPPED, Is.NEVER_STARTED)
    destination = board(ALL_RUNNABLE, 3)
    fresh = board(ALL_RUNNABLE, 3).states()[2]
    move(source, destination)
    _, stopped, never = destination.states()
    assert stopped.pc == BEHIND_STOP
    assert never.pc == fresh.pc
    assert never.registers["a0"] == 2  # its hart id, as at a boot


@pytest.mark.parametrize("policy", POLICIES.values(), ids=name_of)
def test_nobody_carries_a_pending_start(policy: SyncPolicy) -> None:
    source = guest(policy, Is.SUPERVISOR, Is.STARTING)
    destination = board(policy, 2)
    before = move(source, destination)
    hart = destination.states()[1]
    assert before[1].mp_state == "runnable"  # it reads so before it has started
    assert before[1].pc != STARTS_AT
    assert hart.pc != STARTS_AT
    assert hart.start is None
    (told,) = (
        line
        for line in differences(before, destination.states())
        if "was to start" in line
    )
    assert told == (
        f"hart 1: is at {hart.pc:#x}, and the source's was to start at {STARTS_AT:#x}"
    )


@pytest.mark.parametrize("policy", POLICIES.values(), ids=name_of)
def test_without_the_capability_harts_are_as_the_kernel_makes_them(
    policy: SyncPolicy,
) -> None:
    source = guest(policy, Is.SUPERVISOR, Is.SUPERVISOR, has_mp_state=False)
    destination = board(policy, 2, has_mp_state=False)
    move(source, destination)
    assert shown(destination.states()) == ["run S", "stop S"]


def test_a_source_without_the_capability_leaves_a_destination_as_it_was_reset() -> None:
    source = guest(MP_STATE, Is.SUPERVISOR, Is.SUPERVISOR, has_mp_state=False)
    destination = board(MP_STATE, 2)
    move(source, destination)
    assert shown(destination.states()) == ["run S", "stop S"]


def test_a_destination_without_the_capability_refuses_an_mp_state() -> None:
    source = guest(MP_STATE, Is.SUPERVISOR)
    destination = board(MP_STATE, 1, has_mp_state=False)
    with pytest.raises(StreamError, match=r"cpu/kvm-mp-state .* \(ENOTSUP\)"):
        move(source, destination)


@pytest.mark.parametrize("policy", [UNPATCHED, ALL_RUNNABLE], ids=name_of)
def test_nothing_is_forced_where_the_destination_has_no_capability(
    policy: SyncPolicy,
) -> None:
    destination = board(policy, 2, has_mp_state=False)
    move(guest(policy, Is.SUPERVISOR, Is.SUPERVISOR), destination)
    assert shown(destination.states()) == ["run S", "stop S"]


TEN = dataclasses.replace(UNPATCHED, layout=UNPATCHED.layout._replace(version=10))


@pytest.mark.parametrize(
    ("sender", "receiver"),
    [
        (UNPATCHED, MP_STATE),
        (MP_STATE, UNPATCHED),
        (ALL_RUNNABLE, MP_STATE),
        (MP_STATE, ALL_RUNNABLE),
        (TEN, UNPATCHED),
        (UNPATCHED, TEN),
    ],
)
def test_another_version_is_refused(sender: SyncPolicy, receiver: SyncPolicy) -> None:
    theirs, own = sender.layout.version, receiver.layout.version
    destination = board(receiver, 1)
    text = rf"version {theirs} cannot be loaded, only {own}"
    with pytest.raises(StreamError, match=text):
        move(guest(sender, Is.SUPERVISOR), destination)


@pytest.mark.parametrize(
    ("sender", "receiver"), [(UNPATCHED, ALL_RUNNABLE), (ALL_RUNNABLE, UNPATCHED)]
)
def test_the_same_version_is_loaded_whoever_sends_it(
    sender: SyncPolicy, receiver: SyncPolicy
) -> None:
    destination = board(receiver, 1)
    move(guest(sender, Is.SUPERVISOR), destination)
    assert destination.states()[0].pc == KERNEL


def test_without_the_put_of_mode_rows_2_and_4_are_wrong() -> None:
    forgetful = dataclasses.replace(MP_STATE, puts_mode=False)
    wrong = []
    for row in ROWS:
        harts, outcomes = row.values
        assert isinstance(harts, list)
        assert isinstance(outcomes, dict)
        destination = board(forgetful, len(harts))
        move(guest(forgetful, *harts), destination)
        if shown(destination.states()) != outcomes["mp-state"]:
            wrong.append(str(row.id)[0])
    assert wrong == ["2", "4"]


def test_a_reset_that_leaves_m_in_env_lets_a_kernel_start_in_u() -> None:
    # A6, "extra reset bug": the put of mode is skipped, so that SPP stays U's.
    machine = guest(ALL_RUNNABLE, Is.USER)
    machine.system_reset()
    assert shown(machine.states()) == ["run U"]
    since_10_2 = dataclasses.replace(ALL_RUNNABLE, reset_priv=1)
    machine = guest(since_10_2, Is.USER)
    machine.system_reset()
    assert shown(machine.states()) == ["run S"]


@pytest.mark.parametrize("policy", [MP_STATE, UNPATCHED], ids=name_of)
def test_a_reset_ends_in_s_only_if_the_mode_is_put(policy: SyncPolicy) -> None:
    machine = guest(policy, Is.USER)
    machine.system_reset()
    assert shown(machine.states()) == [f"run {'S' if policy.puts_mode else 'U'}"]
