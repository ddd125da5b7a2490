"""The museum's trials as JSON.

Keys are only ever added.  All but ``environment`` and ``seconds`` is the same for the
same run.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Final

import msgspec

import vfiomig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.conformance.museum import Totals, Tried

_SCHEMA: Final = 1


def mutants_as_json(
    tried: Sequence[Tried],
    totals: Totals,
    *,
    effort: str,
    seed: int,
    is_interrupted: bool,
) -> bytes:
    """Return the trials as indented JSON, ending in a line end."""
    facts = {
        "schema": _SCHEMA,
        "protocol": "v1",
        "seed": seed,
        "effort": effort,
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "vfiomig": vfiomig.__version__,
        },
        "interrupted": is_interrupted,
        "mutants": [_as_dict(each) for each in tried],
        "totals": {
            "found": totals.found,
            "missed": totals.missed,
            "died": totals.died,
            "median_accesses": totals.median,
            "unbroken_rules": list(totals.unbroken),
        },
    }
    return msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n"


def _as_dict(tried: Tried) -> dict[str, object]:
    return {
        "target": tried.exhibit.target,
        "party": tried.exhibit.party,
        "violates": sorted(tried.exhibit.violates),
        "found": tried.is_found,
        "found_by": list(tried.found_by),
        "accesses": tried.accesses,
        "others": sorted(tried.broken.keys() - tried.exhibit.violates),
        "died": tried.died or None,
        "seconds": round(tried.seconds, 3),
    }
