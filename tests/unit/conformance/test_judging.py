"""Judging a recorded history: rules of both parties, whoever recorded it."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.conformance.histories import record
from vfiomig.conformance.catalogue import Rule
from vfiomig.conformance.finding import RuleResult, Verdict
from vfiomig.conformance.judge import UnknownDeviceError
from vfiomig.conformance.judging import (
    HISTORY_LENGTH,
    HistoryJudge,
    judge_history,
    read_history,
)
from vfiomig.conformance.moment import EVERY_KIND, Kind, Moment
from vfiomig.conformance.ruling import HELD, Broken, Remembering, Ruling, witness
from vfiomig.protocol.history import Access, Header, HistoryError, RegionShape

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).parents[2] / "data"
RECORDED = sorted(DATA.glob("qemu-7.2-v1-*.accesses.tsv"))


# -- checks of our own -----------------------------------------------------------------


def _broken(*moments: Moment) -> Broken:
    return Broken(
        expected="no reset",
        actual="a reset",
        witnesses=tuple(map(witness, moments)),
        because=("however, A is one",),
    )


def resets_held(moment: Moment) -> Ruling | None:
    return HELD


def resets_broken(moment: Moment) -> Ruling | None:
    return _broken(moment)


def opened(moment: Moment) -> Ruling | None:
    return HELD if moment.region.size else _broken(moment)


def across() -> Remembering:
    first: Moment | None = None
    ruling: Ruling | None = None
    while True:
        moment = yield ruling
        ruling = None
        if moment.kind is Kind.RESET:
            ruling = _broken(first, moment) if first is not None else HELD
            first = moment


def consumed(moment: Moment) -> Ruling | None:
    """Break unless the buffer was read, as far as is known."""
    buffer = moment.position.buffer
    if buffer is None:
        return None
    return HELD if buffer.is_consumed else _broken(moment)


def odd_reads(moment: Moment) -> Ruling | None:
    return _broken(moment)


@pytest.fixture(autouse=True)
def sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the catalogue's rules some checks to name."""
    module = types.ModuleType("vfiomig.conformance.checks.sample")
    checks = {
        resets_held: (Kind.RESET,),
        resets_broken: (Kind.RESET,),
        opened: (Kind.OPEN,),
        across: EVERY_KIND,
        consumed: (Kind.READ_PENDING_BYTES,),
        odd_reads: (Kind.READ_ODD,),
    }
    contents = {check.__name__: check for check in checks}
    module.__dict__.update(contents, CHECKS=checks, ACROSS=frozenset({across}))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def rule(check: str, section: str = "v1/sample", **fields: object) -> Rule:
    decided = {} if {"bench", "untestable"} & fields.keys() else {"check": check}
    return Rule(
        **{
            "id": f"{section}/{check.replace('_', '-')}",
            "section": section,
            "origin": "V1-SAMPLE-01",
            "level": "MUST",
            "party": "vendor driver",
            "title": "",
            "sentence": "",
            "source": "",
            **{key: f"sample:{name}" for key, name in decided.items()},
            **fields,  # type: ignore[arg-type]
        }
    )


def judged(
    one: Rule, *lines: str, devices: tuple[str, ...] = ("source",)
) -> RuleResult:
    (result,) = judge_history(header(*devices), map(record, lines), [one])
    return result


def header(*devices: str, size: int = 0x3000) -> Header:
    shape = RegionShape(size=size)
    return Header(recorded_by="a test", devices=dict.fromkeys(devices, shape))


# -- verdicts --------------------------------------------------------------------------


def test_a_rule_that_was_kept_is_held_and_counted() -> None:
    result = judged(rule("resets_held"), "reset", "close", "reset")
    assert (result.verdict, result.reached, result.reason) == (Verdict.HELD, 1, "")
    assert result.finding is None


def test_a_rule_whose_premise_never_came_true_was_not_reached() -> None:
    result = judged(rule("resets_broken"), "close")
    assert result.verdict is Verdict.NOT_REACHED
    assert result.reason == "its premise never came true"


def test_a_broken_rule_has_its_first_finding_and_how_often_it_was() -> None:
    result = judged(
        rule("resets_broken"),
        "close",
        "b: reset",
        "a: reset",
        "a: reset",
        devices=("source", "a", "b"),
    )
    assert result.verdict is Verdict.BROKEN
    assert result.reason == "broken 3 times: b 1, a 2"
    assert result.finding is not None
    assert result.finding.device == "b"
    assert result.finding.broken.witnesses[0].index == 2
    assert result.finding.history == (record("b: reset"),)


def test_a_rule_that_fails_nobody_is_only_observed() -> None:
    assert judged(rule("resets_broken", fails=False), "reset").verdict is (
        Verdict.OBSERVED
    )


def test_a_rule_of_the_user_application_is_judged_as_well() -> None:
    result = judged(rule("resets_broken", party="user application"), "reset")
    assert result.verdict is Verdict.BROKEN


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"untestable": "nobody sees it"}, "nobody sees it"),
        (
            {"bench": "two snapshots"},
            "only the suite's own conversations can tell: two snapshots",
        ),
    ],
)
def test_what_no_history_can_tell_is_not_applicable(
    fields: dict[str, str], reason: str
) -> None:
    result = judged(rule("x", "v1/sample", **fields), "reset")
    assert result.verdict is Verdict.NOT_APPLICABLE
    assert result.reason == reason


