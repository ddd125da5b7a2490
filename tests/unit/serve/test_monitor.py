from __future__ import annotations

import contextlib
import json
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.serve.programs import LIMIT
from vfiomig.serve.monitor import Monitor, MonitorError, MonitorGoneError

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}


class Speaker:
    """QEMU's end of a monitor, which says what it is told to."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.settimeout(LIMIT)
        self._listener.bind(str(path))
        self._listener.listen()

    def accept(self) -> None:
        self._connection, _ = self._listener.accept()
        self._connection.settimeout(LIMIT)

    def greet(self) -> None:
        self._say({"QMP": {"version": VERSION, "capabilities": []}})
        for command in ("qmp_capabilities", "migrate-set-capabilities"):
            assert self.answer({}) == command

    def answer(self, value: object) -> str:
        """Answer the next command; return which it was."""
        asked = json.loads(self._connection.recv(4096))  # one waits for its answer
        answer = {"return": value}
        if "id" in asked:  # the first command has none
            answer["id"] = asked["id"]
        self._say(answer)
        return str(asked["execute"])

    def hang_up(self) -> None:
        self._connection.close()

    def close(self) -> None:
        self._connection.close()
        self._listener.close()

    def _say(self, what: object) -> None:
        self._connection.sendall(json.dumps(what).encode() + b"\r\n")


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vfiomig-") as name:
        yield Path(name) / "monitor"


@pytest.fixture
def speaker(path: Path) -> Iterator[Speaker]:
    with contextlib.closing(Speaker(path)) as speaker:
        yield speaker


def test_a_question_that_was_given_up_does_not_end_the_connection(
    path: Path, speaker: Speaker
) -> None:
    with contextlib.closing(Monitor(path, name="source", patience=0.1)) as monitor:
        speaker.accept()
        with pytest.raises(
            MonitorError, match=r"^source: stop: no answer within 0.1 s$"
        ):
            monitor.ask("stop")
        speaker.greet()
        assert monitor.is_connected(within=LIMIT)
        with pytest.raises(
            MonitorError, match=r"^source: cont: no answer within 0.1 s$"
        ):
            monitor.ask("cont")
        assert speaker.answer({}) == "cont", "and not the one that was given up"
        speaker.hang_up()


def test_a_monitor_that_hangs_up_is_gone(path: Path, speaker: Speaker) -> None:
    with contextlib.closing(Monitor(path, patience=LIMIT)) as monitor:
        speaker.accept()
        speaker.greet()
        speaker.hang_up()
        with pytest.raises(
            MonitorGoneError, match=r"^QEMU: stop: the monitor is gone$"
        ):
            monitor.ask("stop")
