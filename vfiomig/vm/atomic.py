"""Atomic changes of memory that others change at the same time: libatomic's, by ctypes.

What Python writes with one store does not tear, but reading and writing back loses what
somebody wrote in between.  The calls keep the GIL: they are shorter than giving it up.
Sequentially consistent, on 1, 2, 4 or 8 bytes of this machine's byte order.
"""

from __future__ import annotations

import ctypes
import errno
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SIZES: Final = (1, 2, 4, 8)

# Address, what is expected, what to write: whether it was written.
Swapping: TypeAlias = "Callable[[int, int, int], bool]"

_LIBRARY: Final = "libatomic.so.1"
_PACKAGE: Final = "libatomic1"  # Debian's
_SEQ_CST: Final = 5  # __ATOMIC_SEQ_CST
_TYPES: Final[Mapping[int, type[Any]]] = {
    1: ctypes.c_uint8,
    2: ctypes.c_uint16,
    4: ctypes.c_uint32,
    8: ctypes.c_uint64,
}


class Swap(NamedTuple):
    """What a compare-and-swap found there, and whether it put its own in place."""

    old: int
    is_done: bool


class _Calls(NamedTuple):
    """libatomic's functions for one size."""

    compare_exchange: Callable[..., bool]
    fetch_or: Callable[[int, int, int], int]
    fetch_and: Callable[[int, int, int], int]


def compare_and_swap(address: int, size: int, expected: int, desired: int) -> Swap:
    """Write ``desired`` if ``expected`` stands there, in one step.

    Addresses are of this process, and nobody checks that they are mapped.

    Raises:
        OSError: EINVAL for a size that is none, or an address that is no multiple of
            it; ENOENT where libatomic is missing.
    """
    calls = _calls_for(address, size)
    found = _TYPES[size](expected)
    is_done = calls.compare_exchange(
        address, ctypes.byref(found), desired, _SEQ_CST, _SEQ_CST
    )
    return Swap(found.value, bool(is_done))


def fetch_or(address: int, size: int, bits: int) -> int:
    """Set ``bits``; return what stood there before. Raises as `compare_and_swap`."""
    return _calls_for(address, size).fetch_or(address, bits, _SEQ_CST)


def fetch_and(address: int, size: int, mask: int) -> int:
    """Clear what is not in ``mask``; return what stood there before.

    Raises as `compare_and_swap`.
    """
    return _calls_for(address, size).fetch_and(address, mask, _SEQ_CST)


def swapping(size: int) -> Swapping:
    """Return a compare-and-swap of one size for whoever does nothing else.

    It makes no object for a call, which is a third of the price of `compare_and_swap`,
    and does not tell what it found.  For one thread; addresses are the caller's to
    check, multiples of the size.

    Raises:
        OSError: EINVAL for a size that is none; ENOENT where libatomic is missing.
    """
    _calls_for(0, size)
    exchange = _library()[f"__atomic_compare_exchange_{size}"]
    exchange.restype = ctypes.c_bool
    place, found, wanted = ctypes.c_void_p(), _TYPES[size](), _TYPES[size]()
    into = ctypes.byref(found)

    def swap(address: int, expected: int, desired: int) -> bool:
        place.value, found.value, wanted.value = address, expected, desired
        done: bool = exchange(place, into, wanted, _SEQ_CST, _SEQ_CST)
        return done

    return swap


def _calls_for(address: int, size: int) -> _Calls:
    if size not in SIZES or address % size:
        # Across a cache line nothing is atomic; futex(2) answers the same.
        message = f"{size} bytes at {address:#x} cannot be changed in one step"
        raise OSError(errno.EINVAL, message)
    return _all_calls()[size]


@cache
def _library() -> ctypes.PyDLL:
    try:
        return ctypes.PyDLL(_LIBRARY)
    except OSError as error:
        message = f"{_LIBRARY} cannot be loaded ({error}): apt-get install {_PACKAGE}"
        raise OSError(errno.ENOENT, message) from None


@cache
def _all_calls() -> dict[int, _Calls]:
    library = _library()
    return {size: _calls_of(library, size) for size in SIZES}


def _calls_of(library: ctypes.PyDLL, size: int) -> _Calls:
    kind = _TYPES[size]
    pointer = ctypes.c_void_p

    def fetching(name: str) -> Any:
        call = library[f"__atomic_fetch_{name}_{size}"]
        call.argtypes, call.restype = (pointer, kind, ctypes.c_int), kind
        return call

    exchange = library[f"__atomic_compare_exchange_{size}"]
    exchange.argtypes = (
        pointer,
        ctypes.POINTER(kind),
        kind,
        ctypes.c_int,
        ctypes.c_int,
    )
    exchange.restype = ctypes.c_bool
    return _Calls(exchange, fetching("or"), fetching("and"))