def test_the_header_is_judged_without_any_record() -> None:
    small = Header(recorded_by="a test", devices={"source": RegionShape(size=0)})
    (result,) = judge_history(small, [], [rule("opened")])
    assert result.verdict is Verdict.BROKEN
    assert result.finding is not None
    assert result.finding.history == ()


def test_results_come_in_the_order_of_the_rules() -> None:
    rules = [rule("resets_broken"), rule("x", untestable="no"), rule("resets_held")]
    assert [r.rule for r in judge_history(header(), [], rules)] == rules


# -- the history of a finding ----------------------------------------------------------


def test_a_finding_shows_the_last_records_of_its_device() -> None:
    lines = [line for n in range(40) for line in (f"a: work {n}", f"b: work {n}")]
    finding = judged(
        rule("resets_broken"), *lines, "a: reset", devices=("a", "b")
    ).finding
    assert finding is not None
    last = [record(f"a: work {n}") for n in range(40 - HISTORY_LENGTH + 1, 40)]
    assert finding.history == (*last, record("a: reset"))
    assert len(finding.history) == HISTORY_LENGTH == 12


def test_a_finding_across_devices_shows_them_all_in_order() -> None:
    lines = ["a: reset", "b: work 1", "a: work 2", "b: reset"]
    finding = judged(rule("across"), *lines, devices=("a", "b")).finding
    assert finding is not None
    assert finding.history == tuple(map(record, lines))
    assert [one.index for one in finding.broken.witnesses] == [1, 4]


def test_records_are_taken_one_at_a_time_and_not_kept() -> None:
    alive = 0

    class Counted(Access, frozen=True):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def records() -> Iterator[Access]:
        nonlocal alive
        for _ in range(500):
            alive += 1
            yield Counted("source", "close")
            assert alive <= HISTORY_LENGTH + 3

    judge_history(header("source"), records(), [rule("resets_broken")])


def test_the_first_death_is_kept_with_what_led_to_it() -> None:
    judge = HistoryJudge(header("source"), [])
    for line in ("reset", "read data_size -> died", "reset -> died"):
        judge.see(record(line))
    assert judge.death is not None
    assert judge.death.access == record("read data_size -> died")
    assert judge.death.history == (record("reset"), judge.death.access)


def test_bench_events_are_no_accesses() -> None:
    judge = HistoryJudge(header("source"), [])
    for line in ("work 3", "reset"):
        judge.see(record(line))
    assert judge.accesses == 1


def test_another_protocol_cannot_be_judged() -> None:
    other = Header(recorded_by="a test", protocol="v2", devices={})
    with pytest.raises(HistoryError, match=r"^line 1: protocol 'v2', not 'v1'$"):
        judge_history(other, [], [])


def test_a_device_that_the_header_has_not_is_an_error() -> None:
    with pytest.raises(UnknownDeviceError, match="record 2: no device 'b'"):
        judged(rule("resets_held"), "reset", "b: reset")


# -- reading JSON lines ----------------------------------------------------------------

HEADER = b'{"recorded_by":"a test","devices":{"source":{"size":64}}}\n'


