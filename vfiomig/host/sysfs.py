"""The sysfs tree of mediated devices, as text files that anyone can read.

Rule 1: pathlib and nothing else.  No file stays open, so that the whole tree can be
built on any file system, a faked one included.

Rule 2: a file in the tree shows an attribute; the attribute itself is an object.  What
is written goes through ``Sysfs.write``: writing to the file changes nothing.

Rule 3: every link is relative, so that the tree can be copied or moved as it is.

Rule 4: a ``create`` that fails leaves the tree as it was, whatever it failed of.

The layout is that of Documentation/ABI/testing/sysfs-bus-vfio-mdev, with all parents
below devices/virtual.  Not shown: uevents, and what drivers add under ``vendor``.
"""

from __future__ import annotations

import contextlib
import errno
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final
from uuid import UUID

from vfiomig.host.mdev import MdevBus, MdevDevice, MdevParent, MdevType, require_closed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UUID_STRING_LEN: Final = 36

_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")

# kstrtoul(buf, 0, ...): the base is told by the prefix, one newline may end it.
_NUMBER: Final = re.compile(r"\+?(0[xX][0-9A-Fa-f]+|0[0-7]*|[1-9][0-9]{0,19})\n?")
_ULONG_MAX: Final = (1 << 64) - 1

_MDEV_BUS: Final = PurePosixPath("bus/mdev")
_GROUPS: Final = PurePosixPath("kernel/iommu_groups")
_CLASS: Final = PurePosixPath("class/mdev_bus")
_VIRTUAL: Final = PurePosixPath("devices/virtual")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attribute:
    """An attribute that was opened (``struct device_attribute``): ``show``, ``store``.

    It outlives its file, as an open file descriptor does; ``store`` then answers what
    the kernel would.  ``path`` is where it is, from the root of the tree.
    """

    path: PurePosixPath
    show: Callable[[], str] | None = None
    store: Callable[[str], None] | None = None

    @property
    def mode(self) -> int:
        """Return the permission bits: 0444 to read, 0200 to write."""
        return (0o444 if self.show else 0) | (0o200 if self.store else 0)

    def read(self) -> str:
        """Return the text; EACCES if it is for writing only."""
        if self.show is None:
            raise OSError(errno.EACCES, "the attribute is write-only", str(self.path))
        return self.show()

    def write(self, text: str) -> int:
        """Write the text and return its size in bytes; EACCES if it is read-only.

        Zero bytes never reach ``store`` (``sysfs_kf_write`` of fs/sysfs/file.c).
        """
        if self.store is None:
            raise OSError(errno.EACCES, "the attribute is read-only", str(self.path))
        if text:
            self.store(text)
        return _size(text)


