from __future__ import annotations

import fcntl
import os
import signal

import pytest

from tests.unit.serve.programs import (
    BUG,
    DIE,
    FAIL,
    FIND,
    EchoFolder,
    Output,
    out_of_patience,
    run,
    script,
    started,
)
from vfiomig.uapi.seccomp import SECCOMP_IOCTL_NOTIF_SET_FLAGS


def test_each_call_on_a_file_of_ours_is_answered() -> None:
    folder = EchoFolder()
    said = run(
        """
        fd = os.open("/dev/vfio/echo", os.O_RDWR)
        greeting = bytearray(8)
        say(fd, fcntl.ioctl(fd, 1, greeting), greeting.decode())
        say(os.pread(fd, 6, 0x123).decode(), os.pwrite(fd, b"abc", 1 << 40))
        other = fcntl.ioctl(fd, 2, 0)
        bell = os.eventfd(0)
        fcntl.ioctl(other, 3, bell)
        say(other, os.eventfd_read(bell))
        os.close(other)
        say(tried(os.pread, other, 4, 0), os.pread(fd, 1, 7).decode())
        os.close(fd)
        """,
        folder,
    )
    assert said == [[1000, 5, "hello!!!"], ["123...", 3], [1001, 7], ["EBADF", "7"]]
    assert ("pwrite", b"abc", 1 << 40) in folder.log
    assert folder.closes() == 2


# Each with what Linux answers; FD is an open file of ours.
WRONG_CALLS = {
    "raw(IOCTL, FD, 99, 0)": "ENOTTY",
    "raw(IOCTL, FD, 1, 0)": "EFAULT",
    "raw(IOCTL, FD, 1, READ_ONLY)": "EFAULT",
    "raw(IOCTL, FD, 1, END - 4)": "EFAULT",
    "raw(IOCTL, FD, 1, (1 << 64) - 4)": "EFAULT",
    "raw(IOCTL, FD, 1, 0xffff800000000000)": "EFAULT",
    "raw(IOCTL, FD, 1 | 7 << 32, PAGE)": 5,  # unsigned int: no more is looked at
    "raw(IOCTL, FD | 7 << 32, 1, PAGE)": 5,
    "raw(IOCTL, FD, 3, -1)": "EBADF",
    "raw(IOCTL, FD, 3, 12345)": "EBADF",
    "raw(IOCTL, FD, 8, 0)": "EINVAL",
    "raw(IOCTL, FD, 8, 12345)": "EBADF",
    "raw(IOCTL, FD, 8, FD)": 1,
    "raw(IOCTL, FD + 1, 1, PAGE)": "EBADF",
    "raw(IOCTL, 0xffffffff, 1, PAGE)": "EBADF",
    "raw(PREAD, FD, PAGE, 8, 0)": 8,
    "raw(PREAD, FD, PAGE, 0, 0)": 0,
    "raw(PREAD, FD, PAGE, 8, -1)": "EINVAL",
    "raw(PREAD, FD, PAGE, 8, 1 << 63)": "EINVAL",
    "raw(PREAD, FD, PAGE, 1 << 63, 0)": "EFAULT",
    "raw(PREAD, FD, PAGE, (1 << 64) - 1, 0)": "EFAULT",
    "raw(PREAD, FD, PAGE, 1 << 40, 0)": "ENOMEM",
    "raw(PREAD, FD, 0, 8, 0)": "EFAULT",
    "raw(PREAD, FD, READ_ONLY, 8, 0)": "EFAULT",
    "raw(PREAD, FD, END - 4, 8, 0)": "EFAULT",
    "raw(PREAD, FD, END - 4, 8192, 0)": "EFAULT",
    "raw(PWRITE, FD, PAGE, 8, -5)": "EINVAL",
    "raw(PWRITE, FD, 8, 8, 0)": "EFAULT",
    "raw(PWRITE, FD, END - 4, 8, 0)": "EFAULT",
    "raw(PWRITE, FD, READ_ONLY, 8, 0)": 8,
    "raw(OPENAT, -100, 0, 0, 0)": "EFAULT",
    "raw(OPENAT, -100, 0xffff800000000000, 0, 0)": "EFAULT",
    "raw(OPENAT, -100, NAME, 0, 0)": "ENOENT",
    "raw(MMAP, 0, 4096, 1, 1, FD, 0)": "ENODEV",
    "raw(MMAP, 0, 4096, 1, 1, FD + 1, 0)": "EBADF",
    "tried(os.write, FD, b'x')": "EPERM",
    "tried(os.ftruncate, FD, 4096)": "EPERM",
    "os.read(FD, 8).decode()": "",
}