class Pipe(io.BytesIO):
    """What cannot go back."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        raise io.UnsupportedOperation


def test_json_lines_are_read_once() -> None:
    line = b'{"device":"source","access":"reset"}\n'
    history = read_history(Pipe(HEADER + line + line))
    assert history.header.devices == {"source": RegionShape(size=64)}
    assert list(history.records) == [Access("source", "reset")] * 2
    assert (history.is_plain, history.unknown) == (False, ())


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", 1),
        (b"hello\n", 1),
        (b"\xff\xfe", 1),
        (HEADER + b'{"device":"source"}\n', 2),
        (HEADER + b"\n", 2),
        (HEADER + b'{"device":"source","acc', 2),
        (HEADER + b" " * (1 << 20) + b"{", 2),
    ],
)
def test_a_line_that_is_none_is_named(content: bytes, line: int) -> None:
    with pytest.raises(HistoryError, match=f"^line {line}: "):
        list(read_history(io.BytesIO(content)).records)


def test_a_line_without_an_end_is_not_read_whole() -> None:
    class Endless(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert 0 < size < 1 << 21
            return b" " * size

    with pytest.raises(HistoryError, match=r"^line 1: longer than 1 MiB$"):
        read_history(Endless())


# -- reading a TSV ---------------------------------------------------------------------

SAVING = b"""\
# another recorder
write\t0x0\t4\t0x2
read\t0x8\t8\t0x20
read\t0x10\t8\t0x1000
read\t0x18\t8\t0x1800
read\t0x8\t8\t0x0
"""
MAPPED = Access("source", "mmap", 0x1000, 0x2000)


def test_the_region_is_the_whole_pages_that_hold_every_buffer() -> None:
    history = read_history(io.BytesIO(SAVING))
    shape = RegionShape(size=0x3000, areas=((0x1000, 0x2000),))
    assert history.header.devices == {"source": shape}
    assert history.is_plain
    assert history.unknown[0] == (
        "the region's size is not told: 0x3000 holds all that was seen"
    )


def test_a_buffer_that_was_asked_for_is_read_unseen() -> None:
    records = list(read_history(io.BytesIO(SAVING)).records)
    assert records == [
        MAPPED,
        Access("source", "write", 0, 4, "0x2"),
        Access("source", "read", 8, 8, "0x20"),
        Access("source", "read", 16, 8, "0x1000"),
        Access("source", "read", 24, 8, "0x1800"),
        Access("source", "read", 0x1000, 0x1800, unseen=True),
        Access("source", "read", 8, 8, "0x0"),
    ]


def test_a_buffer_that_was_given_is_written_unseen_before() -> None:
    lines = b"write 0 4 0x4\nread 0x10 8 0x1000\nwrite 0x18 8 0x1800\n"
    *_, data, size = read_history(io.BytesIO(lines)).records
    assert data == Access("source", "write", 0x1000, 0x1800, unseen=True)
    assert size == Access("source", "write", 24, 8, "0x1800")


def test_a_buffer_outside_a_session_is_not_made_up() -> None:
    lines = b"read 0x10 8 0x1000\nread 0x18 8 0x10\nwrite 0x18 8 0x10\n"
    records = list(read_history(io.BytesIO(lines)).records)
    assert records == [
        Access("source", "read", 16, 8, "0x1000"),
        Access("source", "read", 24, 8, "0x10"),
        Access("source", "write", 24, 8, "0x10"),
    ]


@pytest.mark.parametrize(
    ("row", "value"),
    [
        (b"read 0x20 2 0x1122", "2211"),
        (b"read 0x20 2 1122", "2211"),
        (b"write 0x20 9 0102030405060708ff", "0102030405060708ff"),
        (b"write 0x20 9 0x0102030405060708ff", "0102030405060708ff"),
        (b"read 8 4 0xff # the lower half", "0xff"),
    ],
)
def test_trapped_data_is_as_a_history_has_it(row: bytes, value: str) -> None:
    (access,) = read_history(io.BytesIO(row)).records
    assert isinstance(access, Access)
    assert access.value == value


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ("read 0x0 4", "3 columns, not access, offset, size and value"),
        ("poke 0x0 4 0x1", "'poke' is neither read nor write"),
        ("read zero 4 0x1", "offset: 'zero' is no number"),
        ("read -4 4 0x1", "offset: '-4' is no number"),
        ("read 0x0 0 0x1", "size: 0 bytes are no access"),
        ("read 0x0 4 EIO", "value: 'EIO' is no number"),
        ("read 0x0 4 0x100000000", "value: 0x100000000 does not fit into 4 bytes"),
        ("read 0x20 9 0011", "value: 2 bytes at 0x20, not 9"),
        ("read 0x20 9 xx", "value: 'xx' is not in hex"),
    ],
)
def test_a_row_that_is_none_is_named(row: str, error: str) -> None:
    with pytest.raises(HistoryError) as raised:
        read_history(io.BytesIO(f"# first\n{row}\n".encode()))
    assert str(raised.value) == f"line 2: {error}"


def test_a_file_of_comments_is_no_history() -> None:
    with pytest.raises(HistoryError, match=r"^line 2: there is no access$"):
        read_history(io.BytesIO(b"# one\n# two\n"))


# -- judging a TSV ---------------------------------------------------------------------


def plainly(rows: bytes, *rules: Rule) -> list[RuleResult]:
    history = read_history(io.BytesIO(rows))
    return judge_history(history.header, history.records, rules, is_plain=True)


def test_nobody_is_accused_of_not_reading_what_cannot_be_seen() -> None:
    (result,) = plainly(SAVING, rule("consumed"))
    assert result.verdict is Verdict.HELD


def test_rules_about_the_regions_shape_are_not_applicable_to_a_tsv() -> None:
    rules = [rule("opened"), rule("consumed", section="v1/sparse-mmap")]
    for result in plainly(SAVING, *rules):
        assert result.verdict is Verdict.NOT_APPLICABLE
        assert result.reason == (
            "a plain TSV does not tell the region's size and areas"
        )


def test_witnesses_are_counted_as_the_file_counts_them() -> None:
    (result,) = plainly(SAVING + b"read 0x8 4 0x0\n", rule("odd_reads"))
    assert result.finding is not None
    assert [one.index for one in result.finding.broken.witnesses] == [6]
    assert [record.device for record in result.finding.history] == ["source"] * 6
    assert MAPPED not in result.finding.history


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_qemu_and_its_device_keep_every_rule(path: Path) -> None:
    with path.open("rb") as file:
        history = read_history(file)
        results = judge_history(history.header, history.records, is_plain=True)
    assert [r.rule.id for r in results if r.finding is not None] == []
    assert sum(r.verdict is Verdict.HELD for r in results) >= 10


def test_there_are_recordings() -> None:
    assert len(RECORDED) == 2
