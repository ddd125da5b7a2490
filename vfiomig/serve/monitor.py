"""A QEMU's monitor (QMP), asked from ordinary code.

The maintained library is asynchronous; it has a thread of its own here, which never
touches a device.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from concurrent import futures
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from qemu.qmp import ConnectError, ExecuteError, QMPClient, QMPError

from vfiomig.protocol.errors import VfiomigError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from pathlib import Path

_RETRY: Final = 0.02  # seconds
_ASKS: Final = 10
_PATIENCE: Final = 30.0  # seconds, for one answer

# What a migration ends with.
ENDED: Final = ("completed", "failed", "cancelled")


class MonitorError(VfiomigError):
    """QEMU refused a command, or does not answer any more."""


class MonitorGoneError(MonitorError):
    """QEMU has closed its monitor: it has ended, or is about to."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that QEMU told of itself: seconds since the monitor began."""

    at: float
    name: str
    data: Mapping[str, Any]


@dataclass(slots=True)
class Seen:
    """What QEMU told of its migrations; ``figures`` is the last query-migrate."""

    events: list[Event] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    figures: Mapping[str, Any] = field(default_factory=dict)


class Monitor:
    """A connection to the monitor at a socket, as soon as there is one.

    Errors call it ``name``; an answer may take ``patience`` seconds.
    """

    def __init__(
        self, path: Path, *, name: str = "QEMU", patience: float = _PATIENCE
    ) -> None:
        self._path = path
        self._name = name
        self._patience = patience
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient()
        self._began = time.monotonic()
        self.seen = Seen()
        self._changed = threading.Condition()
        self._tasks: list[asyncio.Future[None]] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._connected = asyncio.run_coroutine_threadsafe(self._follow(), self._loop)

    def ask(self, command: str, **arguments: object) -> Any:
        """Perform a command and return its answer.

        Raises:
            MonitorError: QEMU refused it, has gone, or took too long.
        """
        return self._run(self._ask(command, arguments), command)

    def wait_until(self, *statuses: str, limit: float) -> str:
        """Wait until a migration has one of these statuses; return it.

        Raises:
            MonitorError: it has none of them within so many seconds.
            MonitorGoneError: QEMU has gone.
        """
        deadline = time.monotonic() + limit
        while True:
            status = str(self.ask("query-migrate").get("status", "none"))
            if status in statuses:
                return status
            if time.monotonic() > deadline:
                message = f"the migration is not {' or '.join(statuses)}"
                raise MonitorError(f"{self._name}: {message} within {limit:g} s")
            with self._changed:
                self._changed.wait(_RETRY)

    def is_connected(self, *, within: float) -> bool:
        """Wait so many seconds at most until QEMU listens; tell whether it does."""
        return bool(futures.wait([self._connected], within).done)

    def close(self) -> None:
        """Let go of it, whether or not QEMU still runs."""
        with contextlib.suppress(MonitorError):
            self._run(self._disconnect(), "disconnect")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(self._patience)
        if not self._thread.is_alive():
            self._loop.close()

    # -- in the thread -----------------------------------------------------------------

    async def _follow(self) -> None:
        """Connect, and note what QEMU tells."""
        connecting = asyncio.current_task()
        assert connecting is not None
        self._tasks.append(connecting)
        while True:
            try:
                await self._client.connect(str(self._path))
                break
            except ConnectError:
                await asyncio.sleep(_RETRY)
        capability = {"capability": "events", "state": True}
        with contextlib.suppress(ExecuteError):
            await self._client.execute(
                "migrate-set-capabilities", {"capabilities": [capability]}
            )
        self._tasks.append(asyncio.ensure_future(self._watch()))

    async def _watch(self) -> None:
        with self._client.listener() as listener:
            async for event in listener:
                data = cast("Mapping[str, Any]", event.get("data", {}))
                await self._note(str(event["event"]), data)

    async def _note(self, name: str, data: Mapping[str, Any]) -> None:
        at = time.monotonic() - self._began
        self.seen.events.append(Event(at, name, data))
        if name == "MIGRATION":
            self.seen.statuses.append(str(data["status"]))
            if data["status"] in ENDED:
                with contextlib.suppress(QMPError):
                    self.seen.figures = await self._figures()
        with self._changed:
            self._changed.notify_all()

    async def _figures(self) -> Mapping[str, Any]:
        """Ask for the figures; QEMU tells of the end before it has added them up."""
        for _ in range(_ASKS):
            answer = await self._client.execute("query-migrate")
            figures = cast("Mapping[str, Any]", answer)
            if figures.get("total-time") != 0:
                break
            await asyncio.sleep(_RETRY)
        return figures

    async def _ask(self, command: str, arguments: Mapping[str, object]) -> object:
        # Who asks may lose patience; the connection is still waited for.
        await asyncio.shield(asyncio.wrap_future(self._connected))
        return await self._client.execute(command, dict(arguments) or None)

    async def _disconnect(self) -> None:
        for task in self._tasks:
            task.cancel()
        # The library cannot disconnect while it is undoing half a connection.
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(Exception):  # it may have gone in any way
            await self._client.disconnect()

    def _run(self, work: Coroutine[Any, Any, Any], command: str) -> Any:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(self._patience)
        except ExecuteError as error:
            raise MonitorError(f"{self._name}: {command}: {error}") from error
        except TimeoutError:  # an OSError as well
            future.cancel()
            message = f"{command}: no answer within {self._patience:g} s"
            raise MonitorError(f"{self._name}: {message}") from None
        except (QMPError, OSError, EOFError) as error:
            message = f"{self._name}: {command}: the monitor is gone"
            raise MonitorGoneError(message) from error
