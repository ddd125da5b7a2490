"""Forecasts by figures reckoned by hand, and leaps that change nothing."""

from __future__ import annotations

import pytest

from vfiomig.migration.clock import SECOND, LinkModel
from vfiomig.migration.convergence import Limits
from vfiomig.migration.loop_rules import LOOP_RULES
from vfiomig.migration.metrics import Outcome
from vfiomig.migration.parameters import Parameters
from vfiomig.migration.what_if.forecast import ModelledMachine, Setting, forecast
from vfiomig.migration.what_if.leaping import LeapingPace
from vfiomig.migration.what_if.profile import AccessTimes, Curve, DeviceProfile, Seen
from vfiomig.vm.workload import RamLoad

MIB = 1 << 20
# What stands around pages: hand-counted in qemu_stream_and_xen.md, section A.
FULL, ZERO = 8 + 4096, 8 + 1
NAME = len("pc.ram") + 1
PART_FRAME = 5 + 8 + 5  # type and id, EOS, footer


def setting(
    *,
    ram: int = 64 * MIB,
    filled: int = 0,
    loads: tuple[RamLoad, ...] = (),
    bandwidth: int = 128 * MIB,
    devices: tuple[DeviceProfile, ...] = (),
    qemu: str = "7.2",
    rounds: int = 30,
    **parameters: int | bool,
) -> Setting:
    given = Parameters(rules=LOOP_RULES[qemu], **parameters)  # type: ignore[arg-type]
    return Setting(
        link=LinkModel(bandwidth, 0),
        limits=Limits(downtime=given.downtime_limit, rounds=rounds),
        devices=devices,
        machine=ModelledMachine(
            machine_type="pc-i440fx-7.2",
            ram=ram,
            filled=filled,
            loads=loads,
            parameters=given,
            description_bytes=100,
        ),
    )


