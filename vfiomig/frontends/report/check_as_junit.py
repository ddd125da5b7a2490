"""A run of the suite as JUnit XML: one test case a rule, and one for staying alive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from vfiomig.conformance.finding import Verdict
from vfiomig.conformance.library import lines_of_death
from vfiomig.frontends.plain_text import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vfiomig.conformance.finding import RuleResult
    from vfiomig.frontends.check_report import CheckReport

_SKIPPED: Final = (
    Verdict.WAIVED,
    Verdict.FLAKY,
    Verdict.NOT_REACHED,
    Verdict.NOT_APPLICABLE,
)


def check_as_junit(report: CheckReport) -> bytes:
    """Return the document, in UTF-8."""
    suite = ET.Element("testsuite", name=f"vfiomig check {plain(report.target)}")
    for result in report.results:
        _add_rule(suite, report, result)
    _add_life(suite, report)
    for name, tag in (("tests", "testcase"), ("skipped", "skipped")):
        suite.set(name, str(sum(1 for _ in suite.iter(tag))))
    suite.set("failures", str(sum(1 for _ in suite.iter("failure"))))
    suite.set("errors", str(sum(1 for _ in suite.iter("error"))))
    suites = ET.Element("testsuites")
    suites.append(suite)
    ET.indent(suites)
    return bytes(ET.tostring(suites, "utf-8", xml_declaration=True)) + b"\n"


def _add_rule(suite: ET.Element, report: CheckReport, result: RuleResult) -> None:
    case = ET.SubElement(
        suite, "testcase", classname=result.rule.section, name=result.rule.id
    )
    finding = result.finding
    if result.verdict in _SKIPPED:
        message = result.reason or result.verdict.value
        ET.SubElement(case, "skipped", message=plain(message))
    elif finding is not None:
        text = _plain_lines(str(report.argument(finding)).split("\n"))
        if result.verdict is Verdict.BROKEN:
            broken = finding.broken
            message = f"expected {broken.expected}, actual {broken.actual}"
            ET.SubElement(case, "failure", message=plain(message)).text = text
        else:
            ET.SubElement(case, "system-out").text = text


def _add_life(suite: ET.Element, report: CheckReport) -> None:
    case = ET.SubElement(
        suite, "testcase", classname="v1", name="every conversation was lived through"
    )
    for death in report.deaths:
        text = _plain_lines(lines_of_death(death, target=report.target))
        message = f"died at {death.access}: {death.error}"
        ET.SubElement(case, "error", message=plain(message)).text = text


def _plain_lines(lines: Iterable[str]) -> str:
    return "\n".join(map(plain, lines))
