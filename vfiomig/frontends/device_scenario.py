"""The devices of a scenario: targets, their names, their places on the bus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from vfiomig.frontends.device_names import LONGEST_NAME, derived_names
from vfiomig.frontends.plain_text import quoted
from vfiomig.frontends.toml_values import (
    REQUIRED,
    BadKeyError,
    Key,
    Table,
    text,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FIRST_SLOT: Final = 2  # the chipset has those below
LAST_SLOT: Final = 31


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """A device of the machine: a TARGET, what to call it, and how busy it is.

    At the destination it is another TARGET, if ``destination`` names one. ``work`` is
    in units of guest traffic a second of virtual time while the guest runs. Relative
    file paths in targets begin at ``folder``; at the current folder if it is ``None``.
    ``slot`` is its place on the bus of a machine; ``None`` for the first free one.
    """

    name: str
    target: str
    work: int
    folder: Path | None = None
    destination: str | None = None
    slot: int | None = None


_TARGET: Final = text(r"(?s)(?=.*\S).{1,4096}", 'a target such as "serial"')
DEVICE: Final = Table(
    written="[[device]]",
    make=dict,
    keys={
        "target": Key(_TARGET, REQUIRED),
        "destination": Key(_TARGET),
        "name": Key(
            text(
                rf"[A-Za-z0-9._-]{{1,{LONGEST_NAME}}}",
                f"1 to {LONGEST_NAME} letters, digits, dots, dashes or underscores",
            )
        ),
        "work": Key(whole(0), 1_000),
        "slot": Key(whole(FIRST_SLOT, LAST_SLOT)),
    },
)


def named_devices(devices: object, folder: Path | None) -> tuple[DeviceSpec, ...]:
    """Give every device a name of its own; raises BadKeyError for one given twice."""
    tables = cast("tuple[dict[str, object], ...]", devices)
    given: dict[str, int] = {}
    for number, table in enumerate(tables):
        if (name := cast("str | None", table["name"])) is None:
            continue
        if (first := given.setdefault(name, number)) != number:
            place = f"device[{number}].name"
            raise BadKeyError(place, f"{quoted(name)} is device[{first}] already")
    derived = derived_names(
        [cast("str", table["target"]) for table in tables if table["name"] is None],
        taken=given,
    )
    return tuple(
        DeviceSpec(
            name=cast("str | None", table["name"]) or next(derived),
            target=cast("str", table["target"]),
            work=cast("int", table["work"]),
            folder=folder,
            destination=cast("str | None", table["destination"]),
            slot=cast("int | None", table["slot"]),
        )
        for table in tables
    )


def _require_slots(devices: Sequence[DeviceSpec]) -> None:
    """Refuse two devices at one place; raises BadKeyError."""
    taken: dict[int, int] = {}
    for number, device in enumerate(devices):
        if device.slot is None:
            continue
        if (first := taken.setdefault(device.slot, number)) != number:
            place = f"device[{number}].slot"
            raise BadKeyError(place, f"{device.slot} is device[{first}]'s already")


def paths_of(devices: Sequence[DeviceSpec]) -> list[str]:
    """Return each device's place on the bus, as QEMU writes it: ``0000:00:04.0``.

    Raises:
        BadKeyError: there are more devices than places, or two at one.
    """
    _require_slots(devices)
    taken = {device.slot for device in devices}
    free = (n for n in range(FIRST_SLOT, LAST_SLOT + 1) if n not in taken)
    slots = [device.slot or next(free, None) for device in devices]
    if None in slots:
        place = f"device[{slots.index(None)}]"
        raise BadKeyError(place, "there is no free slot on the bus of the machine")
    return [f"0000:00:{slot:02x}.0" for slot in slots]
