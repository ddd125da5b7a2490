"""The records of RAM and of VFIO devices in a migration stream, on a terminal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.stream_sequence import Era, VfioSequence, config_words
from vfiomig.frontends.report.stream_terminal import print_line, print_row, title
from vfiomig.frontends.report.stream_words import counted, ram_words
from vfiomig.frontends.report.units import bytes_text
from vfiomig.frontends.stream_sections import RAM, RamCount, placed
from vfiomig.migration.qemu_image import ImageError
from vfiomig.protocol.qemu_stream.records import (
    RamBlocks,
    RamEncodedPage,
    RamPageKind,
    RamPages,
    VfioConfig,
    VfioData,
    VfioEndOfState,
    VfioInitDataSent,
    VfioSetup,
)
from vfiomig.protocol.qemu_stream.vfio import is_vfio

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console

    from vfiomig.frontends.stream_sections import Section
    from vfiomig.migration.qemu_image import QemuImage
    from vfiomig.protocol.qemu_stream.records import Located, RamBlock, Record

_RUNS: Final = 16  # of a section that are shown
_NAMES: Final = 1024  # of blocks or devices that are told apart
_OTHERS: Final = "(others)"
_KINDS: Final = {RamPageKind.ZERO: "zero", RamPageKind.PAGE: "full"}
VFIO_NAMES: Final[dict[type, str]] = {
    VfioSetup: "SETUP",
    VfioData: "DATA",
    VfioConfig: "CONFIG",
    VfioInitDataSent: "INIT_DATA_SENT",
    VfioEndOfState: "END_OF_STATE",
}
_VFIO_HEADING: Final = (
    f"{'section':>7}  {'type':<5} {'offset':>11} {'size':>11}  {'record':<14} "
    f"{'data':>11}  device"
)


# -- RAM ---------------------------------------------------------------------------


@dataclass(slots=True)
class _Blocks:
    """What was sent of each block, over all sections."""

    counts: dict[str, RamCount] = field(default_factory=dict)

    def take(self, record: RamPages | RamEncodedPage) -> None:
        name = record.block
        if name not in self.counts and len(self.counts) >= _NAMES:
            name = _OTHERS
        self.counts.setdefault(name, RamCount()).take(record)


def print_ram(image: QemuImage, console: Console) -> None:
    """Print the blocks, the first runs of pages of each section, and the sums.

    Raises:
        ImageError: the stream is damaged; what could be read is printed.
    """
    print_line(console, title(image), "bold")
    blocks, last, runs = _Blocks(), None, 0
    try:
        for section, located in placed(image.records()):
            if section.idstr != RAM:
                continue
            if section is not last:
                _end_section(console, last, runs)
                _begin_section(console, section)
                last, runs = section, 0
            runs += _print_ram_record(console, located, blocks, runs)
    finally:
        _end_section(console, last, runs)
        _print_blocks(console, blocks)


def _begin_section(console: Console, section: Section) -> None:
    print_line(console, "")
    where = f"section {section.number} {section.type} at {section.offset:#x}"
    print_line(console, where, "bold")


def _end_section(console: Console, section: Section | None, runs: int) -> None:
    if section is None:
        return
    if runs > _RUNS:
        print_row(console, f"  ... and {counted(runs - _RUNS, 'more run')}")
    words = ", ".join(ram_words(section.ram)) or "nothing"
    print_row(console, f"  in all: {words}; {section.size:,} bytes")


def _print_ram_record(
    console: Console, located: Located, blocks: _Blocks, runs: int
) -> bool:
    """Print a record if there is room; tell whether it is a run of pages."""
    record = located.record
    if isinstance(record, RamBlocks):
        for block in record.blocks:
            print_row(console, f"  {_block_words(block)}")
    if not isinstance(record, RamPages | RamEncodedPage):
        return False
    blocks.take(record)
    if runs < _RUNS:
        print_row(console, f"  {located.offset:>#11x}  {_run_words(record)}")
    return True


def _block_words(block: RamBlock) -> str:
    size = f"{block.used_length:#x} bytes ({bytes_text(block.used_length)})"
    words = f"block {plain(block.idstr)}: {size}"
    if block.page_size is not None:
        words += f", pages of {bytes_text(block.page_size)}"
    if block.address is not None:
        words += f", at guest address {block.address:#x}"
    if block.mapped is not None:
        words += (
            f", mapped: bitmap at {block.mapped.bitmap_offset:#x}, pages at "
            f"{block.mapped.pages_offset:#x} of the file"
        )
    return words


def _run_words(run: RamPages | RamEncodedPage) -> str:
    if isinstance(run, RamEncodedPage):
        what = f"{run.kind.name} page of {counted(len(run.data), 'byte')}"
        return f"{plain(run.block)}: {what} for {run.address:#x}"
    kind = _KINDS.get(run.kind, run.kind.name)
    where = _addresses_text(run.addresses)
    return f"{plain(run.block)}: {counted(len(run), f'{kind} page')}, {where}"


def _addresses_text(addresses: NDArray[np.uint64]) -> str:
    first, last = int(addresses[0]), int(addresses[-1])
    if len(addresses) == 1:
        return f"at {first:#x}"
    pieces = pieces_in(addresses)
    within = "" if pieces == 1 else f", in {pieces:,} pieces"
    return f"from {first:#x} to {last:#x}{within}"


def pieces_in(addresses: NDArray[np.uint64]) -> int:
    """Count the runs of neighbours; a page is the shortest step that there is."""
    steps = np.diff(addresses.astype(np.int64))
    forward = steps[steps > 0]
    if not len(forward):
        return len(addresses)
    return 1 + int(np.count_nonzero(steps != forward.min()))


def _print_blocks(console: Console, blocks: _Blocks) -> None:
    print_line(console, "")
    print_line(console, "sent of each block", "bold")
    for name, count in blocks.counts.items():
        print_row(console, f"  {plain(name):<32} {', '.join(ram_words(count))}")
    if not blocks.counts:
        print_row(console, "  no pages")


# -- VFIO --------------------------------------------------------------------------


@dataclass(slots=True)
class _Devices:
    """The sequences of all devices."""

    sequences: dict[str, VfioSequence] = field(default_factory=dict)

    def see(self, section: Section, record: Record) -> None:
        name = _device_name(section)
        if name not in self.sequences:
            if len(self.sequences) >= _NAMES:
                return
            self.sequences[name] = VfioSequence()
        self.sequences[name].see(section, record)


def print_vfio(image: QemuImage, console: Console) -> bool:
    """Print every record of the VFIO devices, and what the sequences tell.

    Return whether there is a device.

    Raises:
        ImageError: the stream is damaged; what could be read is printed.
    """
    print_line(console, title(image), "bold")
    print_line(console, "")
    print_line(console, _VFIO_HEADING, "dim")
    devices, era, is_whole = _Devices(), Era(), False
    try:
        for section, located in placed(image.records()):
            era.see(located.record)
            if is_vfio(section.idstr or ""):
                devices.see(section, located.record)
                _print_vfio_record(console, section, located)
        is_whole = True
    except ImageError:
        _print_sequences(console, devices, era, is_whole=False)
        raise
    _print_sequences(console, devices, era, is_whole=is_whole)
    return bool(devices.sequences)


def _print_vfio_record(console: Console, section: Section, located: Located) -> None:
    record = located.record
    name = VFIO_NAMES.get(type(record))
    if name is None:
        return
    data = f"{len(record.data):,}" if isinstance(record, VfioData) else ""
    row = (
        f"{section.number:>7}  {section.type:<5} {located.offset:>#11x} "
        f"{located.size:>11,}  {name:<14} {data:>11}  {_device_name(section)}"
    )
    words = f": {config_words(record)}" if isinstance(record, VfioConfig) else ""
    print_row(console, row + words)


def _print_sequences(
    console: Console, devices: _Devices, era: Era, *, is_whole: bool
) -> None:
    for name, sequence in devices.sequences.items():
        print_line(console, "")
        print_line(console, name, "bold")
        for remark in sequence.remarks(era, is_whole=is_whole):
            print_row(console, f"  {remark}")
    if not devices.sequences:
        print_row(console, "no VFIO device")


def _device_name(section: Section) -> str:
    instance = f" (instance {section.instance_id})" if section.instance_id else ""
    return plain(section.idstr or "") + instance
