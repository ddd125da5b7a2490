"""Faults that a bench arms in the reference driver: where they surface, what is left.

`Bench.fail`: "the next access ``on`` fails inside the device with -code".
"""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.unit.vendor.open_device import (
    BASE,
    DATA_OFFSET,
    DATA_SIZE,
    ERROR,
    KINDS,
    MODELS,
    PENDING_BYTES,
    PRE_COPY,
    RESUMING,
    RUNNING,
    STATES,
    STOP,
    STOP_AND_COPY,
    Make,
    OpenDevice,
    assert_restores,
    refusal,
    saved,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_Answer = TypeVar("_Answer")

SITES = ("device_state", "pending_bytes", "data_offset", "data_size", "data")

every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
every_kind = pytest.mark.parametrize("kind", KINDS)
every_site = pytest.mark.parametrize("site", SITES)
every_access_site = pytest.mark.parametrize("site", SITES[1:])
every_code = pytest.mark.parametrize(
    "code", [errno.EIO, errno.ENOMEM, errno.ENOTRECOVERABLE]
)


def save_with_retries(device: OpenDevice) -> tuple[list[bytes], list[int | None]]:
    """Save all, making each access again where it fails; also return the errnos."""
    errnos: list[int | None] = []
    chunks: list[bytes] = []

    def again(access: Callable[[], _Answer]) -> _Answer:
        while True:
            try:
                return access()
            except OSError as failure:
                errnos.append(failure.errno)

    while again(partial(device.read, PENDING_BYTES)):
        offset = again(partial(device.read, DATA_OFFSET))
        size = again(partial(device.read, DATA_SIZE))
        chunks.append(again(partial(device.fetch, offset, size)))
    return chunks, errnos


@pytest.mark.parametrize("name", MODELS)
@every_kind
@every_access_site
@every_code
@pytest.mark.parametrize("state", [PRE_COPY, STOP_AND_COPY])
def test_a_fault_while_saving_surfaces_once_and_harms_nothing(
    name: str, kind: str, site: str, code: int, state: int
) -> None:
    make = MODELS[name]
    with OpenDevice(make(), kind=kind) as device:
        device.work()
        device.state = state
        chunks = device.save(1) if name != "serial" else []  # it has just one
        before = device.snapshot
        device.driver.fail(site, code)
        more, errnos = save_with_retries(device)
        device.state = STOP_AND_COPY
        rest, late = save_with_retries(device)
        assert errnos + late == [code]  # V1-SAVE-09
        assert device.snapshot == before
        assert_restores(make, chunks + more + rest, before)  # nothing is lost


@every_kind
@every_access_site
def test_a_source_whose_save_failed_goes_on_running(kind: str, site: str) -> None:
    with OpenDevice(kind=kind) as device:
        device.work()
        before = device.snapshot
        device.state = STOP_AND_COPY
        device.driver.fail(site, errno.EIO)
        assert refusal(lambda: device.save()) == errno.EIO
        assert device.state == STOP_AND_COPY
        device.state = RUNNING  # V1-TRANS-23
        assert device.snapshot == before
        device.work()
        device.state = STOP_AND_COPY
        assert_restores(MODELS["scratchpad"], device.save(), device.snapshot)


@every_kind
@pytest.mark.parametrize("maps", [True, False])
def test_a_fault_on_data_surfaces_at_the_data_or_at_what_follows_it(
    kind: str, maps: bool
) -> None:
    with OpenDevice(kind=kind, maps=maps) as device:
        device.state = STOP_AND_COPY
        device.driver.fail("data", errno.EIO)
        for _ in range(3):  # no data was there to be accessed
            assert device.read(PENDING_BYTES)
        buffer = device.prepare()
        assert device.prepare() == buffer
        if kind == "mapped" and maps:
            chunk = device.fetch(*buffer)  # nobody traps this
            assert refusal(lambda: device.read(PENDING_BYTES)) == errno.EIO
        else:
            assert refusal(lambda: device.fetch(*buffer)) == errno.EIO
            chunk = device.fetch(*buffer)
        assert_restores(MODELS["scratchpad"], [chunk, *device.save()], device.snapshot)


def test_a_fault_on_data_waits_for_data_in_a_split_section() -> None:
    with OpenDevice(kind="split") as device:
        device.state = STOP_AND_COPY
        (area,) = device.region.areas
        offset, size = device.prepare()
        device.driver.fail("data", errno.EIO)
        end = area.offset + area.size
        mapped = device.fetch(offset, end - offset)
        trapped = partial(device.fetch, end, offset + size - end)
        assert refusal(trapped) == errno.EIO
        chunks = [mapped + trapped(), *device.save()]
        assert_restores(MODELS["scratchpad"], chunks, device.snapshot)


@every_kind
@every_code
@pytest.mark.parametrize("site", ["data_offset", "data_size", "data"])
def test_a_fault_while_resuming_surfaces_once_and_the_chunk_can_come_again(
    kind: str, site: str, code: int
) -> None:
    chunks, snapshot = saved(MODELS["scratchpad"])
    with OpenDevice(kind=kind) as device:
        device.state = RESUMING
        device.give(chunks[0])
        device.driver.fail(site, code)
        assert refusal(lambda: device.give(chunks[1])) == code
        assert device.state == RESUMING
        for chunk in chunks[1:]:
            device.give(chunk)
        device.state = RUNNING
        assert device.snapshot == snapshot


@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("site", ["data_offset", "data_size", "data"])
def test_a_destination_that_is_given_up_after_a_fault_has_no_part_of_the_stream(
    site: str, used: bool
) -> None:
    chunks, _ = saved(MODELS["scratchpad"])
    with OpenDevice() as device:
        power_on = device.snapshot
        device.work(9 * used)
        device.state = RESUMING
        device.give(chunks[0])
        device.driver.fail(site, errno.EIO)
        refusal(lambda: device.give(chunks[1]))
        assert device.refusal_of(RUNNING) == errno.EINVAL
        device.reset()
        assert (device.state, device.snapshot) == (RUNNING, power_on)


@every_model
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOTRECOVERABLE])
@pytest.mark.parametrize("used", [True, False])
def test_a_destination_that_fails_to_run_has_its_old_state_or_all_of_the_new(
    make: Make, code: int, used: bool
) -> None:
    chunks, snapshot = saved(make)
    with OpenDevice(make()) as device:
        device.work(9 * used)
        before = device.snapshot
        device.state = RESUMING
        for chunk in chunks:
            device.give(chunk)
        device.driver.fail("device_state", code)
        assert device.refusal_of(RUNNING) == code
        if code == errno.ENOTRECOVERABLE:
            assert (device.state, device.snapshot) == (ERROR, before)
        else:
            assert device.state == RESUMING
            device.state = RUNNING
            assert device.snapshot == snapshot


