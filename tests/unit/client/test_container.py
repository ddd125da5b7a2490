"""A user application's container: QEMU's ioctls, to the byte.

Numbers and layouts are those of linux/vfio.h (kernel_uapi.md, sections C and D).
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass, field

import pytest

from vfiomig.client.container import Container
from vfiomig.host.dev_vfio import DevVfio
from vfiomig.host.iommu import IommuLimits
from vfiomig.host.user_process import LocalProcess

API_VERSION, EXTENSION, SET_IOMMU, SET_CONTAINER = 0x3B64, 0x3B65, 0x3B66, 0x3B68
GET_INFO, MAP_DMA, DIRTY_PAGES = 0x3B70, 0x3B71, 0x3B75
TYPE1V2 = 3
PAGE = 4096
GROUP = "/dev/vfio/1"

# How many bytes of its argument each ioctl is looked at.
_SIZES = {SET_CONTAINER: 4, MAP_DMA: 32, DIRTY_PAGES: 8}


@dataclass
class Asking:
    """A process that notes its ioctls, with what their arguments lead to."""

    limits: IommuLimits = field(default_factory=IommuLimits)
    asked: list[tuple[int, bytes | int]] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inner = LocalProcess(DevVfio({1: {}}, self.limits).open)
        self.memory = self.inner.memory

    def open(self, path: str) -> int:
        self.opened.append(path)
        return self.inner.open(path)

    def ioctl(self, number: int, request: int, argument: int = 0) -> int:
        size = _SIZES.get(request)
        shown: bytes | int = argument
        if size is not None:
            shown = self.memory.read(argument, size)
            if request == DIRTY_PAGES and shown[4:] == struct.pack("<I", 4):
                shown = self.memory.read(argument, 48)
        elif request == GET_INFO:
            shown = self.memory.read(argument, 4)
        self.asked.append((request, shown))
        return self.inner.ioctl(number, request, argument)

    def close(self, number: int) -> None:
        self.inner.close(number)


def test_it_connects_as_qemu_does() -> None:
    process = Asking()
    container = Container(process, GROUP)
    assert process.opened == ["/dev/vfio/vfio", GROUP]
    requests = [request for request, _ in process.asked]
    assert requests[:4] == [SET_CONTAINER, API_VERSION, EXTENSION, SET_IOMMU]
    assert set(requests[4:]) == {GET_INFO}
    assert process.asked[0][1] == struct.pack("<i", container.number)
    assert process.asked[2:4] == [(EXTENSION, TYPE1V2), (SET_IOMMU, TYPE1V2)]


def test_mappings_and_tracking_to_the_byte() -> None:
    process = Asking()
    container = Container(process, GROUP)
    ram = bytearray(64 * PAGE)
    vaddr = process.memory.place(ram)
    process.asked.clear()
    container.map(0x1_0000_0000, len(ram), vaddr)
    container.start_tracking()
    assert container.dirty_bitmap(0x1_0000_0000, len(ram)) == bytes(8)
    container.stop_tracking()
    told = [shown for _, shown in process.asked]
    assert told[0] == struct.pack("<IIQQQ", 32, 3, vaddr, 0x1_0000_0000, len(ram))
    assert told[1] == struct.pack("<II", 8, 1)
    assert isinstance(told[2], bytes)
    assert told[2][:24] == struct.pack("<IIQQ", 48, 4, 0x1_0000_0000, len(ram))
    assert told[2][24:40] == struct.pack("<QQ", PAGE, 8)
    assert told[3] == struct.pack("<II", 8, 2)
    assert len(told) == 4


@pytest.mark.parametrize(("pages", "size"), [(1, 8), (64, 8), (65, 16), (1000, 128)])
def test_a_bitmap_is_whole_words(pages: int, size: int) -> None:
    process = Asking()
    container = Container(process, GROUP)
    vaddr = process.memory.place(bytearray(pages * PAGE))
    container.map(0, pages * PAGE, vaddr)
    container.start_tracking()
    file = process.inner.file(container.number)
    file.dma_write((pages - 1) * PAGE, b"last")  # type: ignore[attr-defined]
    bitmap = container.dirty_bitmap(0, pages * PAGE)
    assert len(bitmap) == size
    assert int.from_bytes(bitmap, "little") == 1 << (pages - 1)
    assert not any(container.dirty_bitmap(0, pages * PAGE)), "asking clears it"


def test_what_the_kernel_refuses_comes_through() -> None:
    process = Asking()
    container = Container(process, GROUP)
    for call, code in (
        (lambda: container.map(0, 100, 0x1000), errno.EINVAL),
        (lambda: container.dirty_bitmap(0, PAGE), errno.EINVAL),  # no tracking
    ):
        with pytest.raises(OSError) as refused:  # noqa: PT011 -- errno below
            call()
        assert refused.value.errno == code


def test_a_container_without_such_pages_is_none() -> None:
    process = Asking(IommuLimits(page_sizes=1 << 16))
    with pytest.raises(OSError, match="no dirty pages of 4096") as refused:
        Container(process, GROUP)
    assert refused.value.errno == errno.EOPNOTSUPP
    Asking.open(process, GROUP)  # it was let go of


def test_closing_lets_another_have_the_group() -> None:
    process = Asking()
    container = Container(process, GROUP)
    with pytest.raises(OSError) as busy:  # noqa: PT011 -- errno below
        Container(process, GROUP)
    assert busy.value.errno == errno.EBUSY
    container.close()
    Container(process, GROUP).close()
