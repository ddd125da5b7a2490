"""An accelerator of 1 GiB over the memory transport, against memmove."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys

from tests.bench.figures import best_of, show, timed
from tests.bench.machines import Side, migrate
from vfiomig.conformance.target import load_target

GIB = 1 << 30
TARGET = "accelerator,memory=1G"

# Out of the state, over the link, into the state: see "the life of one buffer" in
# ARCHITECTURE.md.
COPIES = 3


class Memmoves:
    """``COPIES`` memmoves of 1 GiB between two mappings, all pages touched before.

    In a row, so that both sides of the ratio take about as long: the shorter of two
    would be the likelier to fall into a quiet moment of a shared machine.
    """

    def __init__(self) -> None:
        self.mappings = [mmap.mmap(-1, GIB) for _ in range(2)]
        views = [ctypes.c_char.from_buffer(mapping) for mapping in self.mappings]
        self.target, self.source = map(ctypes.addressof, views)
        for address in (self.target, self.source):
            ctypes.memset(address, 1, GIB)

    def __call__(self) -> float:
        return timed(lambda: ctypes.memmove(self.target, self.source, GIB), COPIES)


def migrate_once() -> float:
    make = load_target(TARGET).make_driver
    source, destination = Side.of(make()), Side.of(make())
    took = timed(lambda: migrate(source, destination))
    source.fd.close()
    destination.fd.close()
    return took


def test_an_accelerator_of_a_gibibyte() -> None:
    memmoves, whole = best_of(Memmoves(), migrate_once, runs=9)
    beside = f"({COPIES} copies x one memmove of 1 GiB)"
    show("1 GiB of accelerator", whole / memmoves, 1.3, beside)


def test_its_peak_memory() -> None:
    """Three times the state, and 64 MiB (design.md section 7), in a fresh process."""
    # Not ru_maxrss: a child begins with its parent's.
    code = (
        "from tests.bench.test_accelerator_migration import migrate_once as run; run();"
        "print(*[l for l in open('/proc/self/status') if l.startswith('VmHWM')])"
    )
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    peak = int(output.split()[1]) * 1024
    over = (peak - 3 * GIB) / (1 << 20)
    show("peak memory with 1 GiB of state", peak / GIB, 3 + 64 / 1024, "the state")
    print(f"({over:+.0f} MiB against three times the state)")
