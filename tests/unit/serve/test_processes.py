from __future__ import annotations

import errno

from tests.unit.serve.programs import (
    EchoFolder,
    Output,
    out_of_patience,
    run,
    script,
    started,
)

RUN_CHILD = """
def in_child(function, *args):
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(writer, json.dumps(tried(function, *args)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    told = os.read(reader, 4096)
    os.waitpid(pid, 0)
    return json.loads(told)
def read(fd, offset):
    return os.pread(fd, 2, offset).decode()
"""


def test_the_copies_of_a_fork_are_the_same_file() -> None:
    folder = EchoFolder()
    said = run(
        RUN_CHILD
        + """
fd = os.open("/dev/vfio/echo", os.O_RDWR)
say(in_child(read, fd, 5))
def close_it():
    os.close(fd)
    return tried(os.pread, fd, 1, 0)
say(in_child(close_it))
say(read(fd, 6))
os.close(fd)
say(tried(read, fd, 7))
""",
        folder,
    )
    assert said == [["5."], ["EBADF"], ["6."], ["EBADF"]]
    assert folder.closes() == 1


def test_a_child_may_open_what_its_parent_has_not() -> None:
    said = run(
        RUN_CHILD
        + """
def open_and_read():
    fd = os.open("/dev/vfio/alone", os.O_RDWR)
    return [fd, read(fd, 1), tried(os.open, "/dev/vfio/alone", 0)]
# It ends without a close, and each time the next one finds the file free.
say(in_child(open_and_read), in_child(open_and_read), open_and_read())
""",
        EchoFolder(),
    )
    assert said == [[[1000, "1.", "EBUSY"]] * 3]


def test_a_file_of_the_child_s_own_at_that_number_is_its_own() -> None:
    folder = EchoFolder()
    said = run(
        RUN_CHILD
        + """
ready, go = os.pipe()
told, tell = os.pipe()
pid = os.fork()
if not pid:
    os.dup2(os.open("/proc/self/comm", os.O_RDONLY), 1000)
    os.read(ready, 1)  # now the parent has 1000 as well, and it is another file
    os.write(tell, os.pread(1000, 99, 0))
    os._exit(0)
fd = os.open("/dev/vfio/echo", os.O_RDWR)
os.write(go, b"!")
comm = open("/proc/self/comm").read()
say(fd, os.read(told, 99).decode() == comm, read(fd, 5))
os.waitpid(pid, 0)
""",
        folder,
    )
    assert said == [[1000, True, "5."]]


def test_a_device_reaches_the_memory_of_a_process_until_that_has_ended() -> None:
    folder = EchoFolder()
    reached = []

    def reach() -> None:
        for user, address in folder.file.told:
            try:
                user.memory.write(address, b"device")
                reached.append(bytes(user.memory.read(address, 6)))
            except OSError as error:
                reached.append(errno.errorcode[error.errno or 0].encode())

    folder.file.on_pread = reach
    said = run(
        RUN_CHILD
        + """
fd = os.open("/dev/vfio/echo", os.O_RDWR)
room = ctypes.create_string_buffer(8)
def offer():
    raw(IOCTL, fd, 10, ctypes.addressof(room))
    read(fd, 0)
    return room.value.decode()
say(in_child(offer), room.value.decode())
read(fd, 0)
say(room.value.decode())  # the same address, and another process
""",
        folder,
    )
    assert said == [["device", ""], [""]]
    assert reached == [b"device", b"EFAULT"]


def test_an_exec_keeps_what_is_not_closed_by_it() -> None:
    folder = EchoFolder()
    inner = "\n".join(
        (
            "import os, sys",
            "def tried(fd):",
            "    try:",
            "        return os.pread(fd, 2, 5).decode()",
            "    except OSError as error:",
            "        return error.errno",
            "kept, closed = map(int, sys.argv[1:])",
            "again = os.open('/dev/vfio/alone', os.O_RDWR)",
            "said = [tried(kept), again, tried(again)]",
            "os.write(1, repr(said).replace(chr(39), chr(34)).encode())",
        )
    )
    said = run(
        f"""
        kept = os.open("/dev/vfio/echo", os.O_RDWR)
        os.set_inheritable(kept, True)
        closed = os.open("/dev/vfio/alone", os.O_RDWR)
        argv = [sys.executable, "-S", "-c", {inner!r}, str(kept), str(closed)]
        os.execv(sys.executable, argv)
        """,
        folder,
    )
    # The device that the exec has closed is free again, and so is its number.
    assert said == [["5.", 1001, "5."]]


def test_posix_spawn_and_subprocess_run_as_ever() -> None:
    said = run(
        """
        import subprocess
        fd = os.open("/dev/vfio/echo", os.O_RDWR)
        pid = os.posix_spawn("/bin/true", ["true"], os.environ)
        say(os.waitpid(pid, 0)[1])
        say(subprocess.run(["/bin/echo", "x"], stdout=subprocess.PIPE).returncode)
        shell = f"test -e /proc/self/fd/{fd}"
        done = subprocess.run(["sh", "-c", shell], capture_output=True, pass_fds=[fd])
        say(done.returncode, os.pread(fd, 1, 3).decode())
        """,
        folder := EchoFolder(),
    )
    assert said == [[0], [0], [0, "3"]]
    assert folder.closes() == 1


def test_what_is_put_over_a_file_or_closed_with_many_is_closed() -> None:
    folder = EchoFolder()
    said = run(
        """
        CLOSE_RANGE = 436
        first = os.open("/dev/vfio/echo", os.O_RDWR)
        other = os.open("/proc/self/comm", os.O_RDONLY)
        os.dup2(other, first)
        say(os.pread(first, 99, 0) == os.pread(other, 99, 0))
        alone = os.open("/dev/vfio/alone", os.O_RDWR)
        say(tried(os.open, "/dev/vfio/alone", 0))
        say(raw(CLOSE_RANGE, alone, 0xffffffff, 4))  # only on exec
        say(os.pread(alone, 1, 3).decode())
        say(raw(CLOSE_RANGE, 3, 0xffffffff, 0))
        say(tried(os.pread, alone, 1, 3), tried(os.open, "/dev/vfio/alone", 0))
        """,
        folder,
    )
    assert said == [[True], ["EBUSY"], [0], ["3"], [0], ["EBADF", 1000]]
    assert folder.closes() == 1


def test_fds_of_the_program_s_own_are_left_alone() -> None:
    folder = EchoFolder()
    said = run(
        """
        own = os.open("/proc/self/comm", os.O_RDONLY)
        for number in (1000, 1001, 1003): os.dup2(own, number)
        ours = [os.open("/dev/vfio/echo", os.O_RDWR) for _ in range(2)]
        comm = os.pread(own, 99, 0)
        say(ours, [os.pread(each, 99, 0) == comm for each in (1000, 1001, 1003)])
        say(tried(fcntl.ioctl, 1000, 99, 0), tried(os.close, 1000))
        say(len(mmap.mmap(-1, 4096)))
        """,
        folder,
    )
    assert said == [[[1002, 1004], [True] * 3], ["ENOTTY", None], [4096]]


def test_a_program_ends_although_a_child_of_it_calls_for_ever() -> None:
    folder = EchoFolder()
    output = Output()
    code = """
        fd = os.open("/dev/vfio/echo", os.O_RDWR)
        if not os.fork():
            mine = os.open("/dev/vfio/echo", os.O_RDWR)
            while True: os.pread(mine, 1, 0)
        os._exit(7)
        """
    with started(script(code), folder, output, patience=0.2) as (supervisor, _):
        assert supervisor.serve(out_of_patience()) == 7
    assert folder.closes() == 2
