"""QEMU's own RDMA migration and rsocket: the same words on the wire mean others.

What QEMU 7.2 does with private data that it does not know is its own: as a destination
it says so and then dies of a null pointer.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from tests.rdma.vm import ADDRESS
from vfiomig.migration.transport.rsocket.librdmacm import Librdmacm
from vfiomig.serve.monitor import Monitor, MonitorError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LIMIT: Final = 30.0  # seconds, for anything that takes one
_PORT: Final = 4444
_QEMU: Final = (
    *("qemu-system-x86_64", "-M", "pc", "-m", "64", "-accel", "tcg", "-S"),
    *("-nodefaults", "-display", "none"),
)


class Qemu:
    """A QEMU that can migrate by old RDMA; it is inside the VM as well."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        path = folder / "monitor"
        self._errors = folder / "errors"
        monitor = ("-qmp", f"unix:{path},server=on,wait=off")
        with self._errors.open("w") as errors:
            self.process = subprocess.Popen(
                (*_QEMU, *monitor, *arguments), stderr=errors
            )
        self.monitor = Monitor(path, patience=_LIMIT)
        self.monitor.ask("query-status")  # it listens when it answers

    @property
    def errors(self) -> str:
        """What it said on stderr."""
        return self._errors.read_text()

    def close(self) -> None:
        """Kill it."""
        self.monitor.close()
        self.process.kill()
        self.process.wait(_LIMIT)


@contextmanager
def an_rsocket(library: Librdmacm) -> Iterator[int]:
    number = library.rsocket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        yield number
    finally:
        library.rclose(number)


def connecting(library: Librdmacm, number: int) -> OSError | None:
    """Connect; return how it was refused. It must not take long."""
    refusals: list[OSError | None] = []

    def connect() -> None:
        try:
            library.rconnect(number, (ADDRESS, _PORT))
        except OSError as error:
            refusals.append(error)
        else:
            refusals.append(None)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_LIMIT)
    assert refusals, f"rconnect() has not returned after {_LIMIT} s"
    return refusals[0]


def test_old_rdma_refuses_an_rsocket_that_connects(tmp_path: Path) -> None:
    library = Librdmacm()
    with (
        closing(Qemu(tmp_path, "-incoming", f"rdma:{ADDRESS}:{_PORT}")) as qemu,
        an_rsocket(library) as number,
    ):
        refusal = connecting(library, number)
        assert refusal is not None
        assert refusal.errno == errno.ECONNREFUSED
        assert qemu.process.wait(_LIMIT) != 0
        # rs_conn_data's first bytes: version 1, RS_CONN_FLAG_IOMAP, 384 credits.
        assert f"Unknown source RDMA version: {0x01020180}" in qemu.errors


def test_an_rsocket_refuses_old_rdma_that_connects(tmp_path: Path) -> None:
    library = Librdmacm()
    with an_rsocket(library) as listener, closing(Qemu(tmp_path)) as qemu:
        library.rbind(listener, (ADDRESS, _PORT))
        library.rlisten(listener, 4)
        library.rfcntl(listener, fcntl.F_SETFL, os.O_NONBLOCK)
        with pytest.raises(MonitorError, match="connecting to destination"):
            qemu.monitor.ask("migrate", uri=f"rdma:{ADDRESS}:{_PORT}")
        answer = qemu.monitor.ask("query-migrate")
        assert answer["status"] == "failed"
        with pytest.raises(BlockingIOError):
            library.raccept(listener)
