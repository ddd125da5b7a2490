"""The Xen guest of a scenario's machine: ``[machine.xen]``.

The rules are those of `frontends.scenario`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vfiomig.frontends.toml_values import (
    BadKeyError,
    Key,
    Table,
    duration,
    duration_up_to,
    list_of,
    one_of,
    shown,
    size,
    whole,
)
from vfiomig.uapi.xen import XEN_LEGACY_MAX_VCPUS
from vfiomig.uapi.xen_xs_wire import XS_MAX_NODE_SIZE
from vfiomig.vm.xen.guest import MOST_NODES, MOST_WATCHES, RESERVED, XenPlan
from vfiomig.vm.xen.guest_page import WAYS
from vfiomig.vm.xen.guest_registers import MOST_HELD
from vfiomig.vm.xen.shared_info import LAYOUTS

__all__ = ["RESERVED", "XEN", "XenSpec"]

_PLAN: Final = XenPlan()
_MOST_REPLACED: Final = 1000
_PLACES: Final = ("shared_info", "registered")


@dataclass(frozen=True, slots=True, kw_only=True)
class XenSpec:
    """A Xen guest, by the scenario's words; times are virtual nanoseconds.

    ``run_on`` is how long it goes on when all has moved; the others are its `plan`.
    """

    page: str
    layout: int
    vcpus: int
    vcpu_info: str
    requests: int
    renegotiate: int
    replaced_at: tuple[int, ...]
    nodes: int
    node_size: int
    watches: int
    transactions: int
    quirks: str
    run_on: int

    def __post_init__(self) -> None:
        most = 2 * self.nodes
        if self.watches > most:
            reason = f"must be at most {most}, two on each of nodes, not {self.watches}"
            raise BadKeyError("watches", reason)

    @property
    def plan(self) -> XenPlan:
        """What the guest is, and what it does."""
        return XenPlan(
            way=self.page,
            bits=self.layout,
            vcpus=self.vcpus,
            registers_vcpu_info=self.vcpu_info == _PLACES[1],
            requests=self.requests,
            renegotiates=self.renegotiate,
            replaced_at=tuple(sorted(self.replaced_at)),
            nodes=self.nodes,
            node_size=self.node_size,
            watches=self.watches,
            transactions=self.transactions,
            quirks="qemu" if self.quirks == "qemu" else None,
        )


def _layout(value: object) -> int:
    if type(value) is not int or value not in LAYOUTS:
        message = f"must be one of {', '.join(map(str, LAYOUTS))}, not {shown(value)}"
        raise ValueError(message)
    return value


def _node_size(value: object) -> int:
    return whole(0, XS_MAX_NODE_SIZE)(size(0)(value))  # type: ignore[return-value]


XEN: Final = Table(
    written="[machine.xen]",
    make=XenSpec,
    keys={
        "page": Key(one_of(*WAYS), _PLAN.way),
        "layout": Key(_layout, _PLAN.bits),
        "vcpus": Key(whole(1, XEN_LEGACY_MAX_VCPUS), _PLAN.vcpus),
        "vcpu_info": Key(one_of(*_PLACES), _PLACES[0]),
        "requests": Key(whole(0, 1_000_000), _PLAN.requests),
        "renegotiate": Key(duration, _PLAN.renegotiates),
        "replaced_at": Key(list_of(duration, least=0, most=_MOST_REPLACED), ()),
        "nodes": Key(whole(0, MOST_NODES), _PLAN.nodes),
        "node_size": Key(_node_size, _PLAN.node_size),
        "watches": Key(whole(0, MOST_WATCHES), _PLAN.watches),
        "transactions": Key(whole(0, MOST_HELD), _PLAN.transactions),
        "quirks": Key(one_of("none", "qemu"), "none"),
        "run_on": Key(duration_up_to(100), 50_000_000),
    },
)
