"""XenStore's operations: what they do, what they refuse, and what watches say of it.

Expected values: QEMU's hw/i386/kvm/xenstore_impl.c, 10.0, and Xen's xenstore.txt.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from vfiomig.vm.xen.xenstore import XenStore

if TYPE_CHECKING:
    from collections.abc import Callable

HOME = "/local/domain/1"


@pytest.fixture
def store() -> XenStore:
    """Give a store where the guest has a home."""
    store = XenStore(1)
    store.write(0, 0, HOME, b"")
    store.set_perms(0, 0, HOME, ["n1"])
    return store


def refused(code: int, action: Callable[..., object], *given: object) -> None:
    with pytest.raises(OSError, match=r"\[Errno") as error:
        action(*given)
    assert errno.errorcode[error.value.errno or 0] == errno.errorcode[code]


def events(store: XenStore, domid: int) -> list[tuple[str, str]]:
    found = []
    while event := store.next_event(domid):
        found.append((event.path, event.token))
    return found


def test_a_new_store_has_a_root_that_is_the_host_s() -> None:
    store = XenStore(7)
    assert (store.get_perms(0, 0, "/"), store.nodes) == (["n0"], 1)
    assert (store.read(0, 0, "/"), store.directory(0, 0, "/")) == (b"", [])
    refused(errno.EACCES, store.read, 7, 0, "/")


def test_a_write_makes_the_way_with_the_parent_s_permissions(store: XenStore) -> None:
    store.set_perms(0, 0, HOME, ["n1", "r2"])
    store.write(1, 0, "a/b", b"value")
    assert store.read(0, 0, f"{HOME}/a/b") == b"value"
    assert store.read(1, 0, "a") == b""
    assert store.get_perms(2, 0, f"{HOME}/a/b") == ["n1", "r2"]
    assert store.nodes == 6


def test_a_relative_path_begins_at_the_caller_s_home(store: XenStore) -> None:
    store.write(0, 0, "x", b"host")
    assert store.directory(0, 0, "/local/domain") == ["0", "1"]
    assert store.read(0, 0, "/local/domain/0/x") == b"host"


def test_children_are_listed_in_order(store: XenStore) -> None:
    for name in ("b", "B", "a-1", "_", "9"):
        store.write(1, 0, name, b"")
    assert store.directory(1, 0, HOME) == ["9", "B", "_", "a-1", "b"]


def test_the_generation_counts_children_and_not_contents(store: XenStore) -> None:
    before = store.generation(1, 0, HOME)
    store.write(1, 0, "a", b"1")
    store.write(1, 0, "a", b"2")
    store.write(1, 0, "a/b", b"2")
    store.rm(1, 0, "a")
    assert store.generation(1, 0, HOME) == before + 2


def test_rm_takes_all_that_is_below(store: XenStore) -> None:
    store.write(1, 0, "a/b/c", b"")
    store.rm(1, 0, "a")
    assert store.nodes == 4
    refused(errno.ENOENT, store.read, 1, 0, "a/b")
    refused(errno.ENOENT, store.rm, 1, 0, "a")
    refused(errno.EINVAL, store.rm, 0, 0, "/")


def test_mkdir_leaves_what_is_there(store: XenStore) -> None:
    store.write(1, 0, "a", b"1")
    store.mkdir(1, 0, "a")
    store.mkdir(1, 0, "b")
    assert (store.read(1, 0, "a"), store.read(1, 0, "b")) == (b"1", b"")
    refused(errno.EACCES, store.mkdir, 1, 0, "/c")


@pytest.mark.parametrize(
    "path", ["", "a//b", "//", "a/", "/a/", "a b", "@x", "ä", "a\n"]
)
def test_what_is_no_path_is_refused(store: XenStore, path: str) -> None:
    refused(errno.EINVAL, store.read, 1, 0, path)
    refused(errno.EINVAL, store.watch, 1, 0, path, "t")


@pytest.mark.parametrize(
    "path", ["/" + "a" * 3071, "a" * 2048, "/" + "a/" * 1535 + "a"]
)
def test_the_longest_paths_are_paths(store: XenStore, path: str) -> None:
    store.write(0, 0, path, b"deep")
    assert XenStore.deserialize(store.serialize(), 1).read(0, 0, path) == b"deep"
    tx = store.transaction_start(0)
    store.rm(0, tx, path)
    store.transaction_end(0, tx, commit=True)
    refused(errno.ENOENT, store.read, 0, 0, path)
    refused(errno.E2BIG, store.read, 0, 0, path + "a")


@pytest.mark.parametrize(
    ("perms", "reads", "writes"),
    [
        ("n1", True, True),  # the owner may do all
        ("n0", False, False),
        ("r0", True, False),
        ("w0", False, True),
        ("b0", True, True),
        ("n0 r1", True, False),
        ("b0 n1", False, False),
        ("n0 b1 w1", False, True),  # the last that names it counts
        ("n0 b2", False, False),
    ],
)
def test_permissions_are_the_last_that_name_a_domain(
    store: XenStore, perms: str, *, reads: bool, writes: bool
) -> None:
    store.write(0, 0, "/x", b"1")
    store.set_perms(0, 0, "/x", perms.split())
    for allowed, action, given in (
        (reads, store.read, (1, 0, "/x")),
        (reads, store.directory, (1, 0, "/x")),
        (reads, store.get_perms, (1, 0, "/x")),
        (writes, store.write, (1, 0, "/x", b"2")),
        (writes, store.write, (1, 0, "/x/y/z", b"2")),
        (writes, store.rm, (1, 0, "/x")),
    ):
        if allowed:
            action(*given)
        else:
            refused(errno.EACCES, action, *given)


def test_a_guest_sets_permissions_of_its_own_nodes_alone(store: XenStore) -> None:
    store.write(0, 0, "/x", b"")
    refused(errno.EACCES, store.set_perms, 1, 0, "/x", ["n1"])
    store.set_perms(0, 0, "/x", ["b0"])
    refused(errno.EPERM, store.set_perms, 1, 0, "/x", ["n1"])
    store.set_perms(1, 0, HOME, ["r1", "b2", "n3", "w4", "r5"])
    refused(errno.EPERM, store.set_perms, 1, 0, HOME, ["r2"])
    refused(errno.ENOSPC, store.set_perms, 1, 0, HOME, ["n1"] * 6)
    store.set_perms(0, 0, HOME, ["n1"] * 6)  # the host has no quotas
    for perms in ([], ["x1"], ["n"], ["1"], ["n-1"], ["n1 "], [""]):
        refused(errno.EINVAL, store.set_perms, 0, 0, HOME, perms)
    refused(errno.ENOENT, store.set_perms, 1, 0, "none", ["n1"])


def test_a_thousand_nodes_are_the_most(store: XenStore) -> None:
    for number in range(995):
        store.write(1, 0, f"n{number}", b"")
    refused(errno.ENOSPC, store.write, 1, 0, "a/b", b"")
    store.write(1, 0, "a", b"")
    assert store.nodes == 1000
    refused(errno.ENOSPC, store.write, 1, 0, "b", b"")
    refused(errno.ENOSPC, store.mkdir, 1, store.transaction_start(1), "b")
    store.write(1, 0, "a", b"again")
    store.write(0, 0, "b", b"the host may")
    store.rm(1, 0, "n0")
    refused(errno.ENOSPC, store.write, 1, 0, "c", b"")


def test_the_other_quotas_hold_for_a_guest_alone(store: XenStore) -> None:
    store.write(1, 0, "a", bytes(2048))
    refused(errno.E2BIG, store.write, 1, 0, "a", bytes(2049))
    store.write(0, 0, f"{HOME}/a", bytes(5000))
    for number in range(128):
        store.watch(1, 0, "a", f"t{number}")
    refused(errno.E2BIG, store.watch, 1, 0, "b", "t")
    opened = [store.transaction_start(1) for _ in range(10)]
    refused(errno.ENOSPC, store.transaction_start, 1)
    assert store.transaction_start(0) not in opened
    store.transaction_end(1, opened[3], commit=False)
    store.transaction_start(1)


def test_a_watch_fires_at_once_and_then_on_changes_at_or_below(store: XenStore) -> None:
    store.watch(1, 0, "a", "relative")
    store.watch(1, 0, f"{HOME}/a", "absolute")
    assert events(store, 1) == [("a", "relative"), (f"{HOME}/a", "absolute")]
    store.write(1, 0, "a/b", b"")
    store.set_perms(1, 0, "a", ["r1"])
    store.write(1, 0, "ab", b"")
    assert events(store, 1) == [
        ("a/b", "relative"),
        (f"{HOME}/a/b", "absolute"),
        ("a", "relative"),
        (f"{HOME}/a", "absolute"),
    ]


def test_watches_on_the_path_fire_first_then_from_the_top(store: XenStore) -> None:
    for path in ("/local", f"{HOME}/a/b", f"{HOME}/a"):
        store.watch(0, 0, path, path)
    for token in ("first", "older", "newer"):
        store.watch(0, 0, HOME, token)
    events(store, 0)
    store.write(1, 0, "a/b", b"")
    tokens = [token for _, token in events(store, 0)]
    assert tokens == [
        *(f"{HOME}/a/b", "/local"),
        *("first", "newer", "older"),
        f"{HOME}/a",
    ]


def test_rm_tells_those_below_before_those_at_and_above(store: XenStore) -> None:
    store.write(1, 0, "a/b/c", b"")
    for path in (HOME, f"{HOME}/a", f"{HOME}/a/b", f"{HOME}/a/b/c"):
        store.watch(0, 0, path, path.removeprefix("/local/domain/"))
    events(store, 0)
    store.rm(1, 0, "a")
    assert events(store, 0) == [
        (f"{HOME}/a/b/c", "1/a/b/c"),
        (f"{HOME}/a/b", "1/a/b"),
        (f"{HOME}/a", "1/a"),
        (f"{HOME}/a", "1"),
    ]


def test_what_is_refused_fires_nothing_and_changes_nothing(store: XenStore) -> None:
    store.watch(0, 0, "/local", "t")
    before, _ = store.serialize(), events(store, 0)
    refused(errno.EACCES, store.write, 1, 0, "/local/x", b"")
    refused(errno.ENOENT, store.rm, 1, 0, "x")
    refused(errno.E2BIG, store.write, 1, 0, "x/y", bytes(3000))
    assert (store.serialize(), events(store, 0)) == (before, [])


def test_a_watch_on_the_root_fires_once(store: XenStore) -> None:
    store.watch(0, 0, "/", "t")
    store.write(0, 0, "/x", b"")
    assert events(store, 0) == [("/", "t")]


def test_watches_are_told_apart_by_path_token_and_domain(store: XenStore) -> None:
    store.watch(1, 0, "a", "t")
    refused(errno.EEXIST, store.watch, 1, 0, f"{HOME}/a", "t")
    store.watch(0, 0, f"{HOME}/a", "t")
    store.watch(1, 0, "a", "u")
    refused(errno.ENOENT, store.unwatch, 1, 0, "a", "v")
    store.unwatch(1, 0, "a", "u")  # not the first of its path
    store.unwatch(1, 0, "a", "t")
    events(store, 0)
    events(store, 1)
    store.write(1, 0, "a", b"")
    assert (events(store, 0), events(store, 1)) == ([(f"{HOME}/a", "t")], [])
    refused(errno.EINVAL, store.watch, 1, 0, "a", "nul\0")


def test_reset_watches_aborts_the_domain_s_transactions_too(store: XenStore) -> None:
    store.watch(1, 0, "a", "t")
    store.watch(0, 0, "/local", "t")
    own, host = store.transaction_start(1), store.transaction_start(0)
    store.reset_watches(1)
    refused(errno.ENOENT, store.transaction_end, 1, own, True)
    refused(errno.ENOENT, store.unwatch, 1, 0, "a", "t")
    store.unwatch(0, 0, "/local", "t")
    store.transaction_end(0, host, commit=True)


def test_a_transaction_is_seen_by_nobody_before_its_commit(store: XenStore) -> None:
    store.write(1, 0, "a/b", b"1")
    store.watch(1, 0, "a", "t")
    events(store, 1)
    tx = store.transaction_start(1)
    store.write(1, tx, "a/b", b"2")
    store.write(1, tx, "a/c/d", b"3")
    assert store.read(1, tx, "a/b") == b"2"
    assert store.read(1, 0, "a/b") == b"1"
    refused(errno.ENOENT, store.read, 1, 0, "a/c")
    assert events(store, 1) == []
    store.transaction_end(1, tx, commit=True)
    assert (store.read(1, 0, "a/b"), store.read(1, 0, "a/c/d")) == (b"2", b"3")
    assert sorted(events(store, 1)) == [("a/b", "t"), ("a/c/d", "t")]
    refused(errno.ENOENT, store.transaction_end, 1, tx, True)


def test_ids_and_conflicts_are_qemu_s(store: XenStore) -> None:
    two, three = store.transaction_start(1), store.transaction_start(1)
    assert (two, three) == (2, 3)
    store.transaction_end(1, two, commit=True)
    refused(errno.EAGAIN, store.transaction_end, 1, three, True)
    assert store.transaction_start(1) == 4
    store.write(0, 0, "/elsewhere", b"")
    refused(errno.EAGAIN, store.transaction_end, 1, 4, True)
    refused(errno.ENOENT, store.transaction_end, 1, 4, True)
    assert store.transaction_start(1) == 6  # the main tree took 5


def test_a_transaction_is_its_domain_s(store: XenStore) -> None:
    tx = store.transaction_start(0)
    refused(errno.ENOENT, store.write, 1, tx, "a", b"")
    refused(errno.ENOENT, store.read, 1, tx, HOME)
    refused(errno.ENOENT, store.transaction_end, 1, tx, True)
    refused(errno.EINVAL, store.transaction_start, 0, tx)
    refused(errno.ENOENT, store.read, 1, 77, HOME)


def test_what_is_removed_in_a_transaction_is_gone_in_it(store: XenStore) -> None:
    store.write(1, 0, "a/b", b"1")
    tx = store.transaction_start(1)
    store.rm(1, tx, "a")
    refused(errno.ENOENT, store.read, 1, tx, "a")
    refused(errno.ENOENT, store.rm, 1, tx, "a/b")
    assert store.directory(1, tx, HOME) == []
    store.write(1, tx, "a/c", b"2")
    assert store.directory(1, tx, "a") == ["c"]
    store.transaction_end(1, tx, commit=True)
    assert (store.directory(1, 0, "a"), store.nodes) == (["c"], 6)


def test_what_is_made_again_in_a_transaction_is_new(store: XenStore) -> None:
    store.write(1, 0, "a/b", b"1")
    store.set_perms(1, 0, "a", ["n1", "b2"])
    tx = store.transaction_start(1)
    store.rm(1, tx, "a")
    store.write(1, tx, "a/c", b"2")
    assert store.get_perms(1, tx, "a") == store.get_perms(1, tx, "a/c") == ["n1"]


def test_a_commit_tells_those_above_of_each_that_was_removed(store: XenStore) -> None:
    for name in ("a/x", "b", "c"):
        store.write(1, 0, name, b"")
    store.watch(0, 0, HOME, "t")
    events(store, 0)
    tx = store.transaction_start(1)
    for name in ("a", "b", "c"):
        store.rm(1, tx, name)
    store.transaction_end(1, tx, commit=True)
    assert sorted(events(store, 0)) == [
        (f"{HOME}/a", "t"),
        (f"{HOME}/b", "t"),
        (f"{HOME}/c", "t"),
    ]


def test_bytes_do_as_well_as_text(store: XenStore) -> None:
    store.watch(1, 0, b"a", b"\xff")
    store.write(1, 0, b"a", b"1")
    store.set_perms(1, 0, b"a", [b"n1", b"r2"])
    assert store.get_perms(1, 0, "a") == ["n1", "r2"]
    store.unwatch(1, 0, "a", b"\xff")
