"""The store of a Xen guest as lines: its tree, its transactions, its watches.

Of each list the first lines are shown and the others counted, unless all are wanted.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from vfiomig.frontends.plain_text import plain, quoted
from vfiomig.frontends.report.stream_words import counted, counted_watches
from vfiomig.frontends.stream_xenstore import (
    EVENTS_FIELD,
    STORE_FIELD,
    Change,
    nodes_in,
    steps_between,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vfiomig.frontends.stream_xenstore import Damage, Step, StoreView
    from vfiomig.vm.xen.xenstore_stream import SavedStore, SavedTransaction
    from vfiomig.vm.xen.xenstore_tree import Node
    from vfiomig.vm.xen.xenstore_watches import WatchEvent

_SHOWN: Final = 64  # lines of a list, and transactions
# A file may make its trees share so much that nobody would see the end of them.
_MOST: Final = 1 << 18
_INDENT: Final = "  "
_CONTENT: Final = 60  # bytes of a node that are shown


def store_lines(view: StoreView, *, everything: bool) -> dict[str, Iterator[str]]:
    """Return what is shown in place of the bytes of a field, by its name."""
    most = _MOST if everything else _SHOWN
    return {
        STORE_FIELD: _store_lines(view, most),
        EVENTS_FIELD: _events_lines(view, most),
    }


def _store_lines(view: StoreView, most: int) -> Iterator[str]:
    yield f"{STORE_FIELD}: a store of {counted(view.size, 'byte')}"
    store = view.store
    if view.store_damage is not None:
        yield _INDENT + _damage_words(view.store_damage)
    if store is None:
        return
    for line in itertools.chain(
        _tree_lines(store, most),
        _transaction_lines(store, most),
        (counted_watches(len(store.watches)),),
        _pairs(store.watches, most),
    ):
        yield _INDENT + line


def _events_lines(view: StoreView, most: int) -> Iterator[str]:
    if view.events_damage is not None:
        yield f"{EVENTS_FIELD}: {_damage_words(view.events_damage)}"
        return
    yield f"{EVENTS_FIELD}: {counted(len(view.events), 'watch event')} for the guest"
    yield from _pairs(view.events, most)


def _damage_words(damage: Damage) -> str:
    where = f"byte {damage.within:,} of it, byte {damage.position} of the stream"
    return f"damaged at {where}: {plain(damage.reason)}"


def _tree_lines(store: SavedStore, most: int) -> Iterator[str]:
    nodes = counted(store.tree.count, "node")
    yield f"tree {store.root_tx}: {nodes}; the last id given is {store.last_tx}"
    yield _INDENT + _node_words("/", store.tree.root)
    below = (
        _INDENT * (depth + 1) + _node_words(name, node)
        for depth, name, node in nodes_in(store.tree.root)
    )
    yield from _cut(below, store.tree.count - 1, most - 1, "node")


def _transaction_lines(store: SavedStore, most: int) -> Iterator[str]:
    """Tell of each transaction where its tree differs from the main one."""
    yield counted(len(store.transactions), "transaction")
    left = _MOST
    for each in store.transactions[:most]:
        walked, count = 0, 0
        for step in _steps(store, each, left):
            walked += 1
            count += step.change is not Change.NONE
        where = f"transaction {each.tx} of domain {each.domid}, begun at {each.base}"
        differ = "1 node differs" if count == 1 else f"{count:,} nodes differ"
        yield f"{_INDENT}{where}: {differ} from tree {store.root_tx}"
        lines = (_INDENT * 2 + line for line in _changes(store, each, walked))
        yield from _cut(lines, count, most, "node", _INDENT * 2)
        left -= walked
        if not left:
            yield f"{_INDENT}... and more: the trees share too much to be told"
            return
    more = len(store.transactions) - most
    if more > 0:
        yield f"{_INDENT}... and {counted(more, 'more transaction')}"


def _changes(store: SavedStore, one: SavedTransaction, most: int) -> Iterator[str]:
    for step in _steps(store, one, most):
        if step.change is not Change.NONE:
            is_modified = step.change is not Change.MISSING and step.node.modified
            flag = " (modified)" if is_modified else ""
            yield f"{step.change.value} {_node_words(step.path, step.node)}{flag}"


def _steps(store: SavedStore, one: SavedTransaction, most: int) -> Iterator[Step]:
    return itertools.islice(steps_between(store.tree.root, one.tree.root), most)


def _node_words(name: str, node: Node) -> str:
    words = f"{plain(name)} [{plain(','.join(node.perms))}]"
    return f"{words} {_content(node.content)}" if node.content else words


def _content(data: bytes) -> str:
    """Return bytes in quotes; in hex what is no plain ASCII, a quote or a backslash."""
    cut = data[:_CONTENT]
    told = "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\x{byte:02x}"
        for byte in cut
    )
    more = len(data) - len(cut)
    return f'"{plain(told)}"' + (f"... ({more:,} more)" if more else "")


def _pairs(pairs: list[WatchEvent], most: int) -> Iterator[str]:
    lines = (f"{_INDENT}{quoted(path)} {quoted(token)}" for path, token in pairs)
    return _cut(lines, len(pairs), most, "pair")


def _cut(
    lines: Iterable[str], count: int, most: int, noun: str, indent: str = _INDENT
) -> Iterator[str]:
    yield from itertools.islice(lines, most)
    if count > most:
        yield f"{indent}... and {counted(count - most, f'more {noun}')}"
