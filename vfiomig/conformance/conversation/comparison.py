"""What only a bench can judge: states, regions and bytes held against each other.

Premise of all of it: whatever made a stream or a load worthless as evidence (a fault,
a failed access, the user application's own fault) rules the comparison out.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.conversation import moving
from vfiomig.conformance.conversation.stream import (
    FEATURE_RULES,
    Stream,
    rule_for,
    rules_about,
)
from vfiomig.conformance.explain import text_of
from vfiomig.conformance.ruling import Broken, Witness
from vfiomig.protocol.errors import DriverDiedError
from vfiomig.protocol.v1.states import DeviceState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vfiomig.conformance.conversation.damage import Damage
    from vfiomig.conformance.conversation.devices import Devices
    from vfiomig.conformance.conversation.session import Session
    from vfiomig.conformance.conversation.ticking import Ticking

_OF_DESTINATION: Final = {
    "destination had resumed before",
    "destination had a state",
    "reset before",
    "closed before",
}

# A stopped device that gave so many times its state, and this much more in so many
# buffers, does not come to an end (V1-PEND-13).
_STATE_FACTOR: Final = 256
_SLACK: Final = 2048
_BUFFERS_OF_NO_END: Final = 64
_MANY_BUFFERS: Final = 4096


class Comparison:
    """Adds what it rules to what a conversation kept and broke, by the last record."""

    def __init__(
        self,
        rule_ids: Mapping[str, str],
        devices: Devices,
        ticking: Ticking,
    ) -> None:
        self._rule_ids = rule_ids
        self._devices = devices
        self._ticking = ticking
        self._records = devices.records

    def keeps(self, origin: str) -> None:
        """Rule that a rule was kept."""
        rule = self._rule_ids.get(origin)
        if rule is not None:
            self._devices.kept.add(rule)

    def breaks(
        self,
        origin: str,
        session: Session,
        *,
        expected: str,
        actual: str,
        because: tuple[str, ...] = (),
        is_outcome: bool = False,
        at: int = 0,
    ) -> None:
        """Rule that it was broken by the record of that number, the last if none."""
        rule = self._rule_ids.get(origin)
        if rule is None:
            return
        at = at or len(self._records)
        last = self._records[at - 1]
        broken = Broken(
            expected=expected,
            actual=actual,
            witnesses=(Witness(at, f"{last.device}: {text_of(last)}"),),
            because=(*because, f"however, {actual}: a contradiction."),
            is_outcome=is_outcome,
        )
        self._devices.broken.append((rule, broken, at))

    def decides(
        self, origin: str, session: Session, *, kept: bool, expected: str, actual: str
    ) -> None:
        """Rule one or the other."""
        if kept:
            self.keeps(origin)
        else:
            self.breaks(origin, session, expected=expected, actual=actual)

    # -- migrations --------------------------------------------------------------------

    def load_refused(self, session: Session, stream: Stream | None) -> None:
        """Judge that a chunk of a whole stream was refused."""
        if stream is None or not stream.is_evidence or session.is_armed:
            return
        features = _features(session, stream)
        self.breaks(
            rule_for(features),
            session,
            is_outcome=True,
            because=_story(stream, features),
            expected="every chunk is taken, in the order and the sizes of the source",
            actual=f"chunk {len(session.loaded or ())} of the source was refused",
        )

    def refused(self, session: Session, stream: Stream | None) -> None:
        """Judge that RUNNING was refused at the end of RESUMING."""
        if session.damage is not None:
            self._is_told(session.damage)
        whole = _whole(session, stream)
        if whole is None or session.is_armed:
            return
        # It may take that for a chunk whose end never came.
        is_spoiled = "window overwritten" in session.load_features
        if is_spoiled and not self._devices.with_control(
            lambda control: moving.takes_loose_data(control, whole.chunks),
            otherwise=True,
        ):
            return
        features = _features(session, whole)
        self.breaks(
            rule_for(features),
            session,
            is_outcome=True,
            because=_story(whole, features),
            expected=f"RUNNING, after all {len(whole.chunks)} chunks of the source",
            actual="the write to device_state failed",
        )

    def resumed(
        self, session: Session, stream: Stream | None, snapshot: str | None
    ) -> None:
        """Judge a device that left RESUMING for RUNNING: it is what was loaded."""
        if stream is None or snapshot is None or stream.snapshot is None:
            return
        if session.damage is not None:
            self._ran_damaged(session, session.damage, stream, snapshot)
            return
        is_equal = snapshot == stream.snapshot
        whole = _whole(session, stream)
        if whole is None:
            return
        features = _features(session, whole)
        if not is_equal and self._changes_by_itself(session, snapshot):
            return
        if not is_equal:
            # It may refuse what comes late (V1-TRANS-28), but not run with half of it.
            self.breaks(
                rule_for(features - {"late data"}),
                session,
                is_outcome=True,
                because=_story(whole, features),
                expected=f"the source's state at stop, {stream.snapshot}",
                actual=f"the destination's state is {snapshot}",
            )
            return
        for origin in rules_about(features):
            self.keeps(origin)
        if len(whole.chunks) > 1:
            self.keeps("V1-RES-10")
        if any(len(chunk) % 8 for chunk in whole.chunks):
            self.keeps("V1-SIZE-10")

    def _changes_by_itself(self, session: Session, snapshot: str | None) -> bool:
        """Tell whether a device that runs is, without any work, another one by now."""
        return session.is_running and self._ticking.is_seen(session.device, snapshot)

    def _ran_damaged(
        self, session: Session, damage: Damage, stream: Stream, snapshot: str
    ) -> None:
        """Judge a device that runs behind a damaged stream.

        An error that showed while it was loaded is enough where nothing of it stayed.
        """
        is_all = session.load_failed or session.loaded == damage.chunks
        if session.is_armed or not stream.is_evidence or not is_all:
            return
        at = len(self._records)
        is_undone = session.load_failed and snapshot in session.clean_snapshots
        if snapshot == stream.snapshot or is_undone:
            self._is_told(damage)
        elif not self._devices.with_control(
            lambda control: moving.took_as_state(
                session.device, damage, control, stream
            ),
            otherwise=True,
        ):
            self.breaks(
                damage.origin,
                session,
                because=(f"what was loaded was {damage.how}{damage.place};",),
                expected="an error, or the source's state",
                actual="RUNNING, in another state than the source's",
                at=at,
            )

    def _is_told(self, damage: Damage) -> None:
        self.keeps(damage.origin)
        self.keeps("V1-RES-06")

    # -- the device by itself ----------------------------------------------------------

    def not_again(self, session: Session) -> None:
        """Rule on a device that began to save once, and does not now."""
        self.breaks(
            "V1-SAVE-11",
            session,
            expected="SAVING begins, as it did before on this device",
            actual="the write to device_state failed",
        )

    def opened_again(
        self, session: Session, state: int | None, fresh: str, *, is_closed: bool
    ) -> None:
        """Judge a device that was opened after another session was closed."""
        self.decides(
            "V1-RST-06",
            session,
            kept=is_closed,
            expected="close() ends whatever session is open",
            actual="close() failed",
        )
        for origin in ("V1-STATE-02", "V1-RST-06"):
            self.decides(
                origin,
                session,
                kept=state == DeviceState.RUNNING,
                expected="device_state = RUNNING in a new session",
                actual=f"device_state = {state:#x}"
                if state is not None
                else "an error",
            )
        if not fresh or session.power_on is None:
            return
        is_fresh = session.power_on == fresh
        if is_fresh or not self._changes_by_itself(session, session.power_on):
            self.decides(
                "V1-RST-06",
                session,
                kept=is_fresh,
                expected=f"the state of a fresh device, {fresh}",
                actual=f"the state is {session.power_on}",
            )

    def was_reset(self, session: Session, snapshot: str, fresh: str) -> None:
        """Judge the state behind a reset."""
        is_fresh = snapshot == fresh
        if not is_fresh and self._changes_by_itself(session, snapshot):
            return
        self.decides(
            "V1-RST-04",
            session,
            kept=is_fresh,
            expected=f"after the reset the state of a fresh device, {fresh}",
            actual=f"the state is {snapshot}",
        )

    @contextlib.contextmanager
    def no_harm(self, session: Session) -> Iterator[None]:
        """Judge a death of work that reaches a device which does not run."""
        try:
            yield
        except DriverDiedError:
            if session.state is not None and not session.is_running:
                self.breaks(
                    "V1-USER-02",
                    session,
                    expected="work has no effect, and does no harm",
                    actual="the driver died of it",
                )
            raise

    def worked(self, session: Session, *, changed: bool) -> None:
        """Judge work, by whether it shows: it does where the device runs."""
        if not session.is_running:
            self.keeps("V1-USER-02")
        elif changed:
            self.keeps("V1-STATE-03")
        elif self._devices.works_on_control(session.works):
            self.breaks(
                "V1-STATE-03",
                session,
                expected="the device runs: work changes its state",
                actual="work does not show that shows on a device that never stopped",
            )

    def read_again(self, session: Session, how: str, *, is_same: bool) -> None:
        """Judge a buffer that was read once more."""
        if session.position.has_failed or how == "mapped":
            return
        self.decides(
            "V1-SAVE-03" if how == "whole" else "V1-SAVE-04",
            session,
            kept=is_same,
            expected="the bytes that the buffer had when it was read before",
            actual="they are others",
        )

    def region_asked_again(self, session: Session) -> None:
        """Ask for the region another time, and judge its size and areas."""
        is_same = session.device.region_is_same()
        self.decides(
            "V1-DISC-06",
            session,
            kept=is_same,
            expected="size and areas as when the device was opened",
            actual="the region is another one",
        )

    def mapped(self, session: Session, *, is_same: bool, size: int) -> None:
        """Judge the bytes of a read() against those of the mapping."""
        self.decides(
            "V1-MMAP-05",
            session,
            kept=is_same,
            expected=f"by read() the {size} bytes that the mapping shows",
            actual="they are others",
        )

    def has_no_end(self, session: Session) -> bool:
        """Tell, and rule, that a stopped device does not come to an end."""
        state, stream = session.device.snapshot_size, session.stream
        if session.is_running or state is None or stream is None or stream.is_tainted:
            return False
        if len(stream.chunks) - stream.precopied < _BUFFERS_OF_NO_END:
            return False
        if stream.size <= _STATE_FACTOR * state + _SLACK + stream.precopied_size:
            return False
        self.saved(session, has_ended=False)
        return True

    def went_on(self, session: Session, buffers: int) -> None:
        """Rule that a stopped device has no end that gave more buffers than bits."""
        state = session.device.snapshot_size
        if state is None or session.is_running:
            return
        if buffers >= _MANY_BUFFERS and buffers > 8 * state:
            self.saved(session, has_ended=False)

    def saved(self, session: Session, *, has_ended: bool) -> None:
        """Judge whether a stopped device came to an end."""
        self.decides(
            "V1-PEND-13",
            session,
            kept=has_ended,
            expected="pending_bytes = 0 after finitely many buffers",
            actual="a stream far larger than the state, and no end of it",
        )


def _features(session: Session, stream: Stream) -> set[str]:
    past = session.past & _OF_DESTINATION
    return stream.features | session.load_features | past


def _story(stream: Stream, features: set[str]) -> tuple[str, ...]:
    """Return the sentences that tell how the stream came about."""
    told = f"the source gave {len(stream.chunks)} chunks, {stream.size} bytes in all;"
    special = [each for each in FEATURE_RULES if each in features]
    if not special:
        return (told,)
    return told, f"what must make no difference: {', '.join(special)};"


def _whole(session: Session, stream: Stream | None) -> Stream | None:
    """Return the stream that a device was given, if it was all of it."""
    if stream is None or not stream.is_evidence or session.load_failed:
        return None
    if session.damage is not None:
        return None
    given = [chunk for chunk in stream.chunks if chunk]
    return stream if session.loaded == given else None
