"""Targets behind a socket: how they are written, and servers that do not start."""

from __future__ import annotations

import shlex
import socket
import sys
from pathlib import Path

import pytest

from vfiomig.conformance.target import TargetError, TargetStartError, load_target
from vfiomig.conformance.vfio_user.target import is_vfio_user, with_server


def python(code: str) -> str:
    """Return a target whose servers run this code, with the socket as an argument."""
    return f"vfio-user:{shlex.quote(sys.executable)} -c {shlex.quote(code)} {{socket}}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vfio-user:/run/a.sock", True),
        ("vfio-user,limit=2:/run/a.sock", True),
        ("vfio-user:", True),
        ("vfio-user", False),
        ("vfio-users:x", False),
        ("serial", False),
        ("vfio-user.py:Driver", False),
    ],
)
def test_the_kind_is_known_by_the_word_before_the_colon(
    text: str, *, expected: bool
) -> None:
    assert is_vfio_user(text) is expected


def test_options_of_the_command_line_become_part_of_the_target() -> None:
    command = "server --at {socket}"
    assert with_server("vfio-user:", server=None, bench=None) == "vfio-user:"
    assert (
        with_server("vfio-user:", server=command, bench=None) == f"vfio-user:{command}"
    )
    bench = Path("a.toml")
    served = with_server("vfio-user:", server=command, bench=bench)
    assert served == f"vfio-user,bench=a.toml:{command}"
    there = with_server("vfio-user,limit=2:/s", server=None, bench=bench)
    assert there == "vfio-user,limit=2,bench=a.toml:/s"


@pytest.mark.parametrize(
    ("text", "server", "bench", "said"),
    [
        ("serial", "x {socket}", None, "only a vfio-user: target"),
        ("serial", None, Path("b"), "only a vfio-user: target"),
        ("vfio-user:/run/a", "x {socket}", None, "the target is vfio-user: alone"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    text: str, server: str | None, bench: Path | None, said: str
) -> None:
    with pytest.raises(TargetError, match=said):
        with_server(text, server=server, bench=bench)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vfio-user:", "which server?"),
        ("vfio-user,speed=3:/s", "unknown option 'speed'"),
        ("vfio-user,limit=0:/s", "limit=0: give"),
        ("vfio-user,limit=x:/s", "limit=x: give"),
        ("vfio-user,bench=:/s", "bench=: give"),
        ("vfio-user,bench=none.toml:/s", "none.toml: there is no such file"),
        ("vfio-user:server 'x {socket}", "No closing quotation"),
    ],
)
def test_a_target_that_cannot_be_read_says_why(text: str, said: str) -> None:
    with pytest.raises(TargetError, match=said):
        load_target(text)


def test_a_server_that_is_there_has_one_client_at_a_time(tmp_path: Path) -> None:
    target = load_target(f"vfio-user:{tmp_path}/gpu.sock")
    assert target.name == "gpu.sock"
    assert target.servers is not None
    assert target.servers.is_alone


def test_a_path_begins_at_the_folder_of_who_names_it(tmp_path: Path) -> None:
    target = load_target("vfio-user:gpu.sock", folder=tmp_path)
    with pytest.raises(TargetStartError, match=str(tmp_path / "gpu.sock")):
        target.make_driver()


def test_nobody_listens(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
    target = load_target(f"vfio-user:{path}")
    with pytest.raises(TargetStartError, match="no server can be reached"):
        target.make_driver()


def test_a_program_that_is_not_there() -> None:
    target = load_target("vfio-user:./no-such-server {socket}")
    with pytest.raises(TargetStartError, match="no-such-server: No such file"):
        target.make_driver()


def test_a_server_that_ends_before_it_listens_is_told_with_its_last_words() -> None:
    code = "import sys; print('bad firmware', file=sys.stderr); sys.exit(7)"
    target = load_target(python(code))
    with pytest.raises(TargetStartError) as caught:
        target.make_driver()
    line = str(caught.value)
    assert "the server ended with status 7 before it listened: bad firmware" in line
    assert "\n" not in line


LISTENS = """
import os, socket, sys
print(os.getpid(), file=open(sys.argv[1] + ".pid", "w"), flush=True)
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
while True:
    c, _ = s.accept()
    c.recv(16)
    c.close()
"""


@pytest.mark.slow
def test_a_server_that_hangs_up_refuses_and_renewed_servers_are_gone(
    tmp_path: Path,
) -> None:
    script = tmp_path / "server.py"
    script.write_text(LISTENS)
    target = load_target(f"vfio-user:{sys.executable} {script} {{socket}}")
    with pytest.raises(TargetStartError, match="closed the connection"):
        target.make_driver()
    assert target.servers is not None
    target.servers.make_ready()
    folder = Path(target.servers._folder.name)  # type: ignore[attr-defined]
    pids = [int(path.read_text()) for path in folder.glob("*/*.pid")]
    assert len(pids) == 3
    target.servers.renew()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert list(folder.iterdir()) == []


BACKGROUND = """
import os, sys
if os.fork():
    os._exit(0)
if sys.argv[2] == "away":
    os.setsid()
"""


@pytest.mark.parametrize("where", ["near", "away"])
def test_a_server_that_goes_to_the_background_is_alive_and_ends_with_the_others(
    tmp_path: Path, where: str
) -> None:
    script = tmp_path / "server.py"
    script.write_text(BACKGROUND + LISTENS)
    target = load_target(f"vfio-user:{sys.executable} {script} {{socket}} {where}")
    assert target.servers is not None
    target.servers.make_ready()
    folder = Path(target.servers._folder.name)  # type: ignore[attr-defined]
    target.servers.make_ready()  # there are enough
    (first, *others) = folder.glob("*/s")
    assert len(others) == 2
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(first))
        target.servers.renew()
        assert client.recv(1) == b""
    assert list(folder.iterdir()) == []


SILENT = """
import os, signal, socket, sys
open(sys.argv[1] + ".seen", "w").close()
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1] + ".new")
s.listen()
os.rename(sys.argv[1] + ".new", sys.argv[1])
signal.pause()
"""


@pytest.mark.slow
def test_where_a_new_server_is_silent_no_other_one_is_tried(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(SILENT)
    command = f"{sys.executable} {script} {{socket}}"
    target = load_target(f"vfio-user,limit=0.2:{command}")
    assert target.servers is not None
    target.servers.make_ready()
    with pytest.raises(TargetStartError, match=r"not answer within 0\.2 s at VERSION"):
        target.make_driver()
    folder = Path(target.servers._folder.name)  # type: ignore[attr-defined]
    assert len(list(folder.glob("*/*.seen"))) == 3
    target.servers.renew()


def test_a_target_that_is_named_twice_has_the_same_servers() -> None:
    text = python("pass")
    assert load_target(text).servers is load_target(text).servers