PLACES = """
libc.syscall.restype = ctypes.c_long
PAGE = raw(MMAP, 0, 4096, 3, 0x22, -1, 0)
READ_ONLY = raw(MMAP, 0, 4096, 1, 0x22, -1, 0)
BOTH = raw(MMAP, 0, 8192, 3, 0x22, -1, 0)
END = BOTH + 4096
libc.munmap(u64(END), u64(4096))
name = b"/dev/vfio/nothing"
ctypes.memmove(END - len(name), name, len(name))  # no end of it is there
other = b"/dev/vfio/nothing\\0"
ctypes.memmove(PAGE + 64, other, len(other))
NAME = PAGE + 64
FD = os.open("/dev/vfio/echo", os.O_RDWR)
"""


def test_a_wrong_call_gets_the_errno_of_the_kernel() -> None:
    calls = "".join(f"say({call!r}, {call})\n" for call in WRONG_CALLS)
    said = run(PLACES + calls, EchoFolder())
    assert dict(said) == WRONG_CALLS


def test_a_path_that_ends_where_memory_ends_is_the_kernel_s() -> None:
    code = PLACES + "say(raw(OPENAT, -100, END - len(name), 0, 0))"
    folder = EchoFolder()
    assert run(code, folder) == [["EFAULT"]]
    assert ("open", "/dev/vfio/nothing") not in folder.log


def test_other_paths_pass() -> None:
    folder = EchoFolder()
    said = run(
        """
        for path in ("/dev/null", "/dev/vfio", "/nowhere", "/dev/vfioecho"):
            say(path, os.path.exists(path) == (tried(os.open, path, 0) != "ENOENT"))
        dev = os.open("/dev", os.O_RDONLY)
        say(tried(lambda: os.open("null", 0, dir_fd=dev)) < 1000)
        say(tried(lambda: os.open("vfio/echo", 0, dir_fd=dev)))
        say(tried(lambda: os.open("/dev/vfio/echo", 0, dir_fd=12345)))
        say(tried(os.open, "/dev/vfio/" + "e" * 64, 0))
        say(tried(os.open, "/dev/vfio/\\xff", 0))
        """,
        folder,
    )
    same = [["/dev/null", True], ["/dev/vfio", True], ["/nowhere", True]]
    assert said[:4] == [*same, ["/dev/vfioecho", True]]
    # An absolute path needs no folder; a relative one is not looked after.
    assert said[4:] == [[True], ["ENOENT"], [1000], ["ENOENT"], ["ENOENT"]]
    opened = [each[1] for each in folder.log if each[0] == "open"]
    assert opened == ["/dev/vfio/echo", os.fsdecode(b"/dev/vfio/\xc3\xbf")]


def test_close_on_exec_is_as_it_was_asked_for() -> None:
    said = run(
        """
        name = ctypes.create_string_buffer(b"/dev/vfio/echo")
        for flags in (0, os.O_CLOEXEC):
            fd = raw(OPENAT, -100, ctypes.addressof(name), os.O_RDWR | flags, 0)
            say(fcntl.fcntl(fd, fcntl.F_GETFD))
        say(fcntl.fcntl(fcntl.ioctl(fd, 2, 0), fcntl.F_GETFD))
        """,
        EchoFolder(),
    )
    assert said == [[0], [1], [1]]


def test_threads_are_answered_each_its_own() -> None:
    said = run(
        """
        fd = os.open("/dev/vfio/echo", os.O_RDWR)
        wrong = []
        def read(first):
            for offset in range(first, first + 200):
                if os.pread(fd, 8, offset) != (b"%x" % offset).ljust(8, b"."):
                    wrong.append(offset)
        threads = [threading.Thread(target=read, args=(n << 12,)) for n in range(6)]
        for each in threads: each.start()
        for each in threads: each.join()
        say(wrong)
        """,
        folder := EchoFolder(),
    )
    assert said == [[[]]]
    assert len([each for each in folder.log if each[0] == "pread"]) == 1200


