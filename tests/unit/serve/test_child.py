from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.serve.programs import EchoFolder, Output, run, started
from vfiomig.serve.broker.child import StartError, start
from vfiomig.serve.broker.filter import SeccompError, syscalls
from vfiomig.serve.broker.listener import Listener
from vfiomig.serve.broker.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).parents[3]


def make_text(path: Path) -> None:
    path.write_text("no program\n")


def make_script(path: Path) -> None:
    path.write_text("#!/nowhere/interpreter\n")
    path.chmod(0o755)


def make_rubbish(path: Path) -> None:
    path.write_bytes(b"\x00\x01\x02\x03" * 64)
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Path.mkdir, "Permission denied"),
        (make_text, "Permission denied"),
        (make_script, "No such file or directory"),
        (make_rubbish, "Exec format error"),
        (lambda _: None, "No such file or directory"),
    ],
    ids=["folder", "text", "script", "rubbish", "nothing"],
)
def test_a_program_that_cannot_be_started_is_told_with_the_reason(
    tmp_path: Path, make: Callable[[Path], None], why: str
) -> None:
    path = tmp_path / "program"
    make(path)
    with pytest.raises(StartError, match=f"^{re.escape(str(path))}: {why}$"):
        start([str(path)])


def test_a_program_is_looked_for_as_a_shell_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_text(tmp_path / "true")  # not executable: the next one is
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with started(["true"], EchoFolder(), Output()) as (supervisor, _):
        assert supervisor.serve() == 0
    with pytest.raises(StartError, match=r"^no-such-program: No such file"):
        start(["no-such-program"])


def test_a_program_has_the_environment_that_it_is_given() -> None:
    output = Output()
    child = start(["/usr/bin/env"], environment={"A": "b c"}, files={1: output.fd})
    supervisor = Supervisor(child, EchoFolder())
    assert supervisor.serve() == 0
    supervisor.close()
    assert output.text == "A=b c\n"


CALL_UNDER_A_FILTER = """
from tests.unit.serve.programs import EchoFolder, run
from vfiomig.serve.broker.filter import SeccompError
code = 'say(os.pread(os.open("/dev/vfio/echo", 2), 1, 3).decode())'
try:
    print(run(code, EchoFolder()))
except SeccompError as error:
    print(error)
"""


def said_where_refused(flag: int, code: int) -> str:
    numbers = map(str, (syscalls().seccomp, flag, code))
    refuse = (sys.executable, str(Path(__file__).parent / "refuse_seccomp.py"))
    done = subprocess.run(
        [*refuse, *numbers, sys.executable, "-c", CALL_UNDER_A_FILTER],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_where_a_listener_is_refused_that_is_said() -> None:
    assert said_where_refused(flag=8, code=1) == (
        "seccomp user notification is not to be had here: Operation not permitted"
        " (a container's own filter may refuse it; it takes Linux 5.9)\n"
    )


def test_where_waiting_cannot_be_killable_it_works_as_well() -> None:
    assert said_where_refused(flag=32, code=22) == "[['3']]\n"


def test_where_numbers_are_unknown_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    with pytest.raises(SeccompError, match=r"^no table of system calls for vax$"):
        start(["true"])


def test_a_listener_that_knows_no_synchronous_wake_up_says_so() -> None:
    listener = Listener(os.memfd_create("no listener"))
    assert not listener.wakes_synchronously
    listener.close()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its own other numbers")
def test_the_calls_of_another_architecture_do_not_slip_through() -> None:
    code = """
        say(raw(0x40000000 | IOCTL, 1000, 1, 0), raw(0x40000000 | OPENAT, -100, 0, 0))
        # mov eax, 20 (getpid); int 0x80; ret
        page = mmap.mmap(-1, 4096, prot=7)
        page.write(b"\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3")
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        ctypes.CFUNCTYPE(ctypes.c_int)(address)()
        """
    assert run(code, EchoFolder(), status=-signal.SIGSYS) == [["ENOSYS", "ENOSYS"]]
