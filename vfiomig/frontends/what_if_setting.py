"""A scenario as the setting of a forecast."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from vfiomig.frontends.simulated_guest import ram_load
from vfiomig.migration.clock import LinkModel
from vfiomig.migration.convergence import Limits
from vfiomig.migration.what_if.forecast import ModelledMachine, Setting

if TYPE_CHECKING:
    from vfiomig.frontends.scenario import Scenario
    from vfiomig.frontends.what_if_devices import Profiles


def setting_of(scenario: Scenario, profiles: Profiles) -> Setting:
    """Return what a forecast of ``scenario`` is made from; its faults are left out."""
    limits = scenario.limits
    return Setting(
        link=LinkModel(scenario.link.bandwidth, scenario.link.latency),
        limits=Limits(
            downtime=limits.downtime,
            rounds=limits.rounds,
            switches_anyway=limits.when_not_converging == "switch-over",
            cancel_at=limits.cancel_at,
        ),
        devices=tuple(
            dataclasses.replace(profile, work=spec.work)
            for profile, spec in zip(profiles.devices, scenario.devices, strict=True)
        ),
        machine=_machine(scenario, profiles.description_bytes),
        load_bandwidth=scenario.load_bandwidth,
        begins_at=profiles.begins_at,
    )


def _machine(scenario: Scenario, description_bytes: int) -> ModelledMachine | None:
    spec = scenario.machine
    if spec is None:
        return None
    return ModelledMachine(
        machine_type=spec.type,
        ram=spec.ram,
        filled=spec.filled,
        loads=tuple(
            ram_load(each, spec, scenario.seed + number)
            for number, each in enumerate(spec.loads)
        ),
        parameters=scenario.parameters,
        description_bytes=description_bytes,
    )
