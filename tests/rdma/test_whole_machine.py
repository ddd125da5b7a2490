"""The machines of the examples move over RDMA, to the last byte."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.rdma.vm import ADDRESS
from vfiomig.frontends.report.verdict import overall_verdict
from vfiomig.frontends.scenario import load_scenario
from vfiomig.frontends.simulation import simulate

_EXAMPLES: Final = Path(__file__).parents[2] / "examples"
_OVER_RDMA: Final = 'transport = "rsocket"\nrsocket = {{ wait = "{}", address = "{}" }}'


def over_rdma(example: str | Path, carried_by: str, wait: str) -> str:
    """Return an example that goes over RDMA instead."""
    text = (_EXAMPLES / example).read_text()
    transport = f'transport = "{carried_by}"'
    assert transport in text
    return text.replace(transport, _OVER_RDMA.format(wait, ADDRESS))


def verdict_of(text: str, folder: Path) -> str:
    """Run a scenario, and return what it proves."""
    file = folder / "example.toml"
    file.write_text(text)
    return overall_verdict(simulate(load_scenario(file))).text


def test_a_whole_machine_moves_over_rdma(tmp_path: Path) -> None:
    text = over_rdma("07_a_whole_machine.toml", "tcp", wait="poll")
    assert verdict_of(text, tmp_path) == "state verified"


def test_its_pages_move_by_several_channels(tmp_path: Path) -> None:
    text = over_rdma("07_a_whole_machine.toml", "tcp", wait="thread")
    text += "\n[capabilities]\nmultifd = true\n"
    assert verdict_of(text, tmp_path) == "state verified"


def test_harts_move_over_rdma(tmp_path: Path) -> None:
    text = (_EXAMPLES / "08_harts_that_go_on.toml").read_text()
    text = text.replace('[rsocket]\nwait = "poll"\n', "")
    file = tmp_path / "harts.toml"
    file.write_text(text)
    text = over_rdma(file, "rsocket-model", wait="yield")
    assert verdict_of(text, tmp_path) == "state verified"
