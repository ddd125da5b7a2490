"""What to call the devices of a machine when nobody has named them."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.vfio_user.target import is_vfio_user, place_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LONGEST_NAME: Final = 64


def derived_names(targets: Iterable[str], *, taken: Iterable[str]) -> Iterator[str]:
    """Yield a name for each target, unlike any other: serial, serial-2."""
    used = set(taken)
    for target in targets:
        stem = _short_name(target)
        endings = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
        candidates = (stem[: LONGEST_NAME - len(end)] + end for end in endings)
        name = next(candidate for candidate in candidates if candidate not in used)
        used.add(name)
        yield name


def _short_name(target: str) -> str:
    """Return what a target ends in, options apart: ``my/drivers.py:Gpu`` is Gpu.

    Of servers that a command starts it is the program.
    """
    place = place_of(target) if is_vfio_user(target) else target.partition(",")[0]
    last = re.split(r"[/:]", place)[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-") or "device"
