from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.open_descriptors import open_descriptors
from tests.unit.serve.programs import (
    KILL,
    EchoFolder,
    Output,
    Watch,
    kill,
    out_of_patience,
    run,
    script,
    started,
)
from vfiomig.serve.broker.child import StartError, start
from vfiomig.serve.broker.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).parents[3]

# A child of its own session that no parent waits for, and that never ends.
LEAVE_DAEMON = """
fd = os.open("/dev/vfio/echo", os.O_RDWR)
reader, writer = os.pipe()
if not os.fork():
    os.setsid()
    if not os.fork():
        libc.prctl(1, 0, 0, 0, 0)
        fcntl.ioctl(fd, 10, os.getpid())
        os.write(writer, b"!")
        while True: signal.pause()
    os._exit(0)
os.wait()
os.read(reader, 1)
"""
NEVER_END = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
fcntl.ioctl(fd, 10, os.getpid())
while True: signal.pause()
"""


class Enough(Exception):  # noqa: N818 -- it is no error
    """The test has seen what it waited for."""


def until(condition: Callable[[], bool]) -> Callable[[], float]:
    """Return an ``idle`` that raises `Enough` once a condition holds."""
    patience = out_of_patience()

    def idle() -> float:
        patience()
        if condition():
            raise Enough
        return 0.0  # at every turn: the program may end in the next one

    return idle


def test_a_program_that_never_ends_is_killed_with_all_that_it_has_left() -> None:
    folder = EchoFolder()
    with contextlib.ExitStack() as watches:
        code = LEAVE_DAEMON + NEVER_END
        with started(script(code), folder, Output()) as (supervisor, child):
            with pytest.raises(Enough):
                supervisor.serve(until(lambda: len(folder.told()) == 2))
            assert child.pid in folder.told()
            watched = [Watch(pid) for pid in folder.told()]
            for each in watched:
                watches.callback(each.close)
                assert not each.has_ended(patience=0)
        assert all(each.has_ended(patience=0) for each in watched)
    assert folder.closes() == 1


def test_what_a_program_leaves_behind_does_not_survive_it() -> None:
    folder = EchoFolder()
    with started(script(LEAVE_DAEMON), folder, Output(), patience=0.1) as (broker, _):
        with pytest.raises(Enough):
            broker.serve(until(lambda: len(folder.told()) == 1))
        daemon = Watch(folder.told()[0])
        assert broker.serve(out_of_patience()) == 0
        assert not daemon.has_ended(patience=0)
    assert daemon.has_ended(patience=0)
    daemon.close()


BROKER = """
import sys
from tests.unit.serve.programs import EchoFolder, Output, script, started, LIMIT
class Folder(EchoFolder):
    def open(self, path):
        file = super().open(path)
        tell = file.user_ioctl
        def user_ioctl(request, argument, user):
            print(argument, flush=True)
            return tell(request, argument, user)
        file.user_ioctl = user_ioctl
        return file
with started(script({code!r}), Folder(), Output()) as (supervisor, _):
    supervisor.serve()
"""


def test_nothing_survives_a_broker_that_is_killed() -> None:
    code = BROKER.format(code=LEAVE_DAEMON + NEVER_END)
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as broker:
        assert broker.stdout is not None
        watches = [Watch(int(broker.stdout.readline())) for _ in range(2)]
        assert not any(each.has_ended(patience=0) for each in watches)
        broker.kill()
        # The bound is for a machine that does a lot else; it takes milliseconds.
        assert all(each.has_ended(patience=10) for each in watches)
        for each in watches:
            each.close()


def test_a_broker_whose_guard_is_killed_sees_the_program_end() -> None:
    folder = EchoFolder()
    code = 'fd = os.open("/dev/vfio/echo", os.O_RDWR)' + NEVER_END
    with started(script(code), folder, Output()) as (supervisor, child):
        with pytest.raises(Enough):
            supervisor.serve(until(lambda: len(folder.told()) == 1))
        stat = Path(f"/proc/{child.pid}/stat").read_text()
        os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
        assert supervisor.serve(out_of_patience()) == -signal.SIGKILL


def test_a_thread_that_starts_a_program_may_end_before_it() -> None:
    children = []
    output = Output()
    code = 'say(os.pread(os.open("/dev/vfio/echo", os.O_RDWR), 1, 3).decode())'

    def begin() -> None:
        children.append(start(script(code), files={1: output.fd}))

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    supervisor = Supervisor(children[0], EchoFolder())
    assert supervisor.serve(out_of_patience()) == 0
    supervisor.close()
    assert output.said == [["3"]]


def test_a_program_may_be_killed_in_the_midst_of_an_access() -> None:
    folder = EchoFolder()
    code = 'os.pread(os.open("/dev/vfio/echo", os.O_RDWR), 1, 3)'
    with started(script(code), folder, Output()) as (supervisor, child):
        # Its guard waits for it, so that it must not be gone: has_ended is enough.
        folder.file.on_pread = lambda: kill(child.pid)
        assert supervisor.serve(out_of_patience()) == -signal.SIGKILL
        assert supervisor.error is None
    assert folder.closes() == 1


def test_a_thread_group_that_dies_in_an_open_leaves_nothing_open() -> None:
    folder = EchoFolder()
    code = f"""
        fd = os.open("/dev/vfio/echo", os.O_RDWR)
        pid = os.fork()
        if not pid:
            while True: fcntl.ioctl(fd, {KILL}, os.getpid())
        say(os.waitpid(pid, 0)[1])
        """
    assert run(code, folder) == [[signal.SIGKILL]]


def test_an_open_that_cannot_be_installed_is_undone() -> None:
    said = run(
        """
        import resource
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (900, limit[1]))
        say([tried(os.open, "/dev/vfio/alone", 0) for _ in range(2)])
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        say(tried(os.open, "/dev/vfio/alone", 0))
        """,
        EchoFolder(),
    )
    assert said == [[["EMFILE", "EMFILE"]], [1000]]


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
from tests.unit.serve.programs import EchoFolder, run
code = '''
fds = [os.open("/dev/vfio/echo", os.O_RDWR) for _ in range(8)]
say(sorted(fds), [os.pread(each, 1, 3).decode() for each in fds] == ["3"] * 8)
import resource
say(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
'''
folder = EchoFolder()
print(run(code, folder), folder.closes())
"""


@pytest.mark.parametrize(
    ("limit", "first"), [(4096, 1000), (1024, 1000), (256, 232), (48, 24)]
)
def test_fds_are_below_a_low_limit(limit: int, first: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.format(limit=limit)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    numbers = [*range(first, first + 8)]
    assert done.stdout == f"[[{numbers}, True], [{limit}]] 8\n", done.stderr


def test_a_low_soft_limit_is_raised() -> None:
    code = LIMITED.replace("{limit}, {limit}", "64, 4096")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith("[4096]] 8\n"), done.stdout + done.stderr


def children() -> set[str]:
    me = threading.get_native_id()
    return {*Path(f"/proc/{os.getpid()}/task/{me}/children").read_text().split()}


@pytest.mark.slow
def test_twenty_programs_leave_nothing_in_us() -> None:
    output = Output()
    fds, before = open_descriptors(), children()
    for _ in range(20):
        with started(["/bin/sh", "-c", "true & exit 3"], EchoFolder(), output) as (
            supervisor,
            _,
        ):
            assert supervisor.serve(out_of_patience()) == 3
    for number in range(3):
        with pytest.raises(StartError):
            start([f"/nowhere/{number}"])
    assert open_descriptors() == fds
    assert children() == before
