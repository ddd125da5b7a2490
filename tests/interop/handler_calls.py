"""The calls of QEMU's VFIO handlers, in order, as a trace of QEMU names them.

The formats are those of qemu_v1_client.md, section 6.  Where a handler has no event of
its own, or none where it fails, the event of its caller in migration/savevm.c stands
for it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Event, and the handler that it is of.
_EVENTS: Final = {
    "vfio_pci_reset": "reset",
    "vfio_save_setup": "save_setup",
    "vfio_save_pending": "save_pending",
    "vfio_save_cleanup": "save_cleanup",
    "vfio_load_cleanup": "load_cleanup",
}
_RUN_STATES: Final = {
    "running 1": "vm_starts",
    "running 0": "vm_stops",
}
_DATA_STATE: Final = "0xffffffffef100004"
_NAMED: Final = re.compile(r"(?P<event>\w+)  \((?P<name>[-0-9a-f]+)\) ?(?P<rest>.*)")
_SECTION: Final = re.compile(r"savevm_section_start 0000:00:(?P<slot>\w+)\.0/vfio,")
_MMAP: Final = re.compile(
    r"vfio_region_mmap Region migration mmaps\[\d+\] \[0x(\w+) - 0x(\w+)\]"
)


class Call(NamedTuple):
    """A call of a handler; ``device`` is a number, None for all of them in turn."""

    handler: str
    device: int | None


def calls_in(trace: Iterable[str], slots: tuple[str, ...]) -> Iterator[Call]:
    """Yield the calls; devices are numbered as they were added, at these slots."""
    numbers: dict[str, int] = {}
    section, ended = "", set[int]()
    for line in trace:
        if found := _SECTION.match(line):
            device = slots.index(found["slot"])
            if section == "save_iterate":
                yield Call(section, device)
            elif device not in ended:  # behind it comes its FULL section: no access
                ended.add(device)
                yield Call("save_complete_precopy", device)
        elif line.startswith("savevm_state_iterate"):
            section = "save_iterate"
            ended.clear()
        elif line.startswith("savevm_state_complete_precopy"):
            section = "save_complete_precopy"
        elif line.startswith("loadvm_state_setup"):
            yield Call("load_setup", None)
        elif found := _NAMED.match(line):
            device = numbers.setdefault(found["name"], len(numbers))
            if handler := _handler(found["event"], found["rest"]):
                yield Call(handler, device)


def _handler(event: str, rest: str) -> str | None:
    if event in _EVENTS:
        return _EVENTS[event]
    if event == "vfio_vmstate_change":
        if "reason save-vm" in rest:
            return "vm_stops_for_savevm"
        return _RUN_STATES[rest[: len("running 0")]]
    if event == "vfio_migration_state_notifier":
        return "migration_failed" if rest[6:] in {"cancelled", "failed"} else None
    if event == "vfio_load_state":
        return "load_buffer" if rest.endswith(_DATA_STATE) else None
    return None


def mappings_in(trace: Iterable[str]) -> list[tuple[int, int]]:
    """Return what QEMU mapped of migration regions: offset and size, in order."""
    found = [each for each in map(_MMAP.match, trace) if each]
    ends = [(int(each[1], 16), int(each[2], 16)) for each in found]
    return [(first, last + 1 - first) for first, last in ends]