def test_a_signal_in_the_midst_of_a_call_does_not_repeat_it() -> None:
    folder = EchoFolder()
    output = Output()
    code = """
        seen = []
        signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
        fd = os.open("/dev/vfio/echo", os.O_RDWR)
        said = [os.pread(fd, 4, offset).decode() for offset in range(300)]
        say(said == [f"{offset:x}".ljust(4, ".") for offset in range(300)], len(seen))
        """
    with started(script(code), folder, output) as (supervisor, child):
        # Each read is hit by a signal while the driver is at it.
        folder.file.on_pread = lambda: os.kill(child.pid, signal.SIGALRM)
        assert supervisor.serve(out_of_patience()) == 0
    (said,) = output.said
    assert said[0]
    assert said[1] > 100  # signals that came close together are one
    reads = [each[2] for each in folder.log if each[0] == "pread"]
    assert reads == [*range(300)]


def test_a_storm_of_signals_loses_and_repeats_nothing() -> None:
    folder = EchoFolder()
    said = run(
        """
        signal.signal(signal.SIGALRM, lambda *_: None)
        fd = os.open("/dev/vfio/echo", os.O_RDWR)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        say([os.pwrite(fd, b"x", offset) for offset in range(2000)] == [1] * 2000)
        signal.setitimer(signal.ITIMER_REAL, 0)
        """,
        folder,
    )
    assert said == [[True]]
    written = [each[2] for each in folder.log if each[0] == "pwrite"]
    assert written == [*range(2000)]


def test_a_driver_that_dies_is_remembered_and_the_next_call_is_served() -> None:
    folder = EchoFolder()
    output = Output()
    code = f"""
        fd = os.open("/dev/vfio/echo", os.O_RDWR)
        say([tried(fcntl.ioctl, fd, {DIE}, 0) for _ in range(200)] == ["EIO"] * 200)
        say(os.pread(fd, 1, 3).decode())
        """
    with started(script(code), folder, output) as (supervisor, _):
        assert supervisor.serve(out_of_patience()) == 0
    assert output.said == [[True], ["3"]]
    assert len(supervisor.deaths) == 100  # of a device that dies for ever, no more
    assert supervisor.deaths[0].where == "driver.py:1"


def test_an_error_of_our_own_stops_nobody_and_is_raised_at_the_end() -> None:
    folder = EchoFolder()
    output = Output()
    code = f"""
        fd = os.open("/dev/vfio/echo", os.O_RDWR)
        say(tried(fcntl.ioctl, fd, {BUG}, 0), os.pread(fd, 1, 3).decode())
        """
    with started(script(code), folder, output) as (supervisor, _):
        with pytest.raises(ZeroDivisionError, match="our own"):
            supervisor.serve(out_of_patience())
        assert isinstance(supervisor.error, ZeroDivisionError)
    assert output.said == [["EIO", "3"]]


def test_a_number_that_is_no_errno_is_eio() -> None:
    # 512 is ERESTARTSYS: the kernel would do the call again.
    code = f"""
        fd = os.open("/dev/vfio/echo", os.O_RDWR)
        say([tried(fcntl.ioctl, fd, {FAIL}, n) for n in (1, 28, 0, 512, 5000)])
        """
    answers = ["EPERM", "ENOSPC", "EIO", "EIO", "EIO"]
    assert run(code, EchoFolder()) == [[answers]]


def test_ctrl_c_leaves_at_once() -> None:
    folder = EchoFolder()
    output = Output()

    def interrupt() -> None:
        raise KeyboardInterrupt

    folder.file.on_pread = interrupt
    code = 'os.pread(os.open("/dev/vfio/echo", os.O_RDWR), 1, 3)'
    with started(script(code), folder, output) as (supervisor, _):
        with pytest.raises(KeyboardInterrupt):
            supervisor.serve(out_of_patience())
        assert supervisor.error is None


def test_without_synchronous_wake_ups_it_works_as_well() -> None:
    folder = EchoFolder()
    output = Output()
    code = """
        fd = os.open("/dev/vfio/echo", os.O_RDWR)
        say([os.pread(fd, 1, 3).decode() for _ in range(100)] == ["3"] * 100)
        """
    with started(script(code), folder, output) as (supervisor, child):
        fcntl.ioctl(child.listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, 0)
        assert supervisor.serve(out_of_patience()) == 0
    assert output.said == [[True]]


def test_a_program_looks_for_files_among_its_own() -> None:
    code = f"""
        fd = os.open("/dev/vfio/echo", os.O_RDWR)
        os.dup2(0, 1005)
        say([tried(fcntl.ioctl, fd, {FIND}, n) for n in (fd, 1005, 0, 1006)])
        """
    assert run(code, EchoFolder()) == [[[1, "EINVAL", "EINVAL", "EBADF"]]]
