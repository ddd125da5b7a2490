"""Devices of a conversation, and the fresh ones that they are held against."""

from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING

import pytest

from tests.unit.conformance.small_drivers import SIZE, Framed, Ticks, small
from vfiomig.conformance.conversation.devices import Devices
from vfiomig.conformance.conversation.ticking import Ticking
from vfiomig.protocol.errors import DriverDiedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.conformance.small_drivers import Bare


def devices_of(make_driver: Callable[[], Bare], *, is_alone: bool = False) -> Devices:
    return Devices(make_driver, (), lambda *_: None, Ticking(), is_alone=is_alone)


def counted() -> tuple[list[Bare], Callable[[], Bare]]:
    """Return the drivers that a factory has made, and the factory."""
    made: list[Bare] = []

    def make() -> Bare:
        made.append(Framed())
        return made[-1]

    return made, make


def test_a_device_is_opened_when_its_role_is_first_named() -> None:
    made, make = counted()
    devices = devices_of(make)
    assert made == []
    first = devices.session("source")
    assert devices.session("source") is first
    assert len(made) == 1


def test_every_object_has_a_name_of_its_own() -> None:
    devices = devices_of(Framed)
    names = [devices.session("source").device.name]
    names.append(devices.session("destination").device.name)
    devices.let_go("source")
    names.append(devices.session("source").device.name)
    assert names == ["source", "destination-2", "source-3"]


def test_who_is_not_there_is_not_let_go() -> None:
    devices = devices_of(Framed)
    assert devices.let_go("source") is None
    devices.session("source")
    assert devices.let_go("source") is True
    assert devices.let_go("source") is None


def test_a_device_that_cannot_be_closed_is_let_go_all_the_same() -> None:
    def refuse(_: Bare) -> None:
        raise OSError(errno.EBUSY, "no")

    devices = devices_of(small(close=refuse))
    first = devices.session("source")
    assert devices.let_go("source") is False
    assert devices.session("source") is not first
    devices.close()


def test_all_are_closed_at_the_end() -> None:
    closed: list[object] = []
    devices = devices_of(small(close=lambda self: closed.append(self)))
    devices.session("source")
    devices.session("destination")
    devices.close()
    assert len(closed) == 2


def test_a_factory_that_raises_is_a_death_at_the_start() -> None:
    def broken() -> Bare:
        raise RuntimeError("no second one")

    with pytest.raises(DriverDiedError, match="RuntimeError: no second one"):
        devices_of(broken).session("source")


def test_fresh_devices_are_alike() -> None:
    devices = devices_of(Framed)
    session = devices.session("source")
    assert devices.fresh_snapshot() == session.power_on


def test_one_fresh_device_says_nothing_so_another_is_made() -> None:
    made, make = counted()
    devices = devices_of(make)
    devices.session("source")
    devices.fresh_snapshot()
    assert len(made) == 2


def test_devices_with_random_power_on_states_have_no_fresh_state() -> None:
    numbers = itertools.count()
    devices = devices_of(small(snapshot=lambda _: bytes([next(numbers)])))
    devices.session("source")
    assert devices.fresh_snapshot() == ""


def test_a_device_without_snapshots_has_no_fresh_state() -> None:
    devices = devices_of(small(snapshot=None))
    devices.session("source")
    assert devices.fresh_snapshot() == ""


def test_works_are_done_on_a_device_that_only_runs() -> None:
    devices = devices_of(Framed)
    assert devices.works_on_control([3, 4])
    idle = devices_of(small(worked=lambda self, _: self.memory))
    assert not idle.works_on_control([3, 4])


def test_only_the_last_work_counts() -> None:
    saturating = small(worked=lambda *_: b"\xff" * SIZE)
    assert devices_of(saturating).works_on_control([3])
    assert not devices_of(saturating).works_on_control([3, 4])


def test_what_changes_by_itself_shows_no_work() -> None:
    assert not devices_of(Ticks).works_on_control([3, 4])


@pytest.mark.parametrize("works", [None, []])
def test_without_works_nothing_is_asked(works: list[int] | None) -> None:
    made, make = counted()
    assert not devices_of(make).works_on_control(works)
    assert made == []


def test_a_control_is_let_go_at_once() -> None:
    closed: list[object] = []
    devices = devices_of(small(close=lambda self: closed.append(self)))
    answer = devices.with_control(lambda device: device.name, otherwise="none")
    assert answer == "control"
    assert len(closed) == 1


def test_where_a_device_is_alone_another_roles_is_closed_before_it_is_opened() -> None:
    open_now: list[object] = []

    def make() -> Bare:
        driver = small(close=lambda self: open_now.remove(self))()
        open_now.append(driver)
        assert len(open_now) == 1
        return driver

    devices = devices_of(make, is_alone=True)
    names = [devices.session(role).device.name for role in ("source", "destination")]
    assert names == ["source", "destination-2"]
    assert devices.session("source").device.name == "source-3"


def test_where_a_device_is_alone_nothing_is_held_against_a_fresh_one() -> None:
    made, make = counted()
    devices = devices_of(make, is_alone=True)
    devices.session("source")
    assert devices.with_control(lambda device: device.name, otherwise="none") == "none"
    assert not devices.works_on_control([1])
    assert len(made) == 1
