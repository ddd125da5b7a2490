"""A destination that loads a stream somebody else saved: a QEMU, with all it has.

`Destination` knows what its source sends, to the byte.  A stream of QEMU has sections
of devices that are not modelled here, blocks of RAM that this guest has not, commands;
they are passed over, by name.  What is loaded is held against what it must be all the
same, and a device runs only when all of its sections have come.

The order is that of QEMU 7.2's qemu_loadvm_state: load_setup of every device, what the
stream brings, load_cleanup, then the VM starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.migration.ram_image import RamImage
from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream.framing import first_difference
from vfiomig.protocol.qemu_stream.records import (
    Command,
    Configuration,
    SectionEnd,
    SectionFull,
    SectionPart,
    SectionStart,
    VfioConfig,
    VfioData,
    VfioInitDataSent,
)
from vfiomig.protocol.qemu_stream.vfio import is_vfio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from vfiomig.migration.side import MigratingDevice
    from vfiomig.protocol.qemu_stream.records import Located
    from vfiomig.vm.memory import GuestMemory

RAM: Final = "ram"

# What QEMU 7.2 registers: the highest version that it loads of each.
_RAM_VERSION: Final = 4
_VFIO_VERSION: Final = 1
_PCI_VERSION: Final = 2


def vfio_sections(records: Iterable[Located]) -> list[str]:
    """Return the names of the VFIO devices in a stream, in its order.

    Every START section comes before the first PART or END, so no more is read.
    """
    names = []
    for located in records:
        record = located.record
        if isinstance(record, SectionPart | SectionEnd):
            break
        if isinstance(record, SectionStart) and is_vfio(record.idstr):
            names.append(record.idstr)
    return names


class Loaded(NamedTuple):
    """What a device took: buffers, their bytes, and what that did to another thing.

    ``changed_config`` counts bytes of configuration space that are others than before.
    """

    buffers: int
    size: int
    changed_config: int


@dataclass(slots=True)
class _Arriving:
    """A device, and how far its sections have come."""

    device: MigratingDevice
    buffers: int = 0
    size: int = 0
    has_ended: bool = False
    has_config: bool = False
    changed_config: int = 0


class ImageLoading:
    """Devices by the idstr of their sections, and the guest's RAM, if there is one.

    ``machine_type`` is what the stream must be of, ``None`` for any.
    ``passed_over`` counts the sections that were not loaded, by idstr; ``commands``
    are those of the source.  ``busy_with`` is who had the last word.
    """

    def __init__(
        self,
        devices: Mapping[str, MigratingDevice],
        memory: GuestMemory | None,
        machine_type: str | None = None,
    ) -> None:
        self._machine_type = machine_type
        self._arriving = {idstr: _Arriving(each) for idstr, each in devices.items()}
        self.ram = RamImage(memory)
        self.passed_over: dict[str, int] = {}
        self.commands: list[int] = []
        self.busy_with = ""

    def begin(self) -> None:
        """Bring every device to RESUMING.

        Raises:
            OSError, VfiomigError: one refused or failed.
        """
        for each in self._arriving.values():
            self.busy_with = each.device.name
            each.device.client.load_setup()

    def take(self, located: Located) -> None:
        """Take the next record of the stream in.

        Raises:
            StreamError: it cannot be of this machine.
            OSError, VfiomigError: a device refused or failed.
        """
        record, section = located.record, located.section
        if isinstance(record, Command):
            self.commands.append(record.command)
        elif isinstance(record, Configuration):
            self._take_machine(record.machine, located.offset)
        if section is None:
            return
        if section.idstr == RAM:
            self.busy_with = RAM
            _require_known(located, _RAM_VERSION)
            self.ram.take(located)
        elif (arriving := self._arriving.get(section.idstr)) is not None:
            self.busy_with = arriving.device.name
            _require_known(located, _VFIO_VERSION)
            _take_device(arriving, located)
        elif isinstance(record, SectionStart | SectionFull):
            self.passed_over.setdefault(section.idstr, 0)
            self.passed_over[section.idstr] += 1

    def end(self, position: int) -> None:
        """Require that all came; ``position`` is where the stream ends.

        Raises:
            StreamError: something is missing.
        """
        for each in self._arriving.values():
            self.busy_with = each.device.name
            missing = [
                section
                for section, is_there in (
                    ("END", each.has_ended),
                    ("FULL", each.has_config),
                )
                if not is_there
            ]
            if missing:
                sections = " and ".join(missing)
                message = f"{each.device.name} has no {sections} section"
                raise StreamError(message, position=position)
        for each in self._arriving.values():
            each.device.client.load_cleanup()

    def run(self, has_run: Callable[[MigratingDevice], None]) -> None:
        """Let every device run; each is told of at once, before anything reaches it.

        Raises:
            OSError, VfiomigError: one refused or failed.
        """
        for each in self._arriving.values():
            self.busy_with = each.device.name
            each.device.client.vm_state_change(running=True)
            has_run(each.device)

    def give_up(self) -> None:
        """Leave the devices as they are, and let go of their data sections."""
        for each in self._arriving.values():
            each.device.client.load_cleanup()

    def loaded(self) -> dict[str, Loaded]:
        """Return by the device's name what it took."""
        return {
            each.device.name: Loaded(each.buffers, each.size, each.changed_config)
            for each in self._arriving.values()
        }

    def _take_machine(self, machine_type: str, position: int) -> None:
        if self._machine_type not in (None, machine_type):
            message = f"a machine {machine_type}, and here it is {self._machine_type}"
            raise StreamError(message, position=position)


