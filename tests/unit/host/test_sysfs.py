from __future__ import annotations

import errno
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from pyfakefs.helpers import set_uid

from vfiomig.host.mdev import MdevDevice, MdevParent, MdevType
from vfiomig.host.sysfs import Sysfs
from vfiomig.protocol.region import MigrationRegion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyfakefs.fake_filesystem import FakeFilesystem

FIRST = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
SECOND = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1002"
THIRD = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1003"

TYPES = "class/mdev_bus/mtty/mdev_supported_types"
CREATE = f"{TYPES}/mtty-1/create"
REMOVE = f"bus/mdev/devices/{FIRST}/remove"


class QuietDriver:
    """A vendor driver that answers zeroes."""

    migration_region = MigrationRegion(size=0x1000)

    def read(self, offset: int, size: int) -> bytes:
        return bytes(size)

    def write(self, offset: int, data: bytes) -> None:
        pass

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass


def mtty(
    *,
    ports: int = 24,
    instances: int | Callable[[], int] | None = None,
    probe: Callable[[MdevDevice], None] | None = None,
) -> MdevParent:
    """Make the parent of the kernel's sample: 24 ports, types of one and of two."""
    single = MdevType(
        name="1",
        pretty_name="Single port serial",
        make_driver=QuietDriver,
        instances=instances,
        probe=probe,
    )
    dual = MdevType(
        name="2", pretty_name="Dual port serial", make_driver=QuietDriver, units=2
    )
    return MdevParent("mtty", [single, dual], units=ports)


@pytest.fixture
def sysfs(fs: FakeFilesystem) -> Sysfs:
    tree = Sysfs(Path("/tree"))
    tree.register_parent(mtty())
    return tree


@contextmanager
def refused(code: int) -> Iterator[None]:
    with pytest.raises(OSError, match=r".") as caught:
        yield
    assert caught.value.errno == code


