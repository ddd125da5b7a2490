"""The configuration space, byte for byte, and which of its bits can be written.

Numbers are those of <linux/pci_regs.h> and of the PCI specification, not our uapi's.
"""

from __future__ import annotations

import dataclasses
import errno
import struct

import pytest

from vfiomig.host.config_space import ConfigSpace
from vfiomig.host.pci import DEFAULT_IDENTITY, Bar, PciIdentity

COMMAND, STATUS, BAR0, CAPABILITY_LIST, LINE, PIN, MSI = 4, 6, 0x10, 0x34, 60, 61, 0x40

SERIAL = PciIdentity(
    vendor=0x4348,
    device=0x3253,
    subsystem_vendor=0x4348,
    subsystem=0x3253,
    class_code=0x070002,
    revision=0x10,
    interrupt_pin=1,
)
PORTS = (Bar(8, "io"), Bar(8, "io"))
EIGHT_VECTORS = dataclasses.replace(SERIAL, interrupt_pin=0, msi_vectors=8)


def at(space: ConfigSpace, offset: int, size: int) -> int:
    return int.from_bytes(space.read(offset, size), "little")


def put(space: ConfigSpace, offset: int, size: int, value: int) -> None:
    space.write(offset, value.to_bytes(size, "little"))


def test_the_header_of_a_serial_card_is_this() -> None:
    assert ConfigSpace(SERIAL, PORTS).read(0, 256) == bytes.fromhex(
        "48435332 00000000 10020007 00000000"  # ids, command, status, class, type 0
        "01000000 01000000 00000000 00000000"  # two BARs in I/O space
        "00000000 00000000 00000000 48435332"  # subsystem
        "00000000 00000000 00000000 00010000"  # no ROM, no capability, pin INTA#
    ) + bytes(192)


def test_a_driver_that_says_nothing_of_itself_has_this_header() -> None:
    header = ConfigSpace(DEFAULT_IDENTITY, ()).read(0, 64)
    assert header == bytes.fromhex(
        "48434656 00000000 000000ff 00000000" + "00" * 28 + "48434656" + "00" * 16
    )


def test_the_capability_of_eight_messages_is_this() -> None:
    space = ConfigSpace(EIGHT_VECTORS, ())
    assert at(space, STATUS, 2) == 0x10  # there is a list
    assert at(space, CAPABILITY_LIST, 1) == MSI
    # MSI, the last one; 64-bit addresses, 2**3 vectors
    assert space.read(MSI, 16) == bytes.fromhex("05008600") + bytes(12)


@pytest.mark.parametrize(("vectors", "control"), [(1, 0x80), (2, 0x82), (32, 0x8A)])
def test_the_capability_says_how_many_vectors_there_are(
    vectors: int, control: int
) -> None:
    identity = dataclasses.replace(SERIAL, msi_vectors=vectors)
    assert at(ConfigSpace(identity, ()), MSI + 2, 2) == control


# -- what can be written ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("bar", "size_mask"),
    [
        (Bar(8, "io"), 0xFFFFFFF9),
        (Bar(256, "io"), 0xFFFFFF01),
        (Bar(16), 0xFFFFFFF0),
        (Bar(0x1000), 0xFFFFF000),
        (Bar(1 << 31), 0x80000000),
        (Bar(0), 0),
    ],
)
def test_a_bar_is_sized_by_writing_ones(bar: Bar, size_mask: int) -> None:
    space = ConfigSpace(SERIAL, (Bar(0), bar))
    place = BAR0 + 4
    type_bits = at(space, place, 4)
    put(space, place, 4, 0xFFFFFFFF)
    assert at(space, place, 4) == size_mask
    put(space, place, 4, 0)
    assert at(space, place, 4) == type_bits
    put(space, place, 4, 0xABCDEF00)
    assert at(space, place, 4) == 0xABCDEF00 & size_mask | type_bits
    for absent in (0, 2, 3, 4, 5):
        put(space, BAR0 + 4 * absent, 4, 0xFFFFFFFF)
        assert at(space, BAR0 + 4 * absent, 4) == 0


def writable(space: ConfigSpace) -> dict[int, int]:
    """Find the bits of each 32-bit word that a write can change."""
    found = {}
    for place in range(0, 256, 4):
        put(space, place, 4, 0)
        low = at(space, place, 4)
        put(space, place, 4, 0xFFFFFFFF)
        if changed := low ^ at(space, place, 4):
            found[place] = changed
    return found


