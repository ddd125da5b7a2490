"""Reading a store as QEMU migrates it; `xenstore_stream` draws the form.

Rule 1: nothing is made that the data does not hold, and no more than `_MOST_NODES`.  A
reference shares its node; to find it takes as many steps as its path has names, 1,536
at most.

Rule 2: what is read is complete before anybody sees it.

Rule 3: what no store ever wrote is refused, harmless or not: a name twice, a
transaction's changes in a node that it shares, a live node below a deleted one.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream.cursor import decode_text
from vfiomig.uapi.xen_xs_wire import XBT_NULL, XENSTORE_ABS_PATH_MAX
from vfiomig.vm.xen.xenstore_rules import NAME, are_permissions
from vfiomig.vm.xen.xenstore_stream import (
    DELETED,
    MODIFIED,
    REFERENCE,
    SavedStore,
    SavedTransaction,
)
from vfiomig.vm.xen.xenstore_tree import Node, Tree
from vfiomig.vm.xen.xenstore_watches import WatchEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.vm.xen.xenstore_rules import Perms

_U32: Final = struct.Struct(">I")
# A guest may have 1,000, and as many in each of ten transactions.
_MOST_NODES: Final = 1 << 16
_MATCHES: Final = 16  # more trees than a guest's transactions and the main one
_HEAD: Final = struct.Struct(">BI")  # flags, and a length or an id


def read_store(data: bytes | memoryview, *, sees_deleted: bool = False) -> SavedStore:
    """Return the store that ``data`` is, all of it.

    Raises ``StreamError`` for anything else.
    """
    return _StoreReader(bytes(data), sees_deleted=sees_deleted).store()


def read_events(data: bytes | memoryview) -> list[WatchEvent]:
    """Return the pairs that `write_events` wrote.  Raises ``StreamError``."""
    reader = _Reader(bytes(data))
    events = [event for event, _ in reader.pairs("an event")]
    reader.end()
    return events


class _Reader:
    """Takes numbers and texts from ``data`` in turn."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def error(self, reason: str, position: int | None = None) -> StreamError:
        where = self.position if position is None else position
        return StreamError(reason, position=where)

    def cut(self, what: str) -> StreamError:
        return self.error(f"the store ends within {what}", len(self.data))

    def take(self, size: int, what: str) -> bytes:
        began = self.position
        if size > len(self.data) - began:
            raise self.cut(what)
        self.position += size
        return self.data[began : self.position]

    def be32(self, what: str) -> int:
        return int(_U32.unpack(self.take(4, what))[0])

    def asciiz(self, what: str) -> bytes:
        began = self.position
        end = self.data.find(b"\0", began)
        if end < 0:
            raise self.cut(what)
        self.position = end + 1
        return self.data[began:end]

    def pairs(self, what: str) -> Iterator[tuple[WatchEvent, int]]:
        """Yield paths and tokens, to the empty path, and where each begins."""
        began = self.position
        while path := self.asciiz(what):
            token = self.asciiz(what)
            yield WatchEvent(decode_text(path), decode_text(token)), began
            began = self.position

    def end(self) -> None:
        left = len(self.data) - self.position
        if left:
            raise self.error(f"{left} bytes behind the end of the store")


class _Row:
    """A node that is being read: its children follow.

    ``matches`` has the nodes of the same path in other trees, as far as looked up.
    """

    __slots__ = ("length", "matches", "name", "node", "size")

    def __init__(self, node: Node, name: str, length: int) -> None:
        self.node = node
        self.name = name
        self.length = length  # of its path
        self.size = 0 if node.deleted else 1  # nodes that exist, itself included
        self.matches: dict[int, Node | None] = {}


