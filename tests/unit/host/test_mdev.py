from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from vfiomig.host.mdev import DEVICE_APIS, MdevBus, MdevDevice, MdevParent, MdevType
from vfiomig.protocol.errors import DriverDiedError
from vfiomig.protocol.region import MigrationRegion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vfiomig.host.device_ops import TrappedDriver

FIRST = UUID("83b8f4f2-509f-382f-3c1e-e6bfe0fa1001")
SECOND = UUID("83b8f4f2-509f-382f-3c1e-e6bfe0fa1002")
THIRD = UUID("83b8f4f2-509f-382f-3c1e-e6bfe0fa1003")


class QuietDriver:
    """A vendor driver that answers zeroes and says whether it was closed."""

    migration_region = MigrationRegion(size=0x1000)

    def __init__(self) -> None:
        self.is_closed = False

    def read(self, offset: int, size: int) -> bytes:
        return bytes(size)

    def write(self, offset: int, data: bytes) -> None:
        pass

    def reset(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


def a_type(
    name: str = "small",
    *,
    instances: int | Callable[[], int] | None = 4,
    units: int = 1,
    make_driver: Callable[[], TrappedDriver] = QuietDriver,
    probe: Callable[[MdevDevice], None] | None = None,
) -> MdevType:
    return MdevType(
        name=name,
        make_driver=make_driver,
        instances=instances,
        units=units,
        probe=probe,
    )


def on_bus(*types: MdevType, units: int | None = None) -> tuple[MdevBus, MdevParent]:
    bus = MdevBus()
    parent = MdevParent("vfiomig", types, units=units)
    bus.register_parent(parent)
    return bus, parent


def an_mdev(mdev_type: MdevType) -> tuple[MdevBus, MdevDevice]:
    bus, parent = on_bus(mdev_type)
    device = bus.create(parent, mdev_type, FIRST)
    bus.activate(device)
    return bus, device


@contextmanager
def refused(code: int) -> Iterator[None]:
    with pytest.raises(OSError, match=r".") as caught:
        yield
    assert caught.value.errno == code


# -- types and parents -------------------------------------------------------------


def test_a_type_id_is_the_parents_driver_and_the_types_name() -> None:
    single = a_type("1")
    assert MdevParent("mtty", [single]).type_id(single) == "mtty-1"
    gpu = MdevParent("0000:00:02.0", [single], driver="i915")
    assert gpu.type_id(single) == "i915-1"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a\n", "a\0b", "ü"])
def test_what_is_no_name_of_a_directory_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        a_type(name)
    with pytest.raises(ValueError, match="cannot be the name"):
        MdevParent(name, [])
    with pytest.raises(ValueError, match="cannot be the name"):
        MdevParent("vfiomig", [], driver=name)


def test_the_device_apis_are_those_of_the_header() -> None:
    assert DEVICE_APIS == (
        "vfio-pci",
        "vfio-platform",
        "vfio-amba",
        "vfio-ccw",
        "vfio-ap",
    )
    with pytest.raises(ValueError, match="vfio_pci"):
        MdevType(name="small", make_driver=QuietDriver, device_api="vfio_pci")


def test_a_type_without_any_limit_is_refused() -> None:
    unlimited = a_type(instances=None)
    with pytest.raises(ValueError, match="neither instances nor units"):
        MdevParent("vfiomig", [unlimited])
    assert MdevParent("vfiomig", [unlimited], units=1).types == (unlimited,)


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="less than none"):
        a_type(instances=-1)
    with pytest.raises(ValueError, match="takes one at least"):
        a_type(units=0)


def test_two_types_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="one name"):
        MdevParent("vfiomig", [a_type(), a_type()])


def test_a_parent_is_registered_once() -> None:
    bus, parent = on_bus(a_type())
    with refused(errno.EEXIST):
        bus.register_parent(parent)
    with refused(errno.EEXIST):
        bus.register_parent(MdevParent("vfiomig", []))
    with refused(errno.EBUSY):
        MdevBus().register_parent(parent)
    assert bus.parents == (parent,)


