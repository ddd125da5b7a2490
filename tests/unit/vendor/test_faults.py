"""Faults: each goes off once, at the access that it was armed for."""

from __future__ import annotations

import errno

import pytest

from vfiomig.vendor.faults import ArmedFaults

# design.md section 4: what `Bench.fail` can be armed on.
SITES = ("device_state", "pending_bytes", "data_offset", "data_size", "data")

every_site = pytest.mark.parametrize("site", SITES)


@every_site
def test_a_fault_goes_off_once(site: str) -> None:
    faults = ArmedFaults()
    faults.arm(site, errno.EIO)
    assert faults
    with pytest.raises(OSError, match=f"fault injected on {site}$") as raised:
        faults.trip(site)
    assert raised.value.errno == errno.EIO
    assert not faults
    faults.trip(site)


@every_site
def test_a_fault_waits_for_its_own_access(site: str) -> None:
    faults = ArmedFaults()
    faults.arm(site, errno.EIO)
    faults.trip(*(other for other in SITES if other != site))
    assert faults


def test_of_two_sites_at_one_access_the_first_goes_off_and_the_other_waits() -> None:
    faults = ArmedFaults()
    faults.arm("data", errno.ENOMEM)
    faults.arm("pending_bytes", errno.EIO)
    for expected in (errno.EIO, errno.ENOMEM):
        with pytest.raises(OSError, match="fault injected") as raised:
            faults.trip("pending_bytes", "data")
        assert raised.value.errno == expected
    assert not faults


def test_arming_again_replaces_the_errno() -> None:
    faults = ArmedFaults()
    faults.arm("data", errno.ENOMEM)
    faults.arm("data", errno.EIO)
    with pytest.raises(OSError, match="fault injected") as raised:
        faults.trip("data")
    assert raised.value.errno == errno.EIO
    assert not faults


def test_clearing_disarms_all() -> None:
    faults = ArmedFaults()
    for site in SITES:
        faults.arm(site, errno.EIO)
    faults.clear()
    assert not faults
    faults.trip(*SITES)


@pytest.mark.parametrize("site", ["", "reserved", "DATA", "reset", "data "])
def test_an_access_that_nothing_is_called_is_refused(site: str) -> None:
    faults = ArmedFaults()
    with pytest.raises(ValueError, match=f"no access is called {site!r}"):
        faults.arm(site, errno.EIO)
    assert not faults


@pytest.mark.parametrize("code", [0, -errno.EIO, 1 << 20])
def test_a_number_that_is_no_errno_is_refused(code: int) -> None:
    faults = ArmedFaults()
    with pytest.raises(ValueError, match=f"^{code} is not an errno$"):
        faults.arm("data", code)
    assert not faults
