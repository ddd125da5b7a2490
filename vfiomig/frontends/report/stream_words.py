"""What the sections of a migration stream hold, in a few words.

Names come from the file: each is made plain here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.frontends.plain_text import plain, quoted
from vfiomig.frontends.report.stream_sequence import config_words
from vfiomig.frontends.report.units import bytes_text
from vfiomig.frontends.stream_sections import RAM
from vfiomig.frontends.stream_xenstore import view_of
from vfiomig.protocol.qemu_stream.records import (
    Command,
    Configuration,
    FileHeader,
    PostcopyAdvice,
    RamDiscard,
    VmDescription,
)
from vfiomig.uapi import qemu_stream as uapi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.frontends.stream_sections import RamCount, Section, VfioCount
    from vfiomig.frontends.stream_xenstore import StoreView

_COMMAND: Final = "MIG_CMD_"
_COMMANDS: Final = {
    number: name.removeprefix(_COMMAND)
    for name, number in vars(uapi).items()
    if name.startswith(_COMMAND)
}
_UUID_CUTS: Final = ((0, 4), (4, 6), (6, 8), (8, 10), (10, 16))


def counted(count: int, noun: str) -> str:
    """Return ``1 buffer``, ``4,096 buffers``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def counted_watches(count: int) -> str:
    """Return ``1 watch``, ``128 watches``."""
    return f"{count:,} watch" + ("" if count == 1 else "es")


def holds(section: Section) -> str:
    """Say what a row of the table holds."""
    words = ", ".join(_words(section))
    return f"{words} (cut)".lstrip() if section.is_cut else words


def _words(section: Section) -> Iterator[str]:
    match section.head:
        case FileHeader(version):
            yield f"version {version}"
        case Configuration():
            yield from configuration_words(section.head)
        case Command():
            yield command_words(section.head)
        case VmDescription(document):
            devices = document.get("devices")
            described = len(devices) if isinstance(devices, list) else 0
            yield f"{counted(described, 'FULL section')} described"
        case _ if section.fields is not None:
            yield counted(section.fields, "field")
            if section.subsections:
                yield counted(section.subsections, "subsection")
            if section.store is not None:
                yield from _store_words(view_of(section.store))
        case _ if section.opaque is not None:
            yield f"not described: {counted(section.opaque, 'byte')}"
        case _ if section.vfio.records:
            yield from _vfio_words(section)
        case _:
            yield from ram_words(section.ram)
            if section.idstr == RAM and not any(ram_words(section.ram)):
                yield "nothing"


def _vfio_words(section: Section) -> Iterator[str]:
    if section.config is not None:
        yield config_words(section.config)
    if section.vfio.setups:
        yield "setup"
    yield from vfio_words(section.vfio)
    if section.vfio.ends and section.vfio.records == section.vfio.ends:
        yield "nothing"


def _store_words(view: StoreView | None) -> Iterator[str]:
    """Say what a Xen guest's store has; of a damaged one that it is."""
    if view is None:
        return
    if view.store is not None:
        yield counted(view.store.tree.count, "node")
        yield counted(len(view.store.transactions), "transaction")
        yield counted_watches(len(view.store.watches))
    if view.events:
        yield counted(len(view.events), "watch event")
    if view.store_damage or view.events_damage:
        yield "the store is damaged"


def vfio_words(count: VfioCount) -> Iterator[str]:
    """Say what buffers there are, and what else stands beside them."""
    filled = count.buffers - count.empty
    if filled:
        yield f"{counted(filled, 'buffer')}, {bytes_text(count.data_bytes)}"
    if count.empty:
        yield counted(count.empty, "empty buffer")
    if count.init_data_sent:
        yield "all initial data sent"


def ram_words(count: RamCount) -> Iterator[str]:
    """Say what pages there are, by how they are written."""
    if count.blocks:
        yield f"{counted(count.blocks, 'block')} of {bytes_text(count.block_bytes)}"
    for number, kind in (
        (count.zero, "zero page"),
        (count.full, "full page"),
        (count.encoded, "encoded page"),
        (count.mapped, "mapped page"),
    ):
        if number:
            yield counted(number, kind)
    if count.flushes:
        yield f"multifd flushed {counted(count.flushes, 'time')}"
    if count.hooks:
        yield counted(count.hooks, "RDMA hook")


def command_name(number: int) -> str:
    """Return QEMU's name of a command; its number if it has none."""
    return _COMMANDS.get(number, f"command {number}")


def command_words(command: Command) -> str:
    """Return a command and its argument."""
    name = command_name(command.command)
    match command.argument:
        case None:
            return name
        case PostcopyAdvice(page_sizes, target_page_size):
            return f"{name} {page_sizes:#x} {target_page_size:#x}"
        case RamDiscard(block, ranges):
            return f"{name} {quoted(block)}: {counted(len(ranges), 'range')}"
        case str(block):
            return f"{name} {quoted(block)}"
        case int(number):
            return f"{name} {number}"
        case data:
            return f"{name}, {counted(len(data), 'byte')}"


def configuration_words(configuration: Configuration) -> Iterator[str]:
    """Say what source and destination must have in common."""
    yield plain(configuration.machine)
    if configuration.target_page_bits is not None:
        yield f"pages of 2^{configuration.target_page_bits} bytes"
    if configuration.capabilities is not None:
        names = map(plain, configuration.capabilities)
        yield f"capabilities {' '.join(names) or 'none'}"
    if configuration.uuid is not None:
        yield f"uuid {uuid_text(configuration.uuid)}"


def uuid_text(uuid: bytes) -> str:
    """Return 16 bytes as a UUID is written."""
    return "-".join(uuid[start:end].hex() for start, end in _UUID_CUTS)
