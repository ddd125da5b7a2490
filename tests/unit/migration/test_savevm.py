"""savevm and loadvm, access for access as QEMU 7.2 (qemu_v1_client.md, section 2.8).

The words are those of `scripted_driver`.
"""

from __future__ import annotations

from itertools import repeat

from tests.unit.client.scripted_driver import (
    OFFSET,
    STATE,
    OpenDevice,
    Refusal,
    ScriptedDriver,
    words,
)
from tests.unit.client.scripted_migration import given_to, opened, sent_by
from vfiomig.client.v1 import ApplicationAbortedError
from vfiomig.migration.metrics import Outcome
from vfiomig.migration.savevm import load_vm, save_vm


def test_savevm_of_a_running_vm() -> None:
    with opened(pending=[0x10, 8, 0, 0]) as device:
        device.start_vm()
        _, ending = sent_by(save_vm([device.participant]))
        assert ending.outcome is Outcome.COMPLETED
        assert device.told() == words("""
            R4=1 W4=2                       | vm stop, for save-vm
            R4=2 W4=2                       | setup
            R8=10 R16=1000 R24=8 r8@1000    | iterate, without save_pending
            R8=8 R16=1000 R24=8 r8@1000
            R8=0
            R4=2 W4=2
            R8=0
            R4=2 W4=0
            R4=0 W4=1                       | vm_start
        """)


def test_savevm_of_a_stopped_vm_leaves_it_stopped() -> None:
    with opened(pending=[8, 0, 0], state=0) as device:
        _, ending = sent_by(save_vm([device.participant]))
        assert ending.outcome is Outcome.COMPLETED
        assert device.told() == words("""
            R4=0 W4=2
            R8=8 R16=1000 R24=8 r8@1000
            R8=0
            R4=2 W4=2 R8=0 R4=2 W4=0
        """)


def test_savevm_asks_all_devices_again_after_each_buffer() -> None:
    with (
        opened(pending=[8, 0, 0, 0, 0], state=0) as first,
        opened(name="b", pending=[8, 0, 0], state=0) as second,
    ):
        sent_by(save_vm([first.participant, second.participant]))
        assert first.told() == words("""
            R4=0 W4=2
            R8=8 R16=1000 R24=8 r8@1000
            R8=0                            | then the second saves
            R8=0                            | then nobody does
            R4=2 W4=2 R8=0 R4=2 W4=0
        """)
        assert second.told() == words("""
            R4=0 W4=2 R8=8 R16=1000 R24=8 r8@1000 R8=0 R4=2 W4=2 R8=0 R4=2 W4=0
        """)


def test_a_savevm_that_fails_starts_the_vm_and_calls_no_notifier() -> None:
    refusals = [Refusal("read", OFFSET)]
    with opened(pending=[8], refusals=refusals) as device:
        device.start_vm()
        _, ending = sent_by(save_vm([device.participant]))
        assert ending.outcome is Outcome.FAILED
        assert ending.lost == ()
        assert device.told() == "R4=1 W4=2 R4=2 W4=2 R8=8 R16-EIO R4=2 W4=1"


def test_a_savevm_that_fails_leaves_the_device_of_a_stopped_vm_saving() -> None:
    refusals = [Refusal("read", OFFSET)]
    with opened(pending=[8], state=0, refusals=refusals) as device:
        _, ending = sent_by(save_vm([device.participant]))
        assert ending.outcome is Outcome.FAILED
        assert device.told() == "R4=0 W4=2 R8=8 R16-EIO"


def test_a_savevm_aborts_as_a_migration_does() -> None:
    refusals = [Refusal("write", STATE, 2, leaves=6)]
    with opened(refusals=refusals) as device:
        device.start_vm()
        _, ending = sent_by(save_vm([device.participant]))
        assert isinstance(ending.error, ApplicationAbortedError)
        assert [name for name, _ in ending.lost] == ["a"]
        assert device.told() == "R4=1 W4=2-EIO R4=6"


def test_a_savevm_of_empty_buffers_ends() -> None:
    script = ScriptedDriver(pending=repeat(1))
    with OpenDevice(script) as device:
        _, ending = sent_by(save_vm([device.participant]))
        assert ending.outcome is Outcome.FAILED
        assert "16 buffers of 0 bytes" in str(ending.error)


def test_loadvm_of_a_running_vm() -> None:
    with opened(pending=[0x10, 8, 0, 0]) as saved, opened() as device:
        stream, _ = sent_by(save_vm([saved.participant]))
        device.start_vm()
        ending = given_to(load_vm([device.participant]), stream)
        assert ending.outcome is Outcome.COMPLETED
        assert device.told() == words("""
            R4=1 W4=0                       | vm stop
            RESET
            R4=1 W4=4
            R16=1000 w8@1000 W24=8
            R16=1000 w8@1000 W24=8
            R4=4 W4=1                       | vm_start
        """)
        assert device.driver.committed == [saved.driver.memory[0x1000:0x1008]] * 2


def test_loadvm_of_a_stopped_vm_stays_resuming_until_cont() -> None:
    with opened(pending=[8, 0, 0]) as saved, opened(state=0, resets_to=0) as device:
        stream, _ = sent_by(save_vm([saved.participant]))
        given_to(load_vm([device.participant]), stream)
        assert device.told() == "RESET R4=0 W4=4 R16=1000 w8@1000 W24=8"
        device.client.vm_state_change(running=True)
        assert device.told() == "R4=4 W4=1"


def test_loadvm_goes_on_without_a_reset() -> None:
    with opened(pending=[0, 0]) as saved:
        stream, _ = sent_by(save_vm([saved.participant]))
    with opened(refusals=[Refusal("reset", 0)]) as device:
        ending = given_to(load_vm([device.participant]), stream)
        assert ending.outcome is Outcome.COMPLETED
        assert device.told() == "RESET-EIO R4=1 W4=4"


def test_a_loadvm_that_fails_leaves_the_vm_stopped() -> None:
    with opened() as device:
        device.start_vm()
        ending = given_to(load_vm([device.participant]), b"QEVM\0\0\0\3garbage")
        assert ending.outcome is Outcome.FAILED
        assert device.told() == "R4=1 W4=0 RESET R4=1 W4=4"
