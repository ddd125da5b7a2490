"""Saving and loading the largest store that the quotas permit, against its memcpy."""

from __future__ import annotations

import ctypes
from typing import Final

from tests.bench.figures import best_of, show, timed
from vfiomig.uapi.xen_xs_wire import XS_MAX_DOMAIN_NODES, XS_MAX_NODE_SIZE
from vfiomig.vm.xen.xenstore import XenStore

HOME: Final = "/local/domain/1"
RUNS: Final = 15


def full_store() -> XenStore:
    """Return a store of all nodes, each as full as a guest can make it."""
    store = XenStore(1)
    store.write(0, 0, HOME, b"")
    store.set_perms(0, 0, HOME, ["n1"])
    for number in range(store.nodes, XS_MAX_DOMAIN_NODES):
        value = number.to_bytes(2, "big") * (XS_MAX_NODE_SIZE // 2)
        store.write(1, 0, f"node-{number}", value)
    return store


def test_the_full_store_is_saved_and_loaded() -> None:
    store = full_store()
    data = store.serialize()
    assert store.nodes == XS_MAX_DOMAIN_NODES
    assert XenStore.deserialize(data, 1).serialize() == data
    target = ctypes.create_string_buffer(len(data))
    copied, saved, loaded = best_of(
        lambda: timed(lambda: ctypes.memmove(target, data, len(data))),
        lambda: timed(store.serialize),
        lambda: timed(lambda: XenStore.deserialize(data, 1)),
        runs=RUNS,
    )
    beside = f"a memcpy of its {len(data)} bytes"
    show("saving XenStore, 1,000 nodes of 2 KiB", saved / copied, 40, beside)
    show("loading XenStore, 1,000 nodes of 2 KiB", loaded / copied, 100, beside)
