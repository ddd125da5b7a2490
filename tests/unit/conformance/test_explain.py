"""A finding reads as an argument, word for word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.unit.conformance.histories import record
from vfiomig.conformance.catalogue import Rule
from vfiomig.conformance.conversation.steps import step
from vfiomig.conformance.explain import explain
from vfiomig.conformance.finding import Finding
from vfiomig.conformance.ruling import Broken, Witness

if TYPE_CHECKING:
    from collections.abc import Sequence

RULE = Rule(
    id="v1/data-size/stable-within-iteration",
    section="v1/data-size",
    origin="V1-SIZE-02",
    level="SHOULD",
    party="vendor driver",
    title="data_size stays",
    sentence=(
        "Read on data_offset and data_size should return the offset and size of the\n"
        "current buffer if the user application reads data_offset and data_size more "
        "than once here."
    ),
    source="linux/vfio.h, saving step (c)",
    takes_away=("stop-and-copy",),
)
BROKEN = Broken(
    expected="data_size = 0x8",
    actual="data_size = 0x4",
    witnesses=(
        Witness(2, "read data_size -> 0x8"),
        Witness(3, "read data_size -> 0x4"),
    ),
    because=(
        "no read of pending_bytes lies between A and B",
        "however, B has data_size = 0x4",
    ),
)
STEPS = tuple(
    map(
        step,
        [
            "enter_stop_and_copy",
            "read_data_offset",
            "read_data_size",
            "read_data_size",
        ],
    )
)

WHOLE = """\
v1/data-size/stable-within-iteration   SHOULD   broken by the vendor driver
  "Read on data_offset and data_size should return the offset and size of the current
  buffer if the user application reads data_offset and data_size more than once here."
                                                           linux/vfio.h, saving step (c)

  Let:
    A = #2  read  data_size -> 0x8
    B = #3  read  data_size -> 0x4

  Then:
    - no read of pending_bytes lies between A and B;
    - however, B has data_size = 0x4: a contradiction.

  Expected: data_size = 0x8
    Actual: data_size = 0x4
     Where: driver.py:42

  Rules out: stop-and-copy.  And with it: pre-copy, qemu-7.2.
  Conversation: enter_stop_and_copy, read_data_offset, read_data_size x2
  Reproduce with: vfiomig replay 9f2c41 TARGET"""


def finding(
    *lines: str, rule: Rule = RULE, broken: Broken = BROKEN, device: str = "source"
) -> Finding:
    history = tuple(map(record, lines))
    return Finding(rule=rule, broken=broken, device=device, history=history)


def ruled(**changes: object) -> Rule:
    return msgspec.structs.replace(RULE, **changes)


def broken(
    witnesses: Sequence[tuple[int, str]] = (), because: Sequence[str] = ()
) -> Broken:
    return Broken(
        expected="this",
        actual="that",
        witnesses=tuple(Witness(*one) for one in witnesses),
        because=tuple(because),
    )


def test_a_finding_of_the_suite_reads_so() -> None:
    found = Finding(
        rule=RULE,
        broken=BROKEN,
        device="source",
        where="driver.py:42",
        token="9f2c41",
        steps=STEPS,
    )
    assert str(explain(found)) == WHOLE


def test_the_fields_are_what_the_text_is_made_of() -> None:
    argument = explain(finding())
    assert argument.let == (
        "A = #2  read  data_size -> 0x8",
        "B = #3  read  data_size -> 0x4",
    )
    assert argument.then[-1] == "however, B has data_size = 0x4: a contradiction"
    assert "\n" not in argument.sentence
    assert argument.rules_out == ("stop-and-copy",)
    assert argument.with_it == ("pre-copy", "qemu-7.2")
    assert argument.reproduce == ""


def test_a_short_sentence_has_its_source_to_the_right() -> None:
    text = str(explain(finding(rule=ruled(sentence="Short.", source="the page"))))
    line = text.split("\n")[1]
    assert line == '  "Short."' + "the page".rjust(78)
    assert len(line) == 88


def test_a_source_that_needs_two_lines_stands_below() -> None:
    source = "linux/vfio.h, " + "and another place, " * 5 + "the end"
    text = str(explain(finding(rule=ruled(sentence="Short.", source=source))))
    first, second = text.split("\n")[2:4]
    assert first.startswith("    linux/vfio.h, and another place, ")
    assert second == "    place, and another place, the end"


def test_a_rule_that_fails_nobody_is_observed() -> None:
    argument = explain(finding(rule=ruled(level="MAY", fails=False)))
    assert argument.headline.endswith("   MAY   observed in the vendor driver")


def test_the_user_application_is_blamed_where_it_is_the_party() -> None:
    argument = explain(finding(rule=ruled(level="MUST", party="user application")))
    assert argument.headline.endswith("   MUST   broken by the user application")


def test_what_nobody_relies_on_rules_nothing_out() -> None:
    text = str(explain(finding(rule=ruled(takes_away=()))))
    assert "Rules out" not in text
    assert text.endswith("\n    Actual: data_size = 0x4")


@pytest.mark.parametrize(
    ("taken", "lost"),
    [
        (("pre-copy",), ("qemu-7.2",)),
        (("mmap",), ()),
        (("stop-and-copy", "qemu-7.2"), ("pre-copy",)),
    ],
)
def test_what_needs_a_lost_thing_is_lost_with_it(
    taken: tuple[str, ...], lost: tuple[str, ...]
) -> None:
    assert explain(finding(rule=ruled(takes_away=taken))).with_it == lost


def test_numbers_of_different_length_stand_in_a_column() -> None:
    found = broken([(7, "write device_state 0x2"), (12, "reset"), (13, "reset -> EIO")])
    assert explain(finding(broken=found)).let == (
        "A = #7   write device_state 0x2",
        "B = #12  reset",
        "C = #13  reset -> EIO",
    )


def test_the_opening_has_no_number() -> None:
    assert explain(finding(broken=broken([(0, "open")]))).let == ("A = open",)


def test_without_witnesses_and_reasons_there_is_only_the_difference() -> None:
    text = str(explain(finding(rule=ruled(takes_away=()), broken=broken())))
    assert text.endswith("step (c)\n\n  Expected: this\n    Actual: that")


def test_a_contradiction_is_called_one_only_once() -> None:
    found = broken(because=["A came first.", "so B is a contradiction."])
    text = str(explain(finding(broken=found)))
    assert "    - A came first;\n    - so B is a contradiction.\n" in text


def test_a_history_is_told_when_there_are_no_steps() -> None:
    argument = explain(
        finding("write device_state 2", *["read data_size -> 0x8"] * 3, "reset -> EIO")
    )
    assert argument.conversation == (
        "write device_state 0x2",
        "read data_size -> 0x8 x3",
        "reset -> EIO",
    )


def test_a_device_is_named_where_another_one_was_before() -> None:
    lines = ["reset", "destination: reset", "destination: close", "source: close"]
    assert explain(finding(*lines)).conversation == (
        "reset",
        "destination: reset",
        "close",
        "source: close",
    )


def test_no_line_of_a_conversation_ends_within_an_access() -> None:
    lines = [f"read {0x1000 + 16 * number:#x} 16" for number in range(9)]
    text = str(explain(finding(*lines)))
    assert (
        "  Conversation: read 0x1000 16, read 0x1010 16, read 0x1020 16, "
        "read 0x1030 16,\n                read 0x1040 16," in text
    )


def test_the_end_of_a_longer_history_is_called_so() -> None:
    text = str(explain(finding("reset", "close"), is_tail=True))
    assert text.endswith("\n  Last accesses: reset, close")


def test_the_command_that_shows_it_again_is_never_wrapped() -> None:
    command = "vfiomig judge " + "long-name-of-a-history " * 5
    text = str(explain(finding(), reproduce=command.strip()))
    assert text.endswith(f"\n  Reproduce with: {command.strip()}")


def test_no_other_line_is_wider_than_88_columns_or_ends_in_a_space() -> None:
    long = "words " * 40
    found = Broken(
        expected=long,
        actual=long,
        witnesses=(Witness(1, f"read {long}"),),
        because=(long, long),
    )
    lines = str(explain(finding(*["reset"] * 2, broken=found))).split("\n")
    assert max(map(len, lines)) <= 88
    assert [line for line in lines if line != line.rstrip()] == []
