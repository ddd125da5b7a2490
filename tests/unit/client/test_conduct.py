"""Each habit of QEMU that strays from the specification, beside what that says.

Every field of `Conduct` has a test that changes this field alone, and is named for it.
"""

from __future__ import annotations

import errno
from dataclasses import fields, replace
from itertools import repeat
from typing import TYPE_CHECKING

import pytest

from tests.unit.client.scripted_driver import (
    OFFSET,
    PENDING,
    SIZE,
    STATE,
    OpenDevice,
    Refusal,
    ScriptedDriver,
    words,
)
from tests.unit.client.scripted_migration import given_to, migrate, sent_by
from vfiomig.client.conduct import CONDUCTS, QEMU_7_2, STRICT, Conduct
from vfiomig.client.v1 import ApplicationAbortedError
from vfiomig.migration.metrics import Outcome
from vfiomig.migration.savevm import load_vm, save_vm
from vfiomig.migration.transport import CutLink
from vfiomig.protocol.errors import StreamError, VendorDriverError
from vfiomig.protocol.qemu_stream import framing
from vfiomig.protocol.v1.device_state import DeviceInErrorStateError
from vfiomig.uapi.qemu_stream import QEMU_VM_SECTION_PART

if TYPE_CHECKING:
    from vfiomig.migration.side import Ending


def with_strict(field: str) -> tuple[Conduct, Conduct]:
    """Return QEMU's conduct, and the same but for one field."""
    changed: Conduct = replace(QEMU_7_2, **{field: getattr(STRICT, field)})
    return QEMU_7_2, changed


def opened(driver: ScriptedDriver, conduct: Conduct) -> OpenDevice:
    return OpenDevice(driver, conduct=conduct)


def test_there_are_two_conducts() -> None:
    assert CONDUCTS == {"qemu-7.2": QEMU_7_2, "strict": STRICT}


def test_every_field_has_a_test_here() -> None:
    tests = [name for name in globals() if name.startswith("test_")]
    for field in fields(Conduct):
        if field.name != "name":
            assert any(test.startswith(f"test_{field.name}_") for test in tests), field
            assert getattr(QEMU_7_2, field.name) != getattr(STRICT, field.name)


def test_data_widths_are_8_4_2_1_or_one_access() -> None:
    told = []
    for conduct in with_strict("data_widths"):
        driver = ScriptedDriver(pending=[8, 0], buffers=[(0x1000, 15)], state=2)
        with opened(driver, conduct) as device:
            list(device.client.save_complete_precopy())
            told.append(device.told())
    assert told[0] == words("""
        R4=2 W4=2 R8=8 R16=1000 R24=f r8@1000 r4@1008 r2@100c r1@100e R8=0 R4=2 W4=0
    """)
    assert told[1] == "R4=2 W4=2 R8=8 R16=1000 R24=f r15@1000 R8=0 R4=2 W4=0"


def test_save_setup_clears_the_reserved_bits_or_keeps_them() -> None:
    told = []
    for conduct in with_strict("save_setup"):
        with opened(ScriptedDriver(state=0x7001), conduct) as device:
            device.client.save_setup()
            told.append(device.told())
    assert told == ["R4=7001 W4=3", "R4=7001 W4=7003"]  # V1-STATE-12


@pytest.mark.parametrize("state", [2, 3, 4])
def test_failed_while_paused_sets_the_device_running_or_stops_it(state: int) -> None:
    told = []
    for conduct in with_strict("failed_while_paused"):
        with opened(ScriptedDriver(state=state), conduct) as device:
            device.client.migration_failed()
            told.append(device.told())
    assert told == [f"R4={state} W4=1", f"R4={state} W4=0"]


def test_failed_while_paused_is_no_matter_while_the_vm_runs() -> None:
    for conduct in (QEMU_7_2, STRICT):
        driver = ScriptedDriver(state=3)
        with OpenDevice(driver, conduct=conduct, vm_is_running=True) as device:
            device.client.migration_failed()
            assert device.told() == "R4=3 W4=1"


