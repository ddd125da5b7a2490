"""What a QEMU migration stream says, as values: a flat list of records.

A stream is its records, one after the other, with nothing between them.  What a
section holds stands between its head and its footer; no record nests another::

    FileHeader [Configuration] { Command | section }* EndOfFile [VmDescription]
    section:  SectionStart | SectionFull | SectionPart | SectionEnd
              payload [SectionFooter]
    payload:  ram    { RamBlocks | RamPages | RamEncodedPage | RamHook
                     | RamMultifdFlush }* RamEndOfState
              VFIO   { VfioSetup | VfioData | VfioConfig }*
                     [VfioEndOfState | VfioInitDataSent]
              FULL   VmState    by the VM description
              other  Opaque     found by its footer

So the framing properties of a machine (send-configuration, send-section-footer,
suppress-vmdesc) are no settings here: a record is there or it is not.

Positions are no part of a value: ``Located`` carries them.  A ``View`` shows the
input and copies nothing; it holds the input's mapping open for as long as it lives.
Text is UTF-8 with ``surrogateescape``, so that any bytes come back as they were.

Sources: QEMU 7.2.22 and 10.0.13, migration/savevm.c, migration/ram.c,
migration/vmstate.c, hw/vfio/migration.c; all integers are big-endian in the stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from vfiomig.protocol.qemu_stream.ram_records import (
    MappedRam,
    RamBlock,
    RamBlocks,
    RamEncodedPage,
    RamEndOfState,
    RamHook,
    RamMultifdFlush,
    RamPageKind,
    RamPages,
    View,
)
from vfiomig.uapi.qemu_stream import QEMU_VM_FILE_VERSION

__all__ = [
    "Command",
    "Configuration",
    "EndOfFile",
    "Field",
    "FileHeader",
    "Located",
    "MappedRam",
    "MsixState",
    "Opaque",
    "PostcopyAdvice",
    "RamBlock",
    "RamBlocks",
    "RamDiscard",
    "RamEncodedPage",
    "RamEndOfState",
    "RamHook",
    "RamMultifdFlush",
    "RamPageKind",
    "RamPages",
    "Record",
    "SectionEnd",
    "SectionFooter",
    "SectionFull",
    "SectionName",
    "SectionPart",
    "SectionStart",
    "Value",
    "VfioConfig",
    "VfioData",
    "VfioEndOfState",
    "VfioInitDataSent",
    "VfioSetup",
    "View",
    "VmDescription",
    "VmState",
]


@dataclass(frozen=True, slots=True)
class FileHeader:
    """The magic QEVM and the version of the format."""

    version: int = QEMU_VM_FILE_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What source and destination must have in common; each ``None`` was not sent.

    ``machine`` is the name of the machine type; ``uuid`` has 16 bytes.
    """

    machine: str
    target_page_bits: int | None = None
    capabilities: tuple[str, ...] | None = None
    uuid: bytes | None = None


@dataclass(frozen=True, slots=True)
class PostcopyAdvice:
    """What POSTCOPY_ADVISE says of the source: sizes in bytes.

    ``page_sizes`` is the sum (bitwise or) of the host page sizes of all RAM blocks.
    """

    page_sizes: int
    target_page_size: int


