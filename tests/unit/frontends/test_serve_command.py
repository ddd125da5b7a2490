"""``vfiomig serve`` as a user types it: what it prints, its exit codes, its socket."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from vfiomig.frontends.exit_codes import (
    DONE,
    INTERRUPTED,
    MISUSE,
    NOT_AS_EXPECTED,
    NOT_STARTED,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.frontends.conftest import Vfiomig

PATIENCE: Final = 30.0  # seconds
VERSION: Final = struct.pack("<HHIIIHH", 1, 1, 20, 0, 0, 0, 2)
# A read of 4 bytes at 0 of region 9.
READ: Final = struct.pack("<HHIIIQII", 2, 9, 32, 0, 0, 0, 9, 4)

DYING: Final = """
from vfiomig import MigrationRegion
class Dying:
    migration_region = MigrationRegion(0x1000)
    def read(self, offset, size):
        raise ZeroDivisionError("oops")
    def write(self, offset, data): ...
    def reset(self): ...
    def close(self): ...
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return an empty folder whose path is short, as those of sockets are."""
    with tempfile.TemporaryDirectory(prefix="vu") as name:
        yield Path(name)


@contextlib.contextmanager
def serving(
    folder: Path, target: str, *, output: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    """Run a server, and end it at the end of the block."""
    command = [sys.executable, "-m", "vfiomig", "serve", target, "--socket", "sock"]
    with subprocess.Popen(
        command, cwd=folder, stdout=output, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            yield server
        finally:
            server.kill()


def agreed(folder: Path) -> socket.socket:
    """Connect, and agree on a version."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(str(folder / "sock"))
    client.send(VERSION)
    number, command, size, flags, *_ = struct.unpack_from(
        "<HHIII", reply := client.recv(4096)
    )
    assert (number, command, size, flags) == (1, 1, len(reply), 1)
    return client


def test_one_line_says_that_it_serves_and_sigterm_ends_it(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(folder / "sock"))
    with serving(folder, "reference") as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "serving reference at sock\n"
        with agreed(folder) as client:
            client.send(READ)
            # RUNNING: its device was just opened.
            assert client.recv(4096)[32:] == b"\1\0\0\0"
            server.terminate()
            output, errors = server.communicate(timeout=PATIENCE)
    assert (server.returncode, output, errors) == (DONE, "", "")
    assert not (folder / "sock").exists()


def test_a_driver_that_died_is_one_line_with_its_place(folder: Path) -> None:
    (folder / "dying.py").write_text(DYING)
    with serving(folder, "dying.py:Dying") as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "serving Dying at sock\n"
        with agreed(folder) as client:
            client.send(READ)
            assert client.recv(1) == b""
        output, errors = server.communicate(timeout=PATIENCE)
    assert (server.returncode, output) == (NOT_AS_EXPECTED, "")
    place = f"{folder / 'dying.py'}:6"
    what = "died at read of 4 bytes at 0x0: ZeroDivisionError: oops"
    assert errors == f"vfiomig: {what} ({place})\n"
    assert not (folder / "sock").exists()


def test_on_a_terminal_there_is_a_line_a_client_until_ctrl_c(folder: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        with serving(folder, "reference", output=theirs) as server:
            said = _read_until(ours, "at sock\r\n")
            with agreed(folder) as client:
                client.send(READ)
                client.recv(4096)
            said += _read_until(ours, "accesses\r\n")
            server.send_signal(signal.SIGINT)
            errors = server.communicate(timeout=PATIENCE)[1]
    finally:
        os.close(ours)
        os.close(theirs)
    assert said.split("\r\n") == [
        "serving reference at sock",
        "client 1: connected",
        "client 1: gone after 1 accesses",
        "",
    ]
    assert (server.returncode, errors) == (INTERRUPTED, "\nvfiomig: interrupted\n")
    assert not (folder / "sock").exists()


def _read_until(fd: int, end: str) -> str:
    text = ""
    while not text.endswith(end):
        assert select.select([fd], [], [], PATIENCE)[0], text
        text += os.read(fd, 4096).decode()
    return text


def test_where_it_cannot_serve_is_one_line(vfiomig: Vfiomig, folder: Path) -> None:
    (folder / "file").write_text("")
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(folder / "live"))
        live.listen()
        for name, why in (
            ("live", "another server listens there"),
            ("file", "there is something else than a socket"),
            ("none/sock", "its folder is not there"),
            ("x" * 108, "a socket's has at most 107"),
        ):
            path = str(folder / name)
            code, output, errors = vfiomig("serve", "reference", "--socket", path)
            assert (code, output) == (MISUSE, "")
            assert errors.startswith(f"vfiomig: {path}: ")
            assert why in errors
            assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("no-such-device", MISUSE),
        ("none.py:Driver", MISUSE),
        ("vfio-user:sock", MISUSE),
        ("broken.py:Driver", NOT_STARTED),
    ],
)
def test_a_target_that_cannot_be_served(
    vfiomig: Vfiomig, target: str, code: int
) -> None:
    Path("broken.py").write_text("def Driver():\n    raise RuntimeError('no')\n")
    got, output, errors = vfiomig("serve", target, "--socket", "sock")
    assert (got, output) == (code, "")
    assert errors.count("\n") == 1
    assert not Path("sock").exists()


def test_the_socket_must_be_named(vfiomig: Vfiomig) -> None:
    code, _, errors = vfiomig("serve", "reference")
    assert code == MISUSE
    assert errors.startswith("vfiomig: Missing option '--socket'. (try: ")
    assert errors.endswith("vfiomig serve --help)\n")


def test_help_is_the_same_whoever_gives_it(vfiomig: Vfiomig) -> None:
    code, alone, _ = vfiomig("serve", "--help")
    assert code == DONE
    assert "vfiomig serve reference --socket /tmp/device.sock" in alone
    assert "\n  serve " in vfiomig("--help")[1]


def test_a_server_starts_without_what_other_commands_need() -> None:
    script = (
        "import sys; import vfiomig.frontends.serve_alone; "
        "print(*sorted(sys.modules.keys() & "
        "{'hypothesis', 'jinja2', 'rich', 'numpy', 'asyncio', 'multiprocessing'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "\n"
