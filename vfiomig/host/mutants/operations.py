"""Mutants that start, stop, clear and unmap at the wrong time, or forget to."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar

from vfiomig.host.iommu import Iommu, Mapping, UserBitmap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.protocol.dirty_bitmap import DirtyLog

__all__ = [
    "AllDirtyOnlyOnce",
    "ClearsBeforeItCopies",
    "ClearsEverything",
    "ForgetsADetachedGroup",
    "NeverClears",
    "NewMappingsAreNotTracked",
    "StartingAgainForgets",
    "StopKeepsTheLogs",
    "StopNeedsAStart",
    "UnmapsAllTheSame",
    "UnmapsBeforeItReports",
    "UnwindsTheWrongLog",
]


class ForgetsADetachedGroup(Iommu):
    """Forgets with a group whose writes it cannot see that it wrote (BUG-IOMMU-02)."""

    violates: ClassVar = frozenset({"iommu/tracking/detached-group-dirties-all"})

    def _mark_everything(self) -> None:
        pass


class AllDirtyOnlyOnce(Iommu):
    """Takes such a group for one that is seen as soon as it was reported."""

    violates: ClassVar = frozenset({"iommu/tracking/unseen-group-dirties-all"})

    def _clear(self, mappings: Sequence[Mapping]) -> None:
        super()._clear(mappings)
        self._silent_groups = 0


class UnwindsTheWrongLog(Iommu):
    """Keeps the logs of earlier mappings when a later one's fails (BUG-IOMMU-03)."""

    violates: ClassVar = frozenset({"iommu/tracking/failed-start-leaves-nothing"})

    def start_tracking(self) -> None:
        """Start, mapping by mapping."""
        for mapping in self._mappings:
            mapping.log = mapping.log or self._new_log(mapping, 0)
        self.is_tracking = True


class StartingAgainForgets(Iommu):
    """Begins anew when it is started again."""

    violates: ClassVar = frozenset({"iommu/tracking/start-again-keeps-the-log"})

    def start_tracking(self) -> None:
        """Start, from nothing."""
        self.stop_tracking()
        super().start_tracking()


class NewMappingsAreNotTracked(Iommu):
    """Tracks only what was mapped when tracking began."""

    violates: ClassVar = frozenset(
        {"iommu/tracking/new-mappings-are-tracked", "iommu/tracking/no-dirt-is-lost"}
    )

    def map(self, mapping: Mapping) -> None:
        """Add a mapping."""
        super().map(mapping)
        mapping.log = None


class StopNeedsAStart(Iommu):
    """Refuses to stop what was not started."""

    violates: ClassVar = frozenset({"iommu/tracking/stop-without-start"})

    def stop_tracking(self) -> None:
        """Stop, if there is tracking."""
        self._require_tracking()
        super().stop_tracking()


class StopKeepsTheLogs(Iommu):
    """Stops tracking and leaves the logs where they are."""

    violates: ClassVar = frozenset({"iommu/tracking/stop-frees-the-logs"})

    def stop_tracking(self) -> None:
        """Stop."""
        self.is_tracking = False


class NeverClears(Iommu):
    """Reports what was ever written, again and again."""

    violates: ClassVar = frozenset({"iommu/get-bitmap/read-and-clear"})

    def _clear(self, mappings: Sequence[Mapping]) -> None:
        pass


class ClearsEverything(Iommu):
    """Clears every log, and not only those that were asked for."""

    violates: ClassVar = frozenset(
        {"iommu/get-bitmap/read-and-clear", "iommu/tracking/no-dirt-is-lost"}
    )

    def _clear(self, mappings: Sequence[Mapping]) -> None:
        super()._clear(self._mappings)


class ClearsBeforeItCopies(Iommu):
    """Clears a log before its bitmap has reached the user."""

    violates: ClassVar = frozenset(
        {
            "iommu/get-bitmap/failed-get-loses-nothing",
            "iommu/unmapping/failed-bitmap-unmaps-nothing",
        }
    )

    def _lay_one(self, log: DirtyLog, iova: int, base: int, bitmap: UserBitmap) -> None:
        try:
            super()._lay_one(log, iova, base, bitmap)
        finally:
            log.clear()


class UnmapsBeforeItReports(Iommu):
    """Drops the log with the mapping, and reports what is left (BUG-QV2-04)."""

    violates: ClassVar = frozenset(
        {"iommu/unmapping/gives-the-bitmap-first", "iommu/tracking/no-dirt-is-lost"}
    )

    def unmap(self, iova: int, size: int, bitmap: UserBitmap | None = None) -> int:
        """Remove mappings; there is nobody left then to have a bitmap."""
        if bitmap is not None:
            self._require_bitmap(bitmap, size)
        return super().unmap(iova, size)


class UnmapsAllTheSame(Iommu):
    """Unmaps although the bitmap could not be written."""

    violates: ClassVar = frozenset({"iommu/unmapping/failed-bitmap-unmaps-nothing"})

    def unmap(self, iova: int, size: int, bitmap: UserBitmap | None = None) -> int:
        """Remove mappings."""
        try:
            return super().unmap(iova, size, bitmap)
        except OSError as error:
            if error.errno == errno.EFAULT:
                super().unmap(iova, size)
            raise
