"""A run of real QEMUs as JSON: keys are only ever added."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vfiomig.frontends.attaching import Attached
    from vfiomig.frontends.two_qemus import Moved, TwoQemus

_SCHEMA: Final = 1


def attached_as_dict(attached: Attached) -> dict[str, Any]:
    """Return what is known of one QEMU and its devices."""
    return {"schema": _SCHEMA, **_side(attached)}


def moved_as_dict(moved: Moved, what: TwoQemus) -> dict[str, Any]:
    """Return what is known of a migration between two QEMUs."""
    return {
        "schema": _SCHEMA,
        "command": list(what.command),
        "targets": list(what.targets),
        "fail": what.fail,
        "status": moved.status,
        "as_asked": moved.is_as_asked(what),
        "devices": [
            {
                "name": each.name,
                "verdict": each.verdict.name.lower(),
                "source_at_stop": each.source.at_stop,
                "destination_at_start": each.destination.at_start,
                "source_at_continue": each.source.at_continue,
            }
            for each in moved.devices
        ],
        "sides": {party: _side(side) for party, side in moved.sides.items()},
        "notes": moved.notes,
    }


def _side(attached: Attached) -> dict[str, Any]:
    return {
        "exit_status": attached.status,
        "calls": attached.calls,
        "interrupted": attached.is_interrupted,
        "hung": attached.has_hung,
        "died": [str(each) for each in attached.deaths],
        "migration_statuses": attached.seen.statuses,
        "query_migrate": dict(attached.seen.figures),
        "devices": {name: asdict(each) for name, each in attached.accounts.items()},
    }
