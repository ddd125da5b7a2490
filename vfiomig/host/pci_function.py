"""A driver as a PCI function: configuration space, BARs, interrupts, and its bus.

Rule 1: a driver need not know of any of this.  One without ``identity`` has
`DEFAULT_IDENTITY`, one without ``bars`` has none, one without ``connect`` is never
told of the bus.

Rule 2: accesses are vfio-pci's.  What a user reads or writes in a BAR reaches the
driver in naturally aligned pieces of 1, 2, 4 or 8 bytes; it ends with the BAR, and
begins inside (EINVAL).  A memory BAR answers EIO while the command register does not
enable memory space; ports are not held back (``vfio_pci_bar_rw()`` of Linux 6.12).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.host.config_space import ConfigSpace
from vfiomig.host.driver_death import bar_answer_of, impossible, reraise
from vfiomig.host.interrupts import Interrupts
from vfiomig.host.pci import DEFAULT_IDENTITY, Bar, PciIdentity
from vfiomig.uapi.pci import (
    PCI_COMMAND_INTX_DISABLE,
    PCI_COMMAND_MASTER,
    PCI_COMMAND_MEMORY,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.host.pci import Dma

NO_BAR: Final = Bar(0)

_ACCESS: Final = "opening"


class PciFunction:
    """The function that a driver is; ``dma`` is the memory of whoever opened it.

    Raises OSError or `DriverDiedError` as the driver's members do, the latter also
    for an identity or BARs that no function can have.
    """

    def __init__(self, driver: object, dma: Dma | None) -> None:
        self._driver = driver
        self.identity = _identity_of(driver)
        self.bars = _bars_of(driver)
        try:
            self._config = ConfigSpace(self.identity, self.bars)
            self.interrupts = Interrupts(self.identity)
        except (AttributeError, TypeError, ValueError) as error:
            what = f"{type(error).__name__}: {error}"
            raise impossible(driver, _ACCESS, what) from error
        self._bus = _FunctionBus(self._config, self.interrupts, dma)

    def connect(self) -> None:
        """Tell the driver of its bus, if it wants to know."""
        try:
            self._driver.connect(self._bus)  # type: ignore[attr-defined]
        except BaseException as error:
            reraise(self._driver, error, _ACCESS, "connect")

    # -- the configuration space

    def read_config(self, offset: int, size: int) -> bytes:
        """Read; OSError(EFAULT) for what is not wholly inside."""
        self._config.show_interrupt(pending=self.interrupts.is_high)
        return self._config.read(offset, size)

    def write_config(self, offset: int, data: bytes) -> None:
        """Write, and do what was asked by it; OSError(EFAULT) as above."""
        self._config.write(offset, data)
        self._follow_config()

    def _follow_config(self) -> None:
        disabled = bool(self._config.command & PCI_COMMAND_INTX_DISABLE)
        self.interrupts.disable_intx(disabled=disabled)
        if not self.interrupts.is_msi:
            # As vfio_msi_config_write(): "MSI is enabled via ioctl".
            self._config.disable_msi()

    # -- the BARs

    def bar(self, number: int) -> Bar:
        """Return one; its size is 0 if it is not there."""
        return self.bars[number] if number < len(self.bars) else NO_BAR

    def read_bar(self, number: int, offset: int, size: int) -> bytes:
        """Read up to ``size`` bytes; fewer where the BAR ends."""
        driver = self._driver
        answer = b""
        for place, width in self._pieces(number, offset, size):
            what = f"read of {width} bytes at {place:#x} of BAR {number}"
            try:
                data = driver.read_bar(number, place, width)  # type: ignore[attr-defined]
            except BaseException as error:
                reraise(driver, error, what, "read_bar")
            answer += bar_answer_of(driver, data, width, what)
        return answer

    def write_bar(self, number: int, offset: int, data: bytes) -> int:
        """Write up to the end of the BAR; return how many bytes that were."""
        driver = self._driver
        done = 0
        for place, width in self._pieces(number, offset, len(data)):
            try:
                driver.write_bar(  # type: ignore[attr-defined]
                    number, place, data[done : done + width]
                )
            except BaseException as error:
                what = f"write of {width} bytes at {place:#x} of BAR {number}"
                reraise(driver, error, what, "write_bar")
            done += width
        return done

    def _pieces(self, number: int, offset: int, size: int) -> Iterator[tuple[int, int]]:
        bar = self.bar(number)
        if offset >= bar.size:
            message = f"BAR {number} has {bar.size} bytes: none at {offset:#x}"
            raise OSError(errno.EINVAL, message)
        if bar.space == "memory" and not self._config.command & PCI_COMMAND_MEMORY:
            raise OSError(errno.EIO, f"memory space is not enabled: BAR {number}")
        end = min(offset + size, bar.size)
        while offset < end:
            width = next(
                width
                for width in (8, 4, 2, 1)
                if offset % width == 0 and offset + width <= end
            )
            yield offset, width
            offset += width

    # -- the rest of its life

    def reset(self) -> None:
        """Follow a reset that the driver has performed.

        The configuration space is what it was at power-on, and INTx is low.  Eventfds
        stay where they are: see `interrupts`.
        """
        self.interrupts.lower()
        self._config.reset()
        self._follow_config()

    def close(self) -> None:
        """Close the eventfds, and let the driver reach nothing any more."""
        self._bus.close()
        self.interrupts.close()


class _FunctionBus:
    """The `Bus` of one function.

    Neither DMA nor messages leave it before its user sets the bus master bit.  PCI
    Express Base Specification 3.0, 7.5.1.1, Bus Master Enable: "Controls the ability
    of a PCI Express Endpoint to issue Memory and I/O Read/Write Requests", "setting
    the Bus Master Enable bit to 0b disables MSI/MSI-X interrupt Messages as well".
    Such a request ends in EFAULT, as one does that nobody answers; a message is lost.
    """

    def __init__(
        self, config: ConfigSpace, interrupts: Interrupts, dma: Dma | None
    ) -> None:
        self._config = config
        self._interrupts = interrupts
        self._dma = dma

    def raise_interrupt(self, vector: int) -> None:
        """Drive INTx, or send a message; ValueError for a vector there is not."""
        if self._interrupts.is_msi and not self._is_master:
            return
        self._interrupts.raise_(vector)

    def lower_interrupt(self, vector: int) -> None:
        """Let go of INTx, which is vector 0."""
        if vector == 0:
            self._interrupts.lower()

    def dma_read(self, iova: int, size: int) -> bytes:
        """Return ``size`` bytes of the user's memory; OSError(EFAULT)."""
        return self._reachable().dma_read(iova, size)

    def dma_write(self, iova: int, data: bytes | memoryview) -> None:
        """Put ``data`` into the user's memory; OSError(EFAULT)."""
        self._reachable().dma_write(iova, data)

    def close(self) -> None:
        """Reach nothing any more."""
        self._dma = None

    @property
    def _is_master(self) -> bool:
        return bool(self._config.command & PCI_COMMAND_MASTER)

    def _reachable(self) -> Dma:
        if self._dma is None:
            raise OSError(errno.EFAULT, "the function is on no bus with memory")
        if not self._is_master:
            raise OSError(errno.EFAULT, "the function is not enabled as bus master")
        return self._dma


def _identity_of(driver: object) -> PciIdentity:
    try:
        identity = getattr(driver, "identity", None)
    except BaseException as error:
        reraise(driver, error, _ACCESS, "identity")
    return DEFAULT_IDENTITY if identity is None else identity


def _bars_of(driver: object) -> tuple[Bar, ...]:
    try:
        bars = getattr(driver, "bars", ())
    except BaseException as error:
        reraise(driver, error, _ACCESS, "bars")
    try:
        return tuple(Bar(*bar) for bar in bars)
    except TypeError as error:
        what = f"its bars are no tuple of (size, io or memory): {error}"
        raise impossible(driver, _ACCESS, what) from error
