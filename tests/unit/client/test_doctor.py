from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pyfakefs.helpers import set_uid

from vfiomig.client.doctor import Finding, Subject, Verdict, examine
from vfiomig.host.mdev import MdevParent, MdevType
from vfiomig.host.sysfs import Sysfs

if TYPE_CHECKING:
    from pyfakefs.fake_filesystem import FakeFilesystem

UUID = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
OTHER = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1002"

TREE = Path("/tree")
SYS = TREE / "sys"
DEV = TREE / "dev"
CARD = SYS / "devices/pci0000:00/0000:00:02.0"
TYPE = CARD / "mdev_supported_types/i915-GVTg_V5_4"
MDEV = CARD / UUID
GROUP = SYS / "kernel/iommu_groups/7"


def text_file(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def node(fs: FakeFilesystem, path: Path, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fs.create_file(str(path), st_mode=stat.S_IFCHR)
    path.chmod(mode)


def plant(tree: Path) -> None:
    """Make what Linux 6.1 shows of a GPU with one mdev in the IOMMU group 7."""

    def at(place: Path) -> Path:
        return tree / place.relative_to(TREE)

    text_file(at(TYPE / "name"), "GVTg_V5_4\n")
    text_file(at(TYPE / "device_api"), "vfio-pci\n")
    text_file(at(TYPE / "available_instances"), "1\n")
    text_file(at(TYPE / "description"), "low_gm_size: 128MB\nfence: 4\n")
    text_file(at(TYPE / "create"))
    text_file(at(MDEV / "remove"))
    at(MDEV / "remove").chmod(0o200)
    link(at(MDEV / "mdev_type"), at(TYPE))
    link(at(MDEV / "iommu_group"), at(GROUP))
    link(at(MDEV / "subsystem"), at(SYS / "bus/mdev"))
    link(at(MDEV / "driver"), at(SYS / "bus/mdev/drivers/intel_vgpu_mdev"))
    link(at(GROUP / "devices" / UUID), at(MDEV))
    link(at(SYS / "bus/mdev/devices" / UUID), at(MDEV))
    link(at(SYS / "class/mdev_bus/0000:00:02.0"), at(CARD))


@pytest.fixture
def tree(fs: FakeFilesystem) -> FakeFilesystem:
    fs.umask = 0o022
    plant(TREE)
    node(fs, DEV / "vfio/vfio", 0o666)
    node(fs, DEV / "vfio/7", 0o600)
    return fs


def of_mdev(uuid: str | None = UUID) -> dict[str, Finding]:
    """Examine the tree; return the findings about one mdev by what they are about."""
    findings = examine(SYS, DEV, uuid)
    device = [one for one in findings if one.subject is Subject.DEVICE]
    assert len({one.about for one in device}) == len(device)
    return {one.about: one for one in device}


def of_type() -> dict[str, Finding]:
    findings = examine(SYS, DEV, None)
    return {one.about: one for one in findings if one.subject is Subject.TYPE}


def of_host() -> dict[str, Finding]:
    findings = examine(SYS, DEV, UUID)
    return {one.about: one for one in findings if one.subject is Subject.HOST}


def brief(finding: Finding) -> tuple[Verdict, str]:
    return finding.verdict, finding.seen


def remake(path: Path) -> Path:
    """Take a file, a link or a directory away, to put something else there."""
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name("away"))
    else:
        path.unlink()
    return path


# -- a tree that is as it should be ------------------------------------------------


def test_all_is_well_with_a_good_mdev(tree: FakeFilesystem) -> None:
    found = of_mdev()
    assert {about: brief(finding) for about, finding in found.items()} == {
        "exists": (Verdict.OK, "is there"),
        "mdev_type": (Verdict.OK, "i915-GVTg_V5_4"),
        "device_api": (Verdict.OK, "vfio-pci"),
        "driver": (Verdict.OK, "intel_vgpu_mdev"),
        "subsystem": (Verdict.OK, str(SYS / "bus/mdev")),
        "remove": (Verdict.OK, "--w-------"),
        "iommu_group": (Verdict.OK, "7"),
        "group_node": (Verdict.OK, "crw-------"),
        "group_devices": (Verdict.OK, "no other device"),
        "migration": (Verdict.UNKNOWN, "sysfs does not show it"),
        "dirty_pages": (Verdict.UNKNOWN, "sysfs does not show it"),
    }
    assert {finding.name for finding in found.values()} == {UUID}
    here = SYS / "bus/mdev/devices" / UUID
    assert found["exists"].where == here
    assert found["device_api"].where == here / "mdev_type/device_api"
    assert found["group_node"].where == DEV / "vfio/7"
    assert found["group_devices"].where == GROUP / "devices"


def test_what_needs_a_device_fd_is_unknown_and_says_so(tree: FakeFilesystem) -> None:
    found = of_mdev()
    assert "device fd" in found["migration"].why
    assert "v1" in found["migration"].why
    assert "v2" in found["migration"].why
    assert "VFIO_IOMMU_GET_INFO" in found["dirty_pages"].why


def test_the_host_parents_and_types_are_examined(tree: FakeFilesystem) -> None:
    findings = [one for one in examine(SYS, DEV, None) if one.name != UUID]
    facts = [(one.subject, one.name, one.about, one.seen) for one in findings]
    card, gvt = "0000:00:02.0", "i915-GVTg_V5_4"
    assert facts == [
        (Subject.HOST, "host", "mdev_bus", card),
        (Subject.HOST, "host", "container", "crw-rw-rw-"),
        (Subject.PARENT, card, "mdev_supported_types", gvt),
        (Subject.TYPE, gvt, "name", "GVTg_V5_4"),
        (Subject.TYPE, gvt, "device_api", "vfio-pci"),
        (Subject.TYPE, gvt, "available_instances", "1"),
    ]
    assert {one.verdict for one in findings} == {Verdict.OK}


def test_an_mdev_in_particular_is_told_without_the_other_types(
    tree: FakeFilesystem,
) -> None:
    subjects = {one.subject for one in examine(SYS, DEV, UUID)}
    assert subjects == {Subject.HOST, Subject.DEVICE}


def test_without_a_uuid_all_mdevs_are_examined(tree: FakeFilesystem) -> None:
    link(SYS / "bus/mdev/devices" / OTHER, CARD / OTHER)
    names = {one.name for one in examine(SYS, DEV, None) if one.about == "exists"}
    assert names == {UUID, OTHER}


def test_a_uuid_may_be_given_in_capitals(tree: FakeFilesystem) -> None:
    assert of_mdev(UUID.upper())["exists"].verdict is Verdict.OK


def test_our_own_tree_is_well_but_for_the_device_node(fs: FakeFilesystem) -> None:
    def make_driver() -> None:
        message = "an examination opens nothing"
        raise AssertionError(message)

    small = MdevType(
        name="small",
        make_driver=make_driver,  # type: ignore[arg-type]
        instances=2,
    )
    sysfs = Sysfs(SYS)
    sysfs.register_parent(MdevParent("vfiomig", [small]))
    types = "class/mdev_bus/vfiomig/mdev_supported_types"
    sysfs.write(f"{types}/vfiomig-small/create", UUID)
    sysfs.write(f"{types}/vfiomig-small/create", OTHER)
    problems = [
        (one.name, one.about)
        for one in examine(SYS, DEV, None)
        if one.verdict is Verdict.PROBLEM
    ]
    nodes = [(UUID, "group_node"), (OTHER, "group_node")]
    assert problems == [("host", "container"), *nodes]


def test_the_machine_that_runs_this_can_be_examined() -> None:
    assert examine(Path("/sys"), Path("/dev"), None)


# -- what keeps a device from migrating --------------------------------------------


def test_a_host_without_mdev_and_vfio_is_told(fs: FakeFilesystem) -> None:
    host = of_host()
    assert brief(host["mdev_bus"]) == (Verdict.PROBLEM, "is missing")
    assert brief(host["container"]) == (Verdict.PROBLEM, "is missing")


def test_a_bus_without_parents_is_a_problem(fs: FakeFilesystem) -> None:
    (SYS / "class/mdev_bus").mkdir(parents=True)
    assert brief(of_host()["mdev_bus"]) == (Verdict.PROBLEM, "is empty")


def test_a_parent_without_types_is_a_problem(tree: FakeFilesystem) -> None:
    remake(CARD / "mdev_supported_types")
    found = {one.about: one for one in examine(SYS, DEV, None)}
    assert brief(found["mdev_supported_types"]) == (Verdict.PROBLEM, "is missing")


def test_an_mdev_that_is_not_there_is_told_with_all_types(
    tree: FakeFilesystem,
) -> None:
    assert brief(of_mdev(OTHER)["exists"]) == (Verdict.PROBLEM, "is missing")
    subjects = [one.subject for one in examine(SYS, DEV, OTHER)]
    assert Subject.TYPE in subjects
    assert subjects[-1] is Subject.DEVICE


@pytest.mark.parametrize(
    "uuid", ["", "mtty", f"../{UUID}", f"{UUID}\n", f"{UUID}/..", "a\0b", "\udcff"]
)
def test_what_is_no_uuid_is_told_and_not_looked_up(
    tree: FakeFilesystem, uuid: str
) -> None:
    found = of_mdev(uuid)
    assert list(found) == ["uuid"]
    assert brief(found["uuid"]) == (Verdict.PROBLEM, "is no UUID")


@pytest.mark.parametrize("api", ["vfio-ccw", "vfio-platform", "VFIO-PCI", ""])
def test_another_api_than_vfio_pci_is_a_problem(tree: FakeFilesystem, api: str) -> None:
    (TYPE / "device_api").write_text(f"{api}\n")
    for found in (of_mdev()["device_api"], of_type()["device_api"]):
        assert brief(found) == (Verdict.PROBLEM, api)
        assert "vfio-pci only" in found.why


@pytest.mark.parametrize("text", ["", "\n", "-1\n", "many\n", "1\n\n", " 1\n", "٣\n"])
def test_available_instances_must_be_a_number(tree: FakeFilesystem, text: str) -> None:
    (TYPE / "available_instances").write_text(text)
    found = of_type()["available_instances"]
    assert found.verdict is Verdict.PROBLEM
    assert found.seen.startswith("is no number: ")


def test_a_type_that_is_used_up_is_no_problem(tree: FakeFilesystem) -> None:
    (TYPE / "available_instances").write_text("0\n")
    assert brief(of_type()["available_instances"]) == (Verdict.OK, "0")


def test_a_type_may_have_no_name(tree: FakeFilesystem) -> None:
    (TYPE / "name").unlink()
    assert brief(of_type()["name"]) == (Verdict.OK, "is missing")


@pytest.mark.parametrize("name", ["device_api", "available_instances"])
def test_a_type_must_have_the_mandatory_attributes(
    tree: FakeFilesystem, name: str
) -> None:
    (TYPE / name).unlink()
    assert brief(of_type()[name]) == (Verdict.PROBLEM, "is missing")


@pytest.mark.parametrize(
    "name", ["mdev_type", "driver", "subsystem", "remove", "iommu_group"]
)
def test_an_mdev_must_have_its_links_and_remove(
    tree: FakeFilesystem, name: str
) -> None:
    (MDEV / name).unlink()
    assert brief(of_mdev()[name]) == (Verdict.PROBLEM, "is missing")


def test_remove_must_be_a_file(tree: FakeFilesystem) -> None:
    remake(MDEV / "remove").mkdir()
    assert of_mdev()["remove"].verdict is Verdict.PROBLEM


def test_another_subsystem_is_no_mdev(tree: FakeFilesystem) -> None:
    (MDEV / "subsystem").unlink()
    link(MDEV / "subsystem", SYS / "bus/pci")
    assert brief(of_mdev()["subsystem"]) == (Verdict.PROBLEM, str(SYS / "bus/pci"))


def test_a_group_without_a_number_is_a_problem(tree: FakeFilesystem) -> None:
    (MDEV / "iommu_group").unlink()
    (MDEV / "iommu_group").symlink_to("../seven")
    found = of_mdev()
    assert brief(found["iommu_group"]) == (Verdict.PROBLEM, "is no number: seven")
    assert "group_node" not in found


def test_a_group_link_need_not_lead_anywhere(tree: FakeFilesystem) -> None:
    (MDEV / "iommu_group").unlink()
    (MDEV / "iommu_group").symlink_to("/nowhere/7")
    found = of_mdev()
    assert brief(found["iommu_group"]) == (Verdict.OK, "7")
    assert found["group_node"].verdict is Verdict.OK


def test_a_group_needs_its_device_node(tree: FakeFilesystem) -> None:
    (DEV / "vfio/7").unlink()
    assert brief(of_mdev()["group_node"]) == (Verdict.PROBLEM, "is missing")
    (DEV / "vfio/7").write_text("")
    (DEV / "vfio/7").chmod(0o666)
    assert brief(of_mdev()["group_node"]) == (Verdict.PROBLEM, "-rw-rw-rw-")


def test_a_character_device_of_its_own_will_do(tree: FakeFilesystem) -> None:
    (DEV / "vfio/7").unlink()
    (MDEV / "vfio-dev/vfio0").mkdir(parents=True)
    assert of_mdev()["group_node"].where == DEV / "vfio/7"
    node(tree, DEV / "vfio/devices/vfio0", 0o600)
    found = of_mdev()["group_node"]
    assert brief(found) == (Verdict.OK, "crw-------")
    assert found.where == DEV / "vfio/devices/vfio0"
    assert "iommufd" in found.why


@pytest.mark.parametrize(
    ("driver", "verdict"),
    [
        ("nvme", Verdict.PROBLEM),
        ("vfio-pci", Verdict.OK),
        ("mlx5_vfio_pci", Verdict.OK),
        ("pci-stub", Verdict.OK),
        ("pcieport", Verdict.OK),
    ],
)
def test_the_other_devices_of_the_group_must_be_free(
    tree: FakeFilesystem, driver: str, verdict: Verdict
) -> None:
    other = SYS / "devices/pci0000:00/0000:00:03.0"
    link(GROUP / "devices/0000:00:03.0", other)
    assert brief(of_mdev()["group_devices"]) == (
        Verdict.OK,
        "0000:00:03.0 (no driver)",
    )
    link(other / "driver", SYS / "bus/pci/drivers" / driver)
    seen = f"0000:00:03.0 ({driver})"
    assert brief(of_mdev()["group_devices"]) == (verdict, seen)


def test_another_mdev_in_the_group_is_free(tree: FakeFilesystem) -> None:
    link(GROUP / "devices" / OTHER, CARD / OTHER)
    link(CARD / OTHER / "driver", SYS / "bus/mdev/drivers/mtty")
    assert brief(of_mdev()["group_devices"]) == (Verdict.OK, f"{OTHER} (mtty)")


def test_an_mdev_must_be_in_its_group(tree: FakeFilesystem) -> None:
    (GROUP / "devices" / UUID).unlink()
    assert of_mdev()["group_devices"].verdict is Verdict.PROBLEM


@pytest.mark.parametrize(
    ("driver", "verdict"),
    [
        ("vfio-pci", Verdict.PROBLEM),
        ("mlx5_vfio_pci", Verdict.UNKNOWN),
        ("mlx5_core", None),
    ],
)
def test_pci_functions_of_a_vfio_driver_are_mentioned(
    tree: FakeFilesystem, driver: str, verdict: Verdict | None
) -> None:
    place = SYS / "devices/pci0000:00/0000:08:00.2"
    link(SYS / "bus/pci/devices/0000:08:00.2", place)
    link(place / "driver", SYS / "bus/pci/drivers" / driver)
    found = [one for one in examine(SYS, DEV, None) if one.name == "0000:08:00.2"]
    expected = [] if verdict is None else [("driver", verdict, driver)]
    assert [(one.about, one.verdict, one.seen) for one in found] == expected


# -- trees that are not what they should be ----------------------------------------

PLACES = [
    SYS,
    SYS / "class",
    SYS / "class/mdev_bus",
    SYS / "class/mdev_bus/0000:00:02.0",
    SYS / "bus/mdev",
    SYS / "bus/mdev/devices",
    SYS / "bus/mdev/devices" / UUID,
    SYS / "bus/pci/devices",
    CARD / "mdev_supported_types",
    TYPE,
    TYPE / "name",
    TYPE / "device_api",
    TYPE / "available_instances",
    MDEV,
    MDEV / "mdev_type",
    MDEV / "driver",
    MDEV / "subsystem",
    MDEV / "remove",
    MDEV / "iommu_group",
    MDEV / "vfio-dev",
    GROUP,
    GROUP / "devices",
    GROUP / "devices" / UUID,
    DEV,
    DEV / "vfio",
    DEV / "vfio/vfio",
    DEV / "vfio/7",
]

BREAKAGES = [
    "missing",
    "garbage",
    "long",
    "directory",
    "dangling",
    "loop",
    "fifo",
    "odd names",
]


def break_with(path: Path, how: str) -> None:
    """Put something else in a place than what sysfs has there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.exists():
        remake(path)
    match how:
        case "garbage":
            path.write_bytes(b"\xff\x00\x1b[31m\n" * 3)
        case "long":
            path.write_bytes(b"1" * 5000)
        case "directory":
            (path / "within").mkdir(parents=True)
        case "dangling":
            path.symlink_to("no/where")
        case "loop":
            path.symlink_to(path.name)
        case "fifo":
            os.mkfifo(path)
        case "odd names":
            (path / "a\nb\x1b").mkdir(parents=True)
            (path / "\udcff").mkdir()


# On a real file system: pyfakefs has no FIFO that blocks, and loops of its own kind.
@pytest.mark.parametrize("how", BREAKAGES)
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_broken_place_gives_findings_in_plain_lines(
    tmp_path: Path, place: Path, how: str
) -> None:
    plant(tmp_path)
    break_with(tmp_path / place.relative_to(TREE), how)
    for uuid in (None, UUID):
        findings = examine(tmp_path / "sys", tmp_path / "dev", uuid)
        assert findings
        for one in findings:
            for text in (one.name, one.about, one.seen, one.why):
                assert text.isprintable()
                assert len(text) < 200


@pytest.mark.parametrize(
    ("how", "seen"),
    [
        ("garbage", "is no text: "),
        ("long", "is longer than a page"),
        ("directory", "is no file"),
        ("dangling", "is no file"),
        ("loop", "is no file"),
        ("fifo", "is no file"),
    ],
)
def test_an_attribute_that_is_none_is_a_problem(
    tmp_path: Path, how: str, seen: str
) -> None:
    plant(tmp_path)
    break_with(tmp_path / TYPE.relative_to(TREE) / "device_api", how)
    findings = examine(tmp_path / "sys", tmp_path / "dev", UUID)
    found = next(one for one in findings if one.about == "device_api")
    assert found.verdict is Verdict.PROBLEM
    assert found.seen.startswith(seen)


@pytest.mark.parametrize(
    ("how", "seen"),
    [
        ("garbage", "is no link"),
        ("directory", "is no link"),
        ("dangling", "leads nowhere: no/where"),
        ("loop", "cannot be read: "),
    ],
)
@pytest.mark.parametrize("name", ["mdev_type", "driver", "subsystem"])
def test_a_link_that_is_none_is_a_problem(
    tmp_path: Path, name: str, how: str, seen: str
) -> None:
    plant(tmp_path)
    break_with(tmp_path / MDEV.relative_to(TREE) / name, how)
    findings = examine(tmp_path / "sys", tmp_path / "dev", UUID)
    found = next(one for one in findings if one.about == name)
    assert found.verdict is Verdict.PROBLEM
    assert found.seen.startswith(seen)


@pytest.mark.parametrize("root", ["/nowhere", "a\0b", "/dev/null", "x" * 300])
def test_a_root_that_is_no_tree_is_a_problem(root: str) -> None:
    for uuid in (None, UUID):
        findings = examine(Path(root), Path(root), uuid)
        assert {one.verdict for one in findings} == {Verdict.PROBLEM}


def test_what_may_not_be_read_is_a_problem(tree: FakeFilesystem) -> None:
    (TYPE / "device_api").chmod(0)
    (GROUP / "devices").chmod(0)
    set_uid(1000)
    found = of_mdev()
    denied = (Verdict.PROBLEM, "cannot be read: Permission denied")
    assert brief(found["device_api"]) == denied
    assert brief(found["group_devices"]) == denied
