"""What these devices are: a counter, and bytes that change with it."""

from __future__ import annotations

from typing import Final

_COUNTER: Final = 8
_TICKS_A_CHANGE: Final = 8
_MULTIPLIER: Final = 6364136223846793005
_MOST_AT_ONCE: Final = 1 << 12  # one call does not take long, whatever it asks for


class DeviceMemory:
    """``size`` bytes of device state; the first 8 count the units of work.

    What the next unit changes follows from the counter alone, so a device that was
    restored goes on as its source would have.
    """

    def __init__(self, size: int) -> None:
        self.bytes = bytearray(size)
        self.power_on()

    def power_on(self) -> None:
        """Go back to what a device is before anything reached it."""
        size = len(self.bytes) - _COUNTER
        self.bytes[:] = bytes(_COUNTER) + bytes(i * 7 & 0xFF for i in range(size))

    def work(self, amount: int) -> list[int]:
        """Do ``amount`` units of work; return the places of the bytes that changed."""
        size = len(self.bytes)
        counter = self._counter()
        places = list(range(_COUNTER)) if amount > 0 else []
        for unit in range(min(amount, _MOST_AT_ONCE)):
            bits = (counter + unit + 1) * _MULTIPLIER & (1 << 64) - 1
            place = _COUNTER + (bits >> 33) % (size - _COUNTER)
            self.bytes[place] ^= 1 + (bits >> 24) % 255
            places.append(place)
        self._count(counter + max(amount, 0))
        return places

    def tick(self) -> list[int]:
        """Let a moment pass: the counter goes on, and at times another byte changes."""
        counter = self._counter()
        if counter % _TICKS_A_CHANGE == 0:
            return self.work(1)
        self._count(counter + 1)
        return list(range(_COUNTER))

    def _counter(self) -> int:
        return int.from_bytes(self.bytes[:_COUNTER], "little")

    def _count(self, counter: int) -> None:
        counter &= (1 << 64) - 1
        self.bytes[:_COUNTER] = counter.to_bytes(_COUNTER, "little")
