"""Plain ``vfiomig qemu``: one QEMU, run and migrated by whoever typed the command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.steered_qemu import QEMU
from vfiomig.frontends.exit_codes import (
    DONE,
    INTERRUPTED,
    MISUSE,
    NOT_AS_EXPECTED,
    NOT_STARTED,
)
from vfiomig.serve.monitor import Monitor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.interop.conftest import Vfiomig

pytestmark = pytest.mark.slow

DRIVERS = Path(__file__).parent / "drivers.py"
MIGRATE = ("qemu", "--migrate")
LIMIT = 60.0


def last_line(output: str) -> str:
    return output.splitlines()[-1]


class Typed:
    """A ``vfiomig qemu`` that runs, and the monitor that its user asked QEMU for."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self._facts = folder / f"{name}.json"
        socket = folder / name
        options = ("--device", "reference", "--work", "100", "--limit", str(LIMIT))
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "vfiomig", "qemu", *options),
                *("--json", str(self._facts), "--", *QEMU),
                *("-qmp", f"unix:{socket},server=on,wait=off", *arguments),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.monitor = Monitor(socket)

    def ended(self) -> dict[str, Any]:
        """Let it quit; return what was written of its device."""
        self.monitor.ask("quit")
        self.process.communicate(timeout=LIMIT)
        assert self.process.returncode == DONE
        (device,) = json.loads(self._facts.read_text())["devices"].values()
        return dict(device)

    def close(self) -> None:
        self.monitor.close()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def typed(folder: Path) -> Iterator[Any]:
    with contextlib.ExitStack() as things:

        def start(name: str, *arguments: str) -> Typed:
            command = Typed(folder, name, *arguments)
            things.callback(command.close)
            return command

        yield start


# -- the two of them, moved by hand ----------------------------------------------------


@pytest.mark.parametrize("transport", ["unix", "tcp", "exec"])
def test_two_commands_migrate(folder: Path, typed: Any, transport: str) -> None:
    source = typed("source")
    incoming = f"exec:cat {folder}/stream"
    if transport == "exec":
        source.monitor.ask("migrate", uri=f"exec:cat > {folder}/stream")
        assert source.monitor.wait_until("completed", limit=LIMIT)
    destination = typed("destination", "-incoming", "defer")
    if transport != "exec":
        incoming = f"unix:{folder}/link" if transport == "unix" else "tcp:127.0.0.1:0"
    destination.monitor.ask("migrate-incoming", uri=incoming)
    if transport == "tcp":
        (address,) = destination.monitor.ask("query-migrate")["socket-address"]
        incoming = f"tcp:127.0.0.1:{address['port']}"
    if transport != "exec":
        source.monitor.ask("migrate", uri=incoming)
        assert source.monitor.wait_until("completed", limit=LIMIT)
    assert destination.monitor.wait_until("completed", limit=LIMIT)
    stopped, started = source.ended()["at_stop"], destination.ended()["at_start"]
    assert stopped is not None
    assert stopped == started


def test_a_placeholder_says_where_a_device_goes(vfiomig: Vfiomig, folder: Path) -> None:
    script = folder / "monitor"
    script.write_text('{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n')
    placed = ("-device", "{vfio},addr=1e.0", "-qmp", "stdio")
    traced = ("-trace", "vfio_realize", "-D", "trace")
    command = ["sh", "-c", 'exec "$@" < monitor', "sh", *QEMU, *placed, *traced]
    done = vfiomig("qemu", "--device", "reference", "--limit", "20", "--", *command)
    assert done.returncode in {DONE, NOT_AS_EXPECTED}
    assert (folder / "trace").read_text().count("vfio_realize") == 1


def test_more_placeholders_than_devices(vfiomig: Vfiomig) -> None:
    done = vfiomig("qemu", "--", *QEMU, "-device", "{vfio}", "-device", "{vfio}")
    assert (done.returncode, done.stderr) == (
        MISUSE,
        "vfiomig: '{vfio}': more {vfio} than there are --device\n",
    )


# -- programs that will not do ---------------------------------------------------------


def fake_qemu(folder: Path, version: str, devices: str) -> str:
    path = folder / "qemu"
    path.write_text(
        "#!/bin/sh\n"
        f'case "$1" in --version) echo "{version}";; *) echo "{devices}";; esac\n'
    )
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("options", [(), ("--migrate",)], ids=["plain", "migrate"])
@pytest.mark.parametrize(
    ("version", "devices", "words"),
    [
        (
            "QEMU emulator version 7.2.0",
            'name \\"e1000\\", bus PCI',
            "has no vfio-pci device: it was built without VFIO",
        ),
        (
            "QEMU emulator version 8.0.0",
            'name \\"vfio-pci\\", bus PCI',
            "is QEMU 8.0, which speaks only v2 of the migration protocol; the last "
            "that speaks v1 is 7.2",
        ),
    ],
    ids=["without VFIO", "too new"],
)
def test_a_qemu_that_will_not_do(
    vfiomig: Vfiomig,
    folder: Path,
    options: tuple[str, ...],
    version: str,
    devices: str,
    words: str,
) -> None:
    program = fake_qemu(folder, version, devices)
    done = vfiomig("qemu", *options, "--", program)
    assert (done.returncode, done.stderr) == (MISUSE, f"vfiomig: {program} {words}\n")


