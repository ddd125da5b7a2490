"""What QEMU calls the parameters and capabilities of a migration, with its defaults.

Names and defaults are those of migrate-set-parameters and migrate-set-capabilities of
QEMU 7.2 (qapi/migration.json), with a ``_`` for each ``-``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vfiomig.migration.clock import SECOND
from vfiomig.migration.loop_rules import QEMU_7_2, LoopRules

MILLISECOND: Final = SECOND // 1000  # what downtime-limit is counted in


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What a person may set; ``rules`` are the loop of a version of QEMU.

    Bandwidths are bytes a second, 0 for no limit (``max_bandwidth``) and for none
    given (``avail_switchover_bandwidth``, since 8.2).  ``downtime_limit`` is in
    nanoseconds here.
    """

    max_bandwidth: int = 128 << 20
    downtime_limit: int = 300 * MILLISECOND
    avail_switchover_bandwidth: int = 0
    multifd_channels: int = 2
    throttle_trigger_threshold: int = 50
    cpu_throttle_initial: int = 20
    cpu_throttle_increment: int = 10
    cpu_throttle_tailslow: bool = False
    max_cpu_throttle: int = 99

    auto_converge: bool = False
    multifd: bool = False
    pause_before_switchover: bool = False

    rules: LoopRules = QEMU_7_2

    @property
    def enters_device(self) -> bool:
        """Whether query-migrate says "device" while the machine is stopped."""
        return self.pause_before_switchover or self.rules.enters_device
