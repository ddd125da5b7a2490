"""The data of a VFIO device, or the image of a RAM block, out of a migration stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.frontends.plain_text import listed, quoted
from vfiomig.frontends.stream_image import RamImage
from vfiomig.frontends.stream_sections import RAM, placed
from vfiomig.migration.qemu_image import ImageError
from vfiomig.protocol.errors import VfiomigError
from vfiomig.protocol.qemu_stream.records import RamBlocks, VfioData
from vfiomig.protocol.qemu_stream.vfio import is_vfio

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from vfiomig.frontends.stream_sections import Section
    from vfiomig.migration.qemu_image import QemuImage
    from vfiomig.protocol.qemu_stream.records import RamBlock

_NAMES: Final = 4096  # that are remembered; no machine has so many
_END: Final = "END"
_SHOWN: Final = 12  # of them in a message


class ExtractError(VfiomigError):
    """A name that nothing in the stream has, or more than one thing."""


@dataclass(frozen=True, slots=True)
class DeviceName:
    """A VFIO device of a stream."""

    idstr: str
    instance_id: int


def named(image: QemuImage, name: str) -> DeviceName | RamBlock:
    """Return what ``name`` is: an idstr, or a part of only one.

    Raises:
        ExtractError: nothing is called so, or more than one thing.
    """
    found = _names(image)
    exact = [each for each in found if each.idstr == name]
    matching = exact or [each for each in found if name in each.idstr]
    if len(matching) == 1:
        return matching[0]
    names = [quoted(each.idstr) for each in (matching or found)[:_SHOWN]]
    if matching:
        message = f"{quoted(name)} may be {listed(names)}"
    elif names:
        message = f"nothing is called {quoted(name)}; there is {listed(names)}"
    else:
        message = (
            f"nothing is called {quoted(name)}: no VFIO device and no RAM is there"
        )
    raise ExtractError(message)


def _names(image: QemuImage) -> list[DeviceName | RamBlock]:
    """Return all that can be extracted, as far as the stream can be read."""
    found: dict[DeviceName | str, DeviceName | RamBlock] = {}
    try:
        for section, located in placed(image.records()):
            if len(found) >= _NAMES:
                break
            if is_vfio(section.idstr or ""):
                device = DeviceName(section.idstr or "", section.instance_id or 0)
                found[device] = device
            elif isinstance(located.record, RamBlocks):
                found.update((block.idstr, block) for block in located.record.blocks)
    except ImageError:
        pass  # whoever extracts meets it again, behind what can be known
    return list(found.values())


@dataclass(slots=True)
class Extracted:
    """What was extracted: bytes of device data, or pages; and a damage behind it."""

    count: int = 0
    damage: ImageError | None = None


def extract_data(
    image: QemuImage, device: DeviceName, write: Callable[[memoryview | bytes], None]
) -> Extracted:
    """Write the data of a device, byte for byte, in order.

    Raises:
        ImageError: the stream is damaged before the device's END section is over.
    """
    extracted, end = Extracted(), None
    try:
        for section, located in placed(image.records()):
            if (section.idstr, section.instance_id) != (
                device.idstr,
                device.instance_id,
            ):
                continue
            end = section if section.type == _END else end
            if isinstance(located.record, VfioData):
                write(located.record.data)
                extracted.count += len(located.record.data)
    except ImageError as error:
        _keep(extracted, end, error)
    return extracted


def extract_block(image: QemuImage, block: RamBlock, file: BinaryIO) -> Extracted:
    """Make ``file`` the block as a destination has it after the load, sparse.

    Raises:
        ImageError: the stream is damaged before RAM is over, or has a page that is
            none of the block's.
    """
    ram, end, extracted = RamImage(image.name, block, file), None, Extracted()
    try:
        for section, located in placed(image.records()):
            if section.idstr == RAM and section.type == _END:
                end = section
            ram.take(located)
    except ImageError as error:
        _keep(extracted, end, error)
    extracted.count = ram.pages
    return extracted


def _keep(extracted: Extracted, end: Section | None, error: ImageError) -> None:
    """Keep a damage that is behind what was extracted; raise any other."""
    if end is None or not end.has_footer:
        raise error
    extracted.damage = error
