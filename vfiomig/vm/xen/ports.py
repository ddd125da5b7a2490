"""The table of event channels: which ports a guest has, and who is at their other end.

Rule 1: a guest's port is a row, by number; port 0 is none.  The other end of an
interdomain one is a port of the host's own, a `HostEnd` (QEMU: a back end's handle).

Rule 2: the table moves, the host's ends do not.  They are bound again on the other
side, each with the number that it had if that is free.

Rule 3: whether an event is pending is the page's to know (`EventChannels`), which is
there once the guest has put shared_info somewhere.

From QEMU's hw/i386/kvm/xen_evtchn.c, 10.0.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.qemu_stream.xen_state import MOST_PORTS, REMOTE_QEMU, XenPort
from vfiomig.uapi.xen_event_channel import (
    EVTCHNSTAT_closed,
    EVTCHNSTAT_interdomain,
    EVTCHNSTAT_unbound,
)
from vfiomig.vm.xen.event_channel import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.vm.xen.event_channel import EventChannels

_CLOSED: Final = XenPort(0, EVTCHNSTAT_closed, 0)
_BINDABLE: Final = (EVTCHNSTAT_unbound, EVTCHNSTAT_interdomain)
# An event that came so far is one of its own; any other is covered by one before it.
_OWN: Final = frozenset(set(Outcome) - {Outcome.ALREADY_PENDING})


@dataclass(slots=True)
class HostEnd:
    """An end that is the host's; ``is_told`` when the guest has sent an event to it.

    ``port`` is its own number, ``guest_port`` the guest's; 0 for none.
    """

    port: int = 0
    guest_port: int = 0
    is_told: bool = False


class EventPorts:
    """The ports of one guest, and the host's ends.

    ``sent`` counts events to the guest that are to be handled each, ``merged`` those
    that found their port pending: one handling covers them.  ``strayed`` went to memory
    that the guest does not see any more.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.merged = 0
        self.strayed = 0
        self._rows: list[XenPort] = [_CLOSED]
        self._ends: dict[int, HostEnd] = {}
        self._channels: EventChannels | None = None

    # -- what the guest asks for

    def alloc_unbound(self, vcpu: int = 0) -> int:
        """Open a port that a host's end may bind to (EVTCHNOP_alloc_unbound).

        Raises ``OSError``: ENOSPC if all are open, ENOENT for no such vCPU.
        """
        free = (n for n, row in enumerate(self._rows) if n and not _is_open(row))
        port = next(free, len(self._rows))
        channels = self._require_channels()
        if port >= channels.layout.ports:
            raise OSError(errno.ENOSPC, f"all {port - 1} ports are open")
        channels.bind(port, vcpu)
        self._set(port, XenPort(vcpu, EVTCHNSTAT_unbound, REMOTE_QEMU))
        return port

    def bind_vcpu(self, port: int, vcpu: int) -> None:
        """Let a port tell a vCPU (EVTCHNOP_bind_vcpu); raises as `send`, and ENOENT."""
        row = self._row(port)
        self._require_channels().bind(port, vcpu)
        self._rows[port] = row._replace(vcpu=vcpu)

    def close(self, port: int) -> None:
        """Close a port, and forget what is pending (EVTCHNOP_close); raises as `send`.

        An end of the host's that is bound to it has none any more.
        """
        self._row(port)
        self._require_channels().close(port)
        end = self._end_of(port)
        if end is not None:
            end.guest_port = 0
        self._rows[port] = _CLOSED
        while len(self._rows) > 1 and not _is_open(self._rows[-1]):
            self._rows.pop()

    def send(self, port: int) -> None:
        """Tell the other end (EVTCHNOP_send).

        Raises ``OSError``: EINVAL for a port that is not open.
        """
        self._row(port)
        end = self._end_of(port)
        if end is not None:
            end.is_told = True

    # -- the host's ends

    def bind(self, end: HostEnd, guest_port: int) -> None:
        """Bind an end to a guest's port: an unbound one, or one that it had elsewhere.

        It keeps the number that the table has for it if nobody else has that.

        Raises ``OSError``: EINVAL for a port that waits for no end of the host's.
        """
        self.check_bindable(end, guest_port)
        self.unbind(end)
        row = self._rows[guest_port]
        own = row.val & ~REMOTE_QEMU
        if not own or own in self._ends:
            own = next(n for n in range(1, MOST_PORTS) if n not in self._ends)
        self._ends[own] = end
        end.port, end.guest_port = own, guest_port
        self._rows[guest_port] = XenPort(
            row.vcpu, EVTCHNSTAT_interdomain, own | REMOTE_QEMU
        )

    def check_bindable(self, end: HostEnd, guest_port: int) -> None:
        """Raise what `bind` would, and change nothing."""
        row = self._row(guest_port)
        if row.type not in _BINDABLE or not row.val & REMOTE_QEMU:
            raise OSError(errno.EINVAL, f"port {guest_port} waits for no back end")
        if self._end_of(guest_port) not in (None, end):
            raise OSError(errno.EINVAL, f"port {guest_port} has another back end")

    def unbind(self, end: HostEnd) -> None:
        """Let go of the guest's port, which waits for another end then."""
        if end.guest_port:
            row = self._rows[end.guest_port]
            self._rows[end.guest_port] = XenPort(
                row.vcpu, EVTCHNSTAT_unbound, REMOTE_QEMU
            )
        self.forget(end)

    def forget(self, end: HostEnd) -> None:
        """Let an end have no port, whatever the table says."""
        self._ends.pop(end.port, None)
        end.port = end.guest_port = 0
        end.is_told = False

    def notify(self, end: HostEnd) -> Outcome | None:
        """Send an event to the guest; None if the end has no port.

        Raises ``OSError`` as `EventChannels.deliver`.
        """
        if not end.guest_port or self._channels is None:
            return None
        outcome = self._channels.deliver(end.guest_port)
        if not self._channels.reaches_guest():
            self.strayed += 1
        elif outcome in _OWN:
            self.sent += 1
        else:
            self.merged += 1
        return outcome

    # -- the page, and what moves

    def use(self, channels: EventChannels) -> None:
        """Have the bits of all ports in a page from now on.

        Raises ``OSError``: EINVAL for a port that its layout does not have, ENOENT for
        one of a vCPU that is not there.  Those of before are used then.
        """
        for port, row in enumerate(self._rows):
            if _is_open(row):
                channels.bind(port, row.vcpu)
        self._channels = channels

    def save(self) -> tuple[XenPort, ...]:
        """Return the table, as it moves."""
        return tuple(self._rows)

    def load(self, rows: Sequence[XenPort]) -> None:
        """Have the table that came; no end of the host's is bound then.

        Raises ``OSError``: EINVAL for a port that cannot be, or is none that a host
        like this one has: it knows no VIRQ, PIRQ or IPI, and no port that leads to
        another of the guest's.  ENOENT for a vCPU that is not there.  Nothing has
        changed then.
        """
        channels = self._require_channels()
        if len(rows) > channels.layout.ports:
            message = f"{len(rows) - 1} ports: there are {channels.layout.ports - 1}"
            raise OSError(errno.EINVAL, message)
        for port, row in enumerate(rows):
            if _is_open(row):
                _check_row(port, row)
                channels.waiting(row.vcpu)  # raises for a vCPU that is not there
        for end in list(self._ends.values()):
            self.forget(end)
        self._rows = [*rows] or [_CLOSED]
        self.use(channels)

    def _set(self, port: int, row: XenPort) -> None:
        self._rows[port : port + 1] = [row]

    def _row(self, port: int) -> XenPort:
        if not 0 < port < len(self._rows) or not _is_open(self._rows[port]):
            raise OSError(errno.EINVAL, f"port {port} is not open")
        return self._rows[port]

    def _end_of(self, port: int) -> HostEnd | None:
        # The number alone does not tell: another end may have it since a load.
        end = self._ends.get(self._rows[port].val & ~REMOTE_QEMU)
        return end if end is not None and end.guest_port == port else None

    def _require_channels(self) -> EventChannels:
        if self._channels is None:
            raise OSError(errno.ENOTCONN, "the guest has put shared_info nowhere")
        return self._channels


def _is_open(row: XenPort) -> bool:
    return row.type != EVTCHNSTAT_closed


def _check_row(port: int, row: XenPort) -> None:
    """Raise ``OSError(EINVAL)`` for an open port that no host like this one has."""
    own = row.val & ~REMOTE_QEMU
    is_bound = row.type == EVTCHNSTAT_interdomain
    if not port or row.type not in _BINDABLE or not row.val & REMOTE_QEMU:
        message = f"port {port} has the type {row.type} and leads to {row.val:#x}"
    elif not is_bound <= own < (MOST_PORTS if is_bound else 1):
        message = f"port {port} leads to port {own} of the host"
    else:
        return
    raise OSError(errno.EINVAL, message)
