"""A device writes to guest memory while the guest moves: no page is left behind."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.unit.frontends import dma_drivers
from tests.unit.frontends.dma_drivers import ABOVE, BELOW, PAGE, SPAN
from vfiomig.frontends.guest_dma import GuestDma
from vfiomig.frontends.report.verdict import overall_verdict
from vfiomig.frontends.run_sinks import Sinks
from vfiomig.frontends.scenario import load_scenario
from vfiomig.frontends.simulation import simulate
from vfiomig.protocol.qemu_stream.reader import read_stream
from vfiomig.protocol.qemu_stream.records import RamPages, VfioConfig
from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.memory import GuestMemory

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 1 << 30
DRIVERS = Path(dma_drivers.__file__)


def scenario(driver: str, ram: str, **link: str) -> str:
    return "\n".join(
        [
            "warm_up = 10",
            f'[[device]]\ntarget = "{DRIVERS}:{driver}"\nwork = 3000',
            f'[machine]\nram = "{ram}"\nfilled = "1M"',
            "[link]",
            *(f'{key} = "{value}"' for key, value in link.items()),
        ]
    )


def moved(folder: Path, text: str) -> tuple[str, bytes]:
    """Migrate; return the verdict and the stream."""
    file, stream = folder / "dma.toml", bytearray()
    file.write_text(text)
    report = simulate(load_scenario(file), Sinks(stream=stream.extend))
    return overall_verdict(report).text, bytes(stream)


def times_sent(stream: bytes) -> dict[int, int]:
    """Return how often each page came with contents, by its number in RAM."""
    found: dict[int, int] = {}
    for record, *_ in read_stream(memoryview(stream)):
        if isinstance(record, RamPages) and record.contents is not None:
            for number in (record.addresses // np.uint64(PAGE)).tolist():
                found[number] = found.get(number, 0) + 1
    return found


def test_pages_that_a_device_wrote_are_sent_again(tmp_path: Path) -> None:
    text = scenario("WriterBelow", "8M", bandwidth="4M")
    verdict, stream = moved(tmp_path, text)
    assert verdict == "state verified"
    sent = times_sent(stream)
    written = range(BELOW // PAGE, BELOW // PAGE + SPAN)
    again = [page for page in written if sent.get(page, 0) > 1]
    assert len(again) > SPAN // 2
    assert all(sent[page] == 1 for page in range(256)), "what nobody wrote again"


def test_what_a_device_wrote_above_4_gib_is_not_where_its_address_says(
    tmp_path: Path,
) -> None:
    # -M pc: of 3.5 GiB three are below 4 GiB, and the rest goes on there.
    verdict, stream = moved(tmp_path, scenario("Writer", "3584M"))
    assert verdict == "state verified"
    sent = times_sent(stream)
    pages = {page // SPAN * SPAN for page in sent if page >= 256}
    assert pages == {BELOW // PAGE, 3 * GIB // PAGE}
    assert max(sent[page] for page in sent if page >= 3 * GIB // PAGE) > 1


def test_the_guest_has_made_it_bus_master(tmp_path: Path) -> None:
    _, stream = moved(tmp_path, scenario("WriterBelow", "8M"))
    (config,) = [
        record
        for record, *_ in read_stream(memoryview(stream))
        if isinstance(record, VfioConfig)
    ]
    assert bytes(config.config[4:6]) == b"\x04\x00"


# -- the container by itself -----------------------------------------------------------


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory.of_pc(3584 << 20) as made:
        yield made


@pytest.fixture
def dma(memory: GuestMemory) -> Iterator[GuestDma]:
    made = GuestDma(memory)
    yield made
    made.close()


def dirty(memory: GuestMemory) -> list[list[int]]:
    log = memory.log(LogUser.MIGRATION, memory.block("pc.ram"))
    assert log is not None
    return log.ranges().tolist()  # type: ignore[no-any-return]  # of numbers


def test_devices_read_and_write_the_guests_memory(
    memory: GuestMemory, dma: GuestDma
) -> None:
    dma.dma_write(ABOVE + 5, b"above")
    assert memory.read(ABOVE + 5, 5) == b"above"
    at = 3 * GIB + 5
    assert bytes(memory.block("pc.ram").view[at : at + 5]) == b"above"
    memory.write(100, b"below")
    assert dma.dma_read(100, 5) == b"below"


@pytest.mark.parametrize(
    ("iova", "size"),
    [
        (3 * GIB, 1),  # the hole
        (3 * GIB - 1, 2),  # its edge
        (ABOVE - 1, 1),
        (ABOVE + (512 << 20), 1),  # behind RAM
        (1 << 47, 8),
    ],
)
def test_where_there_is_no_ram(dma: GuestDma, iova: int, size: int) -> None:
    for access in (
        lambda: dma.dma_read(iova, size),
        lambda: dma.dma_write(iova, bytes(size)),
    ):
        with pytest.raises(OSError) as refused:  # noqa: PT011 -- errno below
            access()
        assert refused.value.errno == errno.EFAULT


def test_what_was_written_since_the_last_sync_is_dirty(
    memory: GuestMemory, dma: GuestDma
) -> None:
    dma.dma_write(7 * PAGE, b"before tracking")
    memory.start_log(LogUser.MIGRATION)
    dma.start()
    dma.dma_write(ABOVE + 3 * PAGE - 1, b"ab")  # two pages
    dma.dma_write(9 * PAGE, b"c")
    assert dma.sync() == 3
    above = 3 * GIB // PAGE
    assert dirty(memory) == [[9, 1], [above + 2, 2]]
    assert dma.sync() == 0
    dma.dma_write(9 * PAGE, b"d")
    assert dma.sync() == 0, "that is dirty already"
    dma.stop()
    assert dma.sync() == 0
    dma.start()
    dma.dma_write(1 << 20, b"e")
    assert dma.sync() == 1


def test_a_first_access_while_it_is_tracked_is_logged(
    memory: GuestMemory, dma: GuestDma
) -> None:
    memory.start_log(LogUser.MIGRATION)
    dma.start()
    assert dma.sync() == 0
    dma.dma_write(5 * PAGE, b"x")
    assert dma.sync() == 1
    assert dirty(memory) == [[5, 1]]