def _require_known(located: Located, version: int) -> None:
    """Refuse a section that QEMU has no handler for (qemu_loadvm_section_start_full).

    Raises:
        StreamError: of another instance, or a version that is too new.
    """
    record = located.record
    if not isinstance(record, SectionStart | SectionFull):
        return
    if record.instance_id or record.version_id > version:
        message = (
            f"section {record.idstr} of instance {record.instance_id}, version "
            f"{record.version_id}; here it is instance 0, version {version}"
        )
        raise StreamError(message, position=located.offset)


def _take_device(arriving: _Arriving, located: Located) -> None:
    match located.record:
        case VfioData(data=data):
            if len(data):  # QEMU loads no buffer for a record of nothing
                _load(arriving.device, memoryview(data))
                arriving.buffers += 1
                arriving.size += len(data)
        case VfioConfig() as config:
            changed = _load_config(arriving.device, config, located.offset)
            arriving.changed_config = changed
            arriving.has_config = True
        case SectionEnd():
            arriving.has_ended = True
        case VfioInitDataSent():
            message = f"{arriving.device.name}: switchover-ack, which v1 has not"
            raise StreamError(message, position=located.offset)


def _load(device: MigratingDevice, data: memoryview) -> None:
    rest = data
    for view in device.client.load_buffer(len(data)):
        size = len(view)
        view[:] = rest[:size]
        rest = rest[size:]


# In front of the configuration space: the tag, and PCIDevice's version.
_CONFIG_HEAD: Final = 8 + 4


def _load_config(device: MigratingDevice, record: VfioConfig, offset: int) -> int:
    """Take the configuration space; levels of interrupts are QEMU's own affair.

    Return how many of its bytes became others.
    """
    own = device.config
    if own is None:
        return 0
    if not 0 < record.version <= _PCI_VERSION:
        message = f"{device.name}: version {record.version} of a PCI device's state"
        raise StreamError(message, position=offset)
    if len(record.config) != len(own):
        message = (
            f"{device.name}: {len(record.config)} bytes of configuration space, and "
            f"here it has {len(own)}"
        )
        raise StreamError(message, position=offset)
    if record.msix is not None:
        message = f"{device.name}: the state of MSI-X, which it has not here"
        raise StreamError(message, position=offset)
    config = bytes(record.config)
    if (place := first_difference(config, own)) is not None:
        message = (
            f"{device.name}: byte {place:#04x} of its configuration space is "
            f"{config[place]:#04x}, and here {own[place]:#04x}"
        )
        raise StreamError(message, position=offset + _CONFIG_HEAD + place)
    changed = sum(a != b for a, b in zip(config, own, strict=True))
    own[:] = config
    return changed