def test_zero_pages_are_nine_bytes_and_all_go_in_one_turn() -> None:
    found = forecast(setting())
    metrics = found.metrics
    assert found.converges
    assert (metrics.zero_pages, metrics.normal_pages) == (64 * MIB // 4096, 0)
    assert metrics.precopy_ram_bytes == 64 * MIB // 4096 * ZERO + NAME + 5
    assert metrics.stop_and_copy_ram_bytes == 0
    assert len(metrics.rounds) == 1


def test_filled_pages_take_their_contents() -> None:
    metrics = forecast(setting(filled=16 * MIB, ram=16 * MIB)).metrics
    pages = 16 * MIB // 4096
    assert metrics.normal_pages == pages
    turns = sum(one.polls for one in metrics.rounds)
    sent = metrics.precopy_ram_bytes + metrics.stop_and_copy_ram_bytes
    heads = 5 * turns
    assert abs(sent - (pages * FULL + NAME + heads)) <= 5


def test_a_guest_that_writes_faster_than_the_link_never_converges() -> None:
    load = RamLoad(dirty_rate=200 * MIB, working_set=64 * MIB)
    found = forecast(
        setting(filled=64 * MIB, loads=(load,), bandwidth=100 * MIB, rounds=5)
    )
    assert found.outcome is Outcome.NOT_CONVERGED
    assert not found.converges
    assert len(found.metrics.rounds) == 5
    assert found.metrics.downtime is None
    assert "after 5 rounds" in found.reason


def test_auto_converge_slows_it_down_until_it_does() -> None:
    load = RamLoad(dirty_rate=150 * MIB, working_set=256 * MIB)
    stubborn = setting(
        ram=256 * MIB,
        filled=256 * MIB,
        loads=(load,),
        bandwidth=100 * MIB,
        rounds=100,
        max_bandwidth=0,
    )
    slowed = setting(
        ram=256 * MIB,
        filled=256 * MIB,
        loads=(load,),
        bandwidth=100 * MIB,
        rounds=100,
        max_bandwidth=0,
        auto_converge=True,
    )
    assert not forecast(stubborn).converges
    found = forecast(slowed)
    assert found.converges
    assert found.metrics.cpu_throttle > 30


def test_downtime_is_what_the_rest_takes() -> None:
    """300 ms at 100 MiB/s are 30 MiB; a turn of 50 ms, in batches of 1 MiB, is 5."""
    load = RamLoad(dirty_rate=20 * MIB, working_set=64 * MIB)
    found = forecast(
        setting(filled=64 * MIB, loads=(load,), bandwidth=100 * MIB, max_bandwidth=0)
    )
    metrics = found.metrics
    assert metrics.downtime is not None
    rest = metrics.stop_and_copy_ram_bytes * SECOND / (100 * MIB)
    assert metrics.downtime == pytest.approx(rest, rel=0.01)
    assert 24 * MIB < metrics.stop_and_copy_ram_bytes < 30 * MIB


GROWING = DeviceProfile(
    name="gpu",
    idstr="0000:00:02.0/vfio",
    work=1000,
    first_pending=8 * MIB,
    buffer=MIB,
    last_buffer=MIB,
    growth=Curve((Seen(0, 0), Seen(1000, 4 * MIB), Seen(2000, 4 * MIB))),
    extra=Curve((Seen(0, 100),)),
    config_bytes=328,
    times=AccessTimes(poll=1000, buffer=2000),
)


@pytest.mark.parametrize("qemu", ["7.2", "8.1", "10.0"])
@pytest.mark.parametrize("dirty_rate", [0, 30 * MIB, 300 * MIB])
def test_leaps_change_nothing(
    qemu: str, dirty_rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = RamLoad(dirty_rate=dirty_rate, working_set=1024 * MIB, offset=64 * MIB)
    what = setting(
        ram=4096 * MIB,
        filled=2048 * MIB,
        loads=(load,),
        devices=(GROWING,),
        qemu=qemu,
        rounds=4,
    )
    leaping = forecast(what).metrics
    monkeypatch.setattr(LeapingPace, "_most_leaps", lambda *_: 0)
    walking = forecast(what).metrics
    assert len(leaping.rounds) == len(walking.rounds)
    assert leaping.dirty_syncs == walking.dirty_syncs
    for name in ("sent_bytes", "precopy_device_bytes", "zero_pages", "ended_at"):
        assert getattr(leaping, name) == pytest.approx(
            getattr(walking, name), rel=0.02
        ), name


def test_a_terabyte_is_leapt_over() -> None:
    load = RamLoad(dirty_rate=64 * MIB, working_set=1 << 38, offset=1 << 30)
    found = forecast(
        setting(ram=1 << 40, filled=1 << 40, loads=(load,), bandwidth=1 << 30)
    )
    assert found.converges
    # 128 MiB a second: all of it takes 8192 s at least.
    assert found.metrics.ended_at is not None
    assert found.metrics.ended_at > 8192 * SECOND
    assert found.metrics.normal_pages > (1 << 40) // 4096


def test_a_device_alone_goes_by_the_link_and_its_own_pending_bytes() -> None:
    """8 MiB at 10 MiB a second; 100 ms of downtime are 1 MiB."""
    quiet = DeviceProfile(
        name="gpu",
        idstr="gpu/vfio",
        first_pending=8 * MIB,
        buffer=MIB,
        last_buffer=MIB,
        extra=Curve((Seen(0, 100),)),
    )
    found = forecast(
        Setting(
            link=LinkModel(10 * MIB, 0),
            limits=Limits(downtime=SECOND // 10),
            devices=(quiet,),
        )
    )
    assert found.converges
    assert found.metrics.precopy_device_bytes == 7 * MIB
    assert found.metrics.stop_and_copy_device_bytes == MIB + 100


def test_a_curve_goes_on_as_it_ends() -> None:
    curve = Curve((Seen(0, 0), Seen(10, 100), Seen(20, 100)))
    assert curve.value(5) == 50
    assert curve.value(1000) == 100
    assert curve.grown(50, 2) == 70
    assert curve.grown(100, 2) == 100
    assert Curve((Seen(0, 0), Seen(1, 10))).value(3) == 30


def test_a_curve_needs_a_point() -> None:
    with pytest.raises(ValueError, match="no points"):
        Curve(())
