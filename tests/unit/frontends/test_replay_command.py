"""``vfiomig replay`` as a user types it."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import pytest

from tests.unit.frontends.check_drivers import write_drivers
from vfiomig.conformance.conversation.steps import Step, step, token_of
from vfiomig.frontends.exit_codes import DONE, MISUSE, NOT_AS_EXPECTED, NOT_STARTED

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.frontends.conftest import Vfiomig

SAVE = (step("enter", "source", 2), step("iterate", "source", 1))
OPENED = "v1/device-state/running-on-open"
BITS = token_of(OPENED, (step("read_device_state", "source"),))
DEATH = token_of("died", SAVE)


@pytest.fixture(autouse=True)
def _drivers(tmp_path: Path) -> None:
    """Have a driver.py in the folder of the command lines."""
    write_drivers(tmp_path)


def test_a_rule_that_breaks_again_is_explained(vfiomig: Vfiomig) -> None:
    code, output, errors = vfiomig("replay", BITS, "driver.py:Bits")
    assert (code, errors) == (NOT_AS_EXPECTED, "")
    assert "read device_state -> 0x81" in output
    assert f"{OPENED}   MUST   broken by the vendor driver" in output
    assert "Where: driver.py:" in output
    assert f"Reproduce with: vfiomig replay {BITS} driver.py:Bits" in output


def test_each_step_is_printed_before_its_accesses(vfiomig: Vfiomig) -> None:
    token = token_of(OPENED, SAVE)
    _, output, _ = vfiomig("replay", token, "driver.py:Good")
    lines = output.splitlines()
    first, second = lines.index("enter('source', 2)"), lines.index(str(SAVE[1]))
    assert first < second
    assert any("write device_state 0x2" in line for line in lines[first:second])
    assert any("read data_offset -> " in line for line in lines[second:])


def test_a_rule_that_holds_is_one_line(vfiomig: Vfiomig) -> None:
    code, output, _ = vfiomig("replay", BITS, "driver.py:Good")
    assert code == DONE
    assert output.splitlines()[-1] == f"{OPENED} was not broken this time"


def test_a_driver_that_lives_on_is_said_to(vfiomig: Vfiomig) -> None:
    code, output, _ = vfiomig("replay", DEATH, "driver.py:Good")
    assert code == DONE
    assert output.splitlines()[-1] == "the driver did not die this time"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("Raises", "ValueError: no buffer"),
        ("Text", "it answered with str"),
        ("Exits", "it ended the process with status 7"),
        pytest.param(
            "Hangs", "it did not answer within 8 seconds", marks=pytest.mark.slow
        ),
    ],
)
def test_a_death_again_is_exit_1(vfiomig: Vfiomig, name: str, error: str) -> None:
    code, output, errors = vfiomig("replay", DEATH, f"driver.py:{name}")
    assert (code, errors) == (NOT_AS_EXPECTED, "")
    assert "the driver died at read of 8 bytes at 0x10" in output
    assert error in output


def test_what_the_driver_printed_is_shown(vfiomig: Vfiomig) -> None:
    assert "    leaving\n" in vfiomig("replay", DEATH, "driver.py:Exits")[1]


@pytest.mark.parametrize(
    "token",
    [
        "",
        "rubbish",
        "é",
        BITS[:-6],
        token_of("v1/no-such/rule", SAVE),
        token_of("died", (step("close"),)),
        token_of("died", (step("__init__", "x"),)),
        token_of("died", (step("fly", "source"),)),
        token_of("died", (step("enter", "source"),)),
        token_of("died", (step("enter", "source", "2"),)),
        token_of("died", (step("enter", "source", 1 << 32),)),
        token_of("died", (step("enter", "source", -1),)),
        token_of("died", (step("write_register", "source", "zero", 1),)),
        token_of("died", (Step("read_odd", ("source", 0, 1 << 40)),)),
    ],
)
def test_a_bad_token_is_one_line_and_exit_2(vfiomig: Vfiomig, token: str) -> None:
    code, output, errors = vfiomig("replay", token, "driver.py:Good")
    assert (code, output) == (MISUSE, "")
    assert errors.startswith("vfiomig: ")
    assert errors.count("\n") == 1


def test_a_target_that_does_not_start_is_exit_3(vfiomig: Vfiomig) -> None:
    code, _, errors = vfiomig("replay", BITS, "driver.py:NoStart")
    assert code == NOT_STARTED
    assert "no power" in errors


def test_the_debugger_stops_before_the_step_that_breaks(
    vfiomig: Vfiomig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("continue\nwhere\ncontinue\n"))
    code, output, _ = vfiomig("replay", BITS, "driver.py:Bits", "--pdb")
    assert code == NOT_AS_EXPECTED
    assert "`continue` stops in the driver at driver.py:" in output
    assert "(Pdb)" in output
    assert "return bytes([data[0] | 0x80])" in output
