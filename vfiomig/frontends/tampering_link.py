"""A link between two QEMUs that flips a bit of one byte, or ends before it."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_PIECE: Final = 1 << 20
_BIT: Final = 0x01


class TamperingLink:
    """Listens at ``near`` and passes on to ``far``, in a thread of its own.

    ``flip`` and ``cut`` are bytes of the stream, counted from 0; ``passed`` is how
    many have gone by, and ``has_tampered`` whether any was changed or withheld.
    """

    def __init__(
        self, near: Path, far: Path, *, flip: int | None = None, cut: int | None = None
    ) -> None:
        self._far = far
        self._flip, self._cut = flip, cut
        self.passed = 0
        self.has_tampered = False
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(near))
        self._server.listen(1)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; what goes by goes on to its end."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # one of the two has gone: the other sees
            source, _ = self._server.accept()
            with source, socket.socket(socket.AF_UNIX) as destination:
                destination.connect(str(self._far))
                back = threading.Thread(
                    target=_pass_on, args=(destination, source), daemon=True
                )
                back.start()
                self._pass_on(source, destination)
                back.join()

    def _pass_on(self, source: socket.socket, destination: socket.socket) -> None:
        while piece := bytearray(source.recv(_PIECE)):
            if self._cut is not None and self.passed + len(piece) > self._cut:
                self.has_tampered = True
                destination.sendall(piece[: max(0, self._cut - self.passed)])
                source.shutdown(socket.SHUT_RDWR)
                break
            at = -1 if self._flip is None else self._flip - self.passed
            if 0 <= at < len(piece):
                self.has_tampered = True
                piece[at] ^= _BIT
            destination.sendall(piece)
            self.passed += len(piece)
        destination.shutdown(socket.SHUT_WR)


def _pass_on(source: socket.socket, destination: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            destination.sendall(piece)
