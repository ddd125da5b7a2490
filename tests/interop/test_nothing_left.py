"""Where it cannot work, or QEMU hangs: clear words, and no process left behind."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.interop.steered_qemu import QEMU
from vfiomig.frontends.exit_codes import MISUSE, NOT_AS_EXPECTED
from vfiomig.serve.broker.filter import syscalls

if TYPE_CHECKING:
    from tests.interop.conftest import Vfiomig

pytestmark = pytest.mark.slow

HERE: Final = Path(__file__).parent
DRIVERS: Final = HERE / "drivers.py"
ALONE: Final = (sys.executable, str(HERE / "nothing_left.py"))
REFUSE: Final = HERE.parent / "unit" / "serve" / "refuse_seccomp.py"
MIGRATE: Final = ("qemu", "--migrate")
NEW_LISTENER: Final = 8
NOT_TO_BE_HAD: Final = "vfiomig: seccomp user notification is not to be had here: "

# A QEMU that takes whoever connects to its monitor, and never says a word.
MUTE: Final = """#!{python} -S
import signal, socket, sys
if "--version" in sys.argv:
    sys.exit(print("QEMU emulator version 7.2.0"))
if "help" in sys.argv:
    sys.exit(print('name "vfio-pci"'))
listener = socket.socket(socket.AF_UNIX)
address = sys.argv[sys.argv.index("-qmp") + 1]
listener.bind(address.removeprefix("unix:").split(",")[0])
listener.listen()
connection, _ = listener.accept()
while True:
    signal.pause()
"""


@pytest.fixture
def mute(folder: Path) -> str:
    path = folder / "qemu-mute"
    path.write_text(MUTE.format(python=sys.executable))
    path.chmod(0o755)
    return str(path)


# -- a kernel that refuses listeners ---------------------------------------------------


def refused(code: int) -> tuple[str, ...]:
    numbers = map(str, (syscalls().seccomp, NEW_LISTENER, code))
    return (*ALONE, sys.executable, str(REFUSE), *numbers)


@pytest.mark.parametrize(
    ("command", "code"),
    [(("qemu",), errno.ENOSYS), (MIGRATE, errno.EPERM)],
    ids=["plain", "migrate"],
)
def test_a_refused_listener_is_told(
    vfiomig: Vfiomig, command: tuple[str, ...], code: int
) -> None:
    done = vfiomig(*command, "--", *QEMU, under=refused(code))
    assert (done.returncode, done.stdout, done.stderr) == (
        MISUSE,
        "",
        f"{NOT_TO_BE_HAD}{os.strerror(code)} (a container's own filter may refuse it; "
        "it takes Linux 5.9)\n",
    )


def test_a_second_listener_is_refused_and_told(vfiomig: Vfiomig) -> None:
    inner = (sys.executable, "-m", "vfiomig", "qemu", "--", *QEMU)
    done = vfiomig("qemu", "--", *inner, under=ALONE)
    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (
        NOT_AS_EXPECTED,
        f"QEMU ended with exit status {MISUSE}",
        f"{NOT_TO_BE_HAD}{os.strerror(errno.EBUSY)} (this runs under a listener "
        "already, of another vfiomig or of a container, and the kernel allows one)\n",
    )


# -- a QEMU that answers no more -------------------------------------------------------


def test_a_stopped_qemu_is_ended(vfiomig: Vfiomig) -> None:
    target = f"{DRIVERS}:StopsQemuAtReset"
    options = ("--limit", "1", "--device", target)
    done = vfiomig("qemu", *options, "--", *QEMU, under=ALONE)
    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (
        NOT_AS_EXPECTED,
        "QEMU did not end within the limit, and was killed",
        "",
    )


def test_a_source_that_is_stopped_in_the_migration_is_ended(vfiomig: Vfiomig) -> None:
    options = ("--limit", "2.5", "--device", f"{DRIVERS}:StopsQemuAtSave")
    done = vfiomig(*MIGRATE, *options, "--", *QEMU, under=ALONE)
    lines = done.stdout.splitlines()
    assert done.returncode == NOT_AS_EXPECTED, done.stderr
    assert "note: source: QEMU did not end in 2.5 s: killed" in lines, done.stderr
    assert lines[-1] == "not as it should be: migration aborted: lost"


def test_a_mute_monitor_ends_with_its_qemu(vfiomig: Vfiomig, mute: str) -> None:
    done = vfiomig("qemu", "--limit", "0.5", "--", mute, under=ALONE)
    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (
        NOT_AS_EXPECTED,
        "QEMU did not end within the limit, and was killed",
        "",
    )


def test_mute_monitors_do_not_migrate(vfiomig: Vfiomig, mute: str) -> None:
    done = vfiomig(*MIGRATE, "--limit", "0.5", "--", mute, under=ALONE)
    assert (done.returncode, done.stdout, done.stderr) == (
        NOT_AS_EXPECTED,
        "",
        "vfiomig: source: QEMU did not answer within 0.5 s, and was killed\n",
    )
