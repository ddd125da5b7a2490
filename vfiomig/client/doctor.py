"""What sysfs and /dev/vfio tell of why a device can or cannot migrate.

Rule 1: pathlib and nothing else; no ioctl, no device fd.  What needs one is a finding
that says so.

Rule 2: the tree may be anybody's: a real /sys, ours, a copy, half of one, or garbage.
Whatever cannot be read is a finding, never an exception and never a wait: only regular
files are opened, and no more than a page of them is read.

Rule 3: findings are values.  Their text is one line each, whatever was in the tree.
"""

from __future__ import annotations

import enum
import re
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    _Look = Callable[[Path], tuple[bool, str]]

_PAGE: Final = 4096  # no attribute of sysfs is longer
_SHOWN: Final = 120  # characters of what was found that a finding repeats

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# Bound to these, a device does not keep the rest of its IOMMU group from use
# (vfio_dev_driver_allowed() of the kernel's vfio.c up to v5.18).
_HARMLESS_DRIVERS: Final = ("pci-stub", "pcieport")


class Subject(enum.Enum):
    """Of what a finding tells."""

    HOST = "host"
    PARENT = "parent"
    TYPE = "type"
    DEVICE = "device"


class Verdict(enum.Enum):
    """OK, a PROBLEM for migration, or UNKNOWN because nothing here can tell."""

    OK = "ok"
    PROBLEM = "problem"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    ``name`` is that of the subject: parent, type id, UUID, PCI address, or "host".
    ``about`` is the attribute, link or quality looked at, a word that never changes.
    ``seen`` is what was found and ``why`` is what that means for migration, one line
    each.  ``where`` is the path; it is as it was found, unprintable names included.
    """

    subject: Subject
    name: str
    about: str
    verdict: Verdict
    seen: str
    why: str
    where: Path


def examine(root: Path, dev: Path, uuid: str | None) -> list[Finding]:
    """Examine one mdev, or without a ``uuid`` everything there is.

    ``root`` stands for /sys and ``dev`` for /dev.  Never raises: what is wrong with
    the tree, or with the UUID, is a finding.
    """
    findings = list(_host(root, dev))
    if uuid is None:
        findings += _parents(root)
        for place in _listed(root / "bus/mdev/devices"):
            findings += _device(root, dev, place)
        findings += _pci_devices(root)
    else:
        findings += _one(root, dev, uuid.lower())
    return findings


def _one(root: Path, dev: Path, uuid: str) -> Iterator[Finding]:
    devices = root / "bus/mdev/devices"
    if _UUID.fullmatch(uuid) is None:
        why = "an mdev is named by its UUID: 8-4-4-4-12 hexadecimal digits"
        note = _Notes(Subject.DEVICE, _shown(uuid))
        yield note.take("uuid", Verdict.PROBLEM, "is no UUID", why, devices)
        return
    findings = list(_device(root, dev, devices / uuid))
    if findings[0].verdict is Verdict.PROBLEM:
        yield from _parents(root)  # of what it could be made
    yield from findings


# -- the host ----------------------------------------------------------------------


def _host(root: Path, dev: Path) -> Iterator[Finding]:
    note = _Notes(Subject.HOST, "host")
    why = "no driver has registered a parent while this is missing or empty"
    yield note.look("mdev_bus", root / "class/mdev_bus", _names, why)
    why = "QEMU opens it as the container of its groups and DMA maps"
    yield note.look("container", dev / "vfio/vfio", _node, why)


def _parents(root: Path) -> Iterator[Finding]:
    for parent in _listed(root / "class/mdev_bus"):
        note = _Notes(Subject.PARENT, _shown(parent.name))
        types = parent / "mdev_supported_types"
        why = "each type is a kind of mdev that can be made of the parent"
        yield note.look("mdev_supported_types", types, _names, why)
        for place in _listed(types):
            yield from _type(place)


def _type(place: Path) -> Iterator[Finding]:
    note = _Notes(Subject.TYPE, _shown(place.name))
    why = "it is for people; before Linux 6.1 a driver could leave it out"
    yield note.look("name", place / "name", _optional_text, why)
    yield _device_api(note, place)
    why = "so many more mdevs of the type can be created now"
    path = place / "available_instances"
    yield note.look("available_instances", path, _number, why)


def _device_api(note: _Notes, mdev_type: Path) -> Finding:
    why = "QEMU migrates devices of the API vfio-pci only"
    return note.look("device_api", mdev_type / "device_api", _is_vfio_pci, why)


def _names(directory: Path) -> tuple[bool, str]:
    names = ", ".join(entry.name for entry in _entries(directory))
    return bool(names), _shown(names) or "is empty"


def _optional_text(path: Path) -> tuple[bool, str]:
    try:
        return True, _shown(_text(path))
    except _MissingError as missing:
        return True, str(missing)


def _is_vfio_pci(path: Path) -> tuple[bool, str]:
    api = _text(path)
    return api == "vfio-pci", _shown(api)


def _number(path: Path) -> tuple[bool, str]:
    text = _text(path)
    if re.fullmatch("[0-9]+", text) is None:
        return False, f"is no number: {_shown(text)}"
    return True, _shown(text)


# -- one mdev ----------------------------------------------------------------------


def _device(root: Path, dev: Path, place: Path) -> Iterator[Finding]:
    """Examine an mdev; the first finding is whether there is one at all."""
    note = _Notes(Subject.DEVICE, _shown(place.name))
    why = "an mdev is there once its UUID was written to a type's create"
    found = note.look("exists", place, _is_there, why)
    yield found
    if found.verdict is Verdict.PROBLEM:
        return
    why = "the destination must have an mdev of the same type"
    yield note.look("mdev_type", place / "mdev_type", _is_link, why)
    yield _device_api(note, place / "mdev_type")
    why = "without a driver there is no VFIO device, and nothing to open"
    yield note.look("driver", place / "driver", _is_link, why)
    why = "QEMU takes a device for an mdev if this leads to bus/mdev"
    is_mdev = partial(_leads_to, root / "bus/mdev")
    yield note.look("subsystem", place / "subsystem", is_mdev, why)
    why = "it is missing while an mdev is being removed, and after that failed"
    yield note.look("remove", place / "remove", _is_file, why)
    yield from _iommu_group(note, root, dev, place)
    why = "only the device fd tells whether the driver has a v1 region or speaks v2"
    unseen = "sysfs does not show it"
    yield note.take("migration", Verdict.UNKNOWN, unseen, why, place)
    why = "only the container tells: VFIO_IOMMU_GET_INFO, the migration capability"
    yield note.take("dirty_pages", Verdict.UNKNOWN, unseen, why, place)


def _iommu_group(note: _Notes, root: Path, dev: Path, place: Path) -> Iterator[Finding]:
    why = "QEMU reads the number of the group off this link"
    found = note.look("iommu_group", place / "iommu_group", _group_number, why)
    yield found
    if found.verdict is Verdict.PROBLEM:
        return
    yield _group_node(note, dev, place, found.seen)
    why = "a group is opened as one: no other device in it may be the host's"
    devices = root / "kernel/iommu_groups" / found.seen / "devices"
    yield note.look("group_devices", devices, partial(_is_free, place.name), why)


def _group_node(note: _Notes, dev: Path, place: Path, number: str) -> Finding:
    why = "QEMU opens it to get the device fd, and needs the right to"
    found = note.look("group_node", dev / "vfio" / number, _node, why)
    if found.verdict is Verdict.PROBLEM:
        why = "there is no group to open, but QEMU has it through iommufd"
        for cdev in _listed(place / "vfio-dev"):
            node = dev / "vfio/devices" / cdev.name
            instead = note.look("group_node", node, _node, why)
            if instead.verdict is Verdict.OK:
                return instead
    return found


def _is_there(directory: Path) -> tuple[bool, str]:
    _entries(directory)
    return True, "is there"


def _is_link(link: Path) -> tuple[bool, str]:
    return True, _shown(_target(link).name)


def _leads_to(target: Path, link: Path) -> tuple[bool, str]:
    found = _target(link)
    with _seeing():
        return link.resolve() == target.resolve(), _shown(str(found))


def _is_file(path: Path) -> tuple[bool, str]:
    return stat.S_ISREG(_mode(path)), stat.filemode(_mode(path))


def _group_number(link: Path) -> tuple[bool, str]:
    with _seeing():
        number = link.readlink().name  # for QEMU it need not lead anywhere
    if re.fullmatch("[0-9]{1,10}", number) is None:
        return False, f"is no number: {_shown(number)}"
    return True, number


def _is_free(own: str, devices: Path) -> tuple[bool, str]:
    """Tell whether an IOMMU group can be given to a user application."""
    entries = _entries(devices)
    drivers = {entry.name: _bound(entry) for entry in entries if entry.name != own}
    if len(drivers) == len(entries):
        return False, "the device itself is not in its group"
    told = [f"{name} ({drivers[name] or 'no driver'})" for name in drivers]
    is_free = not any(map(_is_the_hosts, drivers.items()))
    return is_free, _shown(", ".join(told)) if told else "no other device"


def _is_the_hosts(device: tuple[str, str | None]) -> bool:
    name, driver = device
    if driver is None or driver in _HARMLESS_DRIVERS or "vfio" in driver:
        return False
    return _UUID.fullmatch(name) is None  # every driver of an mdev is a VFIO driver


# -- PCI functions -----------------------------------------------------------------


def _pci_devices(root: Path) -> Iterator[Finding]:
    """Tell of PCI functions that a VFIO driver has; the others are the host's."""
    for place in _listed(root / "bus/pci/devices"):
        driver = _bound(place)
        if driver is None or "vfio" not in driver:
            continue
        note = _Notes(Subject.DEVICE, _shown(place.name))
        verdict = Verdict.UNKNOWN
        why = "only the device fd tells whether a variant driver migrates"
        if driver == "vfio-pci":
            verdict = Verdict.PROBLEM
            why = "vfio-pci itself migrates nothing; a variant driver might"
        yield note.take("driver", verdict, driver, why, place / "driver")


