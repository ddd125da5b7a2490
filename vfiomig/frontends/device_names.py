"""What to call the devices of a machine when nobody has named them."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Final

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
    """Return what a target ends in, options apart: ``my/drivers.py:Gpu`` is Gpu."""
    last = re.split(r"[/:]", target.partition(",")[0])[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-") or "device"
