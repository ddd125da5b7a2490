"""What a whole migration stream holds, by part; the parts add up to the stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vfiomig.frontends.stream_sections import RAM, RamCount, VfioCount
from vfiomig.protocol.qemu_stream.records import Configuration, VmDescription
from vfiomig.protocol.qemu_stream.vfio import is_vfio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.frontends.stream_sections import Section

# No machine has so many; a file that claims more is not given the memory.
_DEVICES: Final = 1024
OTHER_DEVICES: Final = "(more VFIO devices)"
DEVICE_STATE: Final = "device state"
VM_DESCRIPTION: Final = "VM description"
FRAMING: Final = "header, configuration, commands"


@dataclass(slots=True)
class Part:
    """A part of a stream: RAM, one VFIO device, or all of another kind together.

    ``name`` is an idstr, or words; ``sections`` counts rows of the table.
    """

    name: str
    sections: int = 0
    size: int = 0
    ram: RamCount = field(default_factory=RamCount)
    vfio: VfioCount = field(default_factory=VfioCount)
    instance_id: int | None = None
    is_vfio: bool = False

    def add(self, section: Section) -> None:
        """Count a complete section."""
        self.sections += 1
        self.size += section.size
        self.ram.add(section.ram)
        self.vfio.add(section.vfio)


@dataclass(slots=True)
class Totals:
    """All parts, and what is true of the whole stream.

    ``has_footers`` and ``vm_description`` (bytes of JSON text, its head not counted)
    are ``None`` where there was no section, or no description.
    """

    framing: Part = field(default_factory=lambda: Part(FRAMING))
    ram: Part = field(default_factory=lambda: Part(RAM))
    devices: dict[tuple[str | None, int | None], Part] = field(default_factory=dict)
    state: Part = field(default_factory=lambda: Part(DEVICE_STATE))
    description: Part = field(default_factory=lambda: Part(VM_DESCRIPTION))
    configuration: Configuration | None = None
    has_footers: bool | None = None
    opaque: int = 0  # sections of which nothing is known

    def add(self, section: Section) -> None:
        """Count a complete section."""
        self._part_of(section).add(section)
        if isinstance(section.head, Configuration):
            self.configuration = section.head
        if section.is_section and not section.is_cut:
            self.has_footers = section.has_footer or bool(self.has_footers)
        self.opaque += section.opaque is not None

    def parts(self) -> Iterator[Part]:
        """Yield the parts that the stream has, in the order of QEMU's stream."""
        for part in (
            self.framing,
            self.ram,
            *self.devices.values(),
            self.state,
            self.description,
        ):
            if part.sections:
                yield part

    def _part_of(self, section: Section) -> Part:
        if isinstance(section.head, VmDescription):
            return self.description
        if not section.is_section:
            return self.framing
        if section.idstr == RAM:
            return self.ram
        if section.idstr is not None and is_vfio(section.idstr):
            return self._device(section)
        return self.state

    def _device(self, section: Section) -> Part:
        key = (section.idstr, section.instance_id)
        if key not in self.devices and len(self.devices) >= _DEVICES:
            key = (OTHER_DEVICES, None)
        name, instance = key
        return self.devices.setdefault(
            key, Part(name or "", instance_id=instance, is_vfio=True)
        )