def _bound(place: Path) -> str | None:
    """Return the printable name of the driver of a device, None if there is none."""
    try:
        return _is_link(place / "driver")[1]
    except _UnseenError:
        return None


# -- looking -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Notes:
    """Writes the findings about one subject."""

    subject: Subject
    name: str

    def take(
        self, about: str, verdict: Verdict, seen: str, why: str, where: Path
    ) -> Finding:
        return Finding(
            subject=self.subject,
            name=self.name,
            about=about,
            verdict=verdict,
            seen=seen,
            why=why,
            where=where,
        )

    def look(self, about: str, where: Path, look: _Look, why: str) -> Finding:
        """Look at a path: ``look`` returns whether all is well, and what it saw."""
        try:
            is_well, seen = look(where)
        except _UnseenError as unseen:
            is_well, seen = False, str(unseen)
        verdict = Verdict.OK if is_well else Verdict.PROBLEM
        return self.take(about, verdict, seen, why, where)


class _UnseenError(Exception):
    """Something that cannot be looked at; ``str()`` is what is seen instead."""


class _MissingError(_UnseenError):
    """Nothing is there."""


@contextmanager
def _seeing() -> Iterator[None]:
    """Turn whatever a file system answers into ``_UnseenError``."""
    try:
        yield
    except FileNotFoundError:
        raise _MissingError("is missing") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise _UnseenError(f"cannot be read: {reason}") from None
    except (RuntimeError, ValueError) as error:  # pathlib: a loop; a name with NUL
        raise _UnseenError(f"cannot be read: {_shown(str(error))}") from None


