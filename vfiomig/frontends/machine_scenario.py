"""The machine of a scenario: its RAM, what the guest does to it, QEMU's parameters.

The keys of ``[parameters]`` and ``[capabilities]`` are QEMU's words, with its defaults
(migrate-set-parameters, migrate-set-capabilities).  The rules are those of
`frontends.scenario`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from vfiomig.frontends.hart_scenario import HARTS, PROGRAM_SIZE, HartsSpec
from vfiomig.frontends.toml_values import (
    REQUIRED,
    BadKeyError,
    Key,
    Table,
    Tables,
    flag,
    one_of,
    shown,
    size,
    whole,
)
from vfiomig.frontends.xen_scenario import RESERVED, XEN, XenSpec
from vfiomig.migration.loop_rules import LOOP_RULES
from vfiomig.migration.parameters import MILLISECOND, Parameters

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE: Final = 4096
VIRT: Final = "virt"
_MOST_RAM: Final = 1 << 46  # what QEMU's PCs can address at most, by far
_TYPE: Final = re.compile(r"virt|pc|q35|pc-i440fx-[0-9]+\.[0-9]+|pc-q35-[0-9]+\.[0-9]+")
# QEMU 7.2's aliases: the stream has the name that they stand for.
_ALIASES: Final = {"pc": "pc-i440fx-7.2", "q35": "pc-q35-7.2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec:
    """What the guest does to its RAM: see `vm.workload.RamLoad`."""

    dirty_rate: int
    working_set: int | None
    offset: int
    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """A guest: QEMU's name of its machine, bytes of RAM, and what it does.

    ``filled`` bytes of RAM, from its start, are not zero when it begins.  ``qemu`` is
    the version whose loop it follows, a key of `LOOP_RULES`.  Only a RISC-V machine
    has ``harts``, and a program on them; only a PC can be a ``xen`` guest's.
    """

    type: str
    ram: int
    filled: int
    qemu: str
    loads: tuple[LoadSpec, ...]
    harts: HartsSpec | None = None
    xen: XenSpec | None = None

    @property
    def family(self) -> str:
        """Which machine it is: "pc", "q35" or "virt"."""
        if self.type == VIRT:
            return VIRT
        return "q35" if "q35" in self.type else "pc"

    @property
    def ram_block(self) -> str:
        """QEMU's name of its RAM."""
        return "pc.ram" if self.harts is None else "riscv_virt_board.ram"


def _machine_type(value: object) -> str:
    if not isinstance(value, str) or not _TYPE.fullmatch(value):
        message = (
            'must be a PC of QEMU such as "pc", "q35" or "pc-i440fx-7.2", or RISC-V\'s '
            f'"virt", not {shown(value)}'
        )
        raise ValueError(message)
    return _ALIASES.get(value, value)


def _pages(low: int) -> Callable[[object], int]:
    """Return a parser of bytes that are whole pages."""
    bytes_of = size(low)

    def parse(value: object) -> int:
        number = cast("int", bytes_of(value))
        if number > _MOST_RAM:
            message = f"must be at most 64T, not {shown(value)}"
            raise ValueError(message)
        if number % PAGE:
            message = f"must be whole pages of {PAGE} bytes, not {shown(value)}"
            raise ValueError(message)
        return number

    return parse


def _make_machine(
    *,
    type: str,  # noqa: A002  # the key's name
    ram: int,
    filled: int,
    qemu: str,
    load: tuple[LoadSpec, ...],
    harts: HartsSpec | None,
    xen: XenSpec | None,
) -> MachineSpec:
    _require_harts(type, harts)
    if xen is not None and type == VIRT:
        raise BadKeyError("xen", f"is of a PC, not of {shown(VIRT)}")
    for guest, own in ((harts, _HARTS_PROGRAM), (xen, _XEN_GUEST)):
        if guest is not None:
            _require_room(own, ram, load)
    if filled > ram:
        raise BadKeyError("filled", f"is {filled} bytes, and there are {ram} of RAM")
    for number, each in enumerate(load):
        end = each.offset + (each.working_set or 0)
        if end > ram or each.offset == ram:
            place = f"load[{number}].working_set"
            raise BadKeyError(place, f"ends at byte {end} of {ram} of RAM")
    return MachineSpec(
        type=type, ram=ram, filled=filled, qemu=qemu, loads=load, harts=harts, xen=xen
    )