def test_runs_while_saving_loses_the_saving_bit_or_keeps_it() -> None:
    told = []
    for conduct in with_strict("runs_while_saving"):
        with opened(ScriptedDriver(), conduct) as device:
            device.start_vm()
            device.client.save_setup()
            device.client.vm_state_change(running=False)
            device.client.vm_state_change(running=True)
            told.append(device.told())
    assert told == [
        "R4=1 W4=3 R4=3 W4=2 R4=2 W4=1",
        "R4=1 W4=3 R4=3 W4=2 R4=2 W4=3",
    ]


def test_runs_while_saving_is_over_when_saving_is() -> None:
    # A strict client that fails in completion goes to RUNNING, not to pre-copy.
    driver = ScriptedDriver(pending=[0, 8], refusals=[Refusal("read", OFFSET)])
    with opened(driver, STRICT) as device:
        device.start_vm()
        migrate(device)
        assert device.told() == words("""
            R4=1 W4=3 R8=0 R4=3 W4=2 R4=2 W4=2 R8=8 R16-EIO
            R4=2 W4=1 R4=1 W4=1
        """)


def test_stops_at_empty_buffer_ends_stop_and_copy_or_goes_on() -> None:
    told = []
    for conduct in with_strict("stops_at_empty_buffer"):
        buffers = [(0x1000, 0), (0x1000, 8)]
        driver = ScriptedDriver(pending=[8, 8, 0], buffers=buffers, state=2)
        with opened(driver, conduct) as device:
            list(device.client.save_complete_precopy())
            told.append(device.told())
    assert told == [
        "R4=2 W4=2 R8=8 R16=1000 R24=0 R4=2 W4=0",
        "R4=2 W4=2 R8=8 R16=1000 R24=0 R8=8 R16=1000 R24=8 r8@1000 R8=0 R4=2 W4=0",
    ]


def test_stops_at_empty_buffer_or_gives_the_device_up_after_16() -> None:
    driver = ScriptedDriver(pending=repeat(1), state=2)
    with opened(driver, STRICT) as device, pytest.raises(VendorDriverError):
        list(device.client.save_complete_precopy())
    with opened(ScriptedDriver(pending=repeat(1), state=2), QEMU_7_2) as device:
        assert len(list(device.client.save_complete_precopy())) == 1


def test_ignores_pending_errors_or_fails_the_migration() -> None:
    outcomes, told = [], []
    for conduct in with_strict("ignores_pending_errors"):
        driver = ScriptedDriver(refusals=[Refusal("read", PENDING)])
        with opened(driver, conduct) as device:
            device.start_vm()
            ending, _ = migrate(device)
            outcomes.append(ending.outcome)
            told.append(device.told())
    assert outcomes == [Outcome.COMPLETED, Outcome.FAILED]
    assert told == [
        "R4=1 W4=3 R8-EIO R4=3 W4=2 R4=2 W4=2 R8=0 R4=2 W4=0",
        "R4=1 W4=3 R8-EIO R4=3 W4=1",  # V1-SAVE-10
    ]


def test_splits_large_buffers_or_refuses_them() -> None:
    told = []
    for conduct in with_strict("splits_large_buffers"):
        with opened(ScriptedDriver(size=0x1010), conduct) as device:
            try:
                for view in device.client.load_buffer(0x18):
                    view[:] = bytes(len(view))
            except VendorDriverError:
                told.append("refused")
            told.append(device.told())
    assert told == [
        "R16=1000 w8@1000 w8@1008 W24=10 R16=1000 w8@1000 W24=8",
        "refused",  # V1-RES-03
        "R16=1000",
    ]