def listing(root: Path) -> dict[str, str]:
    """Return everything in a tree: files with their text, links with their target."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_text()
        else:
            found[name] = "/"
    return found


def listing_by_root(root: Path) -> dict[str, str]:
    set_uid(0)
    try:
        return listing(root)
    finally:
        set_uid(1000)


# -- the tree ----------------------------------------------------------------------


def test_an_empty_tree_has_the_bus_and_no_parent(fs: FakeFilesystem) -> None:
    tree = Sysfs(Path("/tree"))
    assert listing(tree.root) == {
        "bus": "/",
        "bus/mdev": "/",
        "bus/mdev/devices": "/",
        "bus/mdev/drivers": "/",
        "class": "/",
        "class/mdev_bus": "/",
        "devices": "/",
        "devices/virtual": "/",
        "kernel": "/",
        "kernel/iommu_groups": "/",
    }


def test_a_tree_needs_an_empty_directory(fs: FakeFilesystem) -> None:
    Path("/tree/class").mkdir(parents=True)
    with refused(errno.ENOTEMPTY):
        Sysfs(Path("/tree"))


def test_a_parent_shows_its_types(sysfs: Sysfs) -> None:
    assert listing(sysfs.root / "class") == {
        "mdev_bus": "/",
        "mdev_bus/mtty": "-> ../../devices/virtual/mtty",
    }
    assert listing(sysfs.root / "devices/virtual/mtty/mdev_supported_types") == {
        "mtty-1": "/",
        "mtty-1/available_instances": "24\n",
        "mtty-1/create": "",
        "mtty-1/device_api": "vfio-pci\n",
        "mtty-1/devices": "/",
        "mtty-1/name": "Single port serial\n",
        "mtty-2": "/",
        "mtty-2/available_instances": "12\n",
        "mtty-2/create": "",
        "mtty-2/device_api": "vfio-pci\n",
        "mtty-2/devices": "/",
        "mtty-2/name": "Dual port serial\n",
    }


def test_the_modes_are_those_of_the_abi(sysfs: Sysfs) -> None:
    sysfs.write(CREATE, FIRST)
    modes = {
        path.name: path.stat().st_mode & 0o7777
        for path in sysfs.root.rglob("*")
        if path.is_file()
    }
    assert modes == {
        "available_instances": 0o444,
        "create": 0o200,
        "device_api": 0o444,
        "name": 0o444,
        "remove": 0o200,
    }


def test_a_description_is_shown_if_there_is_one(fs: FakeFilesystem) -> None:
    plain = MdevType(name="plain", make_driver=QuietDriver, instances=1)
    told = MdevType(
        name="told",
        make_driver=QuietDriver,
        instances=1,
        description="low_gm_size: 64MB\nfence: 4",
        device_api="vfio-ccw",
    )
    tree = Sysfs(Path("/tree"))
    tree.register_parent(MdevParent("css0", [plain, told], driver="vfio_ccw"))
    types = "class/mdev_bus/css0/mdev_supported_types"
    assert tree.read(f"{types}/vfio_ccw-plain/name") == "plain\n"
    with refused(errno.ENOENT):
        tree.read(f"{types}/vfio_ccw-plain/description")
    shown = tree.read(f"{types}/vfio_ccw-told/description")
    assert shown == "low_gm_size: 64MB\nfence: 4\n"
    assert tree.read(f"{types}/vfio_ccw-told/device_api") == "vfio-ccw\n"


def test_a_created_mdev_is_shown_everywhere(sysfs: Sysfs) -> None:
    sysfs.write(CREATE, FIRST)
    here = f"devices/virtual/mtty/{FIRST}"
    links = {
        name: text
        for name, text in listing(sysfs.root).items()
        if text.startswith("->") and not name.startswith("class")
    }
    types = "devices/virtual/mtty/mdev_supported_types"
    assert links == {
        f"bus/mdev/devices/{FIRST}": f"-> ../../../{here}",
        f"bus/mdev/drivers/mtty/{FIRST}": f"-> ../../../../{here}",
        f"kernel/iommu_groups/0/devices/{FIRST}": f"-> ../../../../{here}",
        f"{types}/mtty-1/devices/{FIRST}": f"-> ../../../{FIRST}",
        f"{here}/mdev_type": "-> ../mdev_supported_types/mtty-1",
        f"{here}/iommu_group": "-> ../../../../kernel/iommu_groups/0",
        f"{here}/subsystem": "-> ../../../../bus/mdev",
        f"{here}/driver": "-> ../../../../bus/mdev/drivers/mtty",
    }


def test_qemu_finds_the_group_and_the_bus(sysfs: Sysfs) -> None:
    sysfs.write(CREATE, FIRST)
    sysfs.write(CREATE, SECOND)
    directory = sysfs.device_path(sysfs.device(SECOND))
    assert (directory / "iommu_group").readlink().name == "1"
    assert (directory / "subsystem").resolve() == sysfs.root / "bus/mdev"


def test_every_link_leads_somewhere_after_the_tree_has_moved(
    fs: FakeFilesystem, sysfs: Sysfs
) -> None:
    sysfs.write(CREATE, FIRST)
    Path("/elsewhere").mkdir()
    moved = sysfs.root.rename("/elsewhere/sys")
    links = [path for path in moved.rglob("*") if path.is_symlink()]
    assert len(links) == 9
    assert all(link.resolve().is_relative_to(moved) for link in links)
    assert all(link.exists() for link in links)


def test_a_real_file_system_shows_the_same(tmp_path: Path) -> None:
    tree = Sysfs(tmp_path / "sys")
    empty = listing(tree.root)
    parent = mtty()
    tree.register_parent(parent)
    tree.write(CREATE, FIRST)
    directory = tree.device_path(tree.device(FIRST))
    assert (directory / "iommu_group").resolve().name == "0"
    assert (directory / "subsystem").resolve() == tree.root / "bus/mdev"
    assert (tree.root / CREATE).with_name("available_instances").read_text() == "23\n"
    assert (tree.root / CREATE).stat().st_mode & 0o777 == 0o200
    tree.device(FIRST).open().close()
    with refused(errno.ENAMETOOLONG):
        tree.read("x" * 300)
    with refused(errno.ENOTDIR):
        tree.read(f"{CREATE}/more")
    tree.write(REMOVE, "1")
    tree.unregister_parent(parent)
    assert listing(tree.root) == empty


def test_the_tree_can_be_kept_by_anybody(fs: FakeFilesystem) -> None:
    fs.umask = 0o022
    fs.create_dir("/home/user")
    fs.chmod("/home/user", 0o777)
    set_uid(1000)
    tree = Sysfs(Path("/home/user/tree"))
    tree.register_parent(mtty())
    tree.write(CREATE, FIRST)  # writes the 0444 file available_instances again
    shown = tree.root / TYPES / "mtty-1/available_instances"
    assert shown.read_text() == "23\n"
    tree.write(REMOVE, "1")
    assert shown.read_text() == "24\n"


# -- create ------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", "\n", "x", "\0", "-"])
def test_36_bytes_or_37_with_any_last_one_are_a_uuid(sysfs: Sysfs, ending: str) -> None:
    assert sysfs.write(CREATE, FIRST + ending) == 36 + len(ending)
    assert str(sysfs.device(FIRST).uuid) == FIRST


def test_the_directory_is_named_in_lower_case(sysfs: Sysfs) -> None:
    sysfs.write(CREATE, FIRST.upper())
    assert (sysfs.root / "bus/mdev/devices" / FIRST).is_dir()
    assert sysfs.device(FIRST.upper()) is sysfs.device(UUID(FIRST))


@pytest.mark.parametrize(
    "text",
    [
        "\n",
        FIRST[:-1],
        FIRST + "\n\n",
        FIRST + "é",  # two bytes
        FIRST[:-1] + "é",
        FIRST[:-1] + "g",
        FIRST[:-2] + "\n\n",
        FIRST.replace("-", "_"),
        "{" + FIRST[:-2] + "}",
        FIRST.replace("-", "") + "0000",
        "83b8f4f25-09f-382f-3c1e-e6bfe0fa1001",
        "٣" + FIRST[1:],  # a digit, but not of C
        "\udcff" + FIRST[1:],
        "x" * 5000,
    ],
)
def test_what_is_no_uuid_is_einval(sysfs: Sysfs, text: str) -> None:
    with refused(errno.EINVAL):
        sysfs.write(CREATE, text)
    assert sysfs.bus.devices == ()


def test_zero_bytes_reach_no_attribute(sysfs: Sysfs) -> None:
    assert sysfs.write(CREATE, "") == 0
    assert sysfs.bus.devices == ()


def test_a_uuid_in_use_anywhere_is_eexist(sysfs: Sysfs) -> None:
    small = MdevType(name="small", make_driver=QuietDriver, instances=1)
    sysfs.register_parent(MdevParent("other", [small]))
    sysfs.write(CREATE, FIRST)
    before = listing(sysfs.root)
    for create in (
        CREATE,
        f"{TYPES}/mtty-2/create",
        "class/mdev_bus/other/mdev_supported_types/other-small/create",
    ):
        with refused(errno.EEXIST):
            sysfs.write(create, FIRST.upper())
    assert listing(sysfs.root) == before


def test_no_instance_of_the_cores_counter_is_eusers(fs: FakeFilesystem) -> None:
    tree = Sysfs(Path("/tree"))
    tree.register_parent(mtty(instances=1))
    tree.write(CREATE, FIRST)
    assert tree.read(f"{TYPES}/mtty-1/available_instances") == "0\n"
    before = listing(tree.root)
    with refused(errno.EUSERS):
        tree.write(CREATE, SECOND)
    assert listing(tree.root) == before


def test_no_port_of_the_driver_is_enospc(fs: FakeFilesystem) -> None:
    tree = Sysfs(Path("/tree"))
    tree.register_parent(mtty(ports=2))
    tree.write(CREATE, FIRST)
    before = listing(tree.root)
    with refused(errno.ENOSPC):
        tree.write(f"{TYPES}/mtty-2/create", SECOND)
    assert listing(tree.root) == before


def test_the_types_of_mtty_share_24_ports(sysfs: Sysfs) -> None:
    def shown() -> tuple[str, ...]:
        types = sysfs.root / TYPES
        names = ("mtty-1", "mtty-2")
        return tuple(
            (types / name / "available_instances").read_text() for name in names
        )

    assert shown() == ("24\n", "12\n")
    sysfs.write(CREATE, FIRST)
    assert shown() == ("23\n", "11\n")
    sysfs.write(f"{TYPES}/mtty-2/create", SECOND)
    assert shown() == ("21\n", "10\n")
    sysfs.write(REMOVE, "1")
    assert shown() == ("22\n", "11\n")


def test_all_24_ports_can_be_used(sysfs: Sysfs) -> None:
    uuids = [f"83b8f4f2-509f-382f-3c1e-{number:012x}" for number in range(13)]
    for uuid in uuids[:12]:
        sysfs.write(f"{TYPES}/mtty-2/create", uuid)
    assert sysfs.read(f"{TYPES}/mtty-1/available_instances") == "0\n"
    with refused(errno.ENOSPC):
        sysfs.write(CREATE, uuids[12])


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EIO, errno.ENODEV])
def test_what_the_probe_refuses_with_is_the_answer(
    fs: FakeFilesystem, code: int
) -> None:
    def probe(device: MdevDevice) -> None:
        assert (tree.root / REMOVE).is_file()
        raise OSError(code, "not this one")

    tree = Sysfs(Path("/tree"))
    tree.register_parent(mtty(probe=probe))
    before = listing(tree.root)
    with refused(code):
        tree.write(CREATE, FIRST)
    assert listing(tree.root) == before
    assert tree.bus.devices == ()
    tree.write(f"{TYPES}/mtty-2/create", FIRST)


def test_a_probe_that_dies_leaves_nothing_behind(fs: FakeFilesystem) -> None:
    def probe(device: MdevDevice) -> None:
        message = "a bug"
        raise RuntimeError(message)

    tree = Sysfs(Path("/tree"))
    tree.register_parent(mtty(probe=probe))
    before = listing(tree.root)
    with pytest.raises(RuntimeError):
        tree.write(CREATE, FIRST)
    assert listing(tree.root) == before


@pytest.mark.parametrize(
    "place",
    [
        ".",
        "devices/virtual/mtty",
        "kernel/iommu_groups",
        "bus/mdev/devices",
        "bus/mdev/drivers/mtty",
        f"{TYPES}/mtty-1/devices",
        f"{TYPES}/mtty-2",  # shows its available_instances last
    ],
)
def test_a_disk_that_fails_leaves_nothing_behind(
    fs: FakeFilesystem, place: str
) -> None:
    fs.umask = 0o022
    fs.create_dir("/home/user")
    fs.chmod("/home/user", 0o777)
    set_uid(1000)
    tree = Sysfs(Path("/home/user/tree"))
    tree.register_parent(mtty())
    (tree.root / place).chmod(0o555)
    before = listing_by_root(tree.root)
    with refused(errno.EACCES):
        tree.write(CREATE, FIRST)
    assert listing_by_root(tree.root) == before
    assert tree.bus.devices == ()
    (tree.root / place).chmod(0o755)
    tree.write(CREATE, FIRST)


def test_creating_makes_no_driver_and_opening_does(fs: FakeFilesystem) -> None:
    made: list[QuietDriver] = []

    def make_driver() -> QuietDriver:
        made.append(QuietDriver())
        return made[-1]

    small = MdevType(name="small", make_driver=make_driver, instances=1)
    tree = Sysfs(Path("/tree"))
    tree.register_parent(MdevParent("vfiomig", [small]))
    tree.write(
        "class/mdev_bus/vfiomig/mdev_supported_types/vfiomig-small/create", FIRST
    )
    assert made == []
    tree.device(FIRST).open().close()
    assert len(made) == 1


# -- remove ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "1\n",
        "2",
        "+1",
        "0x1",
        "0XfF\n",
        "010",
        "1\0x",
        "18446744073709551615",
        "01777777777777777777777",
    ],
)
def test_a_number_that_is_not_zero_removes(sysfs: Sysfs, text: str) -> None:
    sysfs.write(CREATE, FIRST)
    assert sysfs.write(REMOVE, text) == len(text)
    with refused(errno.ENODEV):
        sysfs.device(FIRST)


def test_a_removal_leaves_nothing_behind(sysfs: Sysfs) -> None:
    before = listing(sysfs.root)
    sysfs.write(CREATE, FIRST)
    sysfs.write(REMOVE, "1")
    assert listing(sysfs.root) == before


@pytest.mark.parametrize("text", ["", "0", "0\n", "00", "0x0", "+0"])
def test_zero_has_no_effect(sysfs: Sysfs, text: str) -> None:
    sysfs.write(CREATE, FIRST)
    assert sysfs.write(REMOVE, text) == len(text)
    sysfs.write(REMOVE, "1")  # both the device and its attribute are still there


@pytest.mark.parametrize(
    "text",
    [
        "\n",
        "-1",
        " 1",
        "1 ",
        "1\n\n",
        "yes",
        "0x",
        "08",
        "1_0",
        "++1",
        "٣",
        "18446744073709551616",
        "0x10000000000000000",
        "02000000000000000000000",
        "9" * 5000,
    ],
)
def test_what_is_no_unsigned_long_is_einval(sysfs: Sysfs, text: str) -> None:
    sysfs.write(CREATE, FIRST)
    with refused(errno.EINVAL):
        sysfs.write(REMOVE, text)
    sysfs.write(REMOVE, "1")  # both the device and its attribute are still there


def test_after_a_removal_the_path_is_enoent(sysfs: Sysfs) -> None:
    sysfs.write(CREATE, FIRST)
    sysfs.write(REMOVE, "1")
    with refused(errno.ENOENT):
        sysfs.write(REMOVE, "1")


def test_a_second_writer_has_success_and_no_effect(sysfs: Sysfs) -> None:
    sysfs.write(CREATE, FIRST)
    second_writer = sysfs.open(REMOVE)
    sysfs.write(REMOVE, "1")
    assert second_writer.write("1\n") == 2
    sysfs.write(CREATE, FIRST)  # another device, though it has the same UUID
    assert second_writer.write("1\n") == 2
    assert sysfs.device(FIRST).is_active


def test_removing_what_is_not_active_yet_is_eagain(fs: FakeFilesystem) -> None:
    def probe(device: MdevDevice) -> None:
        second_writer = tree.open(REMOVE)
        with refused(errno.EAGAIN):
            tree.write(REMOVE, "1")
        assert second_writer.write("1") == 1

    tree = Sysfs(Path("/tree"))
    tree.register_parent(mtty(probe=probe))
    tree.write(CREATE, FIRST)
    assert tree.device(FIRST).is_active
    with refused(errno.ENOENT):  # the attribute had deleted itself by then
        tree.write(REMOVE, "1")


def test_removing_what_is_open_is_ebusy_and_can_be_tried_again(sysfs: Sysfs) -> None:
    sysfs.write(CREATE, FIRST)
    device_fd = sysfs.device(FIRST).open()
    before = listing(sysfs.root)
    with refused(errno.EBUSY):
        sysfs.write(REMOVE, "1")
    assert listing(sysfs.root) == before
    device_fd.close()
    sysfs.write(REMOVE, "1")


def test_a_group_number_is_used_again(sysfs: Sysfs) -> None:
    sysfs.write(CREATE, FIRST)
    sysfs.write(CREATE, SECOND)
    sysfs.write(REMOVE, "1")
    sysfs.write(CREATE, THIRD)
    assert sysfs.device(THIRD).iommu_group == 0
    assert sysfs.device(SECOND).iommu_group == 1


# -- parents that go ---------------------------------------------------------------


def test_unregistering_leaves_an_empty_tree(fs: FakeFilesystem) -> None:
    tree = Sysfs(Path("/tree"))
    empty = listing(tree.root)
    parent = mtty()
    tree.register_parent(parent)
    tree.write(CREATE, FIRST)
    tree.write(f"{TYPES}/mtty-2/create", SECOND)
    tree.unregister_parent(parent)
    assert listing(tree.root) == empty
    assert tree.bus.devices == ()
    with refused(errno.ENOENT):
        tree.write(CREATE, FIRST)
    with refused(errno.ENODEV):
        tree.unregister_parent(parent)


def test_who_holds_an_attribute_of_a_gone_parent_gets_enodev(sysfs: Sysfs) -> None:
    sysfs.write(CREATE, FIRST)
    create, remove = sysfs.open(CREATE), sysfs.open(REMOVE)
    sysfs.unregister_parent(sysfs.bus.parents[0])
    with refused(errno.ENODEV):
        create.write(SECOND)
    with refused(errno.ENODEV):
        remove.write("1")


def test_a_parent_with_an_open_mdev_stays(sysfs: Sysfs) -> None:
    sysfs.write(CREATE, FIRST)
    sysfs.write(CREATE, SECOND)
    device_fd = sysfs.device(SECOND).open()
    before = listing(sysfs.root)
    with refused(errno.EBUSY):
        sysfs.unregister_parent(sysfs.bus.parents[0])
    assert listing(sysfs.root) == before
    device_fd.close()
    sysfs.unregister_parent(sysfs.bus.parents[0])


def test_parents_may_share_a_driver(sysfs: Sysfs) -> None:
    small = MdevType(name="small", make_driver=QuietDriver, instances=1)
    other = MdevParent("second-card", [small], driver="mtty")
    before = listing(sysfs.root)
    sysfs.register_parent(other)
    sysfs.unregister_parent(other)
    assert listing(sysfs.root) == before
    assert (sysfs.root / "bus/mdev/drivers/mtty").is_dir()


def test_a_name_that_is_taken_is_eexist_and_changes_nothing(sysfs: Sysfs) -> None:
    before = listing(sysfs.root)
    with refused(errno.EEXIST):
        sysfs.register_parent(mtty())
    assert listing(sysfs.root) == before


def test_a_parent_that_cannot_be_shown_is_not_registered(fs: FakeFilesystem) -> None:
    def get_available() -> int:
        raise OSError(errno.EIO, "no answer")

    tree = Sysfs(Path("/tree"))
    before = listing(tree.root)
    with refused(errno.EIO):
        tree.register_parent(mtty(instances=get_available))
    assert listing(tree.root) == before
    assert tree.bus.parents == ()


# -- reading and writing anywhere --------------------------------------------------


@pytest.mark.parametrize("name", ["name", "device_api", "available_instances"])
def test_writing_to_what_is_read_only_is_eacces(sysfs: Sysfs, name: str) -> None:
    with refused(errno.EACCES):
        sysfs.write(f"{TYPES}/mtty-1/{name}", "1")


def test_reading_what_is_write_only_is_eacces(sysfs: Sysfs) -> None:
    sysfs.write(CREATE, FIRST)
    for path in (CREATE, REMOVE):
        with refused(errno.EACCES):
            sysfs.read(path)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("nothing", errno.ENOENT),
        (f"bus/mdev/devices/{FIRST}/remove", errno.ENOENT),
        ("class/mdev_bus/mtty", errno.EISDIR),
        ("/", errno.EISDIR),
        (f"{CREATE}/more", errno.ENOTDIR),
        ("../../etc/hostname", errno.ENOENT),
        ("/../tree", errno.EISDIR),
        ("a\0b", errno.ENOENT),
        ("loop/create", errno.ELOOP),
        ("stray", errno.ENOENT),
    ],
)
def test_any_other_path_is_answered_as_open_would(
    sysfs: Sysfs, path: str, code: int
) -> None:
    Path("/etc").mkdir()
    Path("/etc/hostname").write_text("x")
    (sysfs.root / "loop").symlink_to("loop")
    (sysfs.root / "stray").write_text("x")
    with refused(code):
        sysfs.read(path)
    with refused(code):
        sysfs.write(path, "1")


def test_one_attribute_has_many_paths(sysfs: Sysfs) -> None:
    sysfs.write(CREATE, FIRST)
    attribute = sysfs.open(f"/devices/virtual/mtty/{FIRST}/mdev_type/name")
    assert attribute.path == PurePosixPath(
        "devices/virtual/mtty/mdev_supported_types/mtty-1/name"
    )
    assert sysfs.open(f"{TYPES}/mtty-1/name") is attribute
    assert sysfs.open(f"kernel/iommu_groups/0/devices/{FIRST}/remove") is sysfs.open(
        REMOVE
    )
    assert attribute.read() == "Single port serial\n"


def test_reading_asks_the_driver_how_many_are_left(fs: FakeFilesystem) -> None:
    free = [3]
    tree = Sysfs(Path("/tree"))
    tree.register_parent(mtty(instances=lambda: free[0]))
    free[0] = 2
    assert tree.read(f"{TYPES}/mtty-1/available_instances") == "2\n"


def test_a_driver_that_cannot_count_fails_only_its_reader(fs: FakeFilesystem) -> None:
    free: list[int] = [3]

    def get_available() -> int:
        if not free:
            raise OSError(errno.EIO, "no answer")
        return free[0]

    tree = Sysfs(Path("/tree"))
    tree.register_parent(mtty(instances=get_available))
    free.clear()
    tree.write(f"{TYPES}/mtty-2/create", FIRST)
    assert tree.read(f"{TYPES}/mtty-2/available_instances") == "11\n"
    with refused(errno.EIO):
        tree.read(f"{TYPES}/mtty-1/available_instances")


@pytest.mark.parametrize("uuid", [FIRST, UUID(FIRST), "", "x", "../" + FIRST])
def test_looking_up_no_mdev_is_enodev(sysfs: Sysfs, uuid: str | UUID) -> None:
    with refused(errno.ENODEV):
        sysfs.device(uuid)
