"""A destination's parts that come in one piece each, behind all that iterates."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream import riscv_cpu, xen_sections
from vfiomig.protocol.qemu_stream.xen_state import (
    XenEventChannels,
    XenOverlay,
    XenStoreDevice,
    XenVcpu,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vfiomig.migration.exchange import Steps
    from vfiomig.migration.incoming import Incoming
    from vfiomig.protocol.qemu_stream.riscv_cpu import RiscvCpu
    from vfiomig.protocol.qemu_stream.section_reader import Reading
    from vfiomig.protocol.qemu_stream.xen_state import XenPart
    from vfiomig.vm.riscv.board import VirtBoard
    from vfiomig.vm.xen.guest import XenGuest

Values = TypeVar("Values")


class StateLoading(Generic[Values]):
    """A part with one FULL section; a `LoadHandler` that has no other.

    ``read`` reads it from behind its id, given that and its place in the stream,
    ``load`` takes in what came, ``describe`` says what the VM description has of it.
    """

    def __init__(
        self,
        name: str,
        incoming: Incoming,
        *,
        read: Callable[[int, int], Reading[Values]],
        load: Callable[[Values], None],
        describe: Callable[[Values], dict[str, object]],
    ) -> None:
        self.name = name
        self.description: dict[str, object] | None = None  # of what has come
        self._incoming = incoming
        self._read, self._load, self._describe = read, load, describe

    def load_start(self, section: int) -> Steps[None]:
        """Refuse what it does not have; raises StreamError."""
        yield from ()
        self._incoming.fail(f"section {section}: {self.name} has no START section")

    load_part = load_end = load_start  # nobody opens a section of it

    def load_state(self, section: int) -> Steps[None]:
        """Load the FULL section.

        Raises:
            StreamError: it is not what can be loaded here.
            OSError: it brings what a hart cannot have here.
        """
        reading = self._read(section, self._incoming.position)
        try:
            wanted = next(reading)
            while True:
                data = yield from self._incoming.take(wanted)
                wanted = reading.send(data)
        except StopIteration as end:
            values: Values = end.value
        self._load(values)
        self.description = self._describe(values)


def loading_of_hart(
    board: VirtBoard, index: int, incoming: Incoming
) -> StateLoading[RiscvCpu]:
    """Return what loads a hart of a board."""
    layout = board.policy.layout

    def read(section: int, position: int) -> Reading[RiscvCpu]:
        return riscv_cpu.read_rest(
            section,
            index,
            layout,
            takes_mp_state=board.has_mp_state,
            position=position,
        )

    return StateLoading(
        f"hart {index}",
        incoming,
        read=read,
        load=lambda cpu: board.load(index, cpu),
        describe=lambda cpu: riscv_cpu.describe(index, cpu, layout),
    )


def loadings_of_xen(xen: XenGuest, incoming: Incoming) -> list[StateLoading[Any]]:
    """Return what loads the parts of a Xen guest, in the order in which they come."""
    wanted: list[tuple[str, int, type[XenPart]]] = [
        ("xen_overlay", 0, XenOverlay),
        ("xen_evtchn", 0, XenEventChannels),
        *((f"xen_vcpu {vcpu}", vcpu, XenVcpu) for vcpu in range(xen.host.vcpus)),
        ("xen_xenstore", 0, XenStoreDevice),
    ]
    return [
        _loading_of_part(xen, name, instance, kind, incoming)
        for name, instance, kind in wanted
    ]


def _loading_of_part(
    xen: XenGuest, name: str, instance: int, kind: type[XenPart], incoming: Incoming
) -> StateLoading[XenPart]:
    began = 0

    def read(section: int, position: int) -> Reading[XenPart]:
        nonlocal began
        began = position
        return xen_sections.read_rest(section, instance, kind, position=position)

    def load(part: XenPart) -> None:
        try:
            xen.host.load(instance, part)
        except OSError as error:
            message = f"section {name!r}: {error.strerror}"
            raise StreamError(message, position=began) from error
        except StreamError as error:
            where = f"byte {error.position} of its store"
            message = f"section {name!r}, {where}: {error.reason}"
            raise StreamError(message, position=began) from error

    return StateLoading(
        name,
        incoming,
        read=read,
        load=load,
        describe=partial(xen_sections.describe, instance),
    )
