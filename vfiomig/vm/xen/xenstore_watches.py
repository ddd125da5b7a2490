"""Watches of XenStore: who wants to hear of a path, and what they have not yet heard.

Rule 1: watches lie under their absolute path, in a list: the first that was
registered, then the newest to the oldest.

Rule 2: a change fires the watches on its path, then those on the paths above it, from
the top of the tree on.  A watch on the root, or on a path that ends with a slash, is
fired when it is registered and never again: no change has such a path.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from vfiomig.vm.xen.xenstore_rules import absolute, as_text, home, refuse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vfiomig.vm.xen.xenstore_rules import Text
    from vfiomig.vm.xen.xenstore_tree import Changed


class Watch(NamedTuple):
    """A watch; ``prefix`` is how much of an absolute path its events leave out."""

    domid: int
    token: str
    prefix: int


class WatchEvent(NamedTuple):
    """What a watch says: the path that changed, as the watcher writes it."""

    path: str
    token: str


class Watches:
    """The watches of all domains, and the events that wait for each domain.

    ``only_heads``: QEMU removes and saves the first of a path's watches alone.
    """

    def __init__(self, limit: int, *, only_heads: bool) -> None:
        self._limit = limit
        self._only_heads = only_heads
        self._at: dict[str, list[Watch]] = {}
        self._events: dict[int, deque[WatchEvent]] = {}

    def add(
        self, domid: int, path: Text, token: Text, *, slash: bool, first: bool = True
    ) -> None:
        """Register a watch; ``first``: it fires at once.

        Raises ``OSError``: EINVAL or E2BIG of the path, EINVAL of a NUL in the token,
        EEXIST, E2BIG of the quota.
        """
        said, word = as_text(path), as_text(token)
        if "\0" in word:
            refuse(errno.EINVAL, "a token with a NUL in it")
        where = absolute(said, domid, slash_may_end=slash)
        prefix = 0 if said.startswith("/") else len(home(domid))
        watches = self._at.get(where, [])
        if any((each.domid, each.token) == (domid, word) for each in watches):
            refuse(errno.EEXIST, f"{where} is watched with that token")
        if domid and self.count(domid) >= self._limit:
            refuse(errno.E2BIG, f"a domain has at most {self._limit} watches")
        self._at.setdefault(where, watches).insert(1, Watch(domid, word, prefix))
        if first:
            self._queue(domid).append(WatchEvent(said, word))

    def remove(self, domid: int, path: Text, token: Text, *, slash: bool) -> None:
        """Take a watch back.

        Raises ``OSError``: EINVAL or E2BIG of the path, ENOENT.
        """
        where = absolute(as_text(path), domid, slash_may_end=slash)
        watches = self._at.get(where, [])
        for number, each in enumerate(watches[:1] if self._only_heads else watches):
            if (each.domid, each.token) == (domid, as_text(token)):
                del watches[number]
                break
        else:
            refuse(errno.ENOENT, f"{where} is not watched with that token")
        if not watches:
            del self._at[where]

    def remove_all(self, *, of: int | None = None) -> None:
        """Take back all watches of a domain; without one, all but domain 0's."""
        kept = {
            where: [
                w for w in some if (w.domid != of if of is not None else not w.domid)
            ]
            for where, some in self._at.items()
        }
        self._at = {where: some for where, some in kept.items() if some}

    def count(self, domid: int) -> int:
        """Return how many a domain has."""
        return sum(w.domid == domid for some in self._at.values() for w in some)

    def fire(self, changes: Iterable[Changed]) -> None:
        """Queue the events of changes that were made."""
        for path, above in changes:
            if not self._at:
                continue  # the changes are to be made all the same
            self._fire_at(path, path)
            if above:
                self._fire_above(path)

    def _fire_above(self, path: str) -> None:
        slash = path.find("/", 1)
        while slash > 0:
            self._fire_at(path[:slash], path)
            slash = path.find("/", slash + 1)

    def _fire_at(self, where: str, path: str) -> None:
        for each in self._at.get(where, ()):
            event = WatchEvent(path[each.prefix :], each.token)
            self._queue(each.domid).append(event)

    def _queue(self, domid: int) -> deque[WatchEvent]:
        return self._events.setdefault(domid, deque())

    def events(self, domid: int) -> tuple[WatchEvent, ...]:
        """Return the events that wait for a domain, and leave them."""
        return tuple(self._events.get(domid, ()))

    def next_event(self, domid: int) -> WatchEvent | None:
        """Take the event that waited longest for a domain."""
        queue = self._events.get(domid)
        return queue.popleft() if queue else None

    def replace_events(self, domid: int, events: Iterable[WatchEvent]) -> None:
        """Let these wait for a domain, in place of those that do."""
        self._events[domid] = deque(events)

    def to_save(self, domid: int) -> Iterator[WatchEvent]:
        """Yield a domain's watches, so that to add them in turn keeps their order."""
        for where, some in self._at.items():
            if self._only_heads:
                own = [each for each in some[:1] if each.domid == domid]
            else:
                own = [each for each in some if each.domid == domid]
            for each in (*own[:1], *reversed(own[1:])):
                yield WatchEvent(where[each.prefix :], each.token)