def _require_harts(machine_type: str, harts: HartsSpec | None) -> None:
    """Hold a RISC-V machine and its harts together."""
    if harts is None:
        if machine_type == VIRT:
            raise BadKeyError("harts", 'is missing: type "virt" has [machine.harts]')
    elif machine_type != VIRT:
        reason = f'are of RISC-V: type = "virt", not {shown(machine_type)}'
        raise BadKeyError("harts", reason)


class _Own(NamedTuple):
    """RAM from its start on that a guest's program has to itself."""

    size: int
    whose: str


_HARTS_PROGRAM: Final = _Own(PROGRAM_SIZE, "the harts' program")
_XEN_GUEST: Final = _Own(RESERVED, "the Xen guest's own")


def _require_room(own: _Own, ram: int, loads: tuple[LoadSpec, ...]) -> None:
    """Let the guest's program have its place."""
    if ram < own.size:
        reason = f"must be at least {own.size} bytes: {own.whose} is there"
        raise BadKeyError("ram", reason)
    for number, load in enumerate(loads):
        if load.offset < own.size:
            reason = f"must be at least {own.size}: below is {own.whose}"
            raise BadKeyError(f"load[{number}].offset", reason)


_LOAD: Final = Table(
    written="[[machine.load]]",
    make=LoadSpec,
    keys={
        "dirty_rate": Key(size(0), REQUIRED),
        "working_set": Key(_pages(PAGE)),
        "offset": Key(_pages(0), 0),
        "pattern": Key(one_of("stride", "random"), "stride"),
    },
)
MACHINE: Final = Table(
    written="[machine]",
    make=_make_machine,
    keys={
        "type": Key(_machine_type, _ALIASES["pc"]),
        "ram": Key(_pages(PAGE), REQUIRED),
        "filled": Key(_pages(0), 0),
        "qemu": Key(one_of(*LOOP_RULES), "7.2"),
        "load": Key(Tables(table=_LOAD), ()),
        "harts": Key(HARTS),
        "xen": Key(XEN),
    },
)
_DEFAULTS: Final = Parameters()
PARAMETERS: Final = Table(
    written="[parameters]",
    make=dict,
    keys={
        "max-bandwidth": Key(size(0), _DEFAULTS.max_bandwidth),
        "downtime-limit": Key(whole(0, 2_000_000)),  # QEMU's highest
        "avail-switchover-bandwidth": Key(size(0), 0),
        "multifd-channels": Key(whole(1, 255), _DEFAULTS.multifd_channels),
        "throttle-trigger-threshold": Key(
            whole(1, 100), _DEFAULTS.throttle_trigger_threshold
        ),
        "cpu-throttle-initial": Key(whole(1, 99), _DEFAULTS.cpu_throttle_initial),
        "cpu-throttle-increment": Key(whole(1, 99), _DEFAULTS.cpu_throttle_increment),
        "cpu-throttle-tailslow": Key(flag, default=False),
        "max-cpu-throttle": Key(whole(1, 99), _DEFAULTS.max_cpu_throttle),
    },
)
CAPABILITIES: Final = Table(
    written="[capabilities]",
    make=dict,
    keys={
        "auto-converge": Key(flag, default=False),
        "multifd": Key(flag, default=False),
        "pause-before-switchover": Key(flag, default=False),
    },
)


def parameters_of(
    values: dict[str, object],
    capabilities: dict[str, object],
    machine: MachineSpec | None,
    downtime: int,
) -> Parameters:
    """Put QEMU's words together; ``downtime`` (ns) is the limit if they have none.

    Raises:
        BadKeyError: there is no machine that they could be of.
    """
    if machine is None:
        if values != PARAMETERS({}) or capabilities != CAPABILITIES({}):
            reason = "these are of a machine: there is no [machine] with RAM"
            raise BadKeyError("parameters", reason)
        return Parameters(downtime_limit=downtime)
    given = {name.replace("-", "_"): value for name, value in values.items()}
    limit = cast("int | None", given.pop("downtime_limit"))
    given |= {name.replace("-", "_"): on for name, on in capabilities.items()}
    # Each value was made by the parser of its own key.
    make = cast("Callable[..., Parameters]", Parameters)
    return make(
        **given,
        downtime_limit=downtime if limit is None else limit * MILLISECOND,
        rules=LOOP_RULES[machine.qemu],
    )