def _mode(path: Path) -> int:
    with _seeing():
        return path.stat().st_mode


def _entries(path: Path) -> list[Path]:
    with _seeing():
        return sorted(path.iterdir())


def _listed(path: Path) -> list[Path]:
    """Return what is in a directory; nothing if it cannot be listed."""
    try:
        return _entries(path)
    except _UnseenError:
        return []


def _target(link: Path) -> Path:
    """Return what a link says; it must be one, and lead somewhere."""
    with _seeing():
        if not stat.S_ISLNK(link.lstat().st_mode):
            raise _UnseenError("is no link")
        target = link.readlink()
    try:
        _mode(link)
    except _MissingError:
        raise _UnseenError(f"leads nowhere: {_shown(str(target))}") from None
    return target


def _text(path: Path) -> str:
    """Return what an attribute shows, less the newline at its end."""
    with _seeing():
        if not stat.S_ISREG(path.lstat().st_mode):  # a FIFO would keep us waiting
            raise _UnseenError("is no file")
        with path.open("rb") as file:
            data = file.read(_PAGE + 1)
    if len(data) > _PAGE:
        raise _UnseenError("is longer than a page")
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise _UnseenError(f"is no text: {_shown(repr(data))}") from None


def _node(path: Path) -> tuple[bool, str]:
    """Look at a device node; what is seen is its mode, as ls(1) has it."""
    mode = _mode(path)
    return stat.S_ISCHR(mode), stat.filemode(mode)


def _shown(text: str) -> str:
    """Return a text as one printable line of bounded length."""
    line = text if text.isprintable() else repr(text)
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