@pytest.mark.parametrize(
    ("buffer", "accesses"),
    [
        # V1-OFF-03: what QEMU takes for data is the register at 0x10.
        ((0x10, 8), "R8=8 R16=10 R24=8 R16=1000 R8=0 R4=2 W4=0"),
        # V1-OFF-07: what lies inside the region, then there is no memory for 0 bytes.
        ((0x2FF8, 0x10), "R8=8 R16=2ff8 R24=10 r8@2ff8 -ENOMEM"),
    ],
)
def test_checks_buffers_before_anything_is_read_there(
    buffer: tuple[int, int], accesses: str
) -> None:
    told = []
    for conduct in with_strict("checks_buffers"):
        driver = ScriptedDriver(pending=[8, 0], buffers=[buffer], state=2)
        with opened(driver, conduct) as device:
            try:
                list(device.client.save_complete_precopy())
            except OSError as error:
                told.append(f"{device.told()} -{errno.errorcode[error.errno or 0]}")
            except VendorDriverError:
                told.append(f"{device.told()} refused")
            else:
                told.append(device.told())
    offset, size = buffer
    assert told == [
        f"R4=2 W4=2 {accesses}",
        f"R4=2 W4=2 R8=8 R16={offset:x} R24={size:x} refused",
    ]


SENT = bytes(range(1, 0x41))


def load_short_stream(device: OpenDevice, arrived: int) -> Ending:
    """Let a device load a stream that ends within its first buffer."""
    stream = (
        framing.STREAM_HEAD
        + framing.start_section(1, "a/vfio")
        + framing.section_head(QEMU_VM_SECTION_PART, 1)
        + framing.data_head(len(SENT))
        + SENT[:arrived]
    )
    return given_to(load_vm([device.participant]), stream)


@pytest.mark.parametrize("arrived", [0, 1, 0x28, 0x3F])
@pytest.mark.parametrize("areas", [(), ((0x1000, 0x1000),)], ids=["trapped", "mapped"])
def test_commits_short_buffers_before_their_end_is_noticed(
    areas: tuple[tuple[int, int], ...], arrived: int
) -> None:
    driver = ScriptedDriver(size=0x2000, areas=areas)
    with opened(driver, QEMU_7_2) as device:
        window = driver.memory[0x1000:0x1040] if areas else bytes(0x40)
        ending = load_short_stream(device, arrived)
        assert isinstance(ending.error, StreamError)
        assert f"it ends, {len(SENT) - arrived} bytes early" in str(ending.error)
        # What was in the window stands for the rest; a trapped piece has zeros there.
        assert driver.committed == [SENT[:arrived] + window[arrived:]]
        data = "M1000+40" if areas else " ".join(f"w8@{p:x}" for p in EIGHT_PIECES)
        assert device.told().endswith(f"R4=1 W4=4 R16=1000 {data} W24=40")


EIGHT_PIECES = range(0x1000, 0x1040, 8)


@pytest.mark.parametrize("areas", [(), ((0x1000, 0x1000),)], ids=["trapped", "mapped"])
def test_commits_short_buffers_never_without_it(
    areas: tuple[tuple[int, int], ...],
) -> None:
    _, changed = with_strict("commits_short_buffers")
    with opened(ScriptedDriver(size=0x2000, areas=areas), changed) as device:
        ending = load_short_stream(device, 0x28)
        assert isinstance(ending.error, StreamError)
        assert device.driver.committed == []
        data = " M1000+40" if areas else ""
        assert device.told().endswith(f"R4=1 W4=4 R16=1000{data}")


def test_commits_short_buffers_in_all_pieces_of_a_small_region() -> None:
    with opened(ScriptedDriver(size=0x1020), QEMU_7_2) as device:
        ending = load_short_stream(device, 8)
        assert isinstance(ending.error, StreamError)
        pieces = [SENT[:8] + bytes(0x18), bytes(0x20)]
        assert device.driver.committed == pieces


def test_commits_short_buffers_although_the_driver_refuses_them() -> None:
    refusals = [Refusal("write", SIZE)]
    with opened(ScriptedDriver(refusals=refusals), QEMU_7_2) as device:
        ending = load_short_stream(device, 8)
        # The stream's end is the news, not what the driver thinks of the rest.
        assert isinstance(ending.error, StreamError)
        assert device.told().endswith("W24=40-EIO")


def test_commits_short_buffers_but_not_for_ever() -> None:
    # A length that a flipped bit made, and a driver that takes anything.
    stream = (
        framing.STREAM_HEAD
        + framing.start_section(1, "a/vfio")
        + framing.section_head(QEMU_VM_SECTION_PART, 1)
        + framing.data_head(1 << 60)
    )
    with opened(ScriptedDriver(size=0x1020), QEMU_7_2) as device:
        ending = given_to(load_vm([device.participant]), stream)
        assert isinstance(ending.error, StreamError)
        assert sum(map(len, device.driver.committed)) <= 0x10000 + 0x20


