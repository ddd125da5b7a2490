"""The devices of one conversation: by role, judged, and the fresh ones beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from vfiomig.conformance.conversation.device import opened
from vfiomig.conformance.conversation.session import Session
from vfiomig.conformance.judge import Judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vfiomig.conformance.conversation.device import Begin, DeviceUnderTest
    from vfiomig.conformance.conversation.ticking import Ticking
    from vfiomig.conformance.judge import Bound
    from vfiomig.conformance.ruling import Broken
    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.protocol.history import Record

_Answer = TypeVar("_Answer")

_CONTROL: Final = "control"  # a role that no step has


class Devices:
    """Opens devices as they are needed, and lets the judge see every record of them.

    ``broken`` has rule, ruling and the number of the record that it follows.  Where it
    ``is_frugal``, nobody looks at the state of a device that was just opened.
    """

    def __init__(
        self,
        make_driver: Callable[[], TrappedDriver],
        checks: Iterable[Bound],
        begin: Begin,
        ticking: Ticking,
        *,
        is_alone: bool = False,
    ) -> None:
        self._ticking = ticking
        self._is_alone = is_alone
        self._make_driver = make_driver
        self._begin = begin
        self._judge = Judge(checks, {})
        self._sessions: dict[str, Session] = {}
        self.opened = 0
        self.is_frugal = False
        self.state_size = 0  # bytes, of the largest snapshot of those that were closed
        self._fresh: set[str | None] = set()  # snapshots of devices just opened
        self.records: list[Record] = []
        self.broken: list[tuple[str, Broken, int]] = []

    @property
    def kept(self) -> set[str]:
        """The rules that were kept; whoever compares devices adds to them."""
        return self._judge.kept

    def session(self, role: str) -> Session:
        """Return the session of a role; its device is opened if there is none."""
        if role not in self._sessions:
            for other in list(self._sessions) if self._is_alone else ():
                self.let_go(other)
            self.opened += 1
            name = role if self.opened == 1 else f"{role}-{self.opened}"
            device = opened(self._make_driver, name, self._note, self._begin)
            for rule, broken in self._judge.open(name, device.shape):
                self.broken.append((rule, broken, len(self.records)))
            power_on = None if self.is_frugal else device.snapshot()
            session = Session(device, self._judge.position(name), power_on)
            self._fresh.add(power_on)
            self._sessions[role] = session
        return self._sessions[role]

    def let_go(self, role: str) -> bool | None:
        """Close the device of a role; tell if that succeeded, None if there is none."""
        session = self._sessions.pop(role, None)
        if session is None:
            return None
        self._measure(session)
        return session.device.close()

    def close(self) -> None:
        """Close all devices."""
        for session in self._sessions.values():
            self._measure(session)
            session.device.close()
        self._judge.close()

    def fresh_snapshot(self) -> str:
        """Return the state of all fresh devices; empty where they differ."""
        if self.opened == 1:
            self.with_control(lambda _: None, otherwise=None)
        return next(iter(self._fresh)) or "" if len(self._fresh) == 1 else ""

    def works_on_control(self, works: list[int] | None) -> bool:
        """Tell whether the last of these works shows on a device that only runs."""
        if not works:
            return False

        def shows(control: DeviceUnderTest) -> bool:
            for amount in works[:-1]:
                control.work(amount)
            before = control.snapshot()
            if self._ticking.is_seen(control, before):
                return False
            control.work(works[-1])
            return control.snapshot() != before

        return self.with_control(shows, otherwise=False)

    def with_control(
        self, act: Callable[[DeviceUnderTest], _Answer], *, otherwise: _Answer
    ) -> _Answer:
        """Do something with a fresh device that takes no part otherwise.

        Where there can be none, the answer is ``otherwise``.
        """
        if self._is_alone:
            return otherwise
        answer = act(self.session(_CONTROL).device)
        self.let_go(_CONTROL)
        return answer

    def _measure(self, session: Session) -> None:
        size = session.device.snapshot_size or 0
        self.state_size = max(self.state_size, size)

    def _note(self, record: Record) -> None:
        self.records.append(record)
        for rule, broken in self._judge.see(record):
            self.broken.append((rule, broken, len(self.records)))