class Sysfs:
    """One system's parents and mdevs, and the tree that shows them.

    ``root`` stands for /sys; it is made if it is not there.  ENOTEMPTY if something
    is in it already.  Paths are text from the root on, with or without the leading
    slash, through any links; where no attribute is, they are answered with the errno
    of open(2).
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root: Final = root.resolve()
        self.bus: Final = MdevBus()
        self._attributes: dict[PurePosixPath, Attribute] = {}
        if any(self.root.iterdir()):
            raise OSError(errno.ENOTEMPTY, "sysfs needs an empty directory", str(root))
        for place in (_MDEV_BUS / "devices", _MDEV_BUS / "drivers", _GROUPS, _CLASS):
            self._at(place).mkdir(parents=True)
        self._at(_VIRTUAL).mkdir(parents=True)

    # -- what a user sees ----------------------------------------------------------

    def open(self, path: str) -> Attribute:
        """Find an attribute; it can be used after its file has gone.

        ENOENT and the other errnos of a path walk, EISDIR for a directory.
        """
        place = self._resolved(path)
        if (attribute := self._attributes.get(place)) is not None:
            return attribute
        self._at(place).stat()  # raises what the walk ran into
        if self._at(place).is_dir():
            raise OSError(errno.EISDIR, "is a directory", path)
        raise OSError(errno.ENOENT, "is no attribute of this tree", path)

    def read(self, path: str) -> str:
        """Return what an attribute shows now; EACCES for create and remove."""
        return self.open(path).read()

    def write(self, path: str, text: str) -> int:
        """Write to an attribute and return the number of bytes taken: all.

        EACCES for whatever is not ``create`` or ``remove``.  ``create`` takes a UUID:
        36 bytes, or 37 whose last one may be anything.  EINVAL if it is not one, and
        the errnos of ``MdevBus.create``, of the type's probe and of the file system.
        ``remove`` takes a number; 0 does nothing.  EINVAL if it is not one, and the
        errnos of ``MdevBus.remove``.
        """
        return self.open(path).write(text)

    def device(self, uuid: UUID | str) -> MdevDevice:
        """Return the mdev with a UUID; ENODEV if there is none."""
        if isinstance(uuid, str):
            if _UUID.fullmatch(uuid) is None:
                raise OSError(errno.ENODEV, f"{uuid!r} is no UUID, so no mdev has it")
            uuid = UUID(uuid)
        return self.bus.device(uuid)

    def device_path(self, device: MdevDevice) -> Path:
        """Return the directory of an mdev, which QEMU takes as its ``sysfsdev``."""
        return self._at(_device_place(device))

    # -- parents -------------------------------------------------------------------

    def register_parent(self, parent: MdevParent) -> None:
        """Show a parent and its types; the errnos of ``MdevBus.register_parent``."""
        self.bus.register_parent(parent)
        try:
            types = _parent_place(parent) / "mdev_supported_types"
            self._at(types).mkdir(parents=True)
            for mdev_type in parent.types:
                self._show_type(parent, mdev_type)
            self._at(_MDEV_BUS / "drivers" / parent.driver).mkdir(exist_ok=True)
            self._link(_CLASS / parent.name, _parent_place(parent))
        except BaseException:
            self.unregister_parent(parent)
            raise

    def unregister_parent(self, parent: MdevParent) -> None:
        """Take a parent away with all its mdevs.

        ENODEV and EBUSY as ``MdevBus.unregister_parent`` tells.
        """
        for device in self.bus.unregister_parent(parent):
            self._hide_device(device)
        self._clear(_CLASS / parent.name)
        self._clear(_parent_place(parent))
        if all(other.driver != parent.driver for other in self.bus.parents):
            self._clear(_MDEV_BUS / "drivers" / parent.driver)

    def _show_type(self, parent: MdevParent, mdev_type: MdevType) -> None:
        place = _type_place(parent, mdev_type)
        self._at(place).mkdir()
        self._at(place / "devices").mkdir()
        name = mdev_type.pretty_name or mdev_type.name
        self._add(place / "name", lambda: f"{name}\n")
        if mdev_type.description is not None:
            self._add(place / "description", lambda: f"{mdev_type.description}\n")
        self._add(place / "device_api", lambda: f"{mdev_type.device_api}\n")
        self._add(
            place / "available_instances",
            lambda: f"{parent.available_instances(mdev_type)}\n",
        )
        self._add(place / "create", store=partial(self._create, parent, mdev_type))

    def _refresh(self, parent: MdevParent) -> None:
        """Write available_instances of all types again, for they may share units."""
        for mdev_type in parent.types:
            place = _type_place(parent, mdev_type) / "available_instances"
            try:
                text = self._attributes[place].read()
            except OSError:  # a failing get_available fails only who reads the file
                continue
            self._write_file(self._attributes[place], text)

    # -- mdevs ---------------------------------------------------------------------

    def _create(self, parent: MdevParent, mdev_type: MdevType, text: str) -> None:
        """Do what a write to ``create`` does (``create_store``)."""
        uuid = _parse_uuid(text)
        device = self.bus.create(parent, mdev_type, uuid)
        try:
            self._show_device(device)
            self.bus.activate(device)
            self._refresh(parent)
        except BaseException:
            self.bus.drop(device)
            self._hide_device(device)
            with contextlib.suppress(OSError):
                self._refresh(parent)
            raise

    def _remove(self, device: MdevDevice, text: str) -> None:
        """Do what a write to ``remove`` does (``remove_store``).

        The attribute deletes itself first: of two writers that have it open, the
        second has success and no effect.
        """
        if _parse_number(text) == 0:
            return
        if not device.parent.is_registered:
            raise OSError(errno.ENODEV, f"the parent of mdev {device.uuid} has gone")
        place = _device_place(device) / "remove"
        if device not in self.bus.devices or place not in self._attributes:
            return
        require_closed(device)
        self._clear(place)
        self.bus.remove(device)
        self._hide_device(device)
        self._refresh(device.parent)

    def _show_device(self, device: MdevDevice) -> None:
        place = _device_place(device)
        self._at(place).mkdir()
        self._add(place / "remove", store=partial(self._remove, device))
        group = _group_place(device)
        self._at(group / "devices").mkdir(parents=True)
        driver = _MDEV_BUS / "drivers" / device.parent.driver
        self._link(place / "mdev_type", _type_place(device.parent, device.type))
        self._link(place / "iommu_group", group)
        self._link(place / "subsystem", _MDEV_BUS)
        self._link(place / "driver", driver)
        for link in _links_to(device):
            self._link(link, place)

    def _hide_device(self, device: MdevDevice) -> None:
        for link in _links_to(device):
            self._clear(link)
        self._clear(_group_place(device))
        self._clear(_device_place(device))

    # -- the file system -----------------------------------------------------------

    def _at(self, place: PurePosixPath) -> Path:
        return self.root / place

    def _resolved(self, path: str) -> PurePosixPath:
        """Follow the links of a path that a user gave; ENOENT outside of the tree."""
        try:
            found = (self.root / path.lstrip("/")).resolve()
        except RuntimeError:  # pathlib's word for a loop up to Python 3.12
            raise OSError(errno.ELOOP, "too many links", path) from None
        except ValueError:
            raise OSError(errno.ENOENT, "no path has a NUL", path) from None
        if not found.is_relative_to(self.root):
            raise OSError(errno.ENOENT, "leads out of the tree", path)
        return PurePosixPath(found.relative_to(self.root))

    def _add(
        self,
        place: PurePosixPath,
        show: Callable[[], str] | None = None,
        store: Callable[[str], None] | None = None,
    ) -> None:
        attribute = Attribute(path=place, show=show, store=store)
        self._write_file(attribute, show() if show else "")
        self._attributes[place] = attribute

    def _write_file(self, attribute: Attribute, text: str) -> None:
        """Put the file of an attribute in place at once: no reader finds half of it.

        The old file is replaced, not written: nobody but root can write a 0444 file.
        """
        beside = self.root / ".attribute"
        try:
            beside.write_text(text, encoding="utf-8")
            beside.chmod(attribute.mode)
            beside.replace(self._at(attribute.path))
        except BaseException:
            beside.unlink(missing_ok=True)
            raise

    def _link(self, place: PurePosixPath, target: PurePosixPath) -> None:
        self._at(place).symlink_to(_relative(target, place.parent))

    def _clear(self, place: PurePosixPath) -> None:
        """Delete a file, a link or a whole directory, if it is there."""
        found = self._at(place)
        if found.is_dir() and not found.is_symlink():
            for name in [entry.name for entry in found.iterdir()]:
                self._clear(place / name)
            found.rmdir()
        else:
            found.unlink(missing_ok=True)
            self._attributes.pop(place, None)


def _parent_place(parent: MdevParent) -> PurePosixPath:
    return _VIRTUAL / parent.name


def _type_place(parent: MdevParent, mdev_type: MdevType) -> PurePosixPath:
    types = _parent_place(parent) / "mdev_supported_types"
    return types / parent.type_id(mdev_type)


def _device_place(device: MdevDevice) -> PurePosixPath:
    return _parent_place(device.parent) / str(device.uuid)


def _group_place(device: MdevDevice) -> PurePosixPath:
    return _GROUPS / str(device.iommu_group)


def _links_to(device: MdevDevice) -> Iterator[PurePosixPath]:
    """Name the links that lead to the directory of an mdev."""
    name = str(device.uuid)
    yield _MDEV_BUS / "devices" / name
    yield _MDEV_BUS / "drivers" / device.parent.driver / name
    yield _type_place(device.parent, device.type) / "devices" / name
    yield _group_place(device) / "devices" / name


def _relative(target: PurePosixPath, start: PurePosixPath) -> PurePosixPath:
    """Return the way from one directory of the tree to a place in it."""
    common = 0
    for ours, theirs in zip(start.parts, target.parts, strict=False):
        if ours != theirs:
            break
        common += 1
    up = [".."] * (len(start.parts) - common)
    return PurePosixPath(*up, *target.parts[common:])


def _size(text: str) -> int:
    return len(text.encode(errors="replace"))  # a byte that is no text counts as one


def _parse_uuid(text: str) -> UUID:
    """Read what is written to ``create``; EINVAL if it is not a UUID."""
    if _size(text) not in (UUID_STRING_LEN, UUID_STRING_LEN + 1):
        raise OSError(errno.EINVAL, f"{_size(text)} bytes are no UUID")
    if _UUID.fullmatch(text[:UUID_STRING_LEN]) is None:
        raise OSError(errno.EINVAL, f"{text!r} is no UUID")
    return UUID(text[:UUID_STRING_LEN])


def _parse_number(text: str) -> int:
    """Read what is written to ``remove``; EINVAL if it is no unsigned long."""
    found = _NUMBER.fullmatch(text.partition("\0")[0])  # to C, a NUL ends it
    if found is None:
        raise OSError(errno.EINVAL, f"{text!r} is no number")
    digits = found[1]
    base = 10
    if digits.startswith("0"):
        base = 16 if digits[:2] in ("0x", "0X") else 8
    value = int(digits, base)
    if value > _ULONG_MAX:
        raise OSError(errno.EINVAL, f"{text!r} does not fit in an unsigned long")
    return value
