"""The VM description: the JSON behind a stream that says what its FULL sections hold.

Found from the end of the stream, before anything is read; made of states that are to
be sent.

Source: QEMU 7.2.22 and 10.0.13, migration/savevm.c.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream.configuration import configuration_state
from vfiomig.protocol.qemu_stream.cursor import decode_text, encode_text
from vfiomig.protocol.qemu_stream.records import SectionName, VmDescription, VmState
from vfiomig.uapi.qemu_stream import QEMU_VM_EOF, QEMU_VM_VMDESCRIPTION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vfiomig.protocol.qemu_stream.records import Configuration, Field

HEAD: Final = struct.Struct(">BI")
_SEARCHED_AT_ONCE = 1 << 20
_LONGEST: Final = 1 << 26  # bytes; real ones have some 100 KiB
_PAGE_SIZES: Final = range(1 << 10, (1 << 30) + 1)


def find(data: memoryview) -> int | None:
    """Return where the record of the VM description begins; ``None`` without one.

    JSON holds no NUL, so the last one stands in the record's length or is the end of
    the file just before.
    """
    end = len(data)
    while end > 0:
        start = max(0, end - _SEARCHED_AT_ONCE)
        last = bytes(data[start:end]).rfind(b"\0")
        if last >= 0:
            return _record_at_nul(data, start + last)
        end = start
    return None


def _record_at_nul(data: memoryview, nul: int) -> int | None:
    for start in range(max(nul - HEAD.size + 1, 1), nul + 2):
        if len(data) - start < HEAD.size or data[start - 1] != QEMU_VM_EOF:
            continue
        type_, size = HEAD.unpack_from(data, start)
        if type_ == QEMU_VM_VMDESCRIPTION and size == len(data) - start - HEAD.size:
            return start
    return None


def parse(text: bytes | memoryview, position: int) -> VmDescription:
    """Make a value of the JSON, which stands at ``position``.

    Raises:
        StreamError: it is no JSON, no object, or longer than any is.
    """
    if len(text) > _LONGEST:
        reason = f"a VM description of {len(text)} bytes is longer than any is"
        raise StreamError(reason, position=position)
    decoded = decode_text(text)
    try:
        document = json.loads(decoded)
        same = json.dumps(document) == decoded
    except (ValueError, RecursionError) as error:
        reason = f"the VM description is no JSON: {error}"
        raise StreamError(reason, position=position) from None
    if not isinstance(document, dict):
        raise StreamError("the VM description is no object", position=position)
    return VmDescription(document, None if same else decoded)


def text_of(description: VmDescription) -> bytes:
    """Return the text of a VM description as it stands in the stream."""
    if description.text is not None:
        return encode_text(description.text)
    return json.dumps(description.document).encode()


def page_size_of(document: Mapping[str, object]) -> int | None:
    """Return the target's page size in bytes, where the description has a sane one."""
    size = document.get("page_size")
    if isinstance(size, int) and size in _PAGE_SIZES and size.bit_count() == 1:
        return size
    return None


def devices_of(
    document: Mapping[str, object],
) -> dict[SectionName, Mapping[str, object]]:
    """Return what the description says of each FULL section."""
    devices = document.get("devices")
    if not isinstance(devices, list):
        return {}
    found: dict[SectionName, Mapping[str, object]] = {}
    for device in devices:
        if not isinstance(device, dict):
            continue
        name, instance = device.get("name"), device.get("instance_id")
        if isinstance(name, str) and isinstance(instance, int):
            found[SectionName(name, instance)] = device
    return found


def describe(section: SectionName, state: VmState) -> dict[str, object]:
    """Return what the description says of a device whose FULL section is ``state``."""
    head: dict[str, object] = {
        "name": section.idstr,
        "instance_id": section.instance_id,
    }
    if state.vmsd_name is None:
        return describe_data(section, sum(field.size for field in state.fields))
    return head | _described(state)


def describe_data(section: SectionName, size: int) -> dict[str, object]:
    """Return what it says of a device that saves itself as ``size`` bytes.

    So do VFIO devices: their size is that of all between head and footer.
    """
    return {
        "name": section.idstr,
        "instance_id": section.instance_id,
        "size": size,
        "fields": [{"name": "data", "size": size, "type": "buffer"}],
    }


def vm_description(
    devices: Iterable[dict[str, object]],
    *,
    page_size: int,
    configuration: Configuration | None = None,
) -> VmDescription:
    """Make the description of a stream with these FULL sections, in its order.

    ``page_size`` is the target's, in bytes.  With a configuration it is as of QEMU
    10.0, without as of 7.2.  QEMU's analyze-migration.py looks for the first brace
    behind the last NUL: spaces at the end keep braces out of the length.  (Nor can it
    read an idstr of 128 bytes or more.)
    """
    document: dict[str, object] = {}
    if configuration is not None:
        document["configuration"] = _described(configuration_state(configuration))
    document["page_size"] = page_size
    document["devices"] = list(devices)
    text = json.dumps(document)
    padding = 0
    while b"{" in (len(text) + padding).to_bytes(4, "big").rpartition(b"\0")[2]:
        padding += 1
    return VmDescription(document, text + " " * padding if padding else None)


def _described(state: VmState) -> dict[str, object]:
    described: dict[str, object] = {
        "vmsd_name": state.vmsd_name,
        "version": state.version,
        "fields": [_described_field(field) for field in state.fields],
    }
    if state.subsections:
        described["subsections"] = [_described(each) for each in state.subsections]
    return described


def _described_field(field: Field) -> dict[str, object]:
    """Describe a field; an array that is written whole by its first element."""
    described: dict[str, object] = {"name": field.name}
    value = field.value
    if isinstance(value, tuple):
        described["array_len"] = len(value)
        value = value[0] if value else None
    elif field.index is not None:
        described["index"] = field.index
    described["type"] = field.type
    if isinstance(value, VmState):
        inner = _described(value)
        described |= {"struct": inner} if field.type == "struct" else inner
    described["size"] = field.size
    return described
