"""Times that a host writes while the guest reads them.

Rule 1: what the host writes begins and ends with the version: an odd one is being
written.  Who reads looks at the version before and after, and reads again if it was odd
or is another.  A version that was left odd (its writer was moved away) becomes another
odd one first.

Rule 2: runstate has no version, but a bit of state_entry_time that says the same.

All is written by compare-and-swap (`Frame`), word by word.  Addresses of a structure
are guest physical; it lies in one page.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
from typing import TYPE_CHECKING, Final, TypeVar

from vfiomig.uapi import xen
from vfiomig.vm.ram_block import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vfiomig.vm.xen.guest_page import Frame
    from vfiomig.vm.xen.shared_info import Layout

    Versioned = TypeVar(
        "Versioned",
        xen.pvclock_vcpu_time_info,
        xen.pvclock_wall_clock,
        xen.kvm_steal_time,
    )

_WORD: Final = 4  # all of them are of 4-byte words, and aligned to no more for 32 bits
_TRIES: Final = 1 << 16  # until a reader gives up
_UPDATE_HIGH: Final = xen.XEN_RUNSTATE_UPDATE >> 32


def write_versioned(frame: Frame, offset: int, value: Versioned) -> int:
    """Write a structure that has a version; return the one it has now.

    ``value.version`` is not looked at: the version goes on from what is there.

    Raises:
        OSError: EINVAL for an offset that is no multiple of 4, or from where on it
            does not fit in the page; EAGAIN as `Frame`.
    """
    kind = type(value)
    _check(offset, kind)
    place = offset + kind.version.offset
    words = [(offset + at, word) for at, word in _words(value) if offset + at != place]
    return _write(frame, place, words)


def read_versioned(frame: Frame, offset: int, kind: type[Versioned]) -> Versioned:
    """Read a structure as a guest does, all of one version.

    Raises:
        OSError: EINVAL as `write_versioned`; EAGAIN if it was being written all the
            time.
    """
    _check(offset, kind)
    place = offset + kind.version.offset
    for _ in range(_TRIES):
        version = frame.load(place, _WORD)
        if version & 1:
            continue
        found = _read(frame, offset, kind)
        if frame.load(place, _WORD) == version:
            return kind.from_buffer_copy(found)
    message = f"{kind.__name__} at {offset:#x} of its page is being written for good"
    raise OSError(errno.EAGAIN, message)


def write_wall_clock(frame: Frame, layout: Layout, nanoseconds: int) -> None:
    """Write shared_info's wall clock: nanoseconds since 1970 at system_time 0.

    Raises ``OSError``: EINVAL for a time that 64 bits of seconds do not hold.
    """
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    if not 0 <= seconds < 1 << 64:
        message = f"{nanoseconds} ns are no time of a wall clock"
        raise OSError(errno.EINVAL, message)
    low, high = seconds & 0xFFFF_FFFF, seconds >> 32
    place = layout.wall_clock
    # Not `write_versioned`: the upper half is elsewhere, and of the same version.
    words = [
        (layout.wall_clock_high, high),
        (place + xen.pvclock_wall_clock.sec.offset, low),
        (place + xen.pvclock_wall_clock.nsec.offset, rest),
    ]
    _write(frame, place, words)


def read_wall_clock(frame: Frame, layout: Layout) -> int:
    """Read it as a guest does; raises as `read_versioned`."""
    for _ in range(_TRIES):
        high = frame.load(layout.wall_clock_high, _WORD)
        found = read_versioned(frame, layout.wall_clock, xen.pvclock_wall_clock)
        # The upper half was read first: it is of this version if that has not
        # changed since, which another look at both tells.
        again = frame.load(layout.wall_clock_high, _WORD)
        if again == high and frame.load(layout.wall_clock, _WORD) == found.version:
            return (high << 32 | int(found.sec)) * 1_000_000_000 + int(found.nsec)
    message = "the wall clock is being written for good"
    raise OSError(errno.EAGAIN, message)


class Runstate:
    """How long a vCPU was in which state, as the host keeps it and writes it.

    ``now`` is always the guest's time in nanoseconds, and never goes back.
    """

    def __init__(self, layout: Layout, now: int, state: int = xen.RUNSTATE_running):
        self.layout = layout
        self.state = state
        self.entered = now
        self.times = [0] * 4

    def enter(self, state: int, now: int) -> None:
        """Let the vCPU be in another state (``RUNSTATE_...``).

        Raises ``OSError(EINVAL)`` for a state that is none, or a time before the last.
        """
        if not xen.RUNSTATE_running <= state <= xen.RUNSTATE_offline:
            message = f"{state} is no runstate"
            raise OSError(errno.EINVAL, message)
        if now < self.entered:
            message = f"{now} ns are before {self.entered} ns, the last change"
            raise OSError(errno.EINVAL, message)
        self.times[self.state] += now - self.entered
        self.state, self.entered = state, now

    @property
    def stolen(self) -> int:
        """Nanoseconds in which it wanted to run, or was taken off, and did not."""
        return self.times[xen.RUNSTATE_runnable] + self.times[xen.RUNSTATE_offline]

    def write(self, frame: Frame, offset: int) -> None:
        """Write it for the guest; raises as `write_versioned`."""
        kind = self.layout.runstate
        _check(offset, kind)
        value = kind(self.state, self.entered, tuple(self.times))
        high = offset + _entry_high(kind)
        words = dict(_words(value))
        frame.exchange(high, _WORD, words[high - offset] | _UPDATE_HIGH)
        for at, word in words.items():
            if offset + at != high:
                frame.exchange(offset + at, _WORD, word)
        frame.exchange(high, _WORD, words[high - offset])


def read_runstate(frame: Frame, offset: int, layout: Layout) -> tuple[int, ...]:
    """Read runstate as a guest does: state, when it was entered, the four times.

    Raises as `read_versioned`.
    """
    kind = layout.runstate
    _check(offset, kind)
    high = offset + _entry_high(kind)
    for _ in range(_TRIES):
        before = frame.load(high, _WORD)
        if before & _UPDATE_HIGH:
            continue
        low = frame.load(high - _WORD, _WORD)
        found = kind.from_buffer_copy(_read(frame, offset, kind))
        # Times grow, so that the same time of entry is the same record.
        if (frame.load(high, _WORD), frame.load(high - _WORD, _WORD)) == (before, low):
            return (int(found.state), int(found.state_entry_time), *found.time)
    message = f"runstate at {offset:#x} of its page is being written for good"
    raise OSError(errno.EAGAIN, message)


def _entry_high(kind: type[ctypes.Structure]) -> int:
    """Return where the upper half of state_entry_time is."""
    offset: int = kind.state_entry_time.offset
    return offset + _WORD


def _write(frame: Frame, version: int, words: Iterable[tuple[int, int]]) -> int:
    """Write (offset, word)s between two writes of the version; return the new one."""
    # KVM: (version + 1) | 1, so that an odd one becomes the next odd one.
    odd = (frame.load(version, _WORD) + 1 | 1) & 0xFFFF_FFFF
    frame.exchange(version, _WORD, odd)
    for at, word in words:
        frame.exchange(at, _WORD, word)
    even = odd + 1 & 0xFFFF_FFFF
    frame.exchange(version, _WORD, even)
    return even


def _check(offset: int, kind: type[ctypes.Structure]) -> None:
    if offset % _WORD or not 0 <= offset <= PAGE_SIZE - ctypes.sizeof(kind):
        message = f"no {kind.__name__} can be at {offset:#x} of a page"
        raise OSError(errno.EINVAL, message)


def _words(value: ctypes.Structure) -> list[tuple[int, int]]:
    """Return (offset, word) of all of a structure."""
    words = memoryview(bytes(value)).cast("I")
    return list(zip(itertools.count(0, _WORD), words, strict=False))


def _read(frame: Frame, offset: int, kind: type[ctypes.Structure]) -> bytes:
    words = (
        frame.load(offset + at, _WORD) for at in range(0, ctypes.sizeof(kind), _WORD)
    )
    return b"".join(word.to_bytes(_WORD, "little") for word in words)
