"""Access for access as QEMU 7.2: the sequences of qemu_v1_client.md, section 2.8.

The words are those of `scripted_driver`.  Where QEMU says ``[data]`` a buffer of 8
trapped bytes is read or written here, unless the test is about more.
"""

from __future__ import annotations

from pathlib import Path

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
from tests.unit.client.scripted_migration import migrate, opened
from vfiomig.client.v1 import ApplicationAbortedError
from vfiomig.migration.convergence import Limits
from vfiomig.migration.metrics import Outcome
from vfiomig.migration.transport import CutLink
from vfiomig.protocol.errors import UserApplicationError
from vfiomig.protocol.history import Access

DATA_FOLDER = Path(__file__).parents[2] / "data"


# -- the recorded accesses of the real thing ------------------------------------------


def recorded(name: str) -> list[tuple[str, int, int, int]]:
    lines = (DATA_FOLDER / f"qemu-7.2-v1-{name}.accesses.tsv").read_text().splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return [(a, int(o, 16), int(s), int(v, 16)) for a, o, s, v in rows]


def register_accesses(device: OpenDevice) -> list[tuple[str, int, int, int]]:
    return [
        (r.access, r.offset, r.size, int(r.value, 16))
        for r in device.log.records
        if isinstance(r, Access) and r.value and not r.unseen
    ]


def test_the_accesses_are_those_that_were_recorded_of_a_real_qemu() -> None:
    # 0x40000 bytes of state in chunks of 0x10000, all of it in pre-copy; the data
    # went through a mapping, where the recording could not see it.
    areas = ((0x1000, 0x10000),)
    script = ScriptedDriver(
        size=0x11000,
        areas=areas,
        pending=[0x40000, 0x30000, 0x20000, 0x10000, 0],
        buffers=[(0x1000, 0x10000)] * 4,
    )
    empty = ScriptedDriver(size=0x11000, areas=areas)
    with OpenDevice(script) as source, OpenDevice(empty) as target:
        source.client.vm_state_change(running=True)
        there, here = migrate(source, target)
        target.client.vm_state_change(running=False)  # QEMU was told to quit
        assert there.outcome is here.outcome is Outcome.COMPLETED
        assert register_accesses(source) == recorded("source")
        assert register_accesses(target) == recorded("destination")
        assert [len(chunk) for chunk in target.driver.committed] == [0x10000] * 4


# -- a running VM ---------------------------------------------------------------------


def test_vm_start_writes_running_over_running() -> None:
    with opened() as device:
        device.client.vm_state_change(running=True)
        assert device.told() == "R4=1 W4=1"


def test_a_run_state_that_does_not_change_is_ignored() -> None:
    with opened() as device:
        device.client.vm_state_change(running=False)
        device.client.vm_state_change(running=True)
        device.told()
        device.client.vm_state_change(running=True)
        assert device.told() == ""


def test_a_device_that_is_plugged_into_a_running_vm_knows_that_it_runs() -> None:
    with OpenDevice(ScriptedDriver(), vm_is_running=True) as device:
        device.client.vm_state_change(running=False)
        assert device.told() == "R4=1 W4=0"


def test_a_running_vm_migrates() -> None:
    with opened(pending=[0x10, 8, 0, 0x10, 8, 0]) as device:
        device.start_vm()
        ending, _ = migrate(device)
        assert ending.outcome is Outcome.COMPLETED
        assert device.told() == words("""
            R4=1 W4=3                       | setup
            R8=10  R16=1000 R24=8 r8@1000   | a pass of pre-copy
            R8=8   R16=1000 R24=8 r8@1000
            R8=0                            | nothing pending, and RAM is done
            R4=3 W4=2                       | vm stop
            R4=2 W4=2                       | completion writes it again
            R8=10 R16=1000 R24=8 r8@1000 R8=8 R16=1000 R24=8 r8@1000 R8=0
            R4=2 W4=0
        """)


