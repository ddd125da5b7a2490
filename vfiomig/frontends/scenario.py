"""A scenario: the machine, the link, the limits and the faults of one migration.

Rule 1: the keys of SCENARIO.toml are the tables below, with the parser, the bounds
and the default of each.  specs/README.md documents them; a test holds the two
together.

Rule 2: reading a scenario starts nothing.  That a target exists is found out by who
makes drivers of it.

Rule 3: whatever is wrong is a `ScenarioError`, one line: the file, the key, the
reason.  ``device[0]`` is the first device.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from vfiomig.client.conduct import CONDUCTS
from vfiomig.frontends.device_names import derived_names
from vfiomig.frontends.device_scenario import (
    DEVICE,
    DeviceSpec,
    named_devices,
    paths_of,
)
from vfiomig.frontends.link_scenario import (
    LINK,
    RSOCKET,
    RSOCKET_DEFAULT,
    TRANSPORTS,
    Link,
    Rsocket,
    rsocket_of,
)
from vfiomig.frontends.machine_scenario import (
    CAPABILITIES,
    MACHINE,
    PARAMETERS,
    MachineSpec,
    parameters_of,
)
from vfiomig.frontends.plain_text import plain, quoted
from vfiomig.frontends.toml_file import read_toml
from vfiomig.frontends.toml_values import (
    REQUIRED,
    BadKeyError,
    Key,
    Table,
    Tables,
    duration,
    errno_code,
    one_of,
    size,
    text,
    whole,
)
from vfiomig.migration.metrics import Outcome
from vfiomig.migration.parameters import Parameters
from vfiomig.protocol.errors import VfiomigError
from vfiomig.vendor.faults import FAULT_SITES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path


class ScenarioError(VfiomigError):
    """A scenario that cannot be used; ``str()`` is ``FILE: KEY: reason``."""


# -- what a scenario is ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When pre-copy ends. Times are virtual nanoseconds.

    ``when_not_converging`` is "fail" or "switch-over".
    """

    downtime: int
    rounds: int
    when_not_converging: str
    cancel_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An access inside a device that fails with the errno ``code``, once.

    It is armed ``at`` a moment of its party: "start", "round" ``number`` (from 1) or
    "stop" at the source; "start", "buffer" ``number`` (from 0) or "end" at the
    destination. The next access ``on`` its site sets it off.
    """

    party: str
    device: str
    on: str
    code: int
    at: str
    number: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """All that one simulated migration is made from.

    ``file`` is ``None`` for the built-in one. ``conduct`` is a name in
    `client.conduct.CONDUCTS`; ``transport`` is one of `TRANSPORTS`. ``warm_up``
    is in units of guest traffic at the source before the migration begins. Costs are
    virtual nanoseconds; bandwidths are bytes a second, ``None`` = takes no time.
    """

    name: str
    file: Path | None
    seed: int
    conduct: str
    transport: str
    warm_up: int
    devices: tuple[DeviceSpec, ...]
    link: Link
    source_access_cost: int
    destination_access_cost: int
    load_bandwidth: int | None
    limits: Limits
    faults: tuple[Fault, ...]
    expected: Outcome
    machine: MachineSpec | None = None
    parameters: Parameters = field(default_factory=Parameters)
    rsocket: Rsocket = RSOCKET_DEFAULT


# -- the keys --------------------------------------------------------------------------

# For each party, the moments to arm a fault at, and where the numbers of one begin.
_MOMENTS: Final[dict[str, dict[str, int | None]]] = {
    "source": {"start": None, "round": 1, "stop": None},
    "destination": {"start": None, "buffer": 0, "end": None},
}
_ACCESS_COST: Final = Key(duration, 1_000)


def _make_fault(
    *, party: str, device: str, on: str, errno: int, at: str, number: int | None
) -> Fault:
    moments = _MOMENTS[party]
    if at not in moments:
        known = ", ".join(f'"{moment}"' for moment in moments)
        raise BadKeyError("at", f'must be one of {known} at the {party}, not "{at}"')
    first = moments[at]
    if first is None and number is not None:
        raise BadKeyError("number", f'does not go with at = "{at}"')
    if first is not None and number is None:
        raise BadKeyError("number", f"is missing: which {at}, from {first}?")
    if first is not None and number is not None and number < first:
        raise BadKeyError("number", f"must be at least {first}, not {number}")
    return Fault(party=party, device=device, on=on, code=errno, at=at, number=number)


_SOURCE: Final = Table(
    written="[source]", make=dict, keys={"access_cost": _ACCESS_COST}
)
_DESTINATION: Final = Table(
    written="[destination]",
    make=dict,
    keys={"access_cost": _ACCESS_COST, "load_bandwidth": Key(size(1))},
)
_LIMITS: Final = Table(
    written="[limits]",
    make=Limits,
    keys={
        "downtime": Key(duration, 300_000_000),
        "rounds": Key(whole(1), 30),
        "when_not_converging": Key(one_of("fail", "switch-over"), "fail"),
        "cancel_at": Key(duration),
    },
)
_FAULT: Final = Table(
    written="[[fault]]",
    make=_make_fault,
    keys={
        "party": Key(one_of(*_MOMENTS), REQUIRED),
        "device": Key(text(r"(?s).+", "a device's name"), REQUIRED),
        "on": Key(one_of(*FAULT_SITES), REQUIRED),
        "errno": Key(errno_code, REQUIRED),
        "at": Key(
            one_of(*dict.fromkeys(itertools.chain(*_MOMENTS.values()))), REQUIRED
        ),
        "number": Key(whole(0)),
    },
)
_EXPECT: Final = Table(
    written="[expect]",
    make=dict,
    keys={
        "outcome": Key(
            # Nothing in a scenario can interrupt the program that runs it.
            one_of(*(o.value for o in Outcome if o is not Outcome.INTERRUPTED)),
            "completed",
        )
    },
)
KEYS: Final = Table(
    written="a scenario",
    make=dict,
    keys={
        "name": Key(text(r"[^\x00-\x1f\x7f]{1,200}", "1 to 200 characters of text")),
        "seed": Key(whole(0), 1),
        "conduct": Key(one_of(*CONDUCTS), "qemu-7.2"),
        "transport": Key(one_of(*TRANSPORTS), "memory"),
        "warm_up": Key(whole(0), 1_000),
        "device": Key(Tables(table=DEVICE, least=1), REQUIRED),
        "machine": Key(MACHINE),
        "parameters": Key(PARAMETERS, PARAMETERS({})),
        "capabilities": Key(CAPABILITIES, CAPABILITIES({})),
        "link": Key(LINK, LINK({})),
        "rsocket": Key(RSOCKET),
        "source": Key(_SOURCE, _SOURCE({})),
        "destination": Key(_DESTINATION, _DESTINATION({})),
        "limits": Key(_LIMITS, _LIMITS({})),
        "fault": Key(Tables(table=_FAULT), ()),
        "expect": Key(_EXPECT, _EXPECT({})),
    },
)


# -- making one ------------------------------------------------------------------------


def load_scenario(path: Path) -> Scenario:
    """Read a scenario; raises ScenarioError for whatever is wrong with it."""
    document = _document(path)
    try:
        return _made(document, path)
    except BadKeyError as problem:
        raise ScenarioError(_line(path, problem)) from None


def builtin_scenario() -> Scenario:
    """Return the scenario of ``vfiomig migrate`` alone: it ends completed."""
    devices: list[dict[str, object]] = [
        {"target": "accelerator,memory=16M", "work": 20_000},
        {"target": "serial"},
    ]
    # Less than what 16 MiB take on this link: there are rounds of pre-copy to see.
    limits = {"downtime": "20ms"}
    return _made({"name": "built-in", "device": devices, "limits": limits}, None)


def with_destinations(scenario: Scenario, targets: Sequence[str]) -> Scenario:
    """Return ``scenario`` with these targets at the destination, device by device.

    Raises ScenarioError when there are more of them than devices.
    """
    if len(targets) > len(scenario.devices):
        reason = f"{len(targets)} destinations for {len(scenario.devices)} devices"
        raise ScenarioError(_line(scenario.file, BadKeyError("", reason)))
    devices = [
        dataclasses.replace(device, destination=target)
        for device, target in zip(scenario.devices, targets, strict=False)
    ]
    devices += scenario.devices[len(targets) :]
    return dataclasses.replace(scenario, devices=tuple(devices))


def with_targets(scenario: Scenario, targets: Sequence[str]) -> Scenario:
    """Return ``scenario`` with these devices instead of its own, if there are any.

    Their names come from the targets, their work is the default, their files are in the
    current folder. Raises ScenarioError when a fault names a device that is gone.
    """
    if not targets:
        return scenario
    work = cast("int", DEVICE.keys["work"].default)
    names = derived_names(targets, taken=())
    devices = tuple(
        DeviceSpec(name=name, target=target, work=work)
        for name, target in zip(names, targets, strict=True)
    )
    try:
        _require_devices(scenario.faults, devices)
    except BadKeyError as problem:
        raise ScenarioError(_line(scenario.file, problem)) from None
    return dataclasses.replace(scenario, devices=devices)


def _made(document: dict[str, object], file: Path | None) -> Scenario:
    """Put the values of a document together; raises BadKeyError."""
    values = cast("dict[str, object]", KEYS(document))
    source, destination, expect = (
        cast("dict[str, object]", values.pop(name))
        for name in ("source", "destination", "expect")
    )
    devices = named_devices(values.pop("device"), file.parent if file else None)
    if values["machine"] is not None:
        paths_of(devices)
    rsocket_of(values)
    faults = cast("tuple[Fault, ...]", values.pop("fault"))
    _require_devices(faults, devices)
    limits = cast("Limits", values.pop("limits"))
    parameters = parameters_of(
        cast("dict[str, object]", values.pop("parameters")),
        cast("dict[str, object]", values.pop("capabilities")),
        cast("MachineSpec | None", values["machine"]),
        limits.downtime,
    )
    name = values.pop("name") or (file.stem if file else "")
    # Each value was made by the parser of its own key.
    make = cast("Callable[..., Scenario]", Scenario)
    return make(
        **values,
        name=name,
        file=file,
        devices=devices,
        limits=dataclasses.replace(limits, downtime=parameters.downtime_limit),
        parameters=parameters,
        faults=faults,
        source_access_cost=source["access_cost"],
        destination_access_cost=destination["access_cost"],
        load_bandwidth=destination["load_bandwidth"],
        expected=Outcome(expect["outcome"]),
    )


def _require_devices(faults: Iterable[Fault], devices: Sequence[DeviceSpec]) -> None:
    names = [device.name for device in devices]
    for number, fault in enumerate(faults):
        if fault.device not in names:
            reason = f"no device is called {quoted(fault.device)}"
            place = f"fault[{number}].device"
            raise BadKeyError(place, f"{reason}; there is {', '.join(names)}")


def _document(path: Path) -> dict[str, object]:
    try:
        return read_toml(path)
    except OSError as error:
        reason = error.strerror or str(error)
    except ValueError as error:
        reason = str(error)
    raise ScenarioError(_line(path, BadKeyError("", plain(reason))))


def _line(file: Path | None, problem: BadKeyError) -> str:
    place = plain(str(file)) if file else "the built-in scenario"
    return ": ".join(part for part in (place, problem.place, problem.reason) if part)
