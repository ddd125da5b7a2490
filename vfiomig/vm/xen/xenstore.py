"""XenStore, as QEMU's emulation behaves: one guest, its host, and a tree of nodes.

Rule 1: every call is (domid, tx, path, ...): who asks, in which transaction (0: in
none), about what.  Domain 0 is the host, to which neither quotas nor permissions apply.

Rule 2: what is refused is an ``OSError`` with the errno that the wire names, and has
changed nothing.

Rule 3: a commit fails with EAGAIN if anything at all was changed since the transaction
began, by whoever and wherever.

Where QEMU 10.0 (hw/i386/kvm/xenstore_impl.c) has a known defect, this store has it only
with ``quirks="qemu"``.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Literal, NoReturn, Self, TypeAlias

from vfiomig.protocol.errors import StateError
from vfiomig.uapi.xen_xs_wire import (
    XBT_NULL,
    XS_MAX_DOMAIN_NODES,
    XS_MAX_NODE_SIZE,
    XS_MAX_PERMS_PER_NODE,
    XS_MAX_WATCHES,
)
from vfiomig.vm.xen.xenstore_reader import read_events, read_store
from vfiomig.vm.xen.xenstore_rules import (
    absolute,
    are_permissions,
    as_text,
    may_read,
    may_write,
    names_of,
    owner,
    path_of,
    refuse,
)
from vfiomig.vm.xen.xenstore_stream import (
    SavedStore,
    write_events,
    write_store,
)
from vfiomig.vm.xen.xenstore_transactions import Transactions
from vfiomig.vm.xen.xenstore_tree import Changed, Node, Tree, below
from vfiomig.vm.xen.xenstore_watches import Watches, WatchEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.vm.xen.xenstore_rules import Names, Text

Quirks: TypeAlias = Literal["qemu"] | None


class CrashError(StateError):
    """QEMU would have ended here: only a store with QEMU's quirks raises it."""