def test_the_device_of_the_reference_trace_migrates() -> None:
    # Section 6: 0x5000 bytes in all, chunks of 0x1800, half of it again at the stop.
    script = ScriptedDriver(
        areas=((0x1000, 0x2000),),
        pending=[0x5000, 0x3800, 0x2000, 0x800, 0, 0x2800, 0x1000, 0],
        buffers=[
            *[(0x1000, 0x1800)] * 3,
            (0x1000, 0x800),
            (0x1000, 0x1800),
            (0x1000, 0x1000),
        ],
    )
    with OpenDevice(script) as device:
        device.start_vm()
        migrate(device)
        assert device.told() == words("""
            map1000+2000 R4=1 W4=3
            R8=5000 R16=1000 R24=1800 m1000+1800
            R8=3800 R16=1000 R24=1800 m1000+1800
            R8=2000 R16=1000 R24=1800 m1000+1800
            R8=800  R16=1000 R24=800  m1000+800
            R8=0
            R4=3 W4=2
            R4=2 W4=2
            R8=2800 R16=1000 R24=1800 m1000+1800
            R8=1000 R16=1000 R24=1000 m1000+1000
            R8=0
            R4=2 W4=0
        """)


def test_pending_bytes_that_read_0_are_read_again_before_a_device_is_passed_over() -> (
    None
):
    # Two devices: the second iterates only when the first has nothing, and both are
    # asked in each pass (section 2.9).
    with (
        opened(pending=[8, 0, 0, 0, 0]) as first,
        opened(name="b", pending=[0x20, 0x20, 0x18, 0]) as second,
    ):
        for device in (first, second):
            device.start_vm()
        migrate([first, second])
        assert first.told() == words("""
            R4=1 W4=3
            R8=8 R16=1000 R24=8 r8@1000
            R8=0 R8=0                       | pending, then iterate
            R8=0 R8=0
            R8=0
            R4=3 W4=2 R4=2 W4=2 R8=0 R4=2 W4=0
        """)
        assert second.told() == words("""
            R4=1 W4=3
            R8=20
            R8=20 R16=1000 R24=8 r8@1000
            R8=18 R16=1000 R24=8 r8@1000
            R8=0
            R4=3 W4=2 R4=2 W4=2 R8=0 R4=2 W4=0
        """)


def test_the_source_goes_on_after_success_when_it_is_told_to() -> None:
    with opened(pending=[8, 0]) as device:
        device.start_vm()
        migrate(device)
        device.told()
        device.client.vm_state_change(running=True)
        assert device.told() == "R4=0 W4=1"


def test_a_running_vm_that_is_shut_down_writes_stop() -> None:
    with opened() as device:
        device.start_vm().client.vm_state_change(running=False)
        assert device.told() == "R4=1 W4=0"


# -- a VM that does not run -----------------------------------------------------------


def test_a_vm_that_was_stopped_migrates_without_another_stop() -> None:
    with opened(pending=[8, 0, 8, 0]) as device:
        device.start_vm()
        device.client.vm_state_change(running=False)
        assert device.told() == "R4=1 W4=0"
        ending, _ = migrate(device)
        assert ending.outcome is Outcome.COMPLETED
        assert device.told() == words("""
            R4=0 W4=2
            R8=8 R16=1000 R24=8 r8@1000     | as pre-copy, but in state 2
            R8=0
            R4=2 W4=2
            R8=8 R16=1000 R24=8 r8@1000 R8=0
            R4=2 W4=0
        """)


def test_a_vm_that_never_ran_migrates_a_device_that_does() -> None:
    with opened(pending=[8, 0]) as device:
        migrate(device)
        assert device.told() == words("""
            R4=1 W4=3                       | the device is RUNNING still
            R8=8 R16=1000 R24=8 r8@1000
            R8=0
            R4=3 W4=2
            R8=0
            R4=2 W4=0
        """)


def test_stop_and_cont_while_migrating_lose_the_saving_bit() -> None:
    with opened(pending=[0x20, 0x18, 0x10, 0, 8, 0]) as device:
        device.start_vm()

        def stop() -> None:
            device.client.vm_state_change(running=False)

        def cont() -> None:
            device.client.vm_state_change(running=True)

        ending, _ = migrate(device, guest=[None, stop, cont])
        assert ending.outcome is Outcome.COMPLETED
        assert device.told() == words("""
            R4=1 W4=3
            R8=20 R16=1000 R24=8 r8@1000
            R4=3 W4=2                       | stop
            R8=18 R16=1000 R24=8 r8@1000
            R4=2 W4=1                       | cont: plain RUNNING
            R8=10 R16=1000 R24=8 r8@1000
            R8=0
            R4=1 W4=0                       | vm stop: STOP
            R4=0 W4=2
            R8=8 R16=1000 R24=8 r8@1000 R8=0
            R4=2 W4=0
        """)


