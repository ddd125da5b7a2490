"""``vfiomig check --exhaustive``: running the explorer, and what it shows meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.text import Text

from vfiomig.conformance.exploring import Exploration, explore_target
from vfiomig.conformance.processes import processes
from vfiomig.frontends.report.exploration_terminal import exploration_line
from vfiomig.frontends.report.picture import Picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from vfiomig.conformance.catalogue import Rule
    from vfiomig.conformance.exploring import ExplorationProgress


def explored(
    target: str,
    *,
    console: Console,
    rules: Sequence[Rule] | None,
    depth: int,
    jobs: int,
    is_thorough: bool,
) -> Exploration:
    """Explore a target with ``jobs`` processes; show on ``console`` how far it is.

    Raises:
        TargetError, TargetStartError: as `load_target` does.
    """
    with processes(jobs) as executor, Picture(console, time.monotonic) as picture:

        def watch(progress: ExplorationProgress) -> None:
            line = exploration_line(progress)
            picture.draw(lambda: Text(line, no_wrap=True, overflow="ellipsis"))

        return explore_target(
            target,
            rules=rules,
            depth=depth,
            is_thorough=is_thorough,
            executor=executor,
            watch=watch,
        )
