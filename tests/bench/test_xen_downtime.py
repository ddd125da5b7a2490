"""XenStore's share of a migration's downtime, with the largest stores there can be."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final

import pytest

from tests.bench.figures import best_of, timed
from tests.unit.migration.xen_migration import LINK, Side, migrate
from vfiomig.migration.metrics import Metrics, Outcome
from vfiomig.uapi.xen_xs_wire import XS_MAX_DOMAIN_NODES, XS_MAX_NODE_SIZE
from vfiomig.vm.xen.guest import XenPlan
from vfiomig.vm.xen.guest_registers import MOST_HELD
from vfiomig.vm.xen.xenstore import XenStore

if TYPE_CHECKING:
    from vfiomig.vm.xen.guest import XenGuest

SEED: Final = 1
RUN: Final = 100_000_000  # virtual ns, in which the disk is met
RUNS: Final = 5


def nodes_to_spare() -> int:
    """Return how many nodes the quota leaves beside a guest's own."""
    with Side(XenPlan()) as side:
        side.boot(RUN)
        # The plan's lie in a node that is there anyway.
        return XS_MAX_DOMAIN_NODES - side.xen.host.store.nodes


def largest(transactions: int) -> XenPlan:
    return XenPlan(
        nodes=nodes_to_spare(),
        node_size=XS_MAX_NODE_SIZE,
        transactions=transactions,
    )


def share_of(plan: XenPlan) -> Metrics:
    """Migrate a guest, and return what that took."""
    with Side(plan) as source, Side(plan) as destination:
        source.boot(RUN)
        metrics = Metrics()
        endings = migrate(source, destination, metrics=metrics)
        assert [each.outcome for each in endings] == [Outcome.COMPLETED] * 2
        return metrics


def show_store(guest: XenGuest, what: str) -> None:
    """Print what it costs to save and to load a guest's store."""
    store = guest.host.store
    data = store.serialize()
    target = ctypes.create_string_buffer(len(data))
    copied, saved, loaded = best_of(
        lambda: timed(lambda: ctypes.memmove(target, data, len(data))),
        lambda: timed(store.serialize),
        lambda: timed(lambda: XenStore.deserialize(data, store.domid)),
        runs=RUNS,
    )
    print(
        f"\nXenStore of {store.nodes} nodes, {what}: {len(data)} bytes; saved in"
        f" {saved / copied:.1f}, loaded in {loaded / copied:.1f} times a memcpy of them"
        f" ({1e3 * saved:.2f}, {1e3 * loaded:.2f} and {1e3 * copied:.2f} ms)"
    )


@pytest.mark.parametrize("transactions", [0, MOST_HELD])
def test_the_largest_store_takes_its_share_of_the_downtime(transactions: int) -> None:
    what = f"{transactions} open transactions that wrote all anew"
    plan = largest(transactions)
    with Side(plan) as side:
        side.boot(RUN)
        show_store(side.xen, what)
    metrics = share_of(plan)
    small = share_of(XenPlan())
    assert metrics.downtime is not None
    assert small.downtime is not None
    assert metrics.xenstore_bytes > transactions * (1 << 21)
    print(
        f"over {LINK.bandwidth * 8 / 1e9:g} Gbit/s: {metrics.xenstore_time / 1e6:.3f}"
        f" of {metrics.downtime / 1e6:.3f} ms of downtime,"
        f" {metrics.xenstore_time / metrics.downtime:.1%}; of a store of"
        f" {small.xenstore_bytes} bytes {small.xenstore_time / 1e6:.3f} of"
        f" {small.downtime / 1e6:.3f} ms, {small.xenstore_time / small.downtime:.1%}"
    )
