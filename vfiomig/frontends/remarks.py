"""Remarks on what happened in a run, and its verdict does not show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vfiomig.frontends.causes import in_words
from vfiomig.frontends.report.units import time_text
from vfiomig.migration.metrics import Outcome

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from vfiomig.frontends.scenario import Scenario
    from vfiomig.frontends.simulated_machine import SimulatedMachine


def remarks_on_devices(machines: Iterable[SimulatedMachine]) -> Iterator[str]:
    """Yield what clients did, or had to do without, and nobody failed of it."""
    for machine in machines:
        for device in machine.devices:
            client, who = device.client, f"{machine.party}, {device.spec.name}"
            if (failure := client.mapping_failure) is not None:
                yield f"{who}: not mapped, all data was trapped: {in_words(failure)}"
            if client.left_behind:
                yield (
                    f"{who}: {client.conduct.name} ended stop-and-copy at a buffer of "
                    f"0 bytes, with pending_bytes at {client.left_behind}"
                )


def remarks_on_faults(
    scenario: Scenario, outcome: Outcome, armed: Container[int]
) -> Iterator[str]:
    """Yield which faults, and which cancel, did not come, or came to nothing.

    ``armed`` are the places of the faults whose moment came.
    """
    for place, fault in enumerate(scenario.faults):
        if place not in armed:
            yield f"fault[{place}] never happened: no such moment"
        elif outcome is Outcome.COMPLETED:
            yield (
                f"fault[{place}] was armed in {fault.party}, {fault.device} on "
                f"{fault.on}, and the migration completed all the same"
            )
    cancel_at = scenario.limits.cancel_at
    if cancel_at is not None and outcome is Outcome.COMPLETED:
        yield f"limits.cancel_at {time_text(cancel_at)} never came: it was over before"
