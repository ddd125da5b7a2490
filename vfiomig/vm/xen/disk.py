"""A disk's back end: it meets a front end through the store, and answers its requests.

Rule 1: it keeps nothing that moves.  Made anew on the other side, it watches the front
end's state; the watch fires, and what the store and the ring say is all that it needs.

Rule 2: the two ends step through `XenbusState` in turns.  Each writes its own, and
looks at the other's when the store says that it changed.

Rule 3: the front end's nodes are the guest's to write, or to remove.  A state that is
none is `XenbusState.UNKNOWN`; with a ring or a port that is none they do not meet.

The ring is one page of the guest's: ``req_prod`` and ``rsp_prod``, which count requests
and responses for ever, modulo 2**32 (Xen's ring.h).  What is read or written is of no
concern here.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.ram_block import PAGE_SIZE
from vfiomig.vm.xen.ports import HostEnd
from vfiomig.vm.xen.toolstack import DISK, back_end_of
from vfiomig.vm.xen.xenstore_rules import home

if TYPE_CHECKING:
    from vfiomig.vm.memory import GuestMemory
    from vfiomig.vm.xen.host import XenHost

_TOKEN: Final = "back-end"
_MOST: Final = 1 << 32


class XenbusState(enum.IntEnum):
    """Where an end of a device is (Xen's io/xenbus.h)."""

    UNKNOWN = 0
    INITIALISING = 1
    INIT_WAIT = 2
    INITIALISED = 3
    CONNECTED = 4
    CLOSING = 5
    CLOSED = 6


class DiskRing:
    """The page that both ends count in; ``gpa`` is its address."""

    def __init__(self, memory: GuestMemory, gpa: int, user: LogUser) -> None:
        self._memory, self._user = memory, user
        self._block, self._offset, _ = memory.pieces(gpa, PAGE_SIZE)[0]
        page = self._block.view[self._offset : self._offset + PAGE_SIZE]
        self._words = page.cast("I")

    @property
    def requests(self) -> int:
        """How many requests were made."""
        return self._words[_REQ_PROD]

    @property
    def responses(self) -> int:
        """How many of them were answered."""
        return self._words[_RSP_PROD]

    def add_requests(self, count: int) -> None:
        """Make requests."""
        self._put(_REQ_PROD, self.requests + count)

    def add_response(self) -> None:
        """Answer one."""
        self._put(_RSP_PROD, self.responses + 1)

    def clear(self) -> None:
        """Begin anew."""
        self._put(_REQ_PROD, 0)
        self._put(_RSP_PROD, 0)

    def _put(self, index: int, value: int) -> None:
        self._words[index] = value % _MOST
        self._memory.mark(self._user, self._block, self._offset, PAGE_SIZE)


_REQ_PROD: Final = 0  # req_event is between them
_RSP_PROD: Final = 2


class DiskBackEnd:
    """The host's end of the guest's disk; ``connections`` counts how often they met."""

    def __init__(self, host: XenHost) -> None:
        self.connections = 0
        self._host = host
        self._store = host.store
        self._end = HostEnd()
        self._ring: DiskRing | None = None
        self._own = back_end_of(host.store.domid)
        self._front = home(host.store.domid) + DISK
        host.store.watch(0, 0, f"{self._front}/state", _TOKEN)

    @property
    def is_connected(self) -> bool:
        """Whether it answers requests."""
        return self._ring is not None

    def forget(self) -> None:
        """Have met nobody: the table of ports comes, and the store."""
        self._host.ports.forget(self._end)
        self._ring = None

    def look(self) -> bool:
        """Do what the store says is due; tell whether it said anything."""
        is_told = False
        while (event := self._store.next_event(0)) is not None:
            is_told |= event.token == _TOKEN
        if is_told:
            self._follow()
        return is_told

    def answer(self) -> bool:
        """Answer a request, if there is one, and tell the guest; tell if there was."""
        ring = self._ring
        if ring is None or ring.requests == ring.responses:
            return False
        ring.add_response()
        self._host.ports.notify(self._end)
        return True

    def _follow(self) -> None:
        """Take the step that the front end's state asks for."""
        front, own = self._state(self._front), self._state(self._own)
        if front in (XenbusState.INITIALISED, XenbusState.CONNECTED):
            if self._ring is None and not self._connect():
                return
            if own != XenbusState.CONNECTED:
                self._say(XenbusState.CONNECTED)
        elif front == XenbusState.INITIALISING:
            self._disconnect()
            if own != XenbusState.INIT_WAIT:
                self._say(XenbusState.INIT_WAIT)
        elif front in _GONE:
            self._disconnect()
            if front == XenbusState.CLOSING or own != XenbusState.CLOSED:
                self._say(XenbusState.CLOSED)

    def _connect(self) -> bool:
        """Meet the front end, if its nodes say where; tell whether they did."""
        frame = self._number(f"{self._front}/ring-ref")
        port = self._number(f"{self._front}/event-channel")
        if frame is None or port is None:
            return False
        memory = self._host.memory
        try:
            ring = DiskRing(memory, frame * PAGE_SIZE, LogUser.MIGRATION)
            self._host.ports.bind(self._end, port)
        except OSError:  # no RAM is there, or no such port waits
            return False
        self._ring = ring
        self.connections += 1
        return True

    def _disconnect(self) -> None:
        self._host.ports.unbind(self._end)
        self._ring = None

    def _state(self, path: str) -> int:
        return self._number(f"{path}/state") or XenbusState.UNKNOWN

    def _say(self, state: XenbusState) -> None:
        self._store.write(0, 0, f"{self._own}/state", b"%d" % state)

    def _number(self, path: str) -> int | None:
        """Return the number of 32 bits that a node holds, if it does."""
        try:
            text = self._store.read(0, 0, path)
        except FileNotFoundError:
            return None
        if not text.isdigit() or len(text) > _DIGITS:
            return None
        return int(text)


_DIGITS: Final = 10  # of a number of 32 bits
_GONE: Final = (XenbusState.UNKNOWN, XenbusState.CLOSING, XenbusState.CLOSED)
