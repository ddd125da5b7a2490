"""A VM with soft-RoCE: Debian's kernel, and this machine's files, read-only.

The whole of / is the VM's by 9p, with a tmpfs laid over it: what runs inside is this
machine's Python on this checkout, and nothing that it writes gets out.  Three serial
cards lead to here: the kernel's console, what the tests print, and how it ended.
"""

from __future__ import annotations

import os
import selectors
import shlex
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from tests import initramfs
from tests.rdma import kernel, needs
from vfiomig.conformance.parent import die_with

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

ADDRESS: Final = "10.78.0.1"  # of the RDMA device

_LAST_LINES: Final = 20  # of the console, where something went wrong
_PATIENCE: Final = 10.0  # seconds, for a QEMU that was killed to go
_TMP: Final = "/dev/shm/tmp"
_EXIT: Final = "exit "  # what the verdict of a run begins with

_CONSOLE: Final = "console"
_VERDICT: Final = "verdict"
_ERRORS: Final = "errors"

# -cpu max: some programs look for what only a new CPU has.  A VM under KVM could be
# faster, but CI has none, and not every KVM boots this kernel.
_QEMU: Final = (
    *("-M", "pc", "-accel", "tcg,thread=multi", "-cpu", "max"),
    *("-smp", "2", "-m", "1024"),
    *("-nodefaults", "-display", "none", "-no-reboot"),
    # Whatever is mounted below / on this machine is part of the export.
    "-virtfs",
    "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
    *("-netdev", "hubport,id=net,hubid=0", "-device", "virtio-net-pci,netdev=net"),
)
_KERNEL_ARGUMENTS: Final = "console=ttyS0 quiet panic=-1"

# A closed serial port has sent all, so that nothing is lost to `reboot`, which ends
# QEMU.  The first word of what `end` says is "exit" only behind the tests.
_INIT: Final = """#!/bin/busybox sh
/bin/busybox --install -s /bin
end() {{ echo "$*" > /dev/ttyS2; reboot -f; }}
try() {{ "$@" || end "failed: $*"; }}
mount -t devtmpfs devices /dev
mount -t proc proc /proc
for port in 1 2; do stty -F /dev/ttyS$port 115200 raw -echo; done
for module in {modules}; do try insmod /modules/$module; done
mkdir -p /host /over /root
try mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 host /host
try mount -t tmpfs none /over
mkdir /over/upper /over/work
layers=lowerdir=/host,upperdir=/over/upper,workdir=/over/work
try mount -t overlay -o $layers none /root
try mount -t proc proc /root/proc
try mount -t sysfs sysfs /root/sys
try mount -t devtmpfs devices /root/dev
mkdir -p /root/dev/shm /root/dev/pts
try mount -t tmpfs none /root/dev/shm
try mount -t devpts none /root/dev/pts
mkdir /root{tmp}
try ip link set lo up
try ip address add {address}/24 dev eth0
try ip link set eth0 up
try chroot /root {rdma} link add rxe0 type rxe netdev eth0
read -r seconds _ < /proc/uptime
echo "test-rdma: Linux $(uname -r) has {address} on rxe0 after $seconds s" > /dev/ttyS1
chroot /root {command} < /dev/null > /dev/ttyS1 2>&1
end "{exit}$?"
"""


class Outcome(NamedTuple):
    """How a run ended: the command's exit status, or why there is none."""

    status: int | None
    fault: str = ""
    console: str = ""  # the last lines of QEMU and of the kernel


def run(
    command: Sequence[str],
    parts: needs.Needs,
    folder: Path,
    *,
    environment: Mapping[str, str],
    limit: float,
    show: Callable[[bytes], object],
) -> Outcome:
    """Run a command in a new VM, in the checkout, as root of the VM.

    ``folder`` is a temporary one; ``show`` gets what the command prints, as it prints
    it. The VM ends with this process, and after ``limit`` seconds.
    """
    init = _init(command, parts, environment)
    files = {f"modules/{each.name}": kernel.contents(each) for each in parts.modules}
    (folder / "initramfs").write_bytes(initramfs.archive(init, files))
    (folder / "kernel").write_bytes(kernel.unpacked(parts.kernel))
    arguments = (
        *(parts.qemu, *_QEMU, "-kernel", f"{folder}/kernel"),
        *("-initrd", f"{folder}/initramfs", "-append", _KERNEL_ARGUMENTS),
        *("-serial", f"file:{folder}/{_CONSOLE}"),
        *("-chardev", "stdio,id=tests,signal=off", "-serial", "chardev:tests"),
        *("-serial", f"file:{folder}/{_VERDICT}"),
    )
    with (folder / _ERRORS).open("w") as errors:
        started = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            preexec_fn=partial(die_with, os.getpid()),
        )
        with started:
            try:
                in_time = _copy(started, show, time.monotonic() + limit)
                status = started.wait(_PATIENCE) if in_time else 0
            finally:
                started.kill()
    late = "" if in_time else f"it had not ended after {limit:g} s"
    return _outcome(folder, late or (status and f"QEMU ended with {status}") or "")


def _copy(
    started: subprocess.Popen[bytes], show: Callable[[bytes], object], deadline: float
) -> bool:
    """Show what comes until QEMU closes its end; tell whether that was in time."""
    assert started.stdout is not None
    number = started.stdout.fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(number, selectors.EVENT_READ)
        while (remaining := deadline - time.monotonic()) > 0:
            if selector.select(remaining):
                if not (data := os.read(number, 1 << 16)):
                    return True
                show(data)
    return False


def _outcome(folder: Path, fault: str) -> Outcome:
    """Return what the VM told last, or why it told nothing."""
    told = _text(folder / _VERDICT).strip()
    number = told.removeprefix(_EXIT)
    if told.startswith(_EXIT) and number.isdecimal():
        return Outcome(int(number))
    console = _text(folder / _CONSOLE).splitlines()
    panics = [line for line in console if "Kernel panic" in line]
    why = told or next(iter(panics), fault) or "it ended without a verdict"
    last = [*_text(folder / _ERRORS).splitlines(), *console[-_LAST_LINES:]]
    return Outcome(None, why, "\n".join(last))


def _text(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""


def _init(
    command: Sequence[str], parts: needs.Needs, environment: Mapping[str, str]
) -> str:
    values = dict(environment) | {"PATH": needs.path(), "TMPDIR": _TMP, "HOME": _TMP}
    inside = f"cd {shlex.quote(str(needs.CHECKOUT))} && exec {shlex.join(command)}"
    whole = (
        *("/usr/bin/env", "-i", *(f"{name}={value}" for name, value in values.items())),
        *("/bin/sh", "-c", inside),
    )
    return _INIT.format(
        modules=" ".join(shlex.quote(each.name) for each in parts.modules),
        tmp=_TMP,
        address=ADDRESS,
        rdma=shlex.quote(parts.rdma),
        command=shlex.join(whole),
        exit=_EXIT,
    )