# -- when it does not go well ----------------------------------------------------------


# At the second look; the first buffer's time on the link brings that moment.
CANCELLED = Limits(downtime=0, cancel_at=1)


def test_a_cancel_sets_a_running_device_running() -> None:
    with opened(pending=[0x10, 8]) as device:
        device.start_vm()
        ending, _ = migrate(device, limits=CANCELLED)
        assert ending.outcome is Outcome.CANCELLED
        assert device.told() == words("""
            R4=1 W4=3
            R8=10
            R4=3 W4=1
        """)


def test_a_cancel_sets_the_device_of_a_paused_vm_running() -> None:
    with opened(pending=[0x10, 8]) as device:
        device.start_vm()

        def stop() -> None:
            device.client.vm_state_change(running=False)

        ending, _ = migrate(device, limits=CANCELLED, guest=[stop])
        assert ending.outcome is Outcome.CANCELLED
        assert device.told() == words("""
            R4=1 W4=3
            R4=3 W4=2                       | stop
            R8=10
            R4=2 W4=1                       | RUNNING, although the VM is paused
        """)
        device.client.vm_state_change(running=True)
        assert device.told() == "R4=1 W4=1"


def test_a_failure_before_completion_is_as_a_cancel() -> None:
    with opened(pending=[0x10], refusals=[Refusal("read", SIZE)]) as device:
        device.start_vm()
        ending, other = migrate(device)
        assert ending.outcome is other.outcome is Outcome.FAILED
        assert device.told() == words("""
            R4=1 W4=3
            R8=10 R16=1000 R24-EIO
            R4=3 W4=1
        """)


def test_a_cut_link_before_completion_is_as_a_cancel() -> None:
    with opened(pending=[0x10]) as device:
        device.start_vm()
        ending, other = migrate(device, link=lambda stream: CutLink(stream, 60))
        assert ending.outcome is other.outcome is Outcome.FAILED
        assert device.told().endswith(" R4=3 W4=1")


def test_a_failure_in_completion_starts_the_vm_and_writes_running_twice() -> None:
    refusals = [Refusal("read", OFFSET)]
    with opened(pending=[0, 0x10], refusals=refusals) as device:
        device.start_vm()
        ending, _ = migrate(device)
        assert ending.outcome is Outcome.FAILED
        assert ending.lost == ()
        assert device.told() == words("""
            R4=1 W4=3
            R8=0
            R4=3 W4=2
            R4=2 W4=2
            R8=10 R16-EIO
            R4=2 W4=1                       | vm_start
            R4=1 W4=1                       | the notifier
        """)


def test_a_failure_in_completion_leaves_a_stopped_vm_stopped() -> None:
    refusals = [Refusal("read", OFFSET)]
    with opened(pending=[0, 0x10], state=0, refusals=refusals) as device:
        ending, _ = migrate(device)
        assert ending.outcome is Outcome.FAILED
        assert device.told() == words("""
            R4=0 W4=2 R8=0 R4=2 W4=2 R8=10 R16-EIO
            R4=2 W4=1                       | only the notifier
        """)
        device.client.vm_state_change(running=True)
        assert device.told() == "R4=1 W4=1"


def test_a_refused_setup_fails_the_migration_and_the_vm_goes_on() -> None:
    with opened(refusals=[Refusal("write", STATE, 3)]) as device:
        device.start_vm()
        ending, _ = migrate(device)
        assert ending.outcome is Outcome.FAILED
        assert isinstance(ending.error, OSError)
        assert device.told() == words("""
            R4=1 W4=3-EIO R4=1
            R4=1 W4=1
        """)


