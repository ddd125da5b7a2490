"""Where two migration streams differ, with the values of both.

RAM is compared as it is once all pages are loaded: in what order, how often and how
they were sent does not matter.  Device data is compared byte for byte.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.stream_tree import bytes_shown
from vfiomig.frontends.report.stream_values import (
    NOTHING,
    buffers_differ,
    states_differ,
)
from vfiomig.frontends.report.stream_words import (
    command_words,
    configuration_words,
    counted,
    vfio_words,
)
from vfiomig.frontends.stream_facts import data_of
from vfiomig.frontends.stream_pages import differing_pages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TypeVar

    from vfiomig.frontends.stream_facts import Block, Key, StreamFacts
    from vfiomig.migration.qemu_image import QemuImage
    from vfiomig.protocol.qemu_stream.records import VfioConfig

    K = TypeVar("K")
    V = TypeVar("V")

_RUNS: Final = 16  # of pages that are shown of each block


class Difference(NamedTuple):
    """A place, and what the one and the other stream have there; plain text."""

    where: str
    one: str
    other: str


def differences(
    images: tuple[QemuImage, QemuImage], one: StreamFacts, other: StreamFacts
) -> Iterator[Difference]:
    """Yield all that differs between two streams, in the order of a stream."""
    yield from _whole(one, other)
    yield from _sections(one, other)
    for name, a, b in _pairs(one.blocks, other.blocks):
        yield from _block(f"block {plain(name)}", a, b)
    yield from _device_data(images, one, other)
    for key, config, other_config in _shared(one.configs, other.configs):
        yield from _configs(f"{_name(key)}: CONFIG", config, other_config)
    for key, state, other_state in _shared(one.states, other.states):
        for where, *values in states_differ(state, other_state):
            yield Difference(f"{_name(key)}: {where}", *values)
    for key, data, other_data in _shared(one.opaque, other.opaque):
        if data != other_data:
            where, *values = buffers_differ([data], [other_data])
            yield Difference(f"{_name(key)} (not described): {where}", *values)


def _whole(one: StreamFacts, other: StreamFacts) -> Iterator[Difference]:
    """Compare what stands outside of sections."""
    told = [
        ("configuration", *(_configuration_text(facts) for facts in (one, other))),
        ("commands", *(_commands_text(facts) for facts in (one, other))),
        ("footers", *(_yes(facts.has_footers) for facts in (one, other))),
        ("VM description", *(_yes(facts.has_description) for facts in (one, other))),
    ]
    for where, a, b in told:
        if a != b:
            yield Difference(where, a, b)


def _sections(one: StreamFacts, other: StreamFacts) -> Iterator[Difference]:
    for key, count, other_count in _pairs(one.sections, other.sections):
        if count != other_count:
            idstr, instance, kind = key
            where = f"{_name((idstr, instance))}: {kind} sections"
            yield Difference(where, str(count or 0), str(other_count or 0))
    for section, version, other_version in _shared(one.versions, other.versions):
        if version != other_version:
            where = f"{_name(section)}: version"
            yield Difference(where, str(version), str(other_version))


def _block(where: str, one: Block | None, other: Block | None) -> Iterator[Difference]:
    a, b = (
        NOTHING if each is None else f"{each.block.used_length:#x} bytes"
        for each in (one, other)
    )
    if a != b:
        yield Difference(where, a, b)
    if one is None or other is None:
        return
    runs = differing_pages(one, other)
    for run in itertools.islice(runs, _RUNS):
        pages = f"{counted(run.pages, 'page')} from {run.first:#x} on"
        found = f"{where}: {pages}, first at {run.at:#x}"
        yield Difference(found, run.one.hex(" "), run.other.hex(" "))
    more = sum(run.pages for run in runs)
    if more:
        yield Difference(f"{where}: {counted(more, 'more page')}", "...", "...")


def _device_data(
    images: tuple[QemuImage, QemuImage], one: StreamFacts, other: StreamFacts
) -> Iterator[Difference]:
    for (idstr, instance, kind), a, b in _pairs(one.buffers, other.buffers):
        if a != b:
            told = (", ".join(vfio_words(each)) if each else NOTHING for each in (a, b))
            yield Difference(f"{_name((idstr, instance))}: {kind}", *told)
    for key, digest, peer in _pairs(one.digests, other.digests):
        if digest is None or peer is None or digest.digest() != peer.digest():
            data, other_data = (data_of(image, key) for image in images)
            where, *values = buffers_differ(data, other_data)
            yield Difference(f"{_name(key)}: device data: {where}", *values)


def _configs(where: str, one: VfioConfig, other: VfioConfig) -> Iterator[Difference]:
    if one.config != other.config:
        found, a, b = buffers_differ([one.config], [other.config])
        yield Difference(f"{where}: configuration space: {found}", a, b)
    if one.irq != other.irq:
        a, b = (" ".join(map(str, each.irq)) for each in (one, other))
        yield Difference(f"{where}: INTA to INTD", a, b)
    if one.msix != other.msix:
        a, b = (
            NOTHING
            if each.msix is None
            else f"{bytes_shown(each.msix.table)}, {bytes_shown(each.msix.pending)}"
            for each in (one, other)
        )
        yield Difference(f"{where}: MSI-X", a, b)
    if one.display is not None and other.display is not None:
        for found, a, b in states_differ(one.display, other.display):
            yield Difference(f"{where}: {found}", a, b)
    elif one.display != other.display:
        a, b = (_yes(each.display is not None) for each in (one, other))
        yield Difference(f"{where}: display", a, b)


def _pairs(
    one: Mapping[K, V], other: Mapping[K, V]
) -> Iterator[tuple[K, V | None, V | None]]:
    """Yield each key of either, with what each has; ``None`` for nothing."""
    for key in dict.fromkeys([*one, *other]):
        yield key, one.get(key), other.get(key)


def _shared(one: Mapping[K, V], other: Mapping[K, V]) -> Iterator[tuple[K, V, V]]:
    """Yield each key of both: that one of them lacks a section is told once."""
    for key in one:
        if key in other:
            yield key, one[key], other[key]


def _name(key: Key) -> str:
    idstr, instance = key
    return plain(idstr) + (f" (instance {instance})" if instance else "")


def _configuration_text(facts: StreamFacts) -> str:
    if facts.configuration is None:
        return NOTHING
    return ", ".join(configuration_words(facts.configuration))


def _commands_text(facts: StreamFacts) -> str:
    return ", ".join(map(command_words, facts.commands)) or NOTHING


def _yes(value: bool) -> str:  # noqa: FBT001 -- there is nothing else to say
    return "yes" if value else "no"
