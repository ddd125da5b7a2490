"""The store as QEMU migrates it, ``impl_state``: no magic, no version, no length.

::

    store        last_tx tree transaction* 00000000 watch* 00
    tree         tx_id node
    transaction  base_tx domid tree                     base_tx is never 0
    node         04 tx_id                               the one here in that tree
                 flags len content (perm 00)+ 00 (name 00 node)* 00
    watch        path 00 token 00

Numbers are be32, flags a byte: 1 modified, 2 deleted, in this transaction.  From QEMU's
hw/i386/kvm/xenstore_impl.c, 10.0.

Rule: a node that two trees share is written once, under the first of them, and is a
reference under the others.
"""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream.cursor import encode_text
from vfiomig.uapi.xen_xs_wire import XBT_NULL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vfiomig.vm.xen.xenstore_rules import Perms
    from vfiomig.vm.xen.xenstore_tree import Node, Tree
    from vfiomig.vm.xen.xenstore_watches import Watches, WatchEvent

_U32: Final = struct.Struct(">I")
_HEAD: Final = struct.Struct(">BI")
MODIFIED: Final = 1
DELETED: Final = 2
REFERENCE: Final = 4
_REFERENCE_BYTE: Final = bytes([REFERENCE])


class SavedTransaction(NamedTuple):
    """An open transaction."""

    tx: int
    base: int
    domid: int
    tree: Tree


class SavedStore(NamedTuple):
    """What a store is, but for domain 0's watches; ``watches`` are paths and tokens."""

    last_tx: int
    root_tx: int
    tree: Tree
    transactions: list[SavedTransaction]
    watches: list[WatchEvent]
    positions: tuple[int, ...] = ()  # of the watches, in the stream

    def add_watch(
        self, watches: Watches, domid: int, number: int, watch: WatchEvent
    ) -> None:
        """Register a watch that was read, or say what keeps it from that."""
        try:
            watches.add(domid, watch.path, watch.token, slash=True, first=False)
        except OSError as error:
            reason = f"a watch: {error.strerror}"
            raise StreamError(reason, position=self.positions[number]) from None


def write_store(saved: SavedStore) -> bytes:
    """Return the bytes of a store."""
    parts = [_U32.pack(saved.last_tx)]
    written: dict[Node, bytes] = {}
    _write_tree(parts, saved.root_tx, saved.tree.root, written)
    for each in saved.transactions:
        parts += (_U32.pack(each.base), _U32.pack(each.domid))
        _write_tree(parts, each.tx, each.tree.root, written)
    parts.append(_U32.pack(XBT_NULL))
    parts.append(write_events(saved.watches))
    return b"".join(parts)


def write_events(events: Iterable[WatchEvent]) -> bytes:
    """Return the bytes of pairs of a path and a token: watches, or their events."""
    pairs = [f"{path}\0{token}\0" for path, token in events]
    return encode_text("".join(pairs)) + b"\0"


def _write_tree(
    parts: list[bytes], tx: int, root: Node, written: dict[Node, bytes]
) -> None:
    """Add a tree; what was ``written`` already becomes a reference to where."""
    number = _U32.pack(tx)
    parts.append(number)
    if not _write_node(parts, root, number, written):
        return
    rows = [iter(root.children.items())]
    while rows:
        for name, node in rows[-1]:
            parts.append(f"{name}\0".encode())
            if _write_node(parts, node, number, written):
                rows.append(iter(node.children.items()))
                break
        else:
            rows.pop()
            parts.append(b"\0")


def _write_node(
    parts: list[bytes], node: Node, tx: bytes, written: dict[Node, bytes]
) -> bool:
    """Add a node without its children, and tell whether they are to follow."""
    before = written.setdefault(node, tx)
    if before is not tx:
        parts.append(_REFERENCE_BYTE + before)
        return False
    content = node.content or b""
    flags = node.modified * MODIFIED | node.deleted * DELETED
    parts += (_HEAD.pack(flags, len(content)), content, _perms_bytes(node.perms))
    return True


@functools.lru_cache(maxsize=256)
def _perms_bytes(perms: Perms) -> bytes:
    return "".join([f"{each}\0" for each in perms]).encode() + b"\0"