@every_site
@pytest.mark.parametrize("state", STATES)
def test_a_fault_waits_for_its_own_access(site: str, state: int) -> None:
    with OpenDevice(kind="trapped") as device:
        device.bring_to(state)
        device.driver.fail(site, errno.EIO)
        offset = 0x1000
        accesses: dict[str, Callable[[], object]] = {
            "pending_bytes": lambda: device.read(PENDING_BYTES),
            "data_offset": lambda: device.read(DATA_OFFSET),
            "data_size": lambda: device.read(DATA_SIZE),
            "data": lambda: device.fd.pread(8, BASE + offset),
        }
        for name, access in accesses.items():
            if name == site:
                assert refusal(access) == errno.EIO
            access()
        assert device.state == state


def test_a_fault_on_device_state_waits_for_a_transition() -> None:
    with OpenDevice() as device:
        device.driver.fail("device_state", errno.EIO)
        assert device.state == RUNNING  # a read of it is no transition
        device.state = RUNNING  # nor is the same value
        assert device.refusal_of(5) == errno.EINVAL  # nor what is refused anyway
        assert device.refusal_of(STOP) == errno.EIO
        device.state = STOP


def test_faults_of_all_sites_go_off_one_by_one() -> None:
    with OpenDevice(kind="trapped") as device:
        device.work()
        for number, site in enumerate(SITES, errno.EPERM):
            device.driver.fail(site, number)
        assert device.refusal_of(STOP_AND_COPY) == errno.EPERM
        device.state = STOP_AND_COPY
        chunks, errnos = save_with_retries(device)
        assert errnos == [errno.EPERM + 1, errno.EPERM + 2, errno.EPERM + 3, 5]
        assert_restores(MODELS["scratchpad"], chunks, device.snapshot)
