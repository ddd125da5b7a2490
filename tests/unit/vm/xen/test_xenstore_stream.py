"""The saved store: QEMU's own, byte for byte, and what is none."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.unit.vm.xen.xenstore_form import parse
from vfiomig.protocol.errors import StreamError
from vfiomig.vm.xen.xenstore import XenStore

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA: Final = Path(__file__).parents[3] / "data"
VECTORS: Final = {
    name: bytes.fromhex(text)
    for name, text in json.loads((DATA / "xenstore-golden.json").read_text()).items()
}
HOME: Final = "/local/domain/1"


def replayed(script: str) -> Iterator[tuple[str, bytes]]:
    """Play a script on a store with QEMU's quirks; yield what it saves."""
    store = XenStore(1, quirks="qemu")
    saved = 0
    for line in (DATA / f"xenstore-{script}.txt").read_text().splitlines():
        match line.split():
            case ["ser"]:
                yield f"{script}_{saved}", store.serialize()
                saved += 1
            case ["roundtrip"]:
                store = XenStore.deserialize(store.serialize(), 1, quirks="qemu")
            case ["write", domid, tx, path, value]:
                content = b"" if value == "-" else value.encode()
                store.write(int(domid), int(tx), path, content)
            case ["setperms", domid, tx, path, *perms]:
                store.set_perms(int(domid), int(tx), path, perms)
            case ["watch", domid, tx, path, token]:
                store.watch(int(domid), int(tx), path, token)
            case ["rm" | "read" | "dir" | "getperms" as name, domid, tx, path]:
                read(store, name, int(domid), int(tx), path)
            case ["txstart", domid]:
                start(store, int(domid))
            case ["txend", domid, tx, how]:
                store.transaction_end(int(domid), int(tx), how == "T")
            case [] | ["#", *_]:
                pass
            case unknown:
                pytest.fail(f"a line that nobody plays: {unknown}")


def read(store: XenStore, name: str, domid: int, tx: int, path: str) -> None:
    if name == "rm":
        store.rm(domid, tx, path)
    elif name == "read" and (tx, path) == (0, "attr/y"):
        expect_it_only_after_the_commit(store)
    elif name == "read":
        wanted = {"attr/x": b"" if tx else b"2", "attr/y": b"yy"}[path]
        assert store.read(domid, tx, path) == wanted
    elif name == "dir":
        assert store.directory(domid, tx, path) == ["y"]
    else:
        assert store.get_perms(domid, tx, path) == ["n1"]


def expect_it_only_after_the_commit(store: XenStore) -> None:
    if store.transactions:
        with pytest.raises(FileNotFoundError):
            store.read(1, 0, "attr/y")
    else:
        assert store.read(1, 0, "attr/y") == b"yy"


def start(store: XenStore, domid: int) -> None:
    if domid and store.transactions == 10:
        with pytest.raises(OSError, match="No space left"):
            store.transaction_start(domid)
    else:
        store.transaction_start(domid)


SAVED: Final = {name: data for one in ("g1", "g3") for name, data in replayed(one)}


@pytest.mark.parametrize("name", VECTORS)
def test_a_script_leads_to_what_qemu_saved(name: str) -> None:
    assert len(SAVED[name]) == len(VECTORS[name])
    assert parse(SAVED[name]) == parse(VECTORS[name])


@pytest.mark.parametrize("name", ["g1_0", "g1_1"])
def test_where_nobody_has_siblings_the_bytes_are_qemu_s(name: str) -> None:
    assert SAVED[name] == VECTORS[name]


@pytest.mark.parametrize("quirks", ["qemu", None])
@pytest.mark.parametrize("name", VECTORS)
def test_what_qemu_saved_is_saved_again_to_the_byte(name: str, quirks: None) -> None:
    # Siblings keep the order that they had: QEMU's.
    store = XenStore.deserialize(VECTORS[name], 1, quirks)
    assert store.serialize() == VECTORS[name]


