"""How versions of QEMU differ in the loop of pre-copy: a table.

Sources: migration/migration.c, migration/savevm.c and hw/vfio/migration.c of each
version.  With v1's one register, ``pending_bytes`` is what is left to move in pre-copy
and after it, so it stands for v2's precopy sizes and for its stop_copy_size alike.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class LoopRules(NamedTuple):
    """What one version does.

    ``estimates_first``: all handlers are asked for an estimate, and only where that is
    below the threshold for the exact figure (since 8.0).  ``each_has_a_turn``: a
    handler that is not finished no longer ends the pass (since 9.0: RAM used to starve
    VFIO).  ``in_estimate`` and ``in_exact`` are how often a device's pending_bytes
    counts there.  ``completes_at_threshold``: pending bytes equal to it will do (11.1).
    ``enters_device``: query-migrate says "device" during the switch-over even without
    pause-before-switchover (10.0).
    """

    estimates_first: bool
    each_has_a_turn: bool
    in_estimate: int
    in_exact: int
    completes_at_threshold: bool = False
    enters_device: bool = False


QEMU_7_2: Final = LoopRules(
    estimates_first=False, each_has_a_turn=False, in_estimate=1, in_exact=1
)

# By the release that began it; each holds until the next one.
LOOP_RULES: Final = {
    "7.2": QEMU_7_2,
    # No pre-copy of devices: the estimate leaves them out.
    "8.0": QEMU_7_2._replace(estimates_first=True, in_estimate=0),
    # stop_copy_size and the precopy sizes are added up: counted twice.
    "8.1": QEMU_7_2._replace(estimates_first=True, in_exact=2),
    "9.0": QEMU_7_2._replace(estimates_first=True, each_has_a_turn=True, in_exact=2),
    # Commit 3b5948f808: stop_copy_size alone.
    "9.2": QEMU_7_2._replace(estimates_first=True, each_has_a_turn=True),
    "10.0": QEMU_7_2._replace(
        estimates_first=True, each_has_a_turn=True, enters_device=True
    ),
    "11.1": QEMU_7_2._replace(
        estimates_first=True,
        each_has_a_turn=True,
        completes_at_threshold=True,
        enters_device=True,
    ),
}