# -- how many ----------------------------------------------------------------------


def test_the_types_of_mtty_share_its_24_ports() -> None:
    single, dual = a_type("1", instances=None), a_type("2", instances=None, units=2)
    bus, mtty = on_bus(single, dual, units=24)
    assert mtty.available_instances(single) == 24
    assert mtty.available_instances(dual) == 12
    bus.create(mtty, single, FIRST)
    assert mtty.available_instances(single) == 23
    assert mtty.available_instances(dual) == 11  # 23 free ports make 11 pairs
    pair = bus.create(mtty, dual, SECOND)
    assert mtty.available_instances(single) == 21
    assert mtty.available_instances(dual) == 10
    bus.drop(pair)
    assert mtty.available_instances(dual) == 11


def test_no_units_left_is_enospc() -> None:
    single, dual = a_type("1", instances=None), a_type("2", instances=None, units=2)
    bus, mtty = on_bus(single, dual, units=3)
    bus.create(mtty, dual, FIRST)
    assert mtty.available_instances(dual) == 0
    with refused(errno.ENOSPC):
        bus.create(mtty, dual, SECOND)
    bus.create(mtty, single, SECOND)
    with refused(errno.ENOSPC):
        bus.create(mtty, single, THIRD)


def test_no_instances_left_is_eusers() -> None:
    small, big = a_type("small", instances=1), a_type("big", instances=1)
    bus, parent = on_bus(small, big)
    first = bus.create(parent, small, FIRST)
    assert parent.available_instances(small) == 0
    with refused(errno.EUSERS):
        bus.create(parent, small, SECOND)
    bus.create(parent, big, SECOND)
    bus.drop(first)
    bus.create(parent, small, THIRD)


def test_the_cores_counter_ends_before_the_drivers() -> None:
    small = a_type(instances=1)
    bus, parent = on_bus(small, units=1)
    bus.create(parent, small, FIRST)
    with refused(errno.EUSERS):
        bus.create(parent, small, SECOND)


def test_the_stricter_limit_counts() -> None:
    small = a_type(instances=5)
    assert MdevParent("vfiomig", [small], units=3).available_instances(small) == 3
    assert MdevParent("vfiomig", [small], units=9).available_instances(small) == 5


def test_a_callable_is_asked_each_time() -> None:
    free = [2]
    small = a_type(instances=lambda: free[0])
    bus, parent = on_bus(small)
    assert parent.available_instances(small) == 2
    free[0] = 0
    with refused(errno.ENOSPC):
        bus.create(parent, small, FIRST)
    free[0] = -1
    assert parent.available_instances(small) == 0


# -- create and remove -------------------------------------------------------------


def test_a_uuid_is_taken_once_in_the_whole_system() -> None:
    small = a_type()
    bus, parent = on_bus(small)
    other = MdevParent("other", [small])
    bus.register_parent(other)
    bus.create(parent, small, FIRST)
    with refused(errno.EEXIST):
        bus.create(other, small, FIRST)


def test_a_taken_uuid_counts_before_a_full_parent() -> None:
    small = a_type(instances=1)
    bus, parent = on_bus(small)
    bus.create(parent, small, FIRST)
    with refused(errno.EEXIST):
        bus.create(parent, small, FIRST)


def test_nothing_is_made_of_an_unregistered_parent() -> None:
    small = a_type()
    bus = MdevBus()
    parent = MdevParent("vfiomig", [small])
    with refused(errno.ENODEV):
        bus.create(parent, small, FIRST)
    bus.register_parent(parent)
    bus.unregister_parent(parent)
    with refused(errno.ENODEV):
        bus.create(parent, small, FIRST)
    with refused(errno.ENODEV):
        bus.unregister_parent(parent)


