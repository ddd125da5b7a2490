"""The interrupts of one function, as vfio-pci hands them to its user.

Rule 1: at most one of INTx and MSI is set up at a time (``vdev->irq_type``); a user
sets one up by giving it eventfds to trigger, and tears it down with a count of 0.

Rule 2: INTx is a level.  When it fires it is masked (AUTOMASKED); unmasking fires it
again while the level is high.  A message is an event: nobody listens, it is gone.

Rule 3: an eventfd here is a duplicate of the user's, closed when it is replaced, torn
down, or with the device.  VFIO_DEVICE_RESET leaves them: so does vfio-pci, and QEMU
never registers the eventfd of REQ a second time.

Source: vfio_pci_intrs.c and vfio_main.c (``vfio_set_irqs_validate_and_prepare()``) of
Linux 6.1.  Left out: the eventfd that unmasks INTx.  Nothing here waits for a user to
write to one, so it is refused (ENOTTY), upon which QEMU unmasks by ioctl.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from vfiomig.uapi.vfio import (
    VFIO_IRQ_INFO_AUTOMASKED,
    VFIO_IRQ_INFO_EVENTFD,
    VFIO_IRQ_INFO_MASKABLE,
    VFIO_IRQ_INFO_NORESIZE,
    VFIO_IRQ_SET_ACTION_MASK,
    VFIO_IRQ_SET_ACTION_TRIGGER,
    VFIO_IRQ_SET_ACTION_TYPE_MASK,
    VFIO_IRQ_SET_ACTION_UNMASK,
    VFIO_IRQ_SET_DATA_BOOL,
    VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_IRQ_SET_DATA_NONE,
    VFIO_IRQ_SET_DATA_TYPE_MASK,
    VFIO_PCI_ERR_IRQ_INDEX,
    VFIO_PCI_INTX_IRQ_INDEX,
    VFIO_PCI_MSI_IRQ_INDEX,
    VFIO_PCI_NUM_IRQS,
    VFIO_PCI_REQ_IRQ_INDEX,
    vfio_irq_set,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.host.pci import PciIdentity

# What a call brings, one an interrupt: a flag, or an eventfd, or none.
_Given: TypeAlias = "list[Trigger | int | None]"

_U32_MAX: Final = (1 << 32) - 1
_KNOWN_FLAGS: Final = VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK
_HEADER_SIZE: Final = vfio_irq_set.count.offset + vfio_irq_set.count.size
_DATA_SIZES: Final = {
    VFIO_IRQ_SET_DATA_NONE: 0,
    VFIO_IRQ_SET_DATA_BOOL: 1,
    VFIO_IRQ_SET_DATA_EVENTFD: 4,
}
_INTX_FLAGS: Final = (
    VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED
)
_OTHER_FLAGS: Final = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE
_EVENTFD: Final = Path("anon_inode:[eventfd]")
_ONE: Final = struct.pack("=Q", 1)


class Trigger:
    """A duplicate of an eventfd of the user's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def signal(self) -> None:
        """Add 1 to its counter, without waiting: what overflows has been signalled.

        It may be one that blocks, and its flags are shared with the user: so it is
        asked first.  A user who fills the counter in between waits for himself.
        """
        if self._poll.poll(0):
            with contextlib.suppress(BlockingIOError):
                os.write(self._fd, _ONE)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


