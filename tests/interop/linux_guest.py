"""A Linux guest that writes lines to our serial card while it is moved about.

Kernel and busybox are Debian's.  What the guest's own 8250 driver does is nobody's
model: a process writes lines to one port (ttyS4), another one reads them at the other
end of the cable (ttyS5).
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from tests import initramfs
from vfiomig.frontends.attaching import Attachment
from vfiomig.frontends.qemu_side import QemuSide

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vfiomig.frontends.attaching import Attached

LINE: Final = "line %d of a guest that lives"
LAST: Final = "end"  # the line behind the others

_COMPLETE: Final = "that is all"

# Not a multiple of 256 KiB.  With one that is, QEMU before 9.0 forgets to tell TCG that
# a page is clean again ("physmem: Fix migration dirty bitmap coherency with TCG memory
# access"): what a guest writes while it is migrated is lost, and it dies of that soon.
_MEMORY: Final = "131080K"

# Debian's kernel has room for four ports by default, and a PC has taken them.
_KERNEL_ARGUMENTS: Final = "console=ttyS0 8250.nr_uarts=8 quiet panic=-1"
_QEMU: Final = (
    *(
        "qemu-system-x86_64",
        "-M",
        "pc",
        "-cpu",
        "max",
        "-m",
        "131080K",
        "-accel",
        "tcg",
    ),
    *("-nodefaults", "-display", "none", "-no-reboot"),
)
_REMEDY: Final = "apt-get install linux-image-amd64 busybox-static qemu-system-x86"
_FAST: Final = 1 << 40  # bytes a second, for a migration
_LIMIT: Final = 120.0  # seconds, for anything that takes a few
_WHOLE_RUN: Final = 900.0  # seconds, for one QEMU
_TICK: Final = 0.001

# It writes until it reads a line on its console, and then tells what arrived, and what
# its driver counted.
_INIT: Final = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs devices /dev
for port in 4 5; do stty -F /dev/ttyS$port 115200 raw -echo; done
while IFS= read -r line; do
    echo "$line"
    [ "$line" != {LAST} ] || break
done < /dev/ttyS5 > /read &
{{
    number=0
    while [ ! -e /enough ]; do
        number=$((number + 1))
        echo "{LINE.replace("%d", "$number")}"
    done
    echo {LAST}
}} > /dev/ttyS4 &
read -r order
: > /enough
wait
echo "read: $(md5sum < /read)"
cat /proc/tty/driver/serial
echo "{_COMPLETE}"
read -r order
"""


def what_is_missing() -> str | None:
    """Return what this machine lacks, and how to get it."""
    found = initramfs.kernels()
    if not found:
        return f"there is no /boot/vmlinuz-*-amd64: {_REMEDY}"
    faults = filter(None, map(initramfs.fault_of, (found[0], initramfs.BUSYBOX)))
    return next((f"{fault}: {_REMEDY}" for fault in faults), None)


# -- the guest -------------------------------------------------------------------------


class GuestsAccount(NamedTuple):
    """What the guest tells: an MD5 of all that arrived, and its driver's counts."""

    digest: str
    sent: int
    received: int
    errors: tuple[str, ...]