class _StoreReader(_Reader):
    """Reads the trees, keeping by id those that references may name."""

    def __init__(self, data: bytes, *, sees_deleted: bool) -> None:
        super().__init__(data)
        self._sees_deleted = sees_deleted
        self._roots: dict[int, Node] = {}
        self._sizes: dict[Node, int] = {}
        self._names: dict[bytes, str] = {}
        self._perms_of: dict[bytes, Perms] = {}
        self._last_tx = 0
        self._made = 0

    def store(self) -> SavedStore:
        self._last_tx = self.be32("the last transaction's id")
        root_tx, tree = self._tree(None)
        transactions = []
        while base := self.be32("a transaction"):
            domid = self.be32("a transaction's domain")
            token = object()
            tx, own = self._tree(token)
            own.owner = token
            transactions.append(SavedTransaction(tx, base, domid, own))
        pairs = list(self.pairs("a watch"))
        self.end()
        watches = [watch for watch, _ in pairs]
        positions = tuple(began for _, began in pairs)
        return SavedStore(
            self._last_tx, root_tx, tree, transactions, watches, positions
        )

    def _tree(self, owner: object) -> tuple[int, Tree]:
        """Return a tree and its id; the main one, which is nobody's, is read first."""
        began = self.position
        tx = self.be32("a tree's id")
        if not XBT_NULL < tx <= self._last_tx or tx in self._roots:
            reason = f"a tree of the id {tx}, where the last was {self._last_tx}"
            raise self.error(reason, began)
        root, size = self._nodes(owner)
        self._roots[tx] = root
        return tx, Tree(root, size, sees_deleted=self._sees_deleted)

    def _nodes(self, owner: object) -> tuple[Node, int]:
        """Return the root of a tree, and the nodes in it that exist."""
        began = self.position
        root = self._head(owner)
        if not isinstance(root, Node):
            shared = self._shared([], "", root, began)
            return shared, self._sizes[shared]
        if owner is None and root.deleted:
            raise self.error("the root is deleted", began)
        rows = [_Row(root, "", 0)]
        size = 0
        while rows:
            began = self.position
            name = self.asciiz("a name")
            if name:
                self._child(owner, rows, name, began)
                continue
            row = rows.pop()
            size = self._sizes[row.node] = row.size
            if rows:
                rows[-1].size += size
            if rows and owner is None and row.node.deleted:
                del rows[-1].node.children[row.name]  # the main tree is committed
        return root, size

    def _child(self, owner: object, rows: list[_Row], name: bytes, began: int) -> None:
        """Read a child of the last row; it becomes a row if its children follow."""
        parent = rows[-1]
        text = self._names.get(name) or self._name(name, began)
        length = parent.length + 1 + len(text)
        if length > XENSTORE_ABS_PATH_MAX:
            raise self.error(f"a path of {length} characters", began)
        if text in parent.node.children:
            raise self.error(f"two nodes of the name {text!r}", began)
        node = self._head(owner)
        if not isinstance(node, Node):
            node = self._shared(rows, text, node, began)
            parent.size += self._sizes[node]
        elif self.data[self.position : self.position + 1] == b"\0" and not node.deleted:
            self.position += 1  # no children follow: the most of all nodes
            self._sizes[node] = 1
            parent.size += 1
        else:
            rows.append(_Row(node, text, length))
        if parent.node.deleted and parent.name and not node.deleted:
            raise self.error("a node that exists below one that is deleted", began)
        parent.node.children[text] = node

    def _head(self, owner: object) -> Node | int:
        """Return a node, without its children, or the id of the tree that has it."""
        began = self.position
        head = self.data[began : began + _HEAD.size]
        if len(head) < _HEAD.size:
            raise self.cut("a node")
        flags, number = _HEAD.unpack(head)
        self.position = began + _HEAD.size
        if flags == REFERENCE:
            return int(number)
        if flags & ~(MODIFIED | DELETED):
            raise self.error(f"flags {flags:#x} of a node", began)
        self._made += 1
        if self._made > _MOST_NODES:
            raise self.error(f"more than {_MOST_NODES} nodes", began)
        content = self.take(number, "a content") if number else None
        node = Node(self._perms(), owner, content)
        if flags:
            node.deleted = bool(flags & DELETED)
            node.modified = owner is not None and bool(flags & MODIFIED)
        return node

    def _name(self, name: bytes, began: int) -> str:
        text = decode_text(name)
        if not NAME.fullmatch(text):
            raise self.error(f"no name of a node: {text[:80]!r}", began)
        self._names[name] = text
        return text

    def _perms(self) -> Perms:
        began = self.position
        end = self.data.find(b"\0\0", began)
        if end < 0:
            raise self.cut("permissions")
        packed = self.data[began:end]
        self.position = end + 2
        known = self._perms_of.get(packed)
        if known is None:
            known = tuple(decode_text(packed).split("\0"))
            if not are_permissions(known):
                raise self.error(f"no permissions: {packed[:80]!r}", began)
            self._perms_of[packed] = known
        return known

    def _shared(self, rows: list[_Row], name: str, tx: int, began: int) -> Node:
        """Return the node of this path in an earlier tree, now nobody's to change.

        ``rows`` lead to its parent; without any it is the root.
        """
        node = self._roots.get(tx)
        if node is not None and rows:
            parent = self._counterpart(rows, tx, node)
            node = parent.children.get(name) if parent else None
        if node is None:
            raise self.error(f"a reference to what tree {tx} does not have", began)
        shared = [node]
        while shared:
            each = shared.pop()
            if each.owner is None:
                continue  # and so is all below it
            if each.modified or each.deleted:
                raise self.error(f"a reference to a change in tree {tx}", began)
            each.owner = None
            shared += each.children.values()
        return node

    def _counterpart(self, rows: list[_Row], tx: int, root: Node) -> Node | None:
        """Return the node of the last row's path in another tree."""
        depth = len(rows) - 1
        while depth and tx not in rows[depth].matches:
            depth -= 1
        node = rows[depth].matches[tx] if depth else root
        for row in rows[depth + 1 :]:
            node = node.children.get(row.name) if node else None
            if len(row.matches) == _MATCHES:
                row.matches.clear()
            row.matches[tx] = node
        return node
