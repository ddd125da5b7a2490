"""Transactions of XenStore: the open ones, and the ids that say what conflicts.

Each has the id that the main tree had when it began.  That id moves when the tree
changes, but only if a transaction was begun since it last did; so a commit needs to
compare two numbers.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.uapi.xen_xs_wire import XBT_NULL, XS_MAX_TRANSACTIONS
from vfiomig.vm.xen.xenstore_rules import refuse
from vfiomig.vm.xen.xenstore_stream import SavedTransaction

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vfiomig.vm.xen.xenstore_tree import Tree

_IDS: Final = 1 << 32


class Transaction(NamedTuple):
    """A tree of its own, begun when the main one had the id ``base``."""

    domid: int
    base: int
    tree: Tree


class Transactions:
    """The open transactions by id.

    ``root_tx`` is the main tree's id, ``last_tx`` the last one that was given out.
    ``anybodys``: QEMU lets a domain work in another's.
    """

    def __init__(self, *, anybodys: bool) -> None:
        self.root_tx = 1
        self.last_tx = 1
        self._anybodys = anybodys
        self._open: dict[int, Transaction] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, domid: int, main: Tree) -> int:
        """Open a transaction on what ``main`` is now.  Raises ``OSError``, ENOSPC."""
        own = sum(each.domid == domid for each in self._open.values())
        if domid and own >= XS_MAX_TRANSACTIONS:
            refuse(errno.ENOSPC, f"{own} transactions are open")
        new = self._next_id()
        self._open[new] = Transaction(domid, self.root_tx, main.snapshot())
        return new

    def tree(self, domid: int, tx: int) -> Tree:
        """Return the tree of a transaction.  Raises ``OSError``, ENOENT."""
        found = self._open.get(tx)
        if found is None or not (self._anybodys or found.domid == domid):
            refuse(errno.ENOENT, f"transaction {tx} is not open")
        return found.tree

    def end(self, domid: int, tx: int) -> Transaction:
        """Close a transaction and return it.  Raises ``OSError``, ENOENT."""
        found = self._open.get(tx)
        if found is None or found.domid != domid:
            refuse(errno.ENOENT, f"transaction {tx} is not open")
        return self._open.pop(tx)

    def abort_all(self, domid: int) -> None:
        """Close all that a domain has open."""
        self._open = {n: each for n, each in self._open.items() if each.domid != domid}

    def conflicts(self, transaction: Transaction) -> bool:
        """Tell whether the main tree changed since a transaction began."""
        return transaction.base != self.root_tx

    def main_changed(self) -> None:
        """Give the main tree a new id, if a transaction may have the old one."""
        if self.root_tx != self.last_tx:
            self.root_tx = self._next_id()

    def to_save(self) -> list[SavedTransaction]:
        """Return them all."""
        return [
            SavedTransaction(tx, each.base, each.domid, each.tree)
            for tx, each in self._open.items()
        ]

    def replace(
        self, last_tx: int, root_tx: int, saved: Iterable[SavedTransaction]
    ) -> None:
        """Become what was saved."""
        self.last_tx, self.root_tx = last_tx, root_tx
        self._open = {
            each.tx: Transaction(each.domid, each.base, each.tree) for each in saved
        }

    def _next_id(self) -> int:
        """Return an id that nobody has, nor began with in an earlier round of ids."""
        used = {XBT_NULL, self.root_tx, *self._open}
        if not self._anybodys:
            used.update(each.base for each in self._open.values())
        new = (self.last_tx + 1) % _IDS
        while new in used:
            new = (new + 1) % _IDS
        for tx, each in self._open.items():
            if each.base == new:  # QEMU forgets the base, which then ends its list
                self._open[tx] = each._replace(base=XBT_NULL)
        self.last_tx = new
        return new