def test_these_bits_can_be_written_and_no_others() -> None:
    assert writable(ConfigSpace(SERIAL, (Bar(8, "io"), Bar(0x1000)))) == {
        # I/O, memory, master, parity, SERR, INTx disable; the status is read only
        COMMAND: 0x0547,
        0x0C: 0xFFFF,  # cache line size, latency timer
        BAR0: 0xFFFFFFF8,
        BAR0 + 4: 0xFFFFF000,
        LINE: 0xFF,
    }
    assert writable(ConfigSpace(DEFAULT_IDENTITY, ()))[COMMAND] == 0x0544
    messages = writable(ConfigSpace(EIGHT_VECTORS, ()))
    assert {place: messages[place] for place in messages if place >= MSI} == {
        MSI: 0x0031_0000,  # enabled, and as many vectors as there are
        MSI + 4: 0xFFFFFFFC,
        MSI + 8: 0xFFFFFFFF,
        MSI + 12: 0xFFFF,
    }


@pytest.mark.parametrize(("asked", "given"), [(0, 0), (2, 2), (3, 3), (4, 3), (7, 3)])
def test_no_more_vectors_are_enabled_than_there_are(asked: int, given: int) -> None:
    space = ConfigSpace(EIGHT_VECTORS, ())
    put(space, MSI + 2, 2, asked << 4 | 1)
    assert at(space, MSI + 2, 2) == 0x86 | given << 4 | 1
    space.disable_msi()
    assert at(space, MSI + 2, 2) == 0x86 | given << 4


def test_the_status_shows_intx() -> None:
    space = ConfigSpace(EIGHT_VECTORS, ())
    space.show_interrupt(pending=True)
    put(space, STATUS, 2, 0xFFFF)
    assert at(space, STATUS, 2) == 0x18
    space.show_interrupt(pending=False)
    assert at(space, STATUS, 2) == 0x10


def test_reset_brings_back_what_was_there_at_power_on() -> None:
    space = ConfigSpace(EIGHT_VECTORS, PORTS)
    before = space.read(0, 256)
    space.write(0, b"\xff" * 256)
    assert space.read(0, 256) != before
    space.reset()
    assert space.read(0, 256) == before


# -- accesses --------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (1, 2), (3, 5), (61, 1), (0, 0)])
def test_any_width_at_any_place_inside_is_answered(offset: int, size: int) -> None:
    space = ConfigSpace(SERIAL, PORTS)
    assert space.read(offset, size) == space.read(0, 256)[offset : offset + size]


def test_an_unaligned_write_reaches_each_byte() -> None:
    space = ConfigSpace(SERIAL, PORTS)
    put(space, 0x11, 2, 0x1234)  # the middle of BAR 0
    assert at(space, BAR0, 4) == 0x00123401


@pytest.mark.parametrize(
    ("offset", "size"), [(256, 1), (255, 2), (0, 257), (1 << 39, 4)]
)
def test_what_is_not_wholly_inside_is_a_bad_address(offset: int, size: int) -> None:
    space = ConfigSpace(SERIAL, PORTS)
    before = space.read(0, 256)
    for call in (lambda: space.read(offset, size), lambda: put(space, offset, size, 1)):
        with pytest.raises(OSError, match="configuration space") as refused:
            call()
        assert refused.value.errno == errno.EFAULT
    assert space.read(0, 256) == before


# -- what no function can say ----------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("vendor", 0x10000, "vendor 0x10000 has more than 16 bits"),
        ("class_code", 1 << 24, "class_code 0x1000000 has more than 24 bits"),
        ("revision", 256, "revision 0x100 has more than 8 bits"),
        ("interrupt_pin", 5, "interrupt_pin 5 is not from 0 to 4"),
        ("msi_vectors", 3, "msi_vectors 3 is not 0 or a power of 2 to 32"),
        ("msi_vectors", 64, "msi_vectors 64 is not 0 or a power of 2 to 32"),
    ],
)
def test_an_impossible_identity_is_refused(field: str, value: int, said: str) -> None:
    identity = dataclasses.replace(SERIAL, **{field: value})
    with pytest.raises(ValueError, match=said):
        ConfigSpace(identity, ())


@pytest.mark.parametrize(
    ("bars", "said"),
    [
        ((Bar(24),), "BAR 0 has 24 bytes: not 0 or a power of 2 from 16"),
        ((Bar(0), Bar(8)), "BAR 1 has 8 bytes"),
        ((Bar(2, "io"),), "BAR 0 has 2 bytes: not 0 or a power of 2 from 4 to 256"),
        ((Bar(512, "io"),), "BAR 0 has 512 bytes"),
        ((Bar(1 << 32),), "BAR 0 has 4294967296 bytes"),
        ((Bar(16, "mmio"),), "BAR 0 is in 'mmio'"),  # type: ignore[arg-type]
        ((Bar(16),) * 7, "7 BARs are more than 6"),
    ],
)
def test_an_impossible_bar_is_refused(bars: tuple[Bar, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ConfigSpace(SERIAL, bars)


def test_a_message_address_of_64_bits_is_kept() -> None:
    space = ConfigSpace(EIGHT_VECTORS, ())
    space.write(MSI + 4, struct.pack("<QH", 0x1_FEE0_1000, 0x4041))
    assert space.read(MSI + 4, 10) == struct.pack("<QH", 0x1_FEE0_1000, 0x4041)