def test_the_default_tree_has_the_size_of_qemu_s() -> None:
    store = XenStore(1, quirks="qemu")
    store.write(0, 0, f"{HOME}/", b"")
    store.set_perms(0, 0, HOME, ["n0", "r1"])

    def add(perms: list[str], *pairs: str) -> None:
        for name, _, value in (each.partition("=") for each in pairs):
            store.write(0, 0, f"{HOME}/{name}", value.encode())
            store.set_perms(0, 0, f"{HOME}/{name}", perms)

    host, guest = ["n0", "r1"], ["n1"]
    add(host, "domid=1", "control", "platform")
    add(host, "control/platform-feature-xs_reset_watches=1")
    add(host, "control/platform-feature-multiprocessor-suspend=1")
    add(host, "platform/acpi=1", "platform/acpi_s3=1", "platform/acpi_s4=1")
    add(host, "platform/acpi_laptop_slate=0")
    add(guest, "attr", "data", "device", "drivers", "error", "feature")
    add(guest, "control/shutdown", "control/feature-poweroff=1")
    add(guest, "control/feature-reboot=1", "control/feature-suspend=1")
    add(guest, "control/feature-s3=1", "control/feature-s4=1")
    sizes = [len(store.serialize())]
    add(host, "store", "store/port=1", "store/ring-ref=1044473")
    sizes.append(len(store.serialize()))
    add(host, "console", "console/ring-ref=1044472", "console/port=2")
    add(host, "console/state=1")
    sizes.append(len(store.serialize()))
    assert store.nodes == 32
    assert sizes == [574, 641, 730]


def busy() -> XenStore:
    """Return a store with all that a saved one can hold."""
    store = XenStore(1)
    store.write(0, 0, HOME, b"")
    store.set_perms(0, 0, HOME, ["n1", "r2"])
    for path in ("a/b", "a/c", "d"):
        store.write(1, 0, path, path.encode())
    for token in ("one", "two", "three"):
        store.watch(1, 0, "a", token)
    store.watch(0, 0, HOME, "host")
    first, second = store.transaction_start(1), store.transaction_start(0)
    store.write(1, first, "a/b", b"changed")
    store.rm(1, first, "d")
    store.rm(0, second, f"{HOME}/a")
    return store


def test_a_moved_store_goes_on_as_it_would_have() -> None:
    data = busy().serialize()
    store = XenStore.deserialize(data, 1)
    assert store.serialize() == data
    assert (store.nodes, store.transactions) == (8, 2)
    assert (store.events(0), store.events(1)) == ((), ())
    with pytest.raises(FileNotFoundError):
        store.read(1, 2, "d")
    store.transaction_end(1, 2, commit=True)
    assert [event.token for event in store.events(1)] == ["one", "three", "two"]
    assert (store.read(1, 0, "a/b"), store.nodes) == (b"changed", 7)
    with pytest.raises(BlockingIOError):
        store.transaction_end(0, 3, commit=True)


def test_trees_that_moved_do_not_change_one_another() -> None:
    store = XenStore.deserialize(busy().serialize(), 1)
    store.write(1, 2, "a/c", b"only in 2")
    store.write(1, 0, "a/b", b"only in none")
    assert store.read(1, 0, "a/c") == b"a/c"
    assert store.read(1, 2, "a/b") == b"changed"
    with pytest.raises(FileNotFoundError):
        store.read(0, 3, f"{HOME}/a/c")


def test_what_only_two_transactions_share_moves_as_theirs() -> None:
    before = XenStore(1)
    before.write(0, 0, "/a/b", b"old")
    first, second = before.transaction_start(0), before.transaction_start(0)
    before.write(0, 0, "/a/b", b"new")
    store = XenStore.deserialize(before.serialize(), 1)
    store.write(0, first, "/a/b", b"first")
    assert store.read(0, second, "/a/b") == b"old"
    store.write(0, second, "/a/c", b"second")
    assert store.directory(0, first, "/a") == ["b"]


def test_the_host_s_watches_hear_of_what_was_loaded() -> None:
    store = XenStore(1)
    store.write(0, 0, "/old", b"")
    for path in (HOME, f"{HOME}/a", "/old"):
        store.watch(0, 0, path, "t")
    while store.next_event(0):
        pass
    store.load(busy().serialize())
    assert sorted(event.path for event in store.events(0)) == [
        *(f"{HOME}/a/b", f"{HOME}/a/b"),  # of both watches above it
        *(f"{HOME}/a/c", f"{HOME}/a/c"),
        f"{HOME}/d",
    ]
    assert store.events(1) == ()


def test_events_that_waited_are_moved_beside_the_store() -> None:
    store = busy()
    there = XenStore.deserialize(store.serialize(), 1)
    there.load_events(store.serialize_events())
    assert there.events(1) == store.events(1) != ()
    before = there.events(1)
    for bad in (b"", b"a\0t\0", b"a\0t\0\0\0", b"a\0t"):
        with pytest.raises(StreamError):
            there.load_events(bad)
    assert there.events(1) == before


ROOT: Final = bytes(5) + b"n0\0\0"  # flags, no content, its permissions
HEAD: Final = struct.pack(">II", 1, 1)
TREE: Final = HEAD + ROOT


def reference(tx: int) -> bytes:
    return b"\4" + struct.pack(">I", tx)