class XenStore:
    """The store of the guest ``domid``.

    Paths, tokens and permissions are text or bytes, and come back as text; contents are
    bytes.  ``quirks="qemu"`` behaves badly where QEMU does.
    """

    def __init__(self, domid: int, quirks: Quirks = None) -> None:
        if quirks not in (None, "qemu"):
            raise ValueError(f'quirks are "qemu" or none: {quirks!r}')
        self.domid = domid
        self.quirks = quirks
        self._qemu = quirks == "qemu"
        self._main = Tree(Node(("n0",)), 1, sees_deleted=self._qemu)
        self._transactions = Transactions(anybodys=self._qemu)
        self._watches = Watches(XS_MAX_WATCHES, only_heads=self._qemu)
        self._crashed = ""

    @property
    def nodes(self) -> int:
        """The nodes of the main tree, the root included, as the quota counts them."""
        return self._main.count

    @property
    def transactions(self) -> int:
        """The open transactions, of all domains."""
        return len(self._transactions)

    @property
    def watches(self) -> int:
        """The guest's watches."""
        return self._watches.count(self.domid)

    # What reads.

    def read(self, domid: int, tx: int, path: Text) -> bytes:
        """Return the content; empty if it has none.

        Raises ``OSError``: ENOENT, EACCES; as all that takes a path, EINVAL and E2BIG
        for one that is none or too long; as all that takes ``tx``, ENOENT for one that
        is not open.
        """
        return self._readable(domid, tx, path)[1].content or b""

    def directory(self, domid: int, tx: int, path: Text) -> list[str]:
        """Return the names of the children, sorted.  Raises as `read` does."""
        tree, node = self._readable(domid, tx, path)
        return tree.visible(node)

    def generation(self, domid: int, tx: int, path: Text) -> int:
        """Return how often children came or went; not saved.  Raises as `read`."""
        return self._readable(domid, tx, path)[1].generation

    def get_perms(self, domid: int, tx: int, path: Text) -> list[str]:
        """Return the permissions, the owner's first.  Raises as `read` does."""
        return list(self._readable(domid, tx, path)[1].perms)

    # What changes nodes.

    def write(self, domid: int, tx: int, path: Text, value: bytes) -> None:
        """Set the content; make the node, and those above it, if they do not exist.

        Raises ``OSError`` as `read`, but for ENOENT of the path; E2BIG for more than
        2,048 bytes, ENOSPC for node 1,001.
        """
        names, tree = self._place(domid, tx, path)
        if domid and len(value) > XS_MAX_NODE_SIZE:
            refuse(errno.E2BIG, f"a content of {len(value)} bytes")
        last, depth = tree.deepest(names)
        self._require_writable(domid, last, path)
        missing = len(names) - depth
        if domid and missing and tree.count + missing > XS_MAX_DOMAIN_NODES:
            refuse(errno.ENOSPC, f"there are {tree.count} nodes")
        node = tree.make(names)
        node.content = bytes(value)
        self._changed(tx, node, names)

    def mkdir(self, domid: int, tx: int, path: Text) -> None:
        """Make a node without content unless it exists.

        Raises ``OSError`` as `write`; EACCES for one that exists and cannot be read.
        QEMU answers that a failure was a success, and ends at a success.
        """
        try:
            self._make_directory(domid, tx, path)
        except OSError:
            if not self._qemu:
                raise
        else:
            if self._qemu:
                self._crash("MKDIR answered a success as an error")

    def _make_directory(self, domid: int, tx: int, path: Text) -> None:
        try:
            self.read(domid, tx, path)
        except FileNotFoundError:
            self.write(domid, tx, path, b"")

    def rm(self, domid: int, tx: int, path: Text) -> None:
        """Remove a node and all below it.

        Raises ``OSError`` as `read`; EINVAL for the root.
        """
        names, tree = self._place(domid, tx, path)
        self._require_writable(domid, self._existing(tree, names, path), path)
        if not names and not self._qemu:
            refuse(errno.EINVAL, "the root stays")
        if tx != XBT_NULL:
            tree.bury(names)
        elif names:
            self._watches.fire(tree.remove(names))
            self._transactions.main_changed()
        else:
            self._crashed = "RM removed the root"  # noticed by the next call

    def set_perms(self, domid: int, tx: int, path: Text, perms: Sequence[Text]) -> None:
        """Set the permissions.

        Raises ``OSError`` as `read`; EINVAL for what is no list of them, EPERM for a
        guest that is not the owner or names another one, ENOSPC for more than 5.
        """
        texts = tuple(as_text(each) for each in perms)
        if not are_permissions(texts):
            refuse(errno.EINVAL, f"no permissions: {texts[:6]!r}")
        names, tree = self._place(domid, tx, path)
        node = self._existing(tree, names, path)
        self._require_writable(domid, node, path)
        if domid and not domid == owner(node.perms) == owner(texts):
            refuse(errno.EPERM, f"an owner stays the owner: {as_text(path)[:80]}")
        if domid and len(texts) > XS_MAX_PERMS_PER_NODE:
            refuse(errno.ENOSPC, f"{len(texts)} permissions")
        node = tree.own(names)
        node.perms = texts
        self._changed(tx, node, names)

    # Watches.  They are registered and taken back at once, whatever ``tx`` is.

    def watch(self, domid: int, tx: int, path: Text, token: Text) -> None:
        """Register a watch, which fires once at once, with the path as it was given.

        Raises ``OSError``: EINVAL, E2BIG of the path, EEXIST, E2BIG for watch 129.
        """
        del tx
        self._require_alive()
        self._watches.add(domid, path, token, slash=self._qemu)

    def unwatch(self, domid: int, tx: int, path: Text, token: Text) -> None:
        """Take a watch back.  Raises ``OSError``: EINVAL, E2BIG of the path, ENOENT."""
        del tx
        self._require_alive()
        self._watches.remove(domid, path, token, slash=self._qemu)

    def reset_watches(self, domid: int, tx: int = XBT_NULL) -> None:
        """Take back all watches of a domain, and abort its transactions."""
        del tx
        self._require_alive()
        self._watches.remove_all(of=domid)
        if not self._qemu:
            self._transactions.abort_all(domid)

    def events(self, domid: int) -> tuple[WatchEvent, ...]:
        """Return the events that wait for a domain, the oldest first; they stay."""
        return self._watches.events(domid)

    def next_event(self, domid: int) -> WatchEvent | None:
        """Take the event that waited longest for a domain."""
        return self._watches.next_event(domid)

    # Transactions.

    def transaction_start(self, domid: int, tx: int = XBT_NULL) -> int:
        """Open a transaction and return its id.

        Raises ``OSError``: EINVAL inside another one, ENOSPC for a guest's eleventh.
        """
        self._require_alive()
        if tx != XBT_NULL:
            refuse(errno.EINVAL, "transactions do not nest")
        return self._transactions.begin(domid, self._main)

    def transaction_end(self, domid: int, tx: int, commit: bool) -> None:  # noqa: FBT001 -- the issue's signature
        """End a transaction: what it did happens at once, or not at all.

        Raises ``OSError``: ENOENT if it is not this domain's, EAGAIN if something else
        changed; it has ended then, too.
        """
        self._require_alive()
        ending = self._transactions.end(domid, tx)
        if not commit:
            return
        if self._transactions.conflicts(ending):
            refuse(errno.EAGAIN, f"the store changed since transaction {tx} began")
        self._main = ending.tree
        self._transactions.root_tx = tx
        self._watches.fire(self._main.commit(one_burial=self._qemu))

    # State that moves.

    def serialize(self) -> bytes:
        """Return the store as QEMU migrates it: what `load` takes."""
        self._require_alive()
        own = self._transactions
        saved = SavedStore(
            own.last_tx,
            own.root_tx,
            self._main,
            own.to_save(),
            list(self._watches.to_save(self.domid)),
        )
        return write_store(saved)

    @classmethod
    def deserialize(
        cls, data: bytes | memoryview, domid: int, quirks: Quirks = None
    ) -> Self:
        """Return the store that `serialize` wrote, or QEMU.

        Raises ``StreamError`` for anything else.
        """
        store = cls(domid, quirks)
        store.load(data)
        return store

    def load(self, data: bytes | memoryview) -> None:
        """Become the store that ``data`` holds; domain 0's watches stay, and fire.

        They fire for each node that has content or no children.  The guest's watches
        come with the data, and hear nothing.

        Raises ``StreamError``, having changed nothing.
        """
        saved = read_store(data, sees_deleted=self._qemu)
        watches = Watches(XS_MAX_WATCHES, only_heads=self._qemu)
        for number, each in enumerate(saved.watches):
            saved.add_watch(watches, self.domid, number, each)
        self._crashed = ""
        self._main = saved.tree
        self._transactions.replace(saved.last_tx, saved.root_tx, saved.transactions)
        self._watches.remove_all()
        self._fire_all()
        for path, token in saved.watches:
            self._watches.add(self.domid, path, token, slash=True, first=False)

    def serialize_events(self) -> bytes:
        """Return the events that wait for the guest; QEMU loses them.

        They have no place in what `serialize` returns, whose form is QEMU's.
        """
        return write_events(() if self._qemu else self.events(self.domid))

    def load_events(self, data: bytes | memoryview) -> None:
        """Let the events wait that `serialize_events` wrote, in place of any.

        Raises ``StreamError``, having changed nothing.
        """
        self._watches.replace_events(self.domid, read_events(data))

    def _fire_all(self) -> None:
        if not self._watches.count(0):
            return
        self._watches.fire(
            Changed(path, above=True)
            for path, node in below(self._main.root, "")
            if node.content or not node.children
        )

    # What the calls have in common.

    def _place(self, domid: int, tx: int, path: Text) -> tuple[Names, Tree]:
        """Return the names in a path, and the tree that a call is about."""
        self._require_alive()
        text = absolute(as_text(path), domid, slash_may_end=self._qemu)
        if tx == XBT_NULL:
            return names_of(text), self._main
        return names_of(text), self._transactions.tree(domid, tx)

    def _existing(self, tree: Tree, names: Names, path: Text) -> Node:
        node = tree.find(names)
        if node is None:
            refuse(errno.ENOENT, as_text(path)[:80])
        return node

    def _readable(self, domid: int, tx: int, path: Text) -> tuple[Tree, Node]:
        names, tree = self._place(domid, tx, path)
        node = self._existing(tree, names, path)
        if not may_read(domid, node.perms):
            refuse(errno.EACCES, f"domain {domid} may not read {as_text(path)[:80]}")
        return tree, node

    def _require_writable(self, domid: int, node: Node, path: Text) -> None:
        if not may_write(domid, node.perms):
            refuse(errno.EACCES, f"domain {domid} may not write {as_text(path)[:80]}")

    def _changed(self, tx: int, node: Node, names: Names) -> None:
        if tx != XBT_NULL:
            node.modified = True
            return
        self._watches.fire([Changed(path_of(names), above=True)])
        self._transactions.main_changed()

    def _require_alive(self) -> None:
        if self._crashed:
            self._crash(self._crashed)

    def _crash(self, reason: str) -> NoReturn:
        self._crashed = reason
        raise CrashError(f"QEMU ends here: {reason}", state="ended", required="running")
