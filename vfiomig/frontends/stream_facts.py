"""What one migration stream holds, gathered so that two can be compared."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from vfiomig.frontends.stream_image import RamImage
from vfiomig.frontends.stream_sections import VfioCount, placed
from vfiomig.migration.qemu_image import ImageError
from vfiomig.protocol.qemu_stream.records import (
    Command,
    Configuration,
    Opaque,
    RamBlocks,
    RamEncodedPage,
    RamPages,
    VfioConfig,
    VfioData,
    VmDescription,
    VmState,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from vfiomig.frontends.stream_sections import Section
    from vfiomig.migration.qemu_image import QemuImage
    from vfiomig.protocol.qemu_stream.records import Located, RamBlock, View

    # idstr and instance of a section, or idstr, instance and type of several.
    Key: TypeAlias = tuple[str, int]
    TypedKey: TypeAlias = tuple[str, int, str]

# Each block is an open file while two streams are compared.
_BLOCKS: Final = 256


@dataclass(slots=True)
class Block:
    """A RAM block, and the file that has its pages as loaded."""

    block: RamBlock
    file: BinaryIO
    image: RamImage


@dataclass(slots=True)
class StreamFacts:
    """What a stream holds; ``damage`` is set if only its beginning could be read."""

    configuration: Configuration | None = None
    commands: list[Command] = field(default_factory=list)
    sections: Counter[TypedKey] = field(default_factory=Counter)
    versions: dict[Key, int | None] = field(default_factory=dict)
    states: dict[Key, VmState] = field(default_factory=dict)
    opaque: dict[Key, View] = field(default_factory=dict)
    configs: dict[Key, VfioConfig] = field(default_factory=dict)
    buffers: dict[TypedKey, VfioCount] = field(default_factory=dict)
    digests: dict[Key, hashlib._Hash] = field(default_factory=dict)
    blocks: dict[str, Block] = field(default_factory=dict)
    has_description: bool = False
    has_footers: bool = False
    damage: ImageError | None = None


@contextlib.contextmanager
def gathered(image: QemuImage) -> Iterator[StreamFacts]:
    """Read a stream to its end, RAM into temporary files that go with the block.

    Raises:
        ImageError: it has more blocks than can be compared.
    """
    facts = StreamFacts()
    with contextlib.ExitStack() as files:
        last = None
        try:
            for section, located in placed(image.records()):
                if section is not last:
                    last = section
                    _begin(facts, section)
                _take(facts, section, located)
                if isinstance(located.record, RamBlocks):
                    _open_blocks(facts, image, located, files)
        except ImageError as error:
            facts.damage = error
        yield facts


def data_of(image: QemuImage, key: Key) -> Iterator[View]:
    """Yield the data of a device, buffer after buffer; a damage ends it."""
    with contextlib.suppress(ImageError):
        for section, located in placed(image.records()):
            if isinstance(located.record, VfioData) and _key(section) == key:
                yield located.record.data


def _key(section: Section) -> Key:
    return section.idstr or "", section.instance_id or 0


def _begin(facts: StreamFacts, section: Section) -> None:
    if section.is_section:
        key = _key(section)
        facts.sections[*key, section.type] += 1
        if section.version_id is not None:
            facts.versions[key] = section.version_id


def _take(facts: StreamFacts, section: Section, located: Located) -> None:
    key, record = _key(section), located.record
    match record:
        case RamPages(block=name) | RamEncodedPage(block=name):
            if name in facts.blocks:
                facts.blocks[name].image.take(located)
        case VfioData(data):
            count = facts.buffers.setdefault((*key, section.type), VfioCount())
            count.take(record)
            facts.digests.setdefault(key, hashlib.sha256()).update(data)
        case VfioConfig():
            facts.configs[key] = record
        case VmState():
            facts.states[key] = record
        case Opaque(data):
            facts.opaque[key] = data
        case Configuration():
            facts.configuration = record
        case Command():
            facts.commands.append(record)
        case VmDescription():
            facts.has_description = True
        case _:
            facts.has_footers |= section.has_footer


def _open_blocks(
    facts: StreamFacts,
    image: QemuImage,
    located: Located,
    files: contextlib.ExitStack,
) -> None:
    record = located.record
    assert isinstance(record, RamBlocks)
    for block in record.blocks:
        if len(facts.blocks) >= _BLOCKS:
            reason = f"more than {_BLOCKS} blocks of RAM cannot be compared"
            raise ImageError(image.name, reason, located.offset)
        if block.idstr not in facts.blocks:
            made = tempfile.TemporaryFile()  # noqa: SIM115 -- the stack closes it
            file = cast("BinaryIO", files.enter_context(made))
            pages = RamImage(image.name, block, file)
            facts.blocks[block.idstr] = Block(block, file, pages)
            pages.take(located)  # mapped-ram has them here