class Interrupts:
    """What a function of this identity has: INTx, MSI, and REQ.

    The device's side is `raise_` and `lower`, from any thread.
    """

    def __init__(self, identity: PciIdentity) -> None:
        self._counts = (
            1 if identity.interrupt_pin else 0,
            identity.msi_vectors,
            0,  # MSI-X
            0,  # ERR: for PCI Express alone
            1,  # REQ
        )
        self._lock = threading.RLock()
        self._index: int | None = None  # the one that is set up: INTx or MSI
        self._triggers: list[Trigger | None] = []
        self._request: Trigger | None = None
        self._is_high = self._is_masked = self._is_disabled = False
        self._is_closed = False

    # -- the device's side

    @property
    def is_high(self) -> bool:
        """Whether the device asserts INTx."""
        return self._is_high

    @property
    def is_msi(self) -> bool:
        """Whether MSI is set up."""
        return self._index == VFIO_PCI_MSI_IRQ_INDEX

    def raise_(self, vector: int) -> None:
        """Assert INTx, or send a message; ``ValueError`` for a vector there is not."""
        vectors = max(1, self._counts[VFIO_PCI_MSI_IRQ_INDEX])
        if not 0 <= vector < vectors:
            message = f"vector {vector}: the function has {vectors}"
            raise ValueError(message)
        with self._lock:
            if self.is_msi:
                self._signal(vector)
            if vector == 0 and self._counts[VFIO_PCI_INTX_IRQ_INDEX]:
                self._is_high = True
                self._fire()

    def lower(self) -> None:
        """Let go of INTx."""
        with self._lock:
            self._is_high = False

    def disable_intx(self, *, disabled: bool) -> None:
        """Follow bit 10 of the command register, as ``vfio_basic_config_write()``."""
        with self._lock:
            if disabled == self._is_disabled:
                return
            self._is_disabled = disabled
            if disabled:
                self._is_masked = True
            else:
                self._unmask()

    def close(self) -> None:
        """Close every eventfd; nothing is signalled any more."""
        with self._lock:
            self._is_closed = True
            self._tear_down()
            if self._request is not None:
                self._request.close()
                self._request = None

    # -- the user's side

    def info(self, index: int) -> tuple[int, int]:
        """Return flags and count of an index; OSError(EINVAL) for one there is not."""
        if index >= VFIO_PCI_NUM_IRQS or index == VFIO_PCI_ERR_IRQ_INDEX:
            _refuse(f"no interrupt has the index {index}")
        is_intx = index == VFIO_PCI_INTX_IRQ_INDEX
        return _INTX_FLAGS if is_intx else _OTHER_FLAGS, self._counts[index]

    def data_size(self, header: vfio_irq_set) -> int:
        """Return how many bytes of data follow the header of a VFIO_DEVICE_SET_IRQS.

        Raises OSError(EINVAL), as ``vfio_set_irqs_validate_and_prepare()`` does.
        """
        if header.argsz < _HEADER_SIZE:
            _refuse(f"argsz {header.argsz} is less than {_HEADER_SIZE}")
        if header.index >= VFIO_PCI_NUM_IRQS:
            _refuse(f"no interrupt has the index {header.index}")
        if header.count >= _U32_MAX - header.start or header.flags & ~_KNOWN_FLAGS:
            _refuse(f"count {header.count} or flags {header.flags:#x}")
        count = self._counts[header.index]
        if header.start >= count or header.start + header.count > count:
            _refuse(f"{header.count} from {header.start}: there are {count}")
        size = _DATA_SIZES.get(header.flags & VFIO_IRQ_SET_DATA_TYPE_MASK)
        if size is None:
            _refuse(f"flags {header.flags:#x} name no kind of data, or several")
        if header.argsz - _HEADER_SIZE < header.count * size:
            _refuse(f"argsz {header.argsz} for data of {header.count * size} bytes")
        return int(header.count * size)

    def set(
        self, header: vfio_irq_set, data: bytes, duplicate: Callable[[int], int]
    ) -> int:
        """Perform a VFIO_DEVICE_SET_IRQS whose header `data_size` found good.

        ``duplicate`` makes an fd of ours of one of the user's.  Raises OSError:
        EINVAL, ENOTTY, EBADF, ERANGE.
        """
        action = header.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK
        perform = self._ACTIONS.get((header.index, action))
        if perform is None:
            code = errno.ENOTTY
            raise OSError(code, f"flags {header.flags:#x} for index {header.index}")
        with self._lock:
            if header.flags & VFIO_IRQ_SET_DATA_EVENTFD:
                fds = struct.unpack(f"={header.count}i", data)
                with _Duplicates(fds, duplicate) as triggers:
                    return perform(self, header, triggers)
            told = header.flags & VFIO_IRQ_SET_DATA_NONE
            return perform(self, header, [True] * header.count if told else list(data))

    # -- INTx

    def _mask_intx(self, header: vfio_irq_set, given: _Given) -> int:
        self._require_intx(header)
        if header.flags & VFIO_IRQ_SET_DATA_EVENTFD:
            raise OSError(errno.ENOTTY, "no eventfd masks INTx")
        self._is_masked = self._is_masked or bool(given[0])
        return 0

    def _unmask_intx(self, header: vfio_irq_set, given: _Given) -> int:
        self._require_intx(header)
        if header.flags & VFIO_IRQ_SET_DATA_EVENTFD:
            if given[0] is not None:
                raise OSError(errno.ENOTTY, "no eventfd unmasks INTx here")
        elif given[0]:
            self._unmask()
        return 0

    def _trigger_intx(self, header: vfio_irq_set, given: _Given) -> int:
        is_intx = self._index == VFIO_PCI_INTX_IRQ_INDEX
        is_none = header.flags & VFIO_IRQ_SET_DATA_NONE
        if is_intx and is_none and not header.count:
            self._tear_down()
            return 0
        if self.is_msi or header.count != 1:
            _refuse("MSI is set up, or INTx is not one interrupt")
        if header.flags & VFIO_IRQ_SET_DATA_EVENTFD:
            if not is_intx:
                self._set_up(VFIO_PCI_INTX_IRQ_INDEX, 1)
                self._is_masked = self._is_disabled
            self._replace(0, given)
            self._fire()
            return 0
        self._require_intx(header)
        if given[0] and not self._is_disabled:
            self._signal(0)
        return 0

    def _require_intx(self, header: vfio_irq_set) -> None:
        if self._index != VFIO_PCI_INTX_IRQ_INDEX or header.count != 1:
            _refuse("INTx is not set up, or it is not one interrupt")

    def _fire(self) -> None:
        """Signal INTx if it is high and nothing keeps it back, and mask it then."""
        is_intx = self._index == VFIO_PCI_INTX_IRQ_INDEX
        if is_intx and self._is_high and not self._is_masked and self._triggers[0]:
            self._is_masked = True
            self._signal(0)

    def _unmask(self) -> None:
        if not self._is_disabled:
            self._is_masked = False
            self._fire()

    # -- MSI

    def _trigger_msi(self, header: vfio_irq_set, given: _Given) -> int:
        is_none = header.flags & VFIO_IRQ_SET_DATA_NONE
        if self.is_msi and is_none and not header.count:
            self._tear_down()
            return 0
        if self._index == VFIO_PCI_INTX_IRQ_INDEX:
            _refuse("INTx is set up")
        first, end = header.start, header.start + header.count
        if header.flags & VFIO_IRQ_SET_DATA_EVENTFD:
            if not self.is_msi:
                if not end:
                    raise OSError(errno.ERANGE, "MSI with no vector")
                self._set_up(VFIO_PCI_MSI_IRQ_INDEX, end)
            if end > len(self._triggers):  # VFIO_IRQ_INFO_NORESIZE
                _refuse(f"{end} vectors: {len(self._triggers)} are set up")
            for vector in range(first, end):
                self._replace(vector, given, vector - first)
            return 0
        if not self.is_msi:
            _refuse("MSI is not set up")
        for vector, is_told in enumerate(given, first):
            if is_told:
                self._signal(vector)
        return 0

    # -- REQ

    def _trigger_request(self, header: vfio_irq_set, given: _Given) -> int:
        """As ``vfio_pci_set_ctx_trigger_single()``."""
        is_none = header.flags & VFIO_IRQ_SET_DATA_NONE
        if is_none and self._request is None:
            _refuse("nobody waits for a request")
        if not header.count and not is_none:
            _refuse("a count of 0 with data")
        if header.flags & VFIO_IRQ_SET_DATA_EVENTFD or not header.count:
            if self._request is not None:
                self._request.close()
            self._request = _taken(given, 0) if given else None
        elif given[0] and self._request is not None:
            self._request.signal()
        return 0

    # -- what is set up

    def _set_up(self, index: int, count: int) -> None:
        self._index = index
        self._triggers = [None] * count

    def _tear_down(self) -> None:
        for trigger in self._triggers:
            if trigger is not None:
                trigger.close()
        self._triggers = []
        self._index = None

    def _replace(self, vector: int, given: _Given, position: int = 0) -> None:
        before = self._triggers[vector]
        if before is not None:
            before.close()
        self._triggers[vector] = _taken(given, position)

    def _signal(self, vector: int) -> None:
        if vector < len(self._triggers) and not self._is_closed:
            trigger = self._triggers[vector]
            if trigger is not None:
                trigger.signal()

    _ACTIONS: Final = {
        (VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_MASK): _mask_intx,
        (VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_UNMASK): _unmask_intx,
        (VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_TRIGGER): _trigger_intx,
        (VFIO_PCI_MSI_IRQ_INDEX, VFIO_IRQ_SET_ACTION_TRIGGER): _trigger_msi,
        (VFIO_PCI_REQ_IRQ_INDEX, VFIO_IRQ_SET_ACTION_TRIGGER): _trigger_request,
    }


class _Duplicates:
    """Triggers of a user's fds, -1 for none; closed at the end unless `_taken`."""

    def __init__(self, fds: tuple[int, ...], duplicate: Callable[[int], int]) -> None:
        self._triggers: _Given = []
        try:
            for fd in fds:
                trigger = None if fd < 0 else Trigger(_eventfd(fd, duplicate))
                self._triggers.append(trigger)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> _Given:
        return self._triggers

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        for trigger in self._triggers:
            if isinstance(trigger, Trigger):
                trigger.close()


def _taken(triggers: _Given, position: int) -> Trigger | None:
    """Take a trigger out of the list: it is the caller's now."""
    trigger, triggers[position] = triggers[position], None
    return trigger if isinstance(trigger, Trigger) else None


def _eventfd(fd: int, duplicate: Callable[[int], int]) -> int:
    """Duplicate an eventfd of the user's; OSError: EBADF, EINVAL for another file."""
    ours = duplicate(fd)
    if Path(f"/proc/self/fd/{ours}").readlink() != _EVENTFD:
        os.close(ours)
        _refuse(f"fd {fd} is no eventfd")
    return ours


def _refuse(why: str) -> NoReturn:
    raise OSError(errno.EINVAL, why)
