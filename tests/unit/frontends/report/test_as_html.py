"""One page that stands alone, whatever the run was called."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from tests.unit.frontends.report.sample_runs import (
    device,
    died,
    everything,
    failed,
    hostile,
    moved,
)
from vfiomig.frontends.report.as_html import as_html
from vfiomig.frontends.report.verdict import overall_verdict
from vfiomig.frontends.run_report import RunReport, Verdict
from vfiomig.migration.metrics import Round, StateChange

if TYPE_CHECKING:
    from collections.abc import Callable

VOID = {"meta", "br", "line", "rect"}
LEADS_AWAY = {"src", "href", "xlink:href", "action", "data", "srcset", "poster"}


class Page(HTMLParser):
    """Reads a page; every element must be closed where it was opened."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(page.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID or tag == "rect":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """Return what is read, and each run of spaces as one."""
        return " ".join(" ".join(self.texts).split())


def without_rounds() -> RunReport:
    report = moved()
    report.metrics.rounds.clear()
    return report


def with_many() -> RunReport:
    report = moved(*(device("d" * 60 + f"{n:02}") for n in range(10)))
    report.metrics.rounds = [
        Round(number=n, began_at=n, ended_at=n + 1, pending_bytes=n, device_bytes=n)
        for n in range(1, 201)
    ]
    return report


def at_one_moment() -> RunReport:
    report = moved(device("gpu0"))
    metrics = report.metrics
    metrics.rounds.clear()
    metrics.stopped_at = metrics.resumed_at = metrics.ended_at = 0
    metrics.state_changes = [
        StateChange(at=0, party=c.party, device=c.device, device_state=c.device_state)
        for c in metrics.state_changes
    ]
    return report


def never_begun() -> RunReport:
    report = died()
    metrics = report.metrics
    metrics.rounds.clear()
    metrics.ended_at = metrics.stopped_at = None
    metrics.stop_and_copy_device_bytes = 0
    return report


RUNS = [
    moved,
    failed,
    died,
    everything,
    without_rounds,
    with_many,
    at_one_moment,
    never_begun,
]


@pytest.mark.parametrize("make_report", RUNS)
def test_a_page_is_well_formed_and_ends_in_nothing_open(
    make_report: Callable[[], RunReport],
) -> None:
    report = make_report()
    page = Page(as_html(report))
    assert overall_verdict(report).text in page.text
    assert report.scenario.name in page.text
    assert all(one.name in page.text for one in report.devices)


@pytest.mark.parametrize("make_report", RUNS)
def test_a_page_needs_nothing_from_elsewhere(
    make_report: Callable[[], RunReport],
) -> None:
    encoded = as_html(make_report())
    page = Page(encoded)
    assert not LEADS_AWAY & {name for name, _ in page.attributes}
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not re.search(rb"https?:|url\(|@import", encoded)


@pytest.mark.parametrize("make_report", RUNS)
def test_every_picture_stays_inside_its_frame(
    make_report: Callable[[], RunReport],
) -> None:
    text = as_html(make_report()).decode()
    pictures = re.findall(r'<svg viewBox="0 0 (\d+) ([\d.]+)"(.*?)</svg>', text, re.S)
    assert pictures
    for width, height, inside in pictures:
        for x, y, wide, high in re.findall(
            r'<rect [^>]*x="([^"]+)" y="([^"]+)" width="([^"]+)" height="([^"]+)"',
            inside,
        ):
            assert float(x) >= 0
            assert float(y) >= 0
            assert float(x) + float(wide) <= float(width)
            assert float(y) + float(high) <= float(height)
        for x, y in re.findall(r'<text [^>]*x="([^"]+)" y="([^"]+)"', inside):
            assert 0 <= float(x) <= float(width)
            assert 8 <= float(y) <= float(height)


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "</title></svg></style>",
        "{{ 7 * 7 }}",
        "state verified",
        "\x00\x1b\udcff",
    ],
)
def test_words_from_outside_are_text_and_claim_nothing(text: str) -> None:
    encoded = as_html(hostile(text))
    page = Page(encoded)
    assert not {"script", "img"} & set(page.tags)
    assert b"state verified" not in encoded
    assert "49" not in page.text.split()
    if text.isprintable() and text != "state verified":
        assert page.text.count(text) > 5


def test_the_claim_is_on_the_page_of_a_verified_run_alone() -> None:
    assert b"state verified" in as_html(moved())
    report = moved(device("gpu0"), device("port", Verdict.UNVERIFIED))
    assert b"state verified" not in as_html(report)


def test_the_same_run_gives_the_same_page() -> None:
    assert as_html(everything()) == as_html(everything())


def test_light_and_dark_are_both_there() -> None:
    assert b"prefers-color-scheme: dark" in as_html(moved())
