"""Any conversation at all with the reference driver, beside a model of device_state.

The model is the 8x8 table and a few facts: what was armed, what was given, and what
the snapshot must be.  Whatever is said, device_state is as the model says, only work,
a reset or a finished load changes the snapshot, and nothing but an OSError comes back.
"""

from __future__ import annotations

import errno
from functools import cache
from typing import TYPE_CHECKING, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.unit.vendor.open_device import (
    BASE,
    DATA_OFFSET,
    DATA_SIZE,
    DEVICE_STATE,
    ERROR,
    KINDS,
    MODELS,
    PAGE,
    PENDING_BYTES,
    PRE_COPY,
    RESERVED,
    RESUMING,
    RUNNING,
    STOP,
    STOP_AND_COPY,
    TABLE,
    OpenDevice,
    saved,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# A fault is known by its errno; EINVAL is the driver's own word.
CODES: Final = {
    "pending_bytes": errno.EIO,
    "data_offset": errno.ENOMEM,
    "data_size": errno.ENODEV,
    "data": errno.ENOSPC,
}
FAILED_TRANSITIONS: Final = (errno.EBUSY, errno.ENOTRECOVERABLE)


@cache
def streams(name: str) -> tuple[tuple[list[bytes], bytes], ...]:
    """Return the streams and snapshots of two devices of a kind."""
    return saved(MODELS[name], work=10), saved(MODELS[name], work=30)


class Conversation(RuleBasedStateMachine):
    device: OpenDevice

    @initialize(name=st.sampled_from(list(MODELS)), kind=st.sampled_from(KINDS))
    def open(self, name: str, kind: str) -> None:
        self.device = OpenDevice(MODELS[name](), kind=kind)
        self.streams = streams(name)
        self.power_on = self.expected = self.device.snapshot
        self.state = RUNNING
        self.armed: dict[str, int] = {}
        self.given: list[bytes] = []
        self.is_spoiled = False

    def teardown(self) -> None:
        if hasattr(self, "device"):
            self.device.close()

    def attempt(self, call: Callable[[], object]) -> int | None:
        """Make a call; return its errno, and forget the fault that it set off."""
        try:
            call()
        except OSError as refused:
            code = refused.errno
            self.armed = {s: c for s, c in self.armed.items() if c != code}
            return code
        return None

    # -- device_state

    @rule()
    def stop(self) -> None:
        self.write_device_state(STOP)

    @rule()
    def run(self) -> None:
        self.write_device_state(RUNNING)

    @rule()
    def enter_stop_and_copy(self) -> None:
        self.write_device_state(STOP_AND_COPY)

    @rule()
    def enter_pre_copy(self) -> None:
        self.write_device_state(PRE_COPY)

    @rule()
    def resume(self) -> None:
        self.write_device_state(RESUMING)

    @rule(value=st.integers(0, 7), reserved=st.sampled_from([0, 1 << 3, 1 << 31]))
    def write_any_device_state(self, value: int, reserved: int) -> None:
        self.write_device_state(value, reserved)

    def write_device_state(self, value: int, reserved: int = 0) -> None:
        name = TABLE[self.state, value]
        fault = self.armed.get("device_state")
        loaded = [shot for chunks, shot in self.streams if chunks == self.given]
        code = self.attempt(lambda: self.device.write(DEVICE_STATE, reserved | value))
        if name in ("INV", "ERRW", "XERR"):
            assert code == errno.EINVAL
        elif name == "SELF":
            assert code is None
        elif (name, code) == ("OPT", errno.EINVAL) and self.state != RESUMING:
            pass  # declined, and a fault waits for a transition that is made
        elif fault is not None:
            assert code == fault
            if fault == errno.ENOTRECOVERABLE or self.is_spoiled:
                self.leave_for(ERROR)
        elif self.state == RESUMING and (self.is_spoiled or not loaded):
            assert code == errno.EINVAL
            if self.is_spoiled:
                self.leave_for(ERROR)
        else:
            assert code is None
            if loaded:
                (self.expected,) = loaded
            self.leave_for(value)

    def leave_for(self, state: int) -> None:
        self.state = state
        self.given = []
        self.is_spoiled = False

    @rule()
    def reset(self) -> None:
        self.device.reset()
        self.expected = self.power_on
        self.armed = {}
        self.leave_for(RUNNING)

    # -- the other registers and the data section

    @rule(register=st.sampled_from([RESERVED, PENDING_BYTES, DATA_OFFSET, DATA_SIZE]))
    def read_register(self, register: int) -> None:
        code = self.attempt(lambda: self.device.read(register))
        assert code in (None, *CODES.values())

    @rule(place=st.integers(0, 40), width=st.integers(0, 40))
    def read_anywhere(self, place: int, width: int) -> None:
        self.attempt(lambda: self.device.fd.pread(width, BASE + place))

    @rule(place=st.integers(0, 40), data=st.binary(max_size=40))
    def write_anywhere(self, place: int, data: bytes) -> None:
        if (place, len(data)) not in ((DEVICE_STATE, 4), (DATA_SIZE, 8)):
            self.attempt(lambda: self.device.fd.pwrite(data, BASE + place))

    @rule(place=st.integers(PAGE - 8, 3 * PAGE + 8), size=st.integers(0, 3 * PAGE))
    def read_data(self, place: int, size: int) -> None:
        self.attempt(lambda: self.device.fd.pread(size, BASE + place))

    @rule(place=st.integers(PAGE - 8, 3 * PAGE + 8), data=st.binary(max_size=40))
    def write_data(self, place: int, data: bytes) -> None:
        self.attempt(lambda: self.device.fd.pwrite(data, BASE + place))

    @rule()
    def take_buffer(self) -> None:
        self.attempt(lambda: self.device.take())

    @rule()
    def save(self) -> None:
        self.attempt(lambda: self.device.save())

    # -- resuming

    @rule(stream=st.integers(0, 1))
    def give_next(self, stream: int) -> None:
        chunks = self.streams[stream][0]
        if len(self.given) < len(chunks):
            self.give(chunks[len(self.given)])

    @rule(stream=st.integers(0, 1), number=st.integers(0, 5))
    def give_any(self, stream: int, number: int) -> None:
        chunks = self.streams[stream][0]
        self.give(chunks[number % len(chunks)])

    @precondition(lambda self: self.state == RESUMING)
    @rule(stream=st.integers(0, 1))
    def give_all(self, stream: int) -> None:
        for chunk in self.streams[stream][0][len(self.given) :]:
            self.give(chunk)

    def give(self, chunk: bytes) -> None:
        code = self.attempt(lambda: self.device.give(chunk))
        if code in CODES.values():
            return  # a fault: the chunk may come again
        if self.state != RESUMING or self.is_spoiled:
            assert code == errno.EINVAL
        elif self.is_next(chunk):
            assert code is None
            self.given.append(chunk)
        else:
            assert code is not None
            self.is_spoiled = True

    def is_next(self, chunk: bytes) -> bool:
        """Tell whether this goes on a stream of which all was given so far."""
        given = [*self.given, chunk]
        return given in [chunks[: len(given)] for chunks, _ in self.streams]

    @rule(size=st.integers(0, (1 << 64) - 1))
    def write_data_size_alone(self, size: int) -> None:
        code = self.attempt(lambda: self.device.write(DATA_SIZE, size))
        assert code is not None
        if self.state == RESUMING and 40 <= size <= 2 * PAGE:
            self.is_spoiled |= code == errno.EINVAL

    # -- the bench

    @rule(amount=st.integers(0, 50))
    def work(self, amount: int) -> None:
        self.device.work(amount)
        if self.state & 1:
            self.expected = self.device.snapshot

    @rule(site=st.sampled_from(list(CODES)))
    def fail(self, site: str) -> None:
        self.device.driver.fail(site, CODES[site])
        self.armed[site] = CODES[site]

    @rule(code=st.sampled_from(FAILED_TRANSITIONS))
    def fail_transition(self, code: int) -> None:
        self.device.driver.fail("device_state", code)
        self.armed["device_state"] = code

    # -- what always holds

    @invariant()
    def device_state_is_as_the_model_says(self) -> None:
        assert self.device.state == self.state

    @invariant()
    def the_snapshot_is_as_it_was(self) -> None:
        if self.state != RESUMING:  # there it may be under construction
            assert self.device.snapshot == self.expected


TestConversation = Conversation.TestCase
TestConversation.settings = settings(
    max_examples=settings().max_examples // 4, stateful_step_count=40
)