def test_a_refused_vm_stop_is_tried_again_in_completion() -> None:
    with opened(refusals=[Refusal("write", STATE, 2, times=2)]) as device:
        device.start_vm()
        ending, _ = migrate(device)
        assert ending.outcome is Outcome.FAILED
        assert device.told() == words("""
            R4=1 W4=3
            R8=0
            R4=3 W4=2-EIO R4=3              | vm stop
            R4=3 W4=2-EIO R4=3              | completion
            R4=3 W4=1                       | vm_start
            R4=1 W4=1                       | the notifier
        """)


def test_a_vm_stop_that_was_refused_once_still_fails_and_never_gets_to_stop() -> None:
    refusals = [Refusal("write", STATE, 2)]
    with opened(pending=[0, 0], refusals=refusals) as device:
        device.start_vm()
        ending, _ = migrate(device)
        assert ending.outcome is Outcome.FAILED
        assert device.told() == words("""
            R4=1 W4=3 R8=0
            R4=3 W4=2-EIO R4=3
            R4=3 W4=2 R8=0
            R4=2 W4=1
            R4=1 W4=1
        """)


def test_a_refused_last_write_fails_after_all_data_was_sent() -> None:
    refusals = [Refusal("write", STATE, 0)]
    with opened(pending=[0, 8, 0], refusals=refusals) as device:
        device.start_vm()
        ending, other = migrate(device)
        assert ending.outcome is other.outcome is Outcome.FAILED
        assert device.told() == words("""
            R4=1 W4=3 R8=0 R4=3 W4=2 R4=2 W4=2
            R8=8 R16=1000 R24=8 r8@1000 R8=0
            R4=2 W4=0-EIO R4=2
            R4=2 W4=1
            R4=1 W4=1
        """)


def test_a_pending_bytes_that_fails_between_passes_counts_as_0() -> None:
    refusals = [Refusal("read", PENDING)]
    with opened(pending=[8, 0], refusals=refusals) as device:
        device.start_vm()
        ending, _ = migrate(device)
        assert ending.outcome is Outcome.COMPLETED
        assert device.told() == words("""
            R4=1 W4=3
            R8-EIO                          | nothing pending: completion
            R4=3 W4=2 R4=2 W4=2
            R8=8 R16=1000 R24=8 r8@1000 R8=0
            R4=2 W4=0
        """)


def test_a_pending_bytes_that_fails_makes_what_it_said_before_0() -> None:
    refusals = [Refusal("read", PENDING, after=1)]
    with opened(pending=[8, 0], refusals=refusals) as device:
        assert device.client.save_pending() == 8
        assert device.client.save_pending() == 0
        assert list(device.client.save_iterate()) == []
        assert device.told() == "R8=8 R8-EIO R8=0"


@pytest.mark.parametrize(
    ("refusal", "accesses"),
    [
        (Refusal("read", PENDING, after=1), "R8-EIO"),
        (Refusal("read", OFFSET), "R8=10 R16-EIO"),
        (Refusal("read", SIZE), "R8=10 R16=1000 R24-EIO"),
        (Refusal("read", 0x1000), "R8=10 R16=1000 R24=8 r8@1000-EIO"),
    ],
)
def test_any_failing_read_in_completion_fails_the_migration(
    refusal: Refusal, accesses: str
) -> None:
    with opened(pending=[0, 0x10], refusals=[refusal]) as device:
        device.start_vm()
        ending, _ = migrate(device)
        assert ending.outcome is Outcome.FAILED
        assert device.told() == words(f"""
            R4=1 W4=3 R8=0 R4=3 W4=2 R4=2 W4=2
            {accesses}
            R4=2 W4=1
            R4=1 W4=1
        """)


def test_the_first_failing_piece_ends_the_transfer() -> None:
    script = ScriptedDriver(
        pending=[0x10], buffers=[(0x1000, 32)], refusals=[Refusal("read", 0x1010)]
    )
    with OpenDevice(script) as device:
        device.start_vm()
        migrate(device)
        assert "R24=20 r8@1000 r8@1008 r8@1010-EIO R4=3 W4=1" in device.told()


def test_an_empty_buffer_ends_completion_whatever_is_pending() -> None:
    script = ScriptedDriver(pending=[0, 0x20], buffers=[(0x1000, 0)])
    with OpenDevice(script) as device:
        device.start_vm()
        ending, _ = migrate(device)
        assert ending.outcome is Outcome.COMPLETED
        assert device.told().endswith("R8=20 R16=1000 R24=0 R4=2 W4=0")


