"""One suite for every transport that carries a migration of several channels.

A claim is a function named for what it claims.  Each gets a fresh listener, and plays
source and destination in turn by calls that do not block.
"""

from __future__ import annotations

import contextlib
import itertools
import selectors
from functools import partial
from typing import TYPE_CHECKING, Final

from vfiomig.migration.transport.arrivals import (
    MAIN,
    PATIENCE,
    Arrivals,
    Bench,
    Who,
    name_of,
    words_of,
)
from vfiomig.migration.transport.channels import ChannelsError
from vfiomig.migration.transport.check import check_transport
from vfiomig.migration.transport.flow import Flow, fail
from vfiomig.protocol.multifd import InitialPacket, encode_initial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vfiomig.migration.transport.base import ByteStream, Listener

_MOST: Final = 3  # channels, in whatever order


def check_channels(
    make: Callable[[], Listener], *, wait_seconds: float = 5.0, most: int = _MOST
) -> None:
    """Hold a transport to what several channels of one migration need of it.

    ``make`` returns a fresh listener; it is called once or more for each claim.
    ``wait_seconds`` is how long one wait for a descriptor may take; ``most`` how many
    channels, beside the main one, come in every order. Every connection is held to
    `check_transport` as well. Needs no test runner and prints nothing. Raises
    AssertionError that names the broken claim.
    """
    for claim in _CLAIMS:
        with contextlib.ExitStack() as opened:
            bench = Bench(make, wait_seconds, opened, most)
            try:
                claim(bench)
            except Exception as error:
                saw = error if isinstance(error, AssertionError) else repr(error)
                message = f"{claim.__name__.strip('_').replace('_', ' ')}: {saw}"
                raise AssertionError(message) from error


# -- connections ----------------------------------------------------------------------


def _nobody_is_accepted_before_anyone_connects(bench: Bench) -> None:
    if (accepted := bench.listener.accept()) is not None:
        accepted.close()
        fail("accept() returned a stream, and nobody has connected")


def _a_connection_is_accepted_once(bench: Bench) -> None:
    bench.connect()
    bench.accept()
    if (accepted := bench.listener.accept()) is not None:
        accepted.close()
        fail("accept() returned a second stream for one connection")


def _a_selector_sees_a_connection_that_waits(bench: Bench) -> None:
    number = bench.listener.fileno()
    if number is None:
        return
    with selectors.DefaultSelector() as selector:
        selector.register(number, selectors.EVENT_READ)
        if selector.select(0):
            fail("a connection waits before anyone has connected")
        bench.connect()
        if not selector.select(bench.wait_seconds):
            fail("someone has connected, and no connection waits")


def _a_connection_keeps_every_promise_of_a_transport(bench: Bench) -> None:
    check_transport(bench.pair, wait_seconds=bench.wait_seconds)


def _each_connection_carries_its_own_bytes(bench: Bench) -> None:
    pairs = [(bench.connect(), bench.accept()) for _ in range(_MOST)]
    for number, (near, far) in enumerate(pairs):
        both = bench.link(near, far)
        both.move(Flow(both.there, bytes([number]) * 99), Flow(both.back, b"!" * 98))


def _nobody_connects_after_close(bench: Bench) -> None:
    bench.listener.close()
    bench.listener.close()
    try:
        bench.connect()
    except ConnectionRefusedError:
        return
    fail("connect() returned a stream, and nobody listens")


def _a_closed_listener_cannot_accept(bench: Bench) -> None:
    bench.listener.close()
    try:
        accepted = bench.listener.accept()
    except ValueError:
        return
    fail(f"accept() returned {accepted}")


def _who_was_not_accepted_learns_of_the_close(bench: Bench) -> None:
    near = bench.connect()
    bench.listener.close()
    _expect_lost(bench, near)


# -- telling channels apart -----------------------------------------------------------


def _channels_are_told_apart_in_every_order(bench: Bench) -> None:
    for wanted in range(bench.most + 1):
        everyone: list[Who] = [None, *range(wanted)]
        for order in itertools.permutations(everyone):
            _come(bench, wanted, order, order)
            _come(bench, wanted, everyone, order)


def _come(
    bench: Bench, wanted: int, connect: Sequence[Who], speak: Sequence[Who]
) -> None:
    """Connect in one order and speak in another; then each carries its own bytes."""
    listener = bench.listen()
    incoming = bench.incoming(wanted, listener)
    near = {who: bench.connect(listener) for who in connect}
    for who in speak:
        if incoming.channels.is_complete:
            fail(f"all have come before {name_of(who)} has, of {speak}")
        incoming.speak(near[who], who)
    if not incoming.channels.is_complete:
        fail(f"all have come, and it is not so, of {speak}")
    for who in speak:
        _expect_bytes_of(bench, incoming, near[who], who)


