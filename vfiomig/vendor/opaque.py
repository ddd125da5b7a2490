"""A device of which nothing is known: a blob that goes in stop-and-copy alone."""

from __future__ import annotations

from typing import Final

from vfiomig.vendor.pseudo_random import following
from vfiomig.vendor.whole_image import WholeImage


class OpaqueModel:
    """``state`` bytes, perhaps none; a `DeviceModel`.

    The first eight (or as many as there are) are the generator of the guest traffic,
    so that any content is a state that the device can be in.
    """

    kind: Final = int.from_bytes(b"OPAQ", "big")

    def __init__(self, state: int = 64 * 1024) -> None:
        if state < 0:
            message = f"{state} bytes of state"
            raise ValueError(message)
        self.shape = state
        self._image = image = WholeImage(state)
        self.snapshot = image.snapshot
        self.power_on = image.power_on
        self.begin_saving = image.begin_saving
        self.pending = image.pending
        self.save = image.save
        self.requeue = image.requeue
        self.end_saving = image.end_saving
        self.begin_loading = image.begin_loading
        self.load = image.load
        self.drop_loading = image.drop_loading

    def work(self, amount: int) -> None:
        """Change ``amount`` pseudo-random bytes, and the generator with each."""
        if amount <= 0 or self.shape == 0:
            return
        self._image.touch()
        view = self._image.view
        width = min(8, self.shape)
        modulus = 1 << 8 * width
        generator = int.from_bytes(view[:width], "little")
        for _ in range(amount):
            generator = following(generator, modulus)
            if self.shape > width:
                view[width + (generator >> 32) % (self.shape - width)] ^= (
                    1 + (generator >> 56) % 255
                )
        view[:width] = generator.to_bytes(width, "little")

    def finish_loading(self) -> None:
        """Make what came the device's state; ``OSError(EINVAL)`` if a part did not."""
        self._image.finish_loading(_accept)


def _accept(image: memoryview) -> None:
    """Find nothing wrong: any content is a state."""
