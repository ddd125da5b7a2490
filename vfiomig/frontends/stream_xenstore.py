"""The store that a ``xen_xenstore`` section of a migration stream holds.

Rule: a stream is somebody else's.  A store that cannot be read is a `Damage`, and what
its trees share is walked no more often than who asks wants to.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, cast

from vfiomig.migration.qemu_image import ImageError
from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream import vmdesc
from vfiomig.protocol.qemu_stream.records import VmState
from vfiomig.protocol.qemu_stream.xen_sections import WATCH_EVENTS
from vfiomig.protocol.qemu_stream.xen_state import IMPL_STATE_MOST
from vfiomig.vm.xen.xenstore_reader import read_events, read_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vfiomig.migration.qemu_image import QemuImage
    from vfiomig.protocol.qemu_stream.records import Field, Located
    from vfiomig.vm.xen.xenstore_stream import SavedStore
    from vfiomig.vm.xen.xenstore_tree import Node
    from vfiomig.vm.xen.xenstore_watches import WatchEvent

    _Read = TypeVar("_Read")

_STORE: Final = "xen_xenstore"
STORE_FIELD: Final = "impl_state"
EVENTS_FIELD: Final = "events"
_SIZE_FIELD: Final = "impl_state_size"
_SUBSECTION_HEAD: Final = 1 + 1 + 4  # type, length of the name, version


class Damage(NamedTuple):
    """Why a store cannot be read: a byte of the stream, one of the field, a reason."""

    position: int
    within: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreView:
    """A store, and the events that wait for the guest; what is damaged is not there.

    ``size`` is in bytes of ``impl_state``; without any there is no store.
    """

    size: int
    store: SavedStore | None
    events: list[WatchEvent]
    store_damage: Damage | None = None
    events_damage: Damage | None = None


def has_store(state: VmState) -> bool:
    """Tell whether a state is that of the device that has the store."""
    return state.vmsd_name == _STORE and any(
        each.name == _SIZE_FIELD for each in state.fields
    )


def view_of(located: Located) -> StoreView | None:
    """Read the store in a record; ``None``: the record is of something else."""
    state = located.record
    if not isinstance(state, VmState) or not has_store(state):
        return None
    data, position = _bytes_of(state, STORE_FIELD, located.offset)
    store, damage = _tried(_bounded, data, position)
    events, events_damage = _events(state, located.offset)
    return StoreView(
        size=len(data),
        store=store,
        events=events or [],
        store_damage=damage,
        events_damage=events_damage,
    )


def damage_in(image: QemuImage) -> ImageError | None:
    """Return what is wrong with a store, or with its events, of a whole stream.

    One whose description has no store is not read again: it may have gigabytes.
    """
    if not _describes_a_store(image):
        return None
    for located in image.records():
        view = view_of(located)
        if view is None:
            continue
        if (damage := view.store_damage or view.events_damage) is not None:
            reason = f"{_STORE}: {damage.reason}"
            return ImageError(image.name, reason, damage.position)
    return None


def _describes_a_store(image: QemuImage) -> bool:
    at = vmdesc.find(image.data)
    if at is None:
        return False  # and no vmstate can be told apart
    document = vmdesc.parse(image.data[at + vmdesc.HEAD.size :], at).document
    devices = vmdesc.devices_of(document).values()
    return any(each.get("vmsd_name") == _STORE for each in devices)


def _bounded(data: bytes) -> SavedStore | None:
    if not data:
        return None
    if len(data) > IMPL_STATE_MOST:
        reason = f"a store of {len(data)} bytes: none has more than {IMPL_STATE_MOST}"
        raise StreamError(reason, position=0)
    return read_store(data)


def _events(
    state: VmState, position: int
) -> tuple[list[WatchEvent] | None, Damage | None]:
    """Return the events that wait; without their subsection there are none."""
    position += sum(_size_of(each) for each in state.fields)
    for inner in state.subsections:
        position += _SUBSECTION_HEAD + len(inner.vmsd_name or "")
        if inner.vmsd_name == WATCH_EVENTS:
            data, place = _bytes_of(inner, EVENTS_FIELD, position)
            return _tried(read_events, data, place)
        position += sum(_size_of(each) for each in inner.fields)
    return [], None


def _tried(
    read: Callable[[bytes], _Read], data: bytes, position: int
) -> tuple[_Read | None, Damage | None]:
    try:
        return read(data), None
    except StreamError as error:
        reason = str(error).partition(": ")[2]  # behind the place
        return None, Damage(position + error.position, error.position, reason)


def _bytes_of(state: VmState, name: str, position: int) -> tuple[bytes, int]:
    """Return the bytes of an array, and where in the stream they are.

    One that is not described has none.
    """
    for each in state.fields:
        if each.name == name and (each.type, each.size) == ("uint8", 1):
            value = each.value if isinstance(each.value, tuple) else (each.value,)
            return bytes(cast("tuple[int, ...]", value)), position
        position += _size_of(each)
    return b"", position


def _size_of(field: Field) -> int:
    return field.size * (len(field.value) if isinstance(field.value, tuple) else 1)


# --- what a transaction has of its own ------------------------------------------------


class Change(enum.Enum):
    """How a node of a transaction's tree differs from the main tree's."""

    NEW = "new"
    CHANGED = "changed"
    DELETED = "deleted"
    MISSING = "missing"  # it came to the main tree since
    NONE = "none"


class Step(NamedTuple):
    """A node that two trees do not share; the main tree's, if the other has none."""

    change: Change
    path: str
    node: Node


def nodes_in(root: Node) -> Iterator[tuple[int, str, Node]]:
    """Yield the depth, the name and the node of all below a root, parents first."""
    rows = [iter(_sorted(root))]
    while rows:
        for name, node in rows[-1]:
            yield len(rows), name, node
            rows.append(iter(_sorted(node)))
            break
        else:
            rows.pop()


def _sorted(node: Node) -> list[tuple[str, Node]]:
    return sorted(node.children.items())


def steps_between(main: Node, own: Node) -> Iterator[Step]:
    """Compare the tree of a transaction with the main one, parents first.

    Each node that they do not share is a step, also where it does not differ: so who
    asks can stop after so many, whatever the trees share.
    """
    rest: list[tuple[str, Node | None, Node | None, bool]] = [("", main, own, False)]
    while rest:
        path, theirs, mine, is_gone = rest.pop()
        node = mine or theirs
        if theirs is mine or node is None:
            continue
        yield Step(_change(theirs, mine, is_gone=is_gone), path or "/", node)
        is_gone = is_gone or (mine is not None and mine.deleted)
        of_theirs = theirs.children if theirs else {}
        of_mine = mine.children if mine else {}
        for name in sorted({*of_theirs, *of_mine}, reverse=True):
            pair = of_theirs.get(name), of_mine.get(name)
            rest.append((f"{path}/{name}", *pair, is_gone))


def _change(theirs: Node | None, mine: Node | None, *, is_gone: bool) -> Change:
    if mine is None:
        return Change.DELETED if is_gone else Change.MISSING
    if mine.deleted:
        return Change.DELETED
    if theirs is None:
        return Change.NEW
    is_same = (mine.content or b"", mine.perms) == (theirs.content or b"", theirs.perms)
    return Change.NONE if is_same and not mine.modified else Change.CHANGED