# -- ERROR ----------------------------------------------------------------------------

REFUSED_SETUP = (Refusal("write", STATE, 3, leaves=6), "R4=1 W4=3-EIO R4=6")
REFUSED_STOP = (
    Refusal("write", STATE, 2, leaves=6),
    "R4=1 W4=3 R8=0 R4=3 W4=2-EIO R4=6",
)
REFUSED_COMPLETE = (
    Refusal("write", STATE, 2, leaves=6, after=1),
    "R4=1 W4=3 R8=0 R4=3 W4=2 R4=2 W4=2-EIO R4=6",
)
REFUSED_LAST = (
    Refusal("write", STATE, 0, leaves=6),
    "R4=1 W4=3 R8=0 R4=3 W4=2 R4=2 W4=2 R8=0 R4=2 W4=0-EIO R4=6",
)


@pytest.mark.parametrize(
    ("refusal", "accesses"),
    [REFUSED_SETUP, REFUSED_STOP, REFUSED_COMPLETE, REFUSED_LAST],
    ids=["setup", "vm stop", "complete", "last"],
)
def test_a_device_in_error_aborts_the_process(refusal: Refusal, accesses: str) -> None:
    with opened(refusals=[refusal]) as device, opened(name="b") as innocent:
        for each in (device, innocent):
            each.start_vm()
        ending, other = migrate([device, innocent])
        assert ending.outcome is other.outcome is Outcome.FAILED
        assert isinstance(ending.error, ApplicationAbortedError)
        assert [name for name, _ in ending.lost] == ["a", "b"]
        assert device.told() == accesses
        assert "W4=1" not in innocent.told()


def test_a_state_that_cannot_be_read_back_aborts_the_process() -> None:
    refusals = [Refusal("write", STATE, 3), Refusal("read", STATE, after=2)]
    with opened(refusals=refusals) as device:
        device.start_vm()
        ending, _ = migrate(device)
        assert isinstance(ending.error, ApplicationAbortedError)
        assert device.told() == "R4=1 W4=3-EIO R4-EIO"


def test_an_error_while_it_is_brought_back_aborts_the_process() -> None:
    refusals = [Refusal("read", OFFSET), Refusal("write", STATE, 1, after=1, leaves=6)]
    with opened(pending=[0, 8], refusals=refusals) as device:
        device.start_vm()
        ending, _ = migrate(device)
        assert isinstance(ending.error, OSError)
        assert [name for name, _ in ending.lost] == ["a"]
        assert device.told().endswith("R16-EIO R4=2 W4=1-EIO R4=6")


@pytest.mark.parametrize("state", [6, 4])
def test_setup_refuses_what_would_become_error(state: int) -> None:
    # From ERROR(6) and from RESUMING(4) it would be 6: nothing is written.
    with opened(state=state) as device:
        with pytest.raises(UserApplicationError):
            device.client.save_setup()
        assert device.told() == f"R4={state}"


def test_from_error_completion_and_vm_stop_write_nothing() -> None:
    with OpenDevice(ScriptedDriver(state=6), vm_is_running=True) as device:
        with pytest.raises(UserApplicationError):
            list(device.client.save_complete_precopy())
        with pytest.raises(UserApplicationError):
            device.client.vm_state_change(running=False)
        assert device.told() == "R4=6 R4=6"
        # What the VM does is remembered all the same.
        assert not device.client.vm_is_running


def test_from_error_the_last_write_of_completion_is_resuming() -> None:
    def fall_over() -> int:
        device.driver.state = 6
        return 0

    with opened(state=2, pending=[fall_over]) as device:
        list(device.client.save_complete_precopy())
        assert device.told() == "R4=2 W4=2 R8=0 R4=6 W4=4"


def test_from_error_running_is_written() -> None:
    with opened(state=6) as device:
        device.client.vm_state_change(running=True)
        device.driver.state = 6
        device.client.migration_failed()
        assert device.told() == "R4=6 W4=1 R4=6 W4=1"


# -- reserved bits ---------------------------------------------------------------------