@dataclass(frozen=True, slots=True)
class RamDiscard:
    """Pages that the destination forgets: ranges of (start, length) in bytes."""

    block: str
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the source (``MIG_CMD_*``) and what it says.

    ``argument`` is the number of a PING, the length of a PACKAGED stream (its
    records follow as any others), the block of a RECV_BITMAP, ``None`` where there
    is nothing, and the bytes as they are of a command that is not known.
    """

    command: int
    argument: int | str | PostcopyAdvice | RamDiscard | View | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionStart:
    """The head of a START section, which gives an id to (idstr, instance)."""

    section_id: int
    idstr: str
    instance_id: int
    version_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionFull:
    """The head of a FULL section; of a handler that began with START, the same id."""

    section_id: int
    idstr: str
    instance_id: int
    version_id: int


@dataclass(frozen=True, slots=True)
class SectionPart:
    """The head of a PART section, sent while the machine runs."""

    section_id: int


@dataclass(frozen=True, slots=True)
class SectionEnd:
    """The head of an END section, the last of a handler that iterates."""

    section_id: int


@dataclass(frozen=True, slots=True)
class SectionFooter:
    """The end of a section, with its id once more."""

    section_id: int


@dataclass(frozen=True, slots=True)
class Opaque:
    """The payload of a section of which nothing is known but its footer."""

    data: View


@dataclass(frozen=True, slots=True)
class EndOfFile:
    """The end of all sections."""


@dataclass(frozen=True, slots=True)
class VmDescription:
    """The JSON that describes every FULL section.

    ``document`` is the object.  ``text`` is ``None`` where the stream has what
    ``json.dumps`` writes of it, as QEMU does; else the text as it stands there.
    """

    document: dict[str, object]
    text: str | None = None


# --- VFIO --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VfioSetup:
    """DEV_SETUP_STATE, the first word of a START section."""


@dataclass(frozen=True, slots=True)
class VfioData:
    """DEV_DATA_STATE: a buffer of the device's data; it may be empty."""

    data: View


@dataclass(frozen=True, slots=True)
class MsixState:
    """MSI-X of a device: ``table`` 16 bytes a vector, ``pending`` a bit a vector."""

    table: View
    pending: View


@dataclass(frozen=True, slots=True, kw_only=True)
class VfioConfig:
    """DEV_CONFIG_STATE: what QEMU itself keeps of the PCI function.

    ``version`` is PCIDevice's (2), ``config`` its configuration space, 256 or 4096
    bytes, ``irq`` the levels of INTA to INTD.  ``msix`` is ``None`` without that
    capability.  ``display`` is the state of a ramfb (QEMU 10.0), where one is sent.
    """

    version: int
    config: View
    irq: tuple[int, int, int, int]
    msix: MsixState | None = None
    display: VmState | None = None


@dataclass(frozen=True, slots=True)
class VfioInitDataSent:
    """DEV_INIT_DATA_SENT (v2, switchover-ack): all initial data was sent; no EOS."""


@dataclass(frozen=True, slots=True)
class VfioEndOfState:
    """END_OF_STATE: the end of the payload."""


# --- vmstate -----------------------------------------------------------------------

# A bool (an int where the byte is neither 0 nor 1), a number, a capability's name, a
# struct, the bytes of a buffer or of a type not known; None is a NULL pointer.  A
# bitmap is the int whose bit i is bit i.
Value: TypeAlias = "int | str | View | VmState | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field as the VM description has it, with its value.

    ``type`` is QEMU's name of the type (``uint32``, ``struct``, ``timer``).  ``size``
    counts the bytes of one element.  ``value`` is a tuple, of one value for each
    element, where the description has ``array_len``; an array that it writes one
    element at a time is so many fields, each with its ``index``.
    """

    name: str
    type: str
    value: Value | tuple[Value, ...]
    size: int
    index: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VmState:
    """The state of a device, of a struct in it, or of a subsection.

    A device that saves itself as one buffer (slirp) has neither ``vmsd_name`` nor
    ``version``, and one field, ``data``.
    """

    vmsd_name: str | None
    version: int | None
    fields: tuple[Field, ...]
    subsections: tuple[VmState, ...] = ()


Record: TypeAlias = (
    FileHeader
    | Configuration
    | Command
    | SectionStart
    | SectionFull
    | SectionPart
    | SectionEnd
    | SectionFooter
    | Opaque
    | EndOfFile
    | VmDescription
    | RamBlocks
    | RamPages
    | RamEncodedPage
    | RamHook
    | RamMultifdFlush
    | RamEndOfState
    | VfioSetup
    | VfioData
    | VfioConfig
    | VfioInitDataSent
    | VfioEndOfState
    | VmState
)


class SectionName(NamedTuple):
    """What a section belongs to."""

    idstr: str
    instance_id: int


class Located(NamedTuple):
    """A record, and where it stands.

    ``offset`` and ``size`` are in bytes; the next record begins where this one ends.
    ``section`` is the one that the record is part of, its head and footer included;
    ``None`` outside of sections.
    """

    record: Record
    offset: int
    size: int
    section: SectionName | None = None
