"""What the sequence of a VFIO device's records tells of the source that wrote it.

Rule 1: only what follows from the bytes is said.  What more than one source would
have written is said to be open.

Rule 2: QEMU spoke v1 up to 7.2 and has spoken v2 since 8.0, so what only one of them
writes tells the protocol of the device as well (hw/vfio/migration.c of 7.2.22 and
10.0.13).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.units import bytes_text
from vfiomig.protocol.qemu_stream.records import (
    Command,
    Configuration,
    RamBlocks,
    RamMultifdFlush,
    VfioConfig,
    VfioData,
    VfioEndOfState,
    VfioInitDataSent,
    VfioSetup,
    VmDescription,
)
from vfiomig.uapi.qemu_stream import MIG_CMD_SWITCHOVER_START

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.frontends.stream_sections import Section
    from vfiomig.protocol.qemu_stream.records import Record

# QEMU's own names: a vendor's machine types count otherwise.
_MACHINE: Final = re.compile(r"(?:pc-i440fx|pc-q35|virt)-(\d{1,3})\.(\d{1,3})", re.A)
# The most that QEMU reads of a v2 device at a time.
_V2_BUFFER: Final = 1 << 20


@dataclass(slots=True)
class Era:
    """What the rest of the stream tells of the QEMU that wrote it."""

    marks: dict[str, None] = field(default_factory=dict)

    def see(self, record: Record) -> None:
        """Take note of what no QEMU wrote before 8.0, of which all speak v2."""
        match record:
            case Command(command) if command == MIG_CMD_SWITCHOVER_START:
                self.marks["the command SWITCHOVER_START (10.0)"] = None
            case RamMultifdFlush():
                self.marks["MULTIFD_FLUSH in RAM (8.1)"] = None
            case RamBlocks(blocks) if any(block.mapped for block in blocks):
                self.marks["mapped-ram (9.0)"] = None
            case Configuration(machine=machine) if _version_of(machine) >= (8, 0):
                self.marks[f"the machine type {plain(machine)}"] = None
            case VmDescription(document) if "configuration" in document:
                self.marks["the configuration in the VM description (10.0)"] = None
            case _:
                pass


@dataclass(slots=True)
class _Phase:
    """The records of the device in all sections of one type."""

    sections: int = 0
    buffers: int = 0  # of at least one byte
    empty: int = 0  # buffers of size 0
    size: int = 0  # bytes of the buffers
    largest: int = 0
    without_data: int = 0  # sections that have no DATA record
    without_end: int = 0  # sections without END_OF_STATE or INIT_DATA_SENT
    init_data_sent: int = 0

    def see(self, record: Record) -> None:
        if isinstance(record, VfioData):
            size = len(record.data)
            self.buffers += size > 0
            self.empty += size == 0
            self.size += size
            self.largest = max(self.largest, size)
        self.init_data_sent += isinstance(record, VfioInitDataSent)


@dataclass(slots=True)
class VfioSequence:
    """All that one device wrote, section by section."""

    phases: dict[str, _Phase] = field(default_factory=dict)
    configs: list[VfioConfig] = field(default_factory=list)
    setups: int = 0
    has_display: bool = False
    _section: Section | None = None
    _has_data: bool = False
    _has_end: bool = False

    def see(self, section: Section, record: Record) -> None:
        """Take the next record of a section of this device, its head and footer too."""
        if section is not self._section:
            self._finish()
            self._section, self._has_data, self._has_end = section, False, False
            self._phase(section.type).sections += 1
        self._phase(section.type).see(record)
        self._has_data |= isinstance(record, VfioData)
        self._has_end |= isinstance(record, VfioEndOfState | VfioInitDataSent)
        self.setups += isinstance(record, VfioSetup)
        if isinstance(record, VfioConfig):
            self.configs = [record]
            self.has_display |= record.display is not None

    def _finish(self) -> None:
        if self._section is None:
            return
        phase = self._phase(self._section.type)
        phase.without_data += not self._has_data
        phase.without_end += not self._has_end
        self._section = None

    def _phase(self, kind: str) -> _Phase:
        return self.phases.setdefault(kind, _Phase())

    def remarks(self, era: Era, *, is_whole: bool) -> Iterator[str]:
        """Say what is known of the source, a sentence a line.

        ``is_whole``: the stream was read to its end, so what is not there was not
        sent.
        """
        if is_whole:  # else the last section may be cut, and nothing it lacks counts
            self._finish()
        yield from self._pre_copy(is_whole=is_whole)
        yield from self._stop_and_copy(is_whole=is_whole)
        yield from self._configuration(is_whole=is_whole)
        yield from self._oddities(is_whole=is_whole)
        yield self._protocol(era)

    def _pre_copy(self, *, is_whole: bool) -> Iterator[str]:
        part = self._phase("PART")
        if part.buffers:
            yield (
                f"pre-copy: {_counted(part.buffers, 'buffer')}, "
                f"{bytes_text(part.size)}, were sent while the device ran"
            )
        elif part.sections:
            yield (
                f"pre-copy: it was polled {_times(part.sections)} and gave nothing: no "
                "state was sent while the device ran"
            )
        elif is_whole:
            yield (
                "pre-copy: no PART section. Either the device has no pre-copy or the "
                "switch-over came before its turn: the stream does not tell"
            )
        if part.empty:
            yield f"pre-copy: {_counted(part.empty, 'poll')} found nothing pending"
        if part.init_data_sent:
            yield "pre-copy: INIT_DATA_SENT: all initial data was sent (switchover-ack)"

    def _stop_and_copy(self, *, is_whole: bool) -> Iterator[str]:
        end = self._phase("END")
        if end.buffers:
            yield (
                f"stop-and-copy: {_counted(end.buffers, 'buffer')}, "
                f"{bytes_text(end.size)}, the largest {bytes_text(end.largest)}"
            )
        elif end.sections and (self.configs or end.empty):
            yield "stop-and-copy: no data: nothing was left to send"
        elif end.sections:
            yield (
                "stop-and-copy: no data. Either nothing was left to send, or it went "
                "over other channels (multifd): the stream does not tell"
            )
        elif is_whole:
            yield (
                "stop-and-copy: no END section: the stream has no state of the "
                "stopped device"
            )
        if end.empty:
            yield f"stop-and-copy: {_counted(end.empty, 'buffer')} of size 0"

    def _configuration(self, *, is_whole: bool) -> Iterator[str]:
        full = self._phase("FULL")
        if not full.sections and is_whole:
            yield "configuration: no FULL section: nothing of the PCI function was sent"
        elif self._has_full_without_config:
            yield (
                "configuration: a FULL section without CONFIG, as with multifd "
                "transfer (10.0)"
            )
        for config in self.configs:
            yield f"configuration: {config_words(config)}"

    @property
    def _has_full_without_config(self) -> bool:
        full = self._phase("FULL")
        return full.sections > full.without_end and not self.configs

    def _oddities(self, *, is_whole: bool) -> Iterator[str]:
        start = self._phase("START")
        if is_whole and not start.sections:
            yield "odd: no START section: QEMU would refuse its PART and END sections"
        if start.sections and not self.setups:
            yield "odd: its START section has no SETUP"
        for kind, phase in self.phases.items():
            if phase.without_end:
                yield (
                    f"odd: {_counted(phase.without_end, f'{kind} section')} without "
                    "END_OF_STATE: the source failed there, or it is no QEMU"
                )

    def _protocol(self, era: Era) -> str:
        v1, v2 = list(self._marks_of_v1()), [*self._marks_of_v2(), *era.marks]
        if v1 and v2:
            return (
                "protocol: the marks contradict each other: of v1 "
                f"{', '.join(v1)}; of v2 {', '.join(v2)}"
            )
        if v1:
            return f"protocol: v1 (QEMU 7.2 or before), by {', '.join(v1)}"
        if v2:
            return f"protocol: v2 (QEMU 8.0 or later), by {', '.join(v2)}"
        return "protocol: v1 or v2: nothing in the stream tells"

    def _marks_of_v1(self) -> Iterator[str]:
        if self._phase("PART").empty:
            yield "a buffer of size 0 in a PART section"
        largest = max((phase.largest for phase in self.phases.values()), default=0)
        if largest > _V2_BUFFER:
            yield f"a buffer of more than {bytes_text(_V2_BUFFER)}"

    def _marks_of_v2(self) -> Iterator[str]:
        part = self._phase("PART")
        if part.init_data_sent:
            yield "INIT_DATA_SENT"
        if part.without_data - part.without_end > 0:
            yield "a PART section without DATA"
        if self._has_full_without_config:
            yield "a FULL section without CONFIG"
        if self.has_display:
            yield "the state of a display"


def _version_of(machine: str) -> tuple[int, int]:
    """Return the QEMU that brought a machine type; (0, 0) if its name does not tell."""
    found = _MACHINE.fullmatch(machine)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def config_words(config: VfioConfig) -> str:
    """Say what CONFIG holds of the PCI function."""
    words = f"{len(config.config)} bytes of configuration space"
    raised = [f"INT{name}" for name, on in zip("ABCD", config.irq, strict=True) if on]
    words += f", {' and '.join(raised)} raised" if raised else ""
    if config.msix is not None:
        vectors = len(config.msix.table) // 16
        words += f", MSI-X of {_counted(vectors, 'vector')}"
    return words + (", a display" if config.display is not None else "")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"