@pytest.mark.parametrize("options", [(), ("--migrate",)], ids=["plain", "migrate"])
def test_no_such_program(vfiomig: Vfiomig, options: tuple[str, ...]) -> None:
    done = vfiomig("qemu", *options, "--", "qemu-system-none")
    assert (done.returncode, done.stderr) == (
        MISUSE,
        "vfiomig: qemu-system-none: there is no such program\n",
    )


def test_a_program_that_is_no_qemu_is_run_all_the_same(vfiomig: Vfiomig) -> None:
    # It may be a wrapper of one; what it opens in /dev/vfio is answered.
    done = vfiomig("qemu", "--", "sh", "-c", "ls -l /dev/vfio; exit 3")
    assert done.returncode == NOT_AS_EXPECTED
    assert last_line(done.stdout) == "QEMU ended with exit status 3"


def test_two_programs_that_are_no_qemu_do_not_migrate(vfiomig: Vfiomig) -> None:
    done = vfiomig(*MIGRATE, "--", "true")
    assert (done.returncode, done.stderr) == (
        NOT_AS_EXPECTED,
        "vfiomig: source: QEMU ended at once, with status 0\n",
    )


def test_arguments_that_qemu_refuses_are_its_own_to_explain(vfiomig: Vfiomig) -> None:
    done = vfiomig(*MIGRATE, "--", *QEMU, "-nonsense")
    assert done.returncode == NOT_AS_EXPECTED
    assert "-nonsense: invalid option" in done.stderr
    assert done.stderr.endswith("vfiomig: source: QEMU ended at once, with status 1\n")


# -- drivers that will not do ----------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--migrate",)], ids=["plain", "migrate"])
@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("raises", NOT_STARTED, "RuntimeError: no firmware"),
        ("Missing", MISUSE, "Missing"),
    ],
)
def test_a_target_that_does_not_start(
    vfiomig: Vfiomig, options: tuple[str, ...], name: str, code: int, words: str
) -> None:
    done = vfiomig("qemu", *options, "--device", f"{DRIVERS}:{name}", "--", *QEMU)
    assert done.returncode == code
    assert words in done.stderr
    assert done.stderr.count("\n") == 1, "one line"


def test_a_driver_that_hangs_does_not_hang_us(vfiomig: Vfiomig) -> None:
    target = f"{DRIVERS}:Hangs"
    done = vfiomig("qemu", "--limit", "1", "--device", target, "--", *QEMU)
    assert done.returncode == 1, done.stderr
    assert "died: " in done.stdout.splitlines()[-1]
    assert "drivers.py:" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("name", ["DiesWhenAsked", "DiesAtWork"])
def test_a_driver_that_dies(vfiomig: Vfiomig, name: str) -> None:
    done = vfiomig(*MIGRATE, "--device", f"{DRIVERS}:{name}", "--", *QEMU)
    assert done.returncode == NOT_AS_EXPECTED
    assert "died at " in done.stdout
    assert "ZeroDivisionError: a bug" in done.stdout
    assert f"{DRIVERS.name}:" in done.stdout, "where"


def test_a_device_in_error_ends_qemu(vfiomig: Vfiomig) -> None:
    done = vfiomig(*MIGRATE, "--device", f"{DRIVERS}:GoesToError", "--", *QEMU)
    assert done.returncode == NOT_AS_EXPECTED
    assert (
        "note: source: QEMU aborted because the device_state of source/GoesToError "
        "read ERROR (vfio_migration_set_state)"
    ) in done.stdout


# -- time, and patience ----------------------------------------------------------------


def test_a_qemu_that_nobody_ends_is_ended(vfiomig: Vfiomig) -> None:
    done = vfiomig("qemu", "--limit", "0.5", "--", *QEMU)
    assert done.returncode == NOT_AS_EXPECTED
    assert last_line(done.stdout) == (
        "QEMU did not end within the limit, and was killed"
    )


def test_a_migration_without_end_is_ended(vfiomig: Vfiomig) -> None:
    target = f"{DRIVERS}:NeverEnds"
    done = vfiomig(*MIGRATE, "--limit", "2", "--device", target, "--", *QEMU)
    assert done.returncode == NOT_AS_EXPECTED
    assert "2 s" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupt_is_qemus_as_well(typed: Any) -> None:
    command = typed("source")
    command.monitor.ask("query-status")
    os.killpg(command.process.pid, signal.SIGINT)
    command.process.communicate(timeout=LIMIT)
    assert command.process.returncode == INTERRUPTED
