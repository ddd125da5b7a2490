from __future__ import annotations

import pytest

from tests.unit.conformance.histories import rulings
from vfiomig.conformance.ruling import HELD, Broken


def broken(*found: object) -> list[Broken]:
    return [each for each in found if isinstance(each, Broken)]


def test_a_region_of_registers_alone_is_broken() -> None:
    (found,) = rulings("discovery:data_section_follows", size=32)
    assert isinstance(found, Broken)
    assert "0x20" in found.actual


def test_one_byte_of_data_is_enough() -> None:
    assert rulings("discovery:data_section_follows", size=33) == [HELD]


def test_a_reset_that_succeeds_is_supported() -> None:
    assert rulings("discovery:reset_supported", "reset") == [HELD]


def test_a_reset_that_fails_is_not_supported() -> None:
    (found,) = rulings("discovery:reset_supported", "reset -> ENOTTY")
    assert isinstance(found, Broken)
    assert found.witnesses[0].index == 1


def test_a_reset_of_a_closed_device_says_nothing() -> None:
    assert rulings("discovery:reset_supported", "close", "reset -> EBADF") == []


def test_bit_3_that_the_driver_sets_is_broken() -> None:
    (found,) = rulings("discovery:no_ndma_bit", "read device_state -> 0x9")
    assert isinstance(found, Broken)
    assert found.actual == "device_state = 0x9"


@pytest.mark.parametrize("value", ["0x1", "0x80000001", "0x13"])
def test_other_bits_than_bit_3_are_no_ndma(value: str) -> None:
    assert rulings("discovery:no_ndma_bit", f"read device_state -> {value}") == [HELD]


@pytest.mark.parametrize(
    "write",
    [
        "write device_state 0x9",
        "write device_state 0x9 -> EINVAL",
        "write 0x0 1 09",
        "write 0x0 8 0900000000000000",
    ],
)
def test_bit_3_that_the_user_application_wrote_is_its_own(write: str) -> None:
    lines = (write, "read device_state -> 0x9")
    assert rulings("discovery:no_ndma_bit", *lines) == []


def test_odd_writes_elsewhere_excuse_no_bit_3() -> None:
    lines = ("write 0x4 1 ff", "read device_state -> 0x9")
    assert len(broken(*rulings("discovery:no_ndma_bit", *lines))) == 1
