"""Mutants whose migration region is not what it has to be.

Rule 1: the contract gives a driver its size and its areas to choose, so only these
can be wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vfiomig.protocol.region import MigrationRegion
from vfiomig.protocol.v1.registers import REGISTERS_SIZE
from vfiomig.protocol.v1.states import DEFAULT_STATE
from vfiomig.vendor.data_section import PAGE
from vfiomig.vendor.mutants.mutable import MutableDriver

if TYPE_CHECKING:
    from vfiomig.protocol.v1.states import DeviceState

__all__ = ["AreasComeLate", "GrowingRegion", "RegistersFillTheRegion"]


class RegistersFillTheRegion(MutableDriver):
    """Counts only the registers as the region, and keeps its data behind the end."""

    violates: ClassVar = frozenset({"v1/discovery/data-section-follows"})

    def __init__(self) -> None:
        super().__init__()
        self.migration_region = MigrationRegion(REGISTERS_SIZE)


class GrowingRegion(MutableDriver):
    """Reports a page more while it is in any state but RUNNING."""

    violates: ClassVar = frozenset({"v1/discovery/shape-stays"})

    def _set_state(self, state: DeviceState) -> None:
        super()._set_state(state)
        size = self._section.offset + self._section.size
        more = 0 if state is DEFAULT_STATE else PAGE
        self.migration_region = MigrationRegion(size + more)


class AreasComeLate(MutableDriver):
    """Lists its area only once it saves; at open nothing can be mapped."""

    violates: ClassVar = frozenset({"v1/discovery/shape-stays"})

    def _set_state(self, state: DeviceState) -> None:
        super()._set_state(state)
        mapped = self._section.size if state.is_saving else 0
        self.migration_region = self._section.region(mapped=mapped)
