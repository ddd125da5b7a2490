"""Drivers that obey every v1 rule, each as unusual as the rules permit.

The suite must not accuse any of them.  A class without arguments is a TARGET:
``vfiomig.vendor.conforming:MovingDataOffset``.
"""

from vfiomig.vendor.conforming.buffers import (
    DeadSpace,
    EmptyBuffers,
    MovingDataOffset,
    NothingInPreCopy,
    SingleByteBuffers,
)
from vfiomig.vendor.conforming.judging import (
    ErrorAtBadStream,
    JudgesAtTheEnd,
    JudgesEachBuffer,
)
from vfiomig.vendor.conforming.pending import (
    PendingIsBoolean,
    TickingClock,
    UndefinedOutsideSessions,
)
from vfiomig.vendor.conforming.requests import (
    AcceptsEveryArc,
    IgnoresStrangeWrites,
    RefusesOptionalArcs,
    RefusesStrangeWrites,
)
from vfiomig.vendor.conforming.several_areas import SeveralAreas
from vfiomig.vendor.conforming.stateless import NoDeviceState

__all__ = [
    "AcceptsEveryArc",
    "DeadSpace",
    "EmptyBuffers",
    "ErrorAtBadStream",
    "IgnoresStrangeWrites",
    "JudgesAtTheEnd",
    "JudgesEachBuffer",
    "MovingDataOffset",
    "NoDeviceState",
    "NothingInPreCopy",
    "PendingIsBoolean",
    "RefusesOptionalArcs",
    "RefusesStrangeWrites",
    "SeveralAreas",
    "SingleByteBuffers",
    "TickingClock",
    "UndefinedOutsideSessions",
]
