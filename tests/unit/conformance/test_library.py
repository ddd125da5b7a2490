"""check_vendor_driver as a test of a driver calls it."""

from __future__ import annotations

import pytest

import vfiomig
from vfiomig.conformance.finding import Death
from vfiomig.conformance.library import (
    NonConformingError,
    check_vendor_driver,
    lines_of_death,
)
from vfiomig.vendor.reference import ReferenceDriver
from vfiomig.vendor.scratchpad import ScratchpadModel


def conforming() -> ReferenceDriver:
    return ReferenceDriver(ScratchpadModel())


class Raising(ReferenceDriver):
    """Dies of every read of data_offset."""

    def read(self, offset: int, size: int) -> bytes:
        if offset == 16:
            message = "no buffer"
            raise ValueError(message)
        return super().read(offset, size)


class Reserving(ReferenceDriver):
    """Sets a reserved bit of device_state (V1-STATE)."""

    def read(self, offset: int, size: int) -> bytes:
        data = super().read(offset, size)
        return b"\x01\x01\x01\x01" if (offset, size) == (0, 4) else data


def test_both_names_are_offered_by_the_package() -> None:
    assert vfiomig.check_vendor_driver is check_vendor_driver
    assert vfiomig.NonConformingError is NonConformingError


def test_an_unknown_effort_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="quick, normal, thorough, not 'hard'"):
        check_vendor_driver(conforming, effort="hard")  # type: ignore[arg-type]


def test_a_death_is_told_with_the_command_that_repeats_it() -> None:
    death = Death(
        access="read of 8 bytes at 0x10",
        error="ValueError: no",
        where="driver.py:3",
        steps=(),
        printed="one\ntwo\n",
        token="abc",
    )
    assert list(lines_of_death(death, target="driver.py:D")) == [
        "the driver died at read of 8 bytes at 0x10",
        "     Error: ValueError: no",
        "     Where: driver.py:3",
        "  It printed:",
        "    one",
        "    two",
        "  Reproduce with: vfiomig replay abc driver.py:D",
    ]


@pytest.mark.slow
def test_a_conforming_driver_passes_in_silence() -> None:
    check_vendor_driver(conforming, effort="quick")


@pytest.mark.slow
def test_a_broken_rule_is_explained_in_the_exception() -> None:
    with pytest.raises(NonConformingError) as raised:
        check_vendor_driver(lambda: Reserving(ScratchpadModel()), effort="quick")
    assert raised.value.findings
    text = str(raised.value)
    for finding in raised.value.findings:
        assert finding.rule.id in text
        assert f"vfiomig replay {finding.token} TARGET" in text


@pytest.mark.slow
def test_a_death_is_in_the_exception() -> None:
    with pytest.raises(NonConformingError) as raised:
        check_vendor_driver(lambda: Raising(ScratchpadModel()), effort="quick")
    assert "ValueError: no buffer" in str(raised.value)
    assert raised.value.deaths[0].steps