def failed_savevm(conduct: Conduct, *, running: bool) -> str:
    """Return what follows the failure."""
    conduct = replace(conduct, failed_while_paused=STRICT.failed_while_paused)
    driver = ScriptedDriver(pending=[8], refusals=[Refusal("read", OFFSET)])
    with OpenDevice(driver, conduct=conduct, vm_is_running=running) as device:
        _, ending = sent_by(save_vm([device.participant]))
        assert ending.outcome is Outcome.FAILED
        return device.told().split("R16-EIO")[1].strip()


def test_ends_failed_savevm_of_a_stopped_vm_or_leaves_the_device_saving() -> None:
    both = with_strict("ends_failed_savevm")
    assert [failed_savevm(c, running=False) for c in both] == ["", "R4=3 W4=0"]


def test_ends_failed_savevm_is_no_matter_where_the_vm_goes_on() -> None:
    both = with_strict("ends_failed_savevm")
    assert [failed_savevm(c, running=True) for c in both] == ["R4=2 W4=1"] * 2


def test_resets_from_error_or_aborts() -> None:
    told, endings = [], []
    for conduct in with_strict("resets_from_error"):
        refusals = [Refusal("write", STATE, 2, leaves=6)]
        with opened(ScriptedDriver(refusals=refusals), conduct) as device:
            device.start_vm()
            ending, _ = migrate(device)
            told.append(device.told())
            endings.append(ending)
    assert told == [
        "R4=1 W4=3 R8=0 R4=3 W4=2-EIO R4=6",
        "R4=1 W4=3 R8=0 R4=3 W4=2-EIO R4=6 RESET R4=1 W4=1 R4=1 W4=1",
    ]
    assert isinstance(endings[0].error, ApplicationAbortedError)
    assert isinstance(endings[1].error, DeviceInErrorStateError)
    assert not isinstance(endings[1].error, ApplicationAbortedError)
    # Either way what the device was is gone, and that is said.
    assert [[name for name, _ in ending.lost] for ending in endings] == [["a"], ["a"]]


def test_resets_from_error_in_the_middle_of_recovery_lose_the_device_as_well() -> None:
    refusals = [
        Refusal("read", OFFSET),
        Refusal("write", STATE, 1, after=1, leaves=6),
    ]
    with opened(ScriptedDriver(pending=[0, 8], refusals=refusals), STRICT) as device:
        device.start_vm()
        ending, _ = migrate(device)
        assert [name for name, _ in ending.lost] == ["a"]
        assert device.told().endswith("R16-EIO R4=2 W4=1-EIO R4=6 RESET R4=1 W4=1")


def test_resets_from_error_that_fail_leave_the_device_lost() -> None:
    refusals = [
        Refusal("write", STATE, 2, leaves=6),
        Refusal("reset", 0),
        Refusal("write", STATE, 1, after=1, times=9),
    ]
    with opened(ScriptedDriver(refusals=refusals), STRICT) as device:
        device.start_vm()
        ending, _ = migrate(device)
        assert [name for name, _ in ending.lost] == ["a"]
        assert isinstance(ending.error, DeviceInErrorStateError)


def test_a_cut_link_gives_a_short_buffer_to_the_driver_as_well() -> None:
    areas = ((0x1000, 0x1000),)
    driver = ScriptedDriver(pending=[1], buffers=[(0x1000, 0x40)], size=0x2000)
    head = 8 + len(framing.start_section(1, "a/vfio")) + 5 + 16
    target = ScriptedDriver(size=0x2000, areas=areas)
    window = target.memory[0x1000:0x1040]
    with OpenDevice(driver) as source, OpenDevice(target) as device:
        source.start_vm()
        there, here = migrate(
            source, device, link=lambda stream: CutLink(stream, head + 0x10)
        )
        assert there.outcome is here.outcome is Outcome.FAILED
        sent = source.driver.memory[0x1000:0x1010]
        assert device.driver.committed == [sent + window[0x10:]]
