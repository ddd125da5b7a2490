"""A server of ours in a thread of this process, and drivers without a bench."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vfiomig.serve.vfio_user.listening import listening
from vfiomig.serve.vfio_user.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vfiomig.host.device_ops import TrappedDriver

BENCH = frozenset({"work", "snapshot", "fail"})


class WithoutBench:
    """What of a driver a socket shows."""

    def __init__(self, driver: TrappedDriver) -> None:
        self._driver = driver

    def __getattr__(self, name: str) -> Any:
        if name in BENCH:
            raise AttributeError(name)
        return getattr(self._driver, name)


@contextlib.contextmanager
def serving(
    make_driver: Callable[[], TrappedDriver], devices: int = 1
) -> Iterator[list[Path]]:
    """Serve that driver at so many sockets; yield their paths."""
    with contextlib.ExitStack() as things:
        folder = Path(things.enter_context(tempfile.TemporaryDirectory()))
        paths = [folder / str(number) for number in range(devices)]
        for path in paths:
            listener = things.enter_context(listening(path))
            server = Server(make_driver, listener)

            def serve(server: Server = server) -> None:
                with contextlib.suppress(OSError):  # the listener was shut down
                    server.serve()

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            things.callback(thread.join, 10)
            things.callback(listener.shutdown, 2)
        yield paths