def _a_late_channel_keeps_nobody_waiting(bench: Bench) -> None:
    incoming = bench.incoming(2)
    near: dict[Who, ByteStream] = {None: bench.connect(), 0: bench.connect()}
    for who, stream in near.items():
        incoming.speak(stream, who)
    for who, stream in near.items():
        _expect_bytes_of(bench, incoming, stream, who)
    for _ in range(3):
        for who, stream in near.items():
            both = bench.link(stream, incoming.end_of(who))
            both.move(Flow(both.there, b"." * 70_000), Flow(both.back, b"," * 9))
        if incoming.channels.step():
            fail("step() did something, and nobody else has connected")
    if incoming.channels.is_complete:
        fail("channel 1 has not come, and all have")
    near[1] = bench.connect()
    incoming.speak(near[1], 1)
    if not incoming.channels.is_complete:
        fail("channel 1 has come, and not all have")
    _expect_bytes_of(bench, incoming, near[1], 1)


def _one_that_is_slow_to_speak_keeps_nobody_waiting(bench: Bench) -> None:
    incoming = bench.incoming(1)
    slow, other = bench.connect(), bench.connect()
    words = words_of(0)
    for number in range(len(words) - 1):
        incoming.say(slow, words[number : number + 1])
        incoming.until(lambda: incoming.has_heard(slow), "a byte of channel 0")
    incoming.speak(other, None)
    incoming.say(slow, words[-1:])
    incoming.until(lambda: incoming.has(0), "channel 0")
    _expect_bytes_of(bench, incoming, slow, 0)


def _bytes_that_were_looked_at_are_received(bench: Bench) -> None:
    incoming = bench.incoming(0)
    near = bench.connect()
    incoming.speak(near, None)
    _expect_bytes_of(bench, incoming, near, None)


# -- what should not have come --------------------------------------------------------


def _a_stranger_is_refused(bench: Bench) -> None:
    _expect_refusal(bench, [b"GET / HTTP/1.1"], "magic 0x47455420")


def _another_version_is_refused(bench: Bench) -> None:
    words = words_of(0)
    newer = words[:7] + b"\2" + words[8:]
    _expect_refusal(bench, [MAIN, newer], "version 2")


def _a_channel_of_another_vm_is_refused(bench: Bench) -> None:
    other = encode_initial(InitialPacket(1, bytes(16)))
    _expect_refusal(bench, [words_of(0), other], f"channel 1 is of VM {'00' * 16}")


def _a_channel_of_a_number_that_is_not_wanted_is_refused(bench: Bench) -> None:
    _expect_refusal(bench, [MAIN, words_of(2)], "it is channel 2, and there are")


def _a_channel_that_came_before_is_refused(bench: Bench) -> None:
    _expect_refusal(bench, [words_of(1), words_of(1)], "channel 1 came twice")


def _a_second_main_channel_is_refused(bench: Bench) -> None:
    _expect_refusal(bench, [MAIN, MAIN], "the main channel came twice")


def _one_that_ends_before_it_said_which_it_is_is_refused(bench: Bench) -> None:
    incoming = bench.incoming(2)
    near = bench.connect()
    incoming.say(near, words_of(0)[:12])
    incoming.until(lambda: incoming.has_heard(near), "12 bytes of channel 0")
    near.finish()
    _expect_end_of_all(bench, incoming, [near], "it ended after 12 bytes")


def _one_that_says_nothing_is_refused_in_time(bench: Bench) -> None:
    incoming = bench.incoming(2)
    main = bench.connect()
    incoming.speak(main, None)
    silent = bench.connect()
    bench.await_connection()
    incoming.channels.step()
    bench.clock.now += PATIENCE
    reason = f"connection 2: it did not say in {PATIENCE} s"
    _expect_end_of_all(bench, incoming, [main, silent], reason)


def _channels_that_never_come_are_named_in_time(bench: Bench) -> None:
    incoming = bench.incoming(3)
    near = bench.connect()
    incoming.speak(near, 1)
    bench.clock.now += PATIENCE
    if remaining := incoming.channels.remaining():
        fail(f"{remaining} s remain at the limit")
    reason = (
        f"the main channel, channel 0 and channel 2 have not come within {PATIENCE}"
    )
    _expect_end_of_all(bench, incoming, [near], reason)


def _more_than_wanted_are_refused(bench: Bench) -> None:
    incoming = bench.incoming(1)
    near = [bench.connect() for _ in range(3)]
    _expect_end_of_all(bench, incoming, near, "connection 3 came, and there are")


