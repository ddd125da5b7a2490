"""Streams that somebody else saved: what is loaded, passed over, and refused."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.unit.client.scripted_driver import OpenDevice, Refusal, ScriptedDriver
from tests.unit.migration.guests import (
    CONTINUE,
    END_OF_STATE,
    FULL,
    PAGE,
    PC_RAM,
    ZERO,
    SmallGuest,
    content,
    footer,
    word,
)
from vfiomig.migration.image_loading import ImageLoading, vfio_sections
from vfiomig.migration.ram_image import RamImage
from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream.reader import read_stream
from vfiomig.protocol.qemu_stream.records import Located, RamPageKind, RamPages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.vm.memory import GuestMemory

HEAD = bytes.fromhex("5145564d 00000003")
IDSTR = "0000:00:05.0/vfio"
END_TAG, CONFIG_TAG, SETUP_TAG, DATA_TAG = (
    struct.pack(">Q", 0xFFFFFFFFEF100000 + number) for number in (1, 2, 3, 4)
)
RESUMING, RUNNING = 4, 1


def section(
    kind: int, number: int, body: bytes, idstr: str = "", version: int = 1
) -> bytes:
    head = struct.pack(">BI", kind, number)
    if idstr:
        head += bytes([len(idstr)]) + idstr.encode() + struct.pack(">II", 0, version)
    return head + body + footer(number)


def data(payload: bytes) -> bytes:
    return DATA_TAG + len(payload).to_bytes(8, "big") + payload


def config(first: int = 0) -> bytes:
    space = bytes([first]) + bytes(range(1, 256))
    return CONFIG_TAG + (2).to_bytes(4, "big") + space + bytes(16) + END_TAG


def ram(pages: int, name: bytes = PC_RAM) -> bytes:
    size = pages * PAGE
    blocks = (size | 0x04).to_bytes(8, "big") + name + size.to_bytes(8, "big")
    return section(1, 2, blocks + END_OF_STATE, "ram", 4)


START = section(1, 7, SETUP_TAG + END_TAG, IDSTR)
PART = section(2, 7, data(b"in pre-copy") + END_TAG)
END = section(3, 7, data(b"stopped") + data(b"") + END_TAG)
CONFIG = section(4, 7, config(), IDSTR)
OTHER = section(4, 3, b"anything", "timer", 2)
DEVICE = START + PART + END + OTHER + CONFIG


class Target:
    """A scripted device at the destination, and its loading."""

    def __init__(
        self, *refusals: Refusal, memory: GuestMemory | None = None, first: int = 0
    ) -> None:
        self.open = OpenDevice(ScriptedDriver(refusals=list(refusals)), name="a")
        self.config = bytearray([first, *range(1, 256)])
        device = self.open.participant._replace(config=self.config)
        self.loading = ImageLoading({IDSTR: device}, memory)
        self.ran: list[str] = []

    def load(self, *sections: bytes) -> None:
        stream = HEAD + b"".join(sections) + b"\0"
        self.loading.begin()
        for located in read_stream(memoryview(stream)):
            self.loading.take(located)
        self.loading.end(len(stream))
        self.loading.run(lambda device: self.ran.append(device.name))

    @property
    def state(self) -> int:
        return self.open.driver.state

    @property
    def took(self) -> list[bytes]:
        return self.open.driver.committed


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    with made.open:
        yield made


def test_a_device_takes_its_data_and_runs(target: Target) -> None:
    target.load(DEVICE)
    assert target.took == [b"in pre-copy", b"stopped"]
    assert (target.state, target.ran) == (RUNNING, ["a"])
    assert target.loading.loaded() == {"a": (2, 18, 0)}
    assert target.loading.passed_over == {"timer": 1}


def test_the_names_of_the_devices_come_first() -> None:
    other = section(1, 8, SETUP_TAG + END_TAG, "0000:00:06.0/vfio")
    stream = HEAD + ram(2) + START + other + PART + b"garbage"
    assert vfio_sections(read_stream(memoryview(stream))) == [
        IDSTR,
        "0000:00:06.0/vfio",
    ]


@pytest.mark.parametrize(
    ("sections", "missing"),
    [
        ((START, PART, CONFIG), "END"),
        ((START, PART, END), "FULL"),
        ((OTHER,), "END and FULL"),
    ],
)
def test_a_device_without_all_of_its_sections_does_not_run(
    target: Target, sections: tuple[bytes, ...], missing: str
) -> None:
    with pytest.raises(StreamError, match=f"a has no {missing} section"):
        target.load(*sections)
    assert (target.state, target.ran) == (RESUMING, [])


def test_another_device_is_known_by_its_configuration(target: Target) -> None:
    sections = START + END
    with pytest.raises(StreamError, match=r"byte 0x00 .* 0x99, and here 0x00") as error:
        target.load(sections, section(4, 7, config(0x99), IDSTR))
    head = len(HEAD + sections) + 5 + 1 + len(IDSTR) + 8
    assert error.value.position == head + 8 + 4
    assert target.config[0] == 0
    assert target.state == RESUMING


def test_what_qemu_lets_differ_is_taken_over(target: Target) -> None:
    target.config[0x04] = 0x77  # the command register
    target.load(DEVICE)
    assert target.config == bytearray(range(256))
    assert target.loading.loaded()["a"].changed_config == 1


def test_a_configuration_space_of_another_size(target: Target) -> None:
    space = CONFIG_TAG + (2).to_bytes(4, "big") + bytes(4096 + 16) + END_TAG
    with pytest.raises(StreamError, match="4096 bytes of configuration space"):
        target.load(START, END, section(4, 7, space, IDSTR))


@pytest.mark.parametrize(("instance", "version"), [(1, 1), (0, 2), (1 << 31, 1)])
def test_a_section_that_no_handler_is_for(
    target: Target, instance: int, version: int
) -> None:
    start = bytearray(START)
    start[-29:-21] = struct.pack(">II", instance, version)
    with pytest.raises(StreamError, match=f"instance {instance}, version {version};"):
        target.load(bytes(start), PART, END, CONFIG)


@pytest.mark.parametrize("version", [0, 3, 1 << 31])
def test_a_pci_device_of_another_version(target: Target, version: int) -> None:
    body = config().replace(struct.pack(">I", 2), struct.pack(">I", version), 1)
    with pytest.raises(StreamError, match=f"version {version} of a PCI device"):
        target.load(START, END, section(4, 7, body, IDSTR))


def test_a_machine_of_another_type() -> None:
    name = b"pc-q35-7.2"
    stream = HEAD + b"\x07" + struct.pack(">I", len(name)) + name + b"\0"
    loading = ImageLoading({}, None, "pc-i440fx-7.2")
    _, configuration, *_ = read_stream(memoryview(stream))
    with pytest.raises(StreamError, match=r"a machine pc-q35-7\.2, and here it is pc-"):
        loading.take(configuration)


def test_a_driver_that_refuses_stays_where_it_is() -> None:
    refusing = Target(Refusal("write", 24, times=1))
    with refusing.open:
        with pytest.raises(OSError, match="as the script has it"):
            refusing.load(DEVICE)
        assert (refusing.state, refusing.ran) == (RESUMING, [])
        assert refusing.loading.busy_with == "a"


def test_switchover_ack_is_not_of_this_protocol(target: Target) -> None:
    tag = struct.pack(">Q", 0xFFFFFFFFEF100005)
    with pytest.raises(StreamError, match="switchover-ack"):
        target.load(START, section(2, 7, tag), END, CONFIG)


def test_commands_are_noted(target: Target) -> None:
    target.load(bytes.fromhex("08 0001 0000"), DEVICE)
    assert target.loading.commands == [1]


# -- RAM -------------------------------------------------------------------------------


def pages(*numbers: int) -> bytes:
    first, *rest = numbers
    found = word(first, FULL) + PC_RAM + content(first)
    for number in rest:
        found += word(number, FULL | CONTINUE) + content(number)
    return section(2, 2, found + END_OF_STATE)


def zeros(*numbers: int) -> bytes:
    found = word(numbers[0], ZERO) + PC_RAM + b"\0"
    for number in numbers[1:]:
        found += word(number, ZERO | CONTINUE) + b"\0"
    return section(2, 2, found + END_OF_STATE)


def loaded(guest: SmallGuest, *sections: bytes) -> ImageLoading:
    loading = ImageLoading({}, guest.memory)
    stream = HEAD + b"".join(sections) + b"\0"
    for located in read_stream(memoryview(stream)):
        loading.take(located)
    return loading


def test_ram_of_the_same_size_is_loaded() -> None:
    with SmallGuest(8) as guest:
        rest = zeros(0, 5, 3, 6, 7)
        loading = loaded(guest, ram(8), pages(1, 3, 4), rest, pages(2))
        held = [n for n in range(8) if guest.page(n) == content(n)]
        assert held == [1, 2, 4]
        assert guest.page(3) == bytes(PAGE)
        assert loading.ram.is_loaded
        assert loading.ram.missing == 0
        assert loading.ram.pages == 9


def test_pages_that_never_come_are_counted() -> None:
    with SmallGuest(8) as guest:
        assert loaded(guest, ram(8), pages(1, 4), zeros(0)).ram.missing == 5


def test_ram_of_another_size_is_left_out_and_so_is_another_block() -> None:
    with SmallGuest(8) as guest:
        loading = loaded(guest, ram(9), pages(1))
        assert not loading.ram.is_loaded
        assert loading.ram.left_out == {
            "pc.ram": "36864 bytes, and the simulated machine has 32768"
        }
        assert guest.page(1) == bytes(PAGE)
        other = loaded(guest, ram(8, b"\x08vga.vram"))
        assert other.ram.left_out == {"vga.vram": "the simulated machine has none"}
        assert not other.ram.is_loaded


def test_without_a_machine_ram_is_left_out() -> None:
    loading = ImageLoading({}, None)
    for located in read_stream(memoryview(HEAD + ram(8) + pages(1) + b"\0")):
        loading.take(located)
    assert loading.ram.left_out == {"pc.ram": "there is no [machine]"}
    assert (loading.ram.is_loaded, loading.ram.missing) == (False, 0)


def test_a_page_outside_of_the_block() -> None:
    # The reader refuses it; whoever makes records by hand is refused as well.
    with SmallGuest(8) as guest:
        with pytest.raises(StreamError):
            loaded(guest, ram(8), pages(1, 8))
        records = [
            each.record for each in read_stream(memoryview(HEAD + ram(8) + b"\0"))
        ]
        image = RamImage(guest.memory)
        for record in records:
            image.take(Located(record, 0, 0))
        addresses = np.array([PAGE, 8 * PAGE], np.uint64)
        zero = RamPages(kind=RamPageKind.ZERO, block="pc.ram", addresses=addresses)
        with pytest.raises(StreamError, match=r"page 8 of pc\.ram, which has 8"):
            image.take(Located(zero, 77, 0))


def test_pages_that_are_changes_are_left_out_and_counted() -> None:
    changes = word(1, 0x40) + PC_RAM + b"\x01" + struct.pack(">H", 3) + b"abc"
    with SmallGuest(8) as guest:
        loading = loaded(guest, ram(8), section(2, 2, changes + END_OF_STATE))
        assert loading.ram.encoded == 1
        assert loading.ram.missing == 8