def test_groups_are_numbered_from_the_lowest_free_one() -> None:
    small = a_type()
    bus, parent = on_bus(small)
    first = bus.create(parent, small, FIRST)
    second = bus.create(parent, small, SECOND)
    assert (first.iommu_group, second.iommu_group) == (0, 1)
    bus.drop(first)
    assert bus.create(parent, small, THIRD).iommu_group == 0


def test_creating_makes_no_driver() -> None:
    def make_driver() -> TrappedDriver:
        message = "a driver was made at create"
        raise AssertionError(message)

    _, device = an_mdev(a_type(make_driver=make_driver))
    assert device.is_active


def test_the_probe_sees_a_device_that_is_not_active() -> None:
    seen: list[bool] = []
    bus, device = an_mdev(a_type(probe=lambda device: seen.append(device.is_active)))
    assert seen == [False]
    assert bus.device(FIRST) is device


def test_a_device_that_is_not_active_is_neither_opened_nor_removed() -> None:
    small = a_type()
    bus, parent = on_bus(small)
    device = bus.create(parent, small, FIRST)
    with refused(errno.ENODEV):
        device.open()
    with refused(errno.EAGAIN):
        bus.remove(device)


def test_a_removed_mdev_is_gone() -> None:
    bus, device = an_mdev(a_type())
    bus.remove(device)
    assert bus.devices == ()
    with refused(errno.ENODEV):
        bus.device(FIRST)
    with refused(errno.ENODEV):
        bus.remove(device)
    with refused(errno.ENODEV):
        device.open()


def test_unregistering_takes_the_mdevs_along() -> None:
    bus, device = an_mdev(a_type())
    parent = device.parent
    assert bus.unregister_parent(parent) == (device,)
    assert bus.devices == ()
    assert not parent.is_registered
    with refused(errno.ENODEV):
        device.open()


# -- open --------------------------------------------------------------------------


def test_each_open_makes_a_fresh_driver() -> None:
    made: list[QuietDriver] = []

    def make_driver() -> QuietDriver:
        made.append(QuietDriver())
        return made[-1]

    _, device = an_mdev(a_type(make_driver=make_driver))
    for session in range(2):
        device_fd = device.open()
        assert len(made) == session + 1
        assert not made[session].is_closed
        device_fd.close()
        assert made[session].is_closed


def test_a_second_open_is_ebusy_until_the_first_is_closed() -> None:
    _, device = an_mdev(a_type())
    device_fd = device.open()
    assert device.is_open
    with refused(errno.EBUSY):
        device.open()
    device_fd.close()
    assert not device.is_open
    device.open().close()


def test_a_factory_that_raises_leaves_the_mdev_closed() -> None:
    def make_driver() -> TrappedDriver:
        raise OSError(errno.EIO, "no power")

    _, device = an_mdev(a_type(make_driver=make_driver))
    for _ in range(2):
        with refused(errno.EIO):
            device.open()
    assert not device.is_open


def test_a_driver_that_cannot_be_opened_is_closed() -> None:
    class Unreadable(QuietDriver):
        @property
        def read(self) -> Callable[[int, int], bytes]:
            raise OSError(errno.ENXIO, "no read today")

    driver = Unreadable()
    _, device = an_mdev(a_type(make_driver=lambda: driver))
    with refused(errno.ENXIO):
        device.open()
    assert driver.is_closed
    assert not device.is_open


def test_a_driver_that_dies_in_close_leaves_the_mdev_closed() -> None:
    class DiesInClose(QuietDriver):
        def close(self) -> None:
            message = "close"
            raise RuntimeError(message)

    _, device = an_mdev(a_type(make_driver=DiesInClose))
    device_fd = device.open()
    with pytest.raises(DriverDiedError):
        device_fd.close()
    assert not device.is_open


def test_an_open_mdev_cannot_be_removed() -> None:
    bus, device = an_mdev(a_type())
    device_fd = device.open()
    with refused(errno.EBUSY):
        bus.remove(device)
    with refused(errno.EBUSY):
        bus.unregister_parent(device.parent)
    assert device.parent.is_registered
    device_fd.close()
    bus.remove(device)
