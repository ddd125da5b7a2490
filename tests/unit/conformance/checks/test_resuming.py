"""Checks of the sequence of resuming, on histories by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.conformance.histories import rulings
from vfiomig.conformance.ruling import HELD, Broken

if TYPE_CHECKING:
    from vfiomig.conformance.ruling import Ruling

RESUMING = ("write device_state 4",)
ROOM = (*RESUMING, "read data_offset -> 0x1000")
MAPPABLE = ((0x1000, 0x2000),)
PENDING = "read pending_bytes -> 0x1"
ACROSS = ("length_from_the_source", "order_and_sizes_kept")


def say(
    check: str, *lines: str, areas: tuple[tuple[int, int], ...] = ()
) -> list[Ruling]:
    """Return all rulings."""
    return rulings(f"resuming:{check}", *lines, areas=areas)


def broken(check: str, *lines: str) -> Broken:
    """Return the one ruling that says that the rule is broken."""
    (found,) = (each for each in say(check, *lines) if each is not HELD)
    assert isinstance(found, Broken)
    return found


class TestInSequence:
    check = "in_sequence"

    def test_the_headers_sequence_is_in_sequence(self) -> None:
        one = ("read data_offset -> 0x1000", "write 0x1000 8", "write data_size 8")
        assert say(self.check, *RESUMING, *one, *one) == [HELD] * 4

    def test_data_may_come_in_pieces_of_any_order(self) -> None:
        pieces = ("write 0x1004 4", "write 0x1000 4", "write data_size 8")
        assert say(self.check, *ROOM, *pieces) == [HELD] * 3

    @pytest.mark.parametrize(
        ("lines", "step"),
        [
            ((*RESUMING, "write 0x1000 8"), 2),
            ((*ROOM, "write 0xff8 8"), 3),
            ((*RESUMING, "write data_size 8"), 2),
            ((*ROOM, "write data_size 8"), 3),
            ((*ROOM, "write 0x1000 8", "write data_size 8", "write 0x1000 8"), 5),
            ((*ROOM, "write 0x1000 8", "write data_size 8", "write data_size 8"), 5),
        ],
    )
    def test_a_step_out_of_sequence_breaks_it(
        self, lines: tuple[str, ...], step: int
    ) -> None:
        ruling = broken(self.check, *lines)
        assert [each.index for each in ruling.witnesses] == [step]

    def test_what_can_be_mapped_was_perhaps_written_unseen(self) -> None:
        lines = (*ROOM, "write data_size 8")
        assert say(self.check, *lines, areas=MAPPABLE) == [HELD]

    @pytest.mark.parametrize(
        "lines",
        [
            ("write 0x1000 8", "write data_size 8"),
            ("write device_state 2", "write 0x1000 8", "write data_size 8"),
            (*RESUMING, "read data_offset -> EIO", "write data_size 8"),
            ("write device_state 4 -> EIO", "write data_size 8"),
            (*RESUMING, "unseen write 0x1000 8"),
        ],
    )
    def test_nothing_is_owed_elsewhere(self, lines: tuple[str, ...]) -> None:
        assert say(self.check, *lines) == []


class TestSurvivesAnyContent:
    check = "survives_any_content"

    @pytest.mark.parametrize("access", ["write 0x1000 8", "write data_size 9"])
    def test_success_and_errno_both_keep_it(self, access: str) -> None:
        assert say(self.check, *ROOM, access) == [HELD]
        assert say(self.check, *ROOM, f"{access} -> EPROTO") == [HELD]

    @pytest.mark.parametrize(
        "access", ["write 0x1000 8", "write data_size 9", "write device_state 1"]
    )
    def test_a_driver_that_dies_breaks_it(self, access: str) -> None:
        lines = (*ROOM, "write 0x1000 8", f"{access} -> died")
        assert broken(self.check, *lines).witnesses[0].index == 4

    @pytest.mark.parametrize(
        "lines",
        [
            (*ROOM, "write device_state 1 -> died"),  # no content yet
            ("write 0x1000 8 -> died",),
            ("write device_state 2", "write data_size 8 -> died"),
        ],
    )
    def test_elsewhere_it_is_another_matter(self, lines: tuple[str, ...]) -> None:
        assert say(self.check, *lines) == []


def saved(*buffers: str, device: str = "source") -> list[str]:
    """Return how a source saves buffers, each ``size`` or ``size data``."""
    lines = ["write device_state 2", PENDING]
    for buffer in buffers:
        size, _, data = buffer.partition(" ")
        lines += ["read data_offset -> 0x1000", f"read data_size -> {int(size):#x}"]
        lines += [f"read 0x1000 {size} -> {data}", PENDING]
    return [f"{device}: {line}" for line in lines]


def enters(device: str = "destination") -> list[str]:
    """Return how a destination begins."""
    return [f"{device}: write device_state 4"]


def loaded(*buffers: str, device: str = "destination") -> list[str]:
    """Return how a destination is given buffers."""
    lines = []
    for buffer in buffers:
        size, _, data = buffer.partition(" ")
        lines += ["read data_offset -> 0x800", f"write 0x800 {size} {data}"]
        lines += [f"write data_size {size}"]
    return [f"{device}: {line}" for line in lines]


@pytest.mark.parametrize("check", ACROSS)
class TestFromSourceToDestination:
    def test_the_same_sizes_in_the_same_order_keep_both(self, check: str) -> None:
        lines = (*saved("8", "16", "8"), *enters(), *loaded("8", "16", "8"))
        assert say(check, *lines) == [HELD] * 3

    def test_a_buffer_may_arrive_before_the_source_is_asked_on(
        self, check: str
    ) -> None:
        before, last = saved("8")[:-1], saved("8")[-1]
        assert say(check, *enters(), *before, *loaded("8"), last) == [HELD]

    def test_devices_are_paired_by_name(self, check: str) -> None:
        names = ("a", "b")
        lines = [
            *(line for name in names for line in saved("8", device=f"source/{name}")),
            *saved("4", device="source/c"),
        ]
        for name in names:
            lines += enters(f"destination/{name}")
            lines += loaded("8", device=f"destination/{name}")
        assert say(check, *lines) == [HELD] * 2

    def test_empty_buffers_are_not_on_their_way(self, check: str) -> None:
        lines = (*saved("0", "8", "0"), *enters(), *loaded("8"))
        assert say(check, *lines) == [HELD]

    def test_a_buffer_that_was_left_unread_is_not_on_its_way(self, check: str) -> None:
        left = ("read data_offset -> 0x1000", "read data_size -> 4")
        pre_copy = ["source: write device_state 3", "source: read pending_bytes -> 1"]
        lines = (*pre_copy, *(f"source: {line}" for line in left), *saved("8"))
        assert say(check, *lines, *enters(), *loaded("8")) == [HELD]

    def test_the_same_device_state_again_leaves_no_buffer(self, check: str) -> None:
        *begun, read, last = saved("8")
        lines = (*begun, "source: write device_state 2", read, last)
        assert say(check, *lines, *enters(), *loaded("8")) == [HELD]

    def test_without_a_source_nothing_is_owed(self, check: str) -> None:
        assert say(check, *enters(), *loaded("8", "9")) == []

    def test_a_device_that_loads_what_it_saved_itself_is_not_judged(
        self, check: str
    ) -> None:
        lines = (*saved("8"), *enters("source"), *loaded("9", device="source"))
        assert say(check, *lines) == []

    def test_a_second_attempt_is_not_judged(self, check: str) -> None:
        lines = (*saved("8", "4"), *enters(), *loaded("8"))
        again = ("destination: write device_state 0", *enters(), *loaded("8"))
        assert say(check, *lines, *again) == [HELD]

    def test_two_sources_of_one_name_are_not_judged(self, check: str) -> None:
        lines = (*saved("8"), *saved("4", device="other"), *enters(), *loaded("8"))
        assert say(check, *lines) == []

    def test_what_follows_a_failure_is_not_judged(self, check: str) -> None:
        lines = (*saved("8"), "source: read data_offset -> EIO", *enters())
        source_went_on = (*lines, "source: read pending_bytes -> 1", *loaded("4"))
        assert say(check, *source_went_on) == []
        refused = "destination: write data_size 9 -> EINVAL"
        assert say(check, *saved("8"), *enters(), refused, *loaded("9"))[1:] == []

    def test_a_stored_stream_of_many_buffers_is_not_judged(self, check: str) -> None:
        one = ("read data_offset -> 0x1000", "read data_size -> 0x8", PENDING)
        lines = [f"source: {line}" for line in (*one * 1025,)]
        whole = (*saved("8"), *lines, *enters(), *loaded("9"))
        assert say(check, *whole, areas=MAPPABLE) == []

    def test_a_length_that_the_source_never_had_breaks_both(self, check: str) -> None:
        lines = (*saved("8", "16"), *enters(), *loaded("8", "15"))
        ruling = broken(check, *lines)
        assert [each.index for each in ruling.witnesses] == [8, 17]

    def test_a_buffer_in_two_pieces_breaks_both_once(self, check: str) -> None:
        lines = (*saved("16"), *enters(), *loaded("8", "8"))
        assert broken(check, *lines).actual


class TestOrder:
    SWAPPED = (*saved("8", "16"), *enters(), *loaded("16", "8"))
    SAME_SIZE = (
        *saved("2 0102", "2 0304"),
        *enters(),
        *loaded("2 0304", "2 0102"),
    )

    def test_swapped_sizes_break_the_order_only(self) -> None:
        assert broken("order_and_sizes_kept", *self.SWAPPED).witnesses[0].index == 4
        assert say("length_from_the_source", *self.SWAPPED) == []

    def test_swapped_data_of_one_size_breaks_it(self) -> None:
        ruling = broken("order_and_sizes_kept", *self.SAME_SIZE)
        assert "data of a later one" in ruling.actual

    def test_data_that_is_of_no_buffer_is_another_matter(self) -> None:
        lines = (*saved("2 0102", "2 0304"), *enters(), *loaded("2 ffff"))
        assert say("order_and_sizes_kept", *lines) == [HELD]

    def test_data_in_pieces_is_not_compared(self) -> None:
        lines = (*saved("2 0102", "2 0304"), *enters())
        pieces = ("read data_offset -> 0x800", "write 0x800 1 03", "write 0x801 1 04")
        given = [f"destination: {line}" for line in (*pieces, "write data_size 2")]
        assert say("order_and_sizes_kept", *lines, *given) == [HELD]