def transaction(tx: int, node: bytes) -> bytes:
    return (
        struct.pack(">IIIII", 3, 1, 1, 1, 2)[:0] + struct.pack(">III", 1, 1, tx) + node
    )


TWO: Final = struct.pack(">II", 3, 1) + ROOT + b"\0"  # ids up to 3 were given out
MARKED: Final = b"a\0\1" + struct.pack(">I", 1) + b"1n0\0\0\0"  # modified, content "1"
END: Final = bytes(4)


@pytest.mark.parametrize(
    ("data", "position", "reason"),
    [
        (b"", 0, "ends within the last transaction's id"),
        (TREE, 17, "ends within a name"),
        (TREE + b"\0" + END, 22, "ends within a watch"),
        (TREE + b"\0" + END + b"\0\0", 23, "1 bytes behind the end"),
        (
            struct.pack(">II", 1, 2) + ROOT,
            4,
            "a tree of the id 2, where the last was 1",
        ),
        (struct.pack(">II", 1, 0) + ROOT, 4, "a tree of the id 0"),
        (HEAD + b"\0\xff\xff\xff\xffx", 14, "ends within a content"),
        (HEAD + b"\x08" + ROOT[1:], 8, "flags 0x8 of a node"),
        (HEAD + b"\2" + ROOT[1:], 8, "the root is deleted"),
        (HEAD + bytes(5) + b"z0\0\0", 13, "no permissions"),
        (HEAD + bytes(5) + b"\0\0", 13, "no permissions"),
        (HEAD + bytes(5) + b"n0", 15, "ends within permissions"),
        (TREE + b"a/b\0" + ROOT + b"\0", 17, "no name of a node: 'a/b'"),
        (TREE + (b"a\0" + ROOT + b"\0") * 2, 29, "two nodes of the name 'a'"),
        (TREE + b"a" * 3072 + b"\0" + ROOT, 17, "a path of 3073 characters"),
        (TREE + (b"a\0" + ROOT) * 1537, 17 + 1536 * 11, "a path of 3074 characters"),
        (HEAD + reference(1), 8, "what tree 1 does not have"),
        (TREE + b"a\0" + reference(1), 17, "what tree 1 does not have"),
        (TWO + transaction(1, ROOT), 26, "a tree of the id 1"),
        (TWO + transaction(2, reference(3)), 30, "what tree 3 does not have"),
        (TWO + transaction(2, ROOT + b"a\0" + reference(1)), 39, "tree 1 does not"),
        (
            TWO
            + transaction(2, ROOT + MARKED + b"\0")
            + transaction(3, ROOT + b"a\0" + reference(2)),
            74,
            "a reference to a change in tree 2",
        ),
        (
            TWO + transaction(2, ROOT + b"a\0\2" + ROOT[1:] + b"b\0" + ROOT + b"\0"),
            50,
            "a node that exists below one that is deleted",
        ),
        (TREE + b"\0" + END + b"a//b\0t\0\0", 22, "a watch: Invalid argument"),
        (TREE + b"\0" + END + b"a\0t\0a\0t\0\0", 26, "a watch: File exists"),
    ],
)
def test_what_is_no_store_is_refused_where_that_shows(
    data: bytes, position: int, reason: str
) -> None:
    store = busy()
    before = store.serialize(), store.events(0), store.events(1)
    with pytest.raises(StreamError) as error:
        store.load(data)
    assert reason in str(error.value)
    assert error.value.position == position
    assert (store.serialize(), store.events(0), store.events(1)) == before


def test_a_cut_anywhere_is_refused() -> None:
    data = busy().serialize()
    for end in range(len(data)):
        with pytest.raises(StreamError):
            XenStore.deserialize(data[:end], 1)


def test_watches_beyond_the_quota_are_refused() -> None:
    watches = b"".join(b"a\0%d\0" % number for number in range(129))
    with pytest.raises(StreamError, match="a watch: Argument list too long"):
        XenStore.deserialize(TREE + b"\0" + END + watches + b"\0", 1)


def test_references_to_references_cost_no_more_than_their_bytes() -> None:
    wide = ROOT + b"".join(b"n%d\0" % n + ROOT + b"\0" for n in range(2000)) + b"\0"
    last = struct.pack(">I", 4000)
    trees = [transaction(tx, reference(tx - 1)) for tx in range(2, 3000)]
    data = last + struct.pack(">I", 1) + wide + b"".join(trees) + END + b"\0"
    tracemalloc.start()
    store = XenStore.deserialize(data, 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert store.transactions == 2998
    assert peak < 40 * len(data)
