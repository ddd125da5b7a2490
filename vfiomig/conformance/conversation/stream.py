"""What one saving session gave, and what was special about how it was taken.

Rule: a stream is held against a device only while both sides kept to the protocol.
What makes it worthless as evidence marks it ``tainted``; what is merely unusual, and
must make no difference, is a feature, and names the rule that says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

# What must make no difference, and the rule (by origin) that is broken where it does.
# The first that a shortest conversation still needs is the one to name.
FEATURE_RULES: Final = {
    "late data": "V1-TRANS-28",
    "odd access": "V1-ACC-03",
    "write to reserved": "V1-ACC-08",
    "write to a read-only register": "V1-ACC-09",
    "write to data_size while saving": "V1-SIZE-04",
    "refused request": "V1-TRANS-30",
    "refused arc": "V1-TRANS-24",
    "failed request": "V1-TRANS-03",
    "same state written again": "V1-TRANS-29",
    "pending_bytes read more than once": "V1-PEND-02",
    "pending_bytes read again between buffers": "V1-PEND-04",
    "data_offset read again": "V1-OFF-05",
    "buffer left unread": "V1-SAVE-07",
    "read through the mapping": "V1-MMAP-08",
    "written through the mapping": "V1-MMAP-08",
    "read in pieces": "V1-SAVE-04",
    "written in pieces": "V1-RES-09",
    "window overwritten": "V1-SIZE-06",
    "window filled before": "V1-RES-05",
    "closed before": "V1-RST-06",
    "reset before": "V1-RST-03",
    "saved before in this stop": "V1-SAVE-11",
    "session before": "V1-TRANS-25",
    "destination had resumed before": "V1-TRANS-26",
    "destination had a state": "V1-TRANS-20",
    "pre-copy had read 0": "V1-PEND-10",
    "pre-copy without a buffer": "V1-SAVE-08",
    "pre-copy": "V1-SAVE-06",
}
PLAIN: Final = "V1-TRANS-19"

# Every whole migration speaks for these as well.
_ALWAYS: Final = ("V1-SAVE-06", "V1-SIZE-07", "V1-STATE-08", "V1-OFF-02")


def rule_for(features: set[str]) -> str:
    """Return the origin of the rule that unequal states break."""
    for feature, origin in FEATURE_RULES.items():
        if feature in features:
            return origin
    return PLAIN


def rules_about(features: set[str]) -> set[str]:
    """Return the origins of all rules that equal states speak for."""
    special = {FEATURE_RULES[each] for each in features if each in FEATURE_RULES}
    return special | {PLAIN, *_ALWAYS}


@dataclass(slots=True, kw_only=True)
class Stream:
    """The chunks of one saving session, in their order.

    ``is_complete`` once pending_bytes read 0 in stop-and-copy.  ``snapshot`` is the
    digest of the device's state when it had stopped, ``None`` where it tells none.
    """

    chunks: list[bytes] = field(default_factory=list)
    size: int = 0
    is_complete: bool = False
    is_tainted: bool = False
    snapshot: str | None = None
    features: set[str] = field(default_factory=set)
    precopied: int = 0
    precopied_size: int = 0
    has_precopy: bool = False

    def append(self, chunk: bytes, *, running: bool) -> None:
        """Add the next chunk."""
        self.chunks.append(chunk)
        self.size += len(chunk)
        if running:
            self.precopied += 1
            self.precopied_size += len(chunk)

    @property
    def is_evidence(self) -> bool:
        """Whether it must restore the device."""
        return self.is_complete and not self.is_tainted
