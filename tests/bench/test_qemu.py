"""1 GiB of device state through a real QEMU, against what any program has to do for it.

Beside it: the driver's own copy of it, once, and a `cat` that reads it from a pipe.
QEMU writes into the same `cat`; its time is its own account of it (query-migrate).
"""

from __future__ import annotations

import mmap
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from tests.bench.figures import best_of, show
from tests.interop.steered_qemu import SteeredQemu

SIZE: Final = 1 << 30
PIECE: Final = 1 << 20
FAST: Final = 1 << 40  # bytes a second
DEVICE: Final = "accelerator,memory=1G,data-section=mapped"


def memmove_and_cat() -> float:
    """Copy 1 GiB between mappings that are there, and write it to a `cat`."""
    with mmap.mmap(-1, SIZE) as source, mmap.mmap(-1, SIZE) as target:
        for pages in (source, target):
            for at in range(0, SIZE, mmap.PAGESIZE):
                pages[at] = 1
        began = time.perf_counter()
        with memoryview(source) as there, memoryview(target) as here:
            here[:] = there
            with subprocess.Popen(
                "cat > /dev/null", shell=True, stdin=subprocess.PIPE, bufsize=0
            ) as cat:
                assert cat.stdin is not None
                for at in range(0, SIZE, PIECE):
                    cat.stdin.write(here[at : at + PIECE])
                cat.stdin.close()
        return time.perf_counter() - began


def qemu() -> float:
    """Return QEMU's total time."""
    with tempfile.TemporaryDirectory() as folder:
        source = SteeredQemu(Path(folder), "source", (DEVICE,), traced=())
        with source:
            source.until("running")
            source.ask("migrate-set-parameters", **{"max-bandwidth": FAST})
            assert source.migrated("exec:cat > /dev/null") == "completed"
            figures: Any = source.ask("query-migrate")
            source.end()
    return float(figures["total-time"]) / 1000


def test_1_gib_of_device_state_through_qemu() -> None:
    bare, whole = best_of(memmove_and_cat, qemu, runs=3)
    print(f"\nQEMU: {whole * 1000:.0f} ms, memmove and cat: {bare * 1000:.0f} ms")
    show("1 GiB of device state", whole / bare, 3, "a memmove and a cat of it")