def test_setup_clears_the_reserved_bits_and_everything_else_keeps_them() -> None:
    with opened(state=0x1001, pending=[0, 0]) as device:
        client = device.client
        client.vm_state_change(running=True)
        client.save_setup()
        assert device.told() == "R4=1001 W4=1001 R4=1001 W4=3"
        device.driver.state |= 0x1000
        client.vm_state_change(running=False)
        list(client.save_complete_precopy())
        client.vm_state_change(running=True)
        client.migration_failed()
        assert device.told() == words("""
            R4=1003 W4=1002
            R4=1002 W4=1002 R8=0 R4=1002 W4=1000
            R4=1000 W4=1001
            R4=1001 W4=1001
        """)
        client.load_setup()
        assert device.told() == "R4=1001 W4=1004"


# -- incoming --------------------------------------------------------------------------


def test_incoming_touches_nothing_before_the_stream_begins() -> None:
    with opened(pending=[8, 0, 8, 0]) as source, opened() as device:
        source.start_vm()
        assert device.told() == ""
        migrate(source, device)
        assert device.told() == words("""
            R4=1 W4=4
            R16=1000 w8@1000 W24=8
            R16=1000 w8@1000 W24=8
            R4=4 W4=1
        """)


def test_incoming_that_starts_no_vm_stays_resuming_until_cont() -> None:
    with opened(pending=[8, 0]) as source, opened() as device:
        source.start_vm()
        _, ending = migrate(source, device, starts_vm=False)
        assert ending.outcome is Outcome.COMPLETED
        assert device.told() == "R4=1 W4=4 R16=1000 w8@1000 W24=8"
        device.client.vm_state_change(running=True)
        assert device.told() == "R4=4 W4=1"


def test_incoming_gives_a_chunk_that_has_no_room_in_pieces() -> None:
    # Section 2.5: a region with 0x1000 data bytes, the source's chunk is 0x1800.
    script = ScriptedDriver(
        areas=((0x1000, 0x2000),), pending=[1, 0], buffers=[(0x1000, 0x1800)]
    )
    small = ScriptedDriver(size=0x2000, areas=((0x1000, 0x1000),))
    with OpenDevice(script) as source, OpenDevice(small) as device:
        source.start_vm()
        migrate(source, device)
        assert device.told() == words("""
            map1000+1000 R4=1 W4=4
            R16=1000 M1000+1000 W24=1000
            R16=1000 M1000+800  W24=800
            R4=4 W4=1
        """)
        chunk = source.driver.memory[0x1000:0x2800]
        assert device.driver.committed == [chunk[:0x1000], chunk[0x1000:]]


def test_incoming_asks_again_where_each_piece_goes() -> None:
    script = ScriptedDriver(pending=[1, 0], buffers=[(0x1000, 0x18)])
    target = ScriptedDriver(size=0x2000, places=[0x1FF8, 0x1FF0])
    with OpenDevice(script) as source, OpenDevice(target) as device:
        source.start_vm()
        migrate(source, device)
        assert device.told() == words("""
            R4=1 W4=4
            R16=1ff8 w8@1ff8 W24=8
            R16=1ff0 w8@1ff0 w8@1ff8 W24=10
            R4=4 W4=1
        """)


def test_a_refused_resuming_ends_it_and_the_source_goes_on() -> None:
    refusals = [Refusal("write", STATE, 4)]
    with opened(pending=[8, 0]) as source, opened(refusals=refusals) as device:
        source.start_vm()
        there, here = migrate(source, device)
        assert there.outcome is here.outcome is Outcome.FAILED
        assert device.told() == "R4=1 W4=4-EIO R4=1"
        assert source.told().endswith("W4=1")


def test_a_refused_commit_ends_it_with_no_further_access() -> None:
    refusals = [Refusal("write", SIZE)]
    with opened(pending=[8, 0]) as source, opened(refusals=refusals) as device:
        source.start_vm()
        there, here = migrate(source, device)
        assert there.outcome is here.outcome is Outcome.FAILED
        assert device.told() == "R4=1 W4=4 R16=1000 w8@1000 W24=8-EIO"


def test_an_empty_record_loads_nothing() -> None:
    with opened(pending=[0, 0]) as source, opened() as device:
        source.start_vm()
        migrate(source, device)
        assert device.told() == "R4=1 W4=4 R4=4 W4=1"
