"""Random calls from a hostile process, beside a well-behaved one on the same broker."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.unit.serve.devices import USE_DEVICES, Machine
from tests.unit.serve.programs import run

# What is thrown: calls, from several threads, while memory comes and goes.
HOSTILE = """
import random, time
KNOWN = [0x3b64 + n for n in range(24)]
RW = raw(MMAP, 0, 16384, 3, 0x22, -1, 0)
libc.munmap(u64(RW + 8192), u64(8192))
READ_ONLY = raw(MMAP, 0, 4096, 1, 0x22, -1, 0)
COMES_AND_GOES = raw(MMAP, 0, 4096, 3, 0x22, -1, 0)
POINTERS = [RW, RW + 64, RW + 8192 - 4, RW + 8192 - 40, RW + 8192, READ_ONLY,
            COMES_AND_GOES, COMES_AND_GOES + 4090, 0, 1, 0xfff, (1 << 64) - 1,
            (1 << 64) - 8, 1 << 63, 0xffff800000000000, (1 << 47) - 4]
NUMBERS = [0, 1, 2, 3, 4, 7, 8, 9, 16, 24, 31, 32, 33, 40, 48, 64, 4096, 65536, 1 << 20,
           (1 << 32) - 1, 1 << 31]
SIZES = NUMBERS + [1 << 26, (1 << 26) + 1, 1 << 36, 1 << 63, (1 << 64) - 1]
PLACES = [0, 4, 8, 16, 24, 32, 4096, 8192, 1 << 40, 9 << 40, 1 << 56, (1 << 56) + 4,
          (1 << 56) + (7 << 40), (1 << 56) + (9 << 40), 1 << 63, (1 << 64) - 1]
CONTAINER_WORDS = [0, 8, 4096, 8192, 16384, 1 << 30, 1 << 36, RW, COMES_AND_GOES]
def throw(seed, until, devices):
    luck = random.Random(seed)
    own = RW + 1024 * (1 + seed % 7)
    fds = [group, *[container] * 5, *devices * 3, 1000, 1003, 1010, -1, 77777]
    def number():
        any_number = luck.getrandbits(luck.randint(1, 32))
        return luck.choice((luck.choice(NUMBERS), any_number))
    def ioctl():
        head = [number(), number()]
        if luck.random() < .7:  # not nonsense from the beginning
            head = [luck.choice((24, 32, 48, 64, 512)), luck.randrange(8)]
            head[1] |= luck.choice((0, 0, 0, 8, 16, 32))
        words = [luck.choice((0, 1, 2, 4, 9, number())) for _ in range(5)]
        wide = [luck.choice(CONTAINER_WORDS) for _ in range(5)]
        data = struct.pack("=7I", *head, *words)
        if luck.random() < .6:
            data = struct.pack("=2I5Q", *head, *wide)
        place = own if luck.random() < .6 else RW + luck.choice((0, 64))
        ctypes.memmove(place, data, len(data))
        request = luck.choice(KNOWN) if luck.random() < .9 else luck.getrandbits(32)
        argument = place if luck.random() < .7 else luck.choice(POINTERS)
        raw(IOCTL, luck.choice(fds), request, argument)
    def access():
        call = luck.choice((PREAD, PWRITE))
        place = luck.choice(PLACES) + luck.choice((0, 0, 1, 4, 8, 24))
        size = luck.choice(SIZES) if luck.random() < .3 else luck.choice((1, 2, 4, 8))
        pointer = luck.choice(POINTERS) if luck.random() < .5 else RW
        raw(call, luck.choice(fds), pointer, size, place & (1 << 64) - 1)
    def paths():
        raw(OPENAT, luck.choice((-100, *fds)), luck.choice(POINTERS), number(), 0)
        name = luck.choice(("8", "vfio", "", "x"))
        found = tried(os.open, f"/dev/vfio/{name}", luck.choice((0, 2, os.O_CLOEXEC)))
        if isinstance(found, int):
            os.close(found)
    def mapping():
        where = luck.choice(PLACES) & -4096
        found = raw(MMAP, 0, luck.choice(SIZES), 3, luck.choice((1, 2)),
                    luck.choice(fds), where)
        if not isinstance(found, str):
            libc.munmap(ctypes.c_void_p(found), u64(4096))
    def files():
        fd = luck.choice(devices)
        tried(os.ftruncate, fd, luck.choice((0, 4096, 1 << 30)))
        libc.fallocate(fd, luck.choice((0, 3)), u64(0), u64(luck.choice((1, 1 << 30))))
        tried(fcntl.fcntl, fd, 1033, luck.choice((1, 2, 4, 8, 16)))
        tried(os.write, fd, b"x" * 100)
    def come_and_go():
        libc.munmap(u64(COMES_AND_GOES), u64(4096))
        raw(MMAP, COMES_AND_GOES, 4096, 3, 0x32, -1, 0)
    throws = [ioctl] * 12 + [access] * 12 + [paths, mapping, files, come_and_go]
    done = 0
    while time.monotonic() < until:
        luck.choice(throws)()
        done += 1
    return done
def be_hostile(seed, seconds):
    os.chdir("/proc/self")  # where no open makes a file, whatever its flags
    join(8)
    devices = [Device("one").fd, Device("other").fd]
    until = time.monotonic() + seconds
    done = []
    def throw_all(number):
        done.append(throw(seed + number, until, devices))
    threads = [threading.Thread(target=throw_all, args=(n,)) for n in range(3)]
    for each in threads: each.start()
    for each in threads: each.join()
    say("thrown", sum(done))
"""

BOTH = """
def be_good():
    join(7)
    moved, source, destination = migrate()
    source.close(); destination.close()
    os.close(group); os.close(container)
    return moved
pid = os.fork()
if not pid:
    try:
        be_hostile({seed}, {seconds})
    finally:
        os._exit(0)
migrated = 0
while not migrated or not os.waitpid(pid, os.WNOHANG)[0]:
    assert be_good() > 1000
    migrated += 1
assert be_good() > 1000
say("migrated", migrated)
"""


def memory(what: str) -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{what}:\s*(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


def throw(seed: int, seconds: float, target: str) -> None:
    fds = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    machine = Machine(target)
    hostile = HOSTILE + BOTH.format(seed=seed, seconds=seconds)
    told = dict(run(USE_DEVICES + hostile, machine))
    assert told["thrown"] > 100
    assert told["migrated"]
    source, destination = machine.snapshots()
    assert source == destination
    assert memory("VmHWM") - before < 256 << 20
    assert set(os.listdir("/proc/self/fd")) == fds  # noqa: PTH208


@pytest.mark.parametrize("section", ["mapped", "split"])
def test_random_calls_do_no_harm(section: str) -> None:
    throw(1, 0.7, f"accelerator,memory=64K,data-section={section}")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("section", ["mapped", "split", "trapped"])
def test_many_random_calls_do_no_harm(seed: int, section: str) -> None:
    throw(100 * seed, 5, f"accelerator,memory=64K,data-section={section}")