def _one_more_than_all_is_refused(bench: Bench) -> None:
    incoming = bench.incoming(1)
    near = [bench.connect(), bench.connect()]
    incoming.speak(near[0], None)
    incoming.say(near[1], words_of(0)[:-1])
    incoming.until(lambda: incoming.has_heard(near[1]), "most of channel 0")
    near.append(bench.connect())
    bench.await_connection()  # a byte may overtake one that takes time
    incoming.say(near[1], words_of(0)[-1:])
    _expect_end_of_all(bench, incoming, near, "connection 3 came, and there are")


def _nobody_comes_when_all_have(bench: Bench) -> None:
    incoming = bench.incoming(0)
    incoming.speak(bench.connect(), None)
    if (number := incoming.channels.fileno()) is not None:
        fail(f"all have come, and fileno() still returns {number}")
    _expect_refused(bench)


def _close_closes_those_in_use(bench: Bench) -> None:
    incoming = bench.incoming(1)
    near = [bench.connect(), bench.connect()]
    incoming.speak(near[0], None)
    incoming.speak(near[1], 0)
    incoming.channels.close()
    for each in near:
        _expect_lost(bench, each)


_CLAIMS: Final = (
    _nobody_is_accepted_before_anyone_connects,
    _a_connection_is_accepted_once,
    _a_selector_sees_a_connection_that_waits,
    _a_connection_keeps_every_promise_of_a_transport,
    _each_connection_carries_its_own_bytes,
    _nobody_connects_after_close,
    _a_closed_listener_cannot_accept,
    _who_was_not_accepted_learns_of_the_close,
    _channels_are_told_apart_in_every_order,
    _a_late_channel_keeps_nobody_waiting,
    _one_that_is_slow_to_speak_keeps_nobody_waiting,
    _bytes_that_were_looked_at_are_received,
    _a_stranger_is_refused,
    _another_version_is_refused,
    _a_channel_of_another_vm_is_refused,
    _a_channel_of_a_number_that_is_not_wanted_is_refused,
    _a_channel_that_came_before_is_refused,
    _a_second_main_channel_is_refused,
    _one_that_ends_before_it_said_which_it_is_is_refused,
    _one_that_says_nothing_is_refused_in_time,
    _channels_that_never_come_are_named_in_time,
    _more_than_wanted_are_refused,
    _one_more_than_all_is_refused,
    _nobody_comes_when_all_have,
    _close_closes_those_in_use,
)


def _expect_bytes_of(
    bench: Bench, incoming: Arrivals, near: ByteStream, who: Who
) -> None:
    """Read what a channel said behind its number, and then carry more both ways."""
    expected, arrived = MAIN if who is None else b"", incoming.hear(who)
    if arrived != expected:
        fail(f"{name_of(who)} said {expected!r}, and {arrived!r} arrived")
    both = bench.link(near, incoming.end_of(who))
    sent = name_of(who).encode() * 99
    both.move(Flow(both.there, sent), Flow(both.back, sent[::-1]))


def _expect_refusal(bench: Bench, said: Sequence[bytes], reason: str) -> None:
    """Expect the last of those that speak to be refused, of two channels wanted."""
    incoming = bench.incoming(2)
    near = [bench.connect() for _ in said]
    for number, words in enumerate(said[:-1], 1):
        incoming.say(near[number - 1], words)
        incoming.until(partial(_have_come, incoming, number), "one that is wanted")
    incoming.say(near[-1], said[-1])
    _expect_end_of_all(bench, incoming, near, reason)


def _have_come(incoming: Arrivals, number: int) -> bool:
    main = incoming.channels.main
    return len(incoming.channels.channels) + (main is not None) == number


def _expect_end_of_all(
    bench: Bench, incoming: Arrivals, near: Sequence[ByteStream], reason: str
) -> None:
    try:
        incoming.until(lambda: incoming.channels.is_complete, "a refusal")
    except ChannelsError as error:
        if reason not in str(error) or "\n" in str(error):
            fail(f"it was refused with {str(error)!r}, not for {reason!r}")
    else:
        fail(f"all have come: not refused for {reason!r}")
    for each in near:
        _expect_lost(bench, each)
    _expect_refused(bench)


def _expect_refused(bench: Bench) -> None:
    try:
        bench.connect()
    except ConnectionRefusedError:
        return
    fail("connect() returned a stream, and nobody listens")


def _expect_lost(bench: Bench, near: ByteStream) -> None:
    """Wait until one end learns that the other is closed."""
    try:
        count = bench.link(near, near).receive(near, memoryview(bytearray(8)))
    except ConnectionResetError:
        return
    if count:
        fail(f"{count} bytes arrived where the stream should end")