class LinuxGuest:
    """A guest that runs on one QEMU, with a broker, and then on the next.

    What its card delivers is in one log, whoever ran when a byte left; ``left`` says
    how it went in each QEMU that it left, ``stops`` what its card was at that moment.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        kernel = initramfs.kernels()[0]
        initrd = folder / "initramfs"
        initrd.write_bytes(initramfs.archive(_INIT))
        self._command = (
            *_QEMU,
            *("-kernel", str(kernel), "-initrd", str(initrd)),
            *("-append", _KERNEL_ARGUMENTS),
        )
        self._snapshots = folder / "snapshots"
        self._snapshots.mkdir()
        self._sides = contextlib.ExitStack()
        self.left: list[Attached] = []
        self.stops: list[bytes] = []
        self._side = self._start(0)

    def __enter__(self) -> LinuxGuest:
        return self

    def __exit__(self, *_: object) -> None:
        self._sides.close()

    # -- where it runs -----------------------------------------------------------------

    def boot(self) -> None:
        """Wait until it writes."""
        self._side.require_running()
        self._wait_until(lambda: self.delivered > 0, "the first byte")

    def move(self, after: int) -> None:
        """Migrate to a new QEMU, so many delivered bytes after that is ready."""
        destination = self._start(len(self.left) + 1)
        destination.require_running()
        due = self.delivered + after
        self._wait_until(lambda: self.delivered >= due, "the moment to migrate")
        monitor = self._side.monitor
        monitor.ask("migrate-set-parameters", **{"max-bandwidth": _FAST})
        monitor.ask("migrate", uri=f"unix:{self._folder}/link")
        assert monitor.wait_until("completed", "failed", limit=_LIMIT) == "completed"
        self._leave()
        self._side = destination

    def finish(self) -> GuestsAccount:
        """Let it write the last line and tell what arrived, and stop it for good."""
        with socket.socket(socket.AF_UNIX) as console:
            console.connect(f"{self._folder}/{self._side.party}.console")
            console.sendall(b"enough\n")

            def is_complete() -> bool:
                with contextlib.suppress(BlockingIOError):
                    console.recv(1 << 16, socket.MSG_DONTWAIT)  # it is in the file too
                return _COMPLETE in self.console

            self._wait_until(is_complete, "the guest's account")
        self._side.monitor.ask("stop")
        self._leave()
        return _account_in(self.console)

    def _start(self, number: int) -> QemuSide:
        """Start a QEMU: the first, or one that waits for the guest."""
        party = f"{'ab'[number % 2]}-{number}"
        console = (
            f"socket,id=console,path={self._folder}/{party}.console,server=on,wait=off"
            f",logfile={self._folder}/console,logappend=on"
        )
        attachment = Attachment(
            command=self._command,
            targets=(f"serial,log={self._folder}/line",),
            limit=_WHOLE_RUN,
            party=party,
            snapshots=self._snapshots,
        )
        arguments = ["-chardev", console, "-device", "isa-serial,chardev=console"]
        if number:
            arguments += ["-incoming", f"unix:{self._folder}/link"]
        side = QemuSide(attachment, self._folder, arguments=tuple(arguments))
        self._sides.callback(side.close)
        return side

    def _leave(self) -> None:
        self.left.append(self._side.end())
        snapshot = self._snapshots / f"{self._side.party}-serial.1"
        self.stops.append(snapshot.read_bytes())

    # -- what is known of it -----------------------------------------------------------

    @property
    def delivered(self) -> int:
        """How many bytes left the port that it writes to."""
        return len(self.line(0))

    def line(self, port: int) -> bytes:
        """Return what left a port."""
        log = self._folder / f"line.{port}"
        return log.read_bytes() if log.exists() else b""

    @property
    def console(self) -> str:
        """All that it said on its console."""
        console = self._folder / "console"
        return console.read_text(errors="replace") if console.exists() else ""

    def _wait_until(self, is_so: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _LIMIT
        while not is_so():
            if time.monotonic() > deadline:
                message = (
                    f"{what} did not come in {_LIMIT:g} s ({len(self.left)} moves); "
                    f"the line ends with {self.line(0)[-80:]!r}, "
                    f"the console with {self.console[-2000:]}"
                )
                raise AssertionError(message)
            time.sleep(_TICK)


def _account_in(console: str) -> GuestsAccount:
    digest = re.search(r"^read: (\w+)", console, re.MULTILINE)
    ports = re.findall(r"^[45]: .* tx:(\d+) rx:(\d+)(.*)$", console, re.MULTILINE)
    assert digest is not None, console
    (sent, _, at_sender), (_, received, at_receiver) = ports
    errors = re.findall(r"\b(?:fe|pe|brk|oe|bo):\d+", f"{at_sender} {at_receiver}")
    return GuestsAccount(digest[1], int(sent), int(received), tuple(errors))
