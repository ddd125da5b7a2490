"""``vfiomig migrate --incoming``: exit codes, what is compared, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.unit.frontends.conftest import Vfiomig

SCENARIO = """
warm_up = 50

[[device]]
target = "serial"
slot = 5

[machine]
ram = "64K"
filled = "8K"
"""


@pytest.fixture
def saved(vfiomig: Vfiomig) -> Path:
    """Return a stream of a machine with a serial port; `run.json` tells of it."""
    Path("guest.toml").write_text(SCENARIO)
    code, _, errors = vfiomig(
        *("migrate", "guest.toml", "--stream", "stream", "--json", "run.json")
    )
    assert code == 0, errors
    return Path("stream")


def test_without_a_report_nothing_is_verified(vfiomig: Vfiomig, saved: Path) -> None:
    code, output, _ = vfiomig("migrate", "guest.toml", "--incoming", str(saved))
    assert code == 0
    assert "state verified" not in output
    assert output.splitlines()[-1] == "loaded, unverified: serial and ram"


def test_with_the_report_of_that_migration(vfiomig: Vfiomig, saved: Path) -> None:
    code, output, _ = vfiomig(
        *("migrate", "guest.toml", "--incoming", str(saved)),
        *("--expect", "run.json", "--json", "in.json", "--history", "in.jsonl"),
    )
    assert code == 0
    assert output.splitlines()[-1] == "state verified"
    assert max(map(len, output.splitlines())) <= 80
    run = json.loads(Path("in.json").read_text())
    assert run["ok"] is True
    assert run["expected_from"] == "run.json"
    assert run["ram"]["loaded"]["verdict"] == "verified"
    (device,) = run["devices"]
    assert (device["section"], device["verdict"]) == ("0000:00:05.0/vfio", "verified")
    assert device["device_state"] == "RUNNING"
    code, output, errors = vfiomig("judge", "in.jsonl")
    assert code == 0, output + errors


def test_ram_of_another_size_is_left_out(vfiomig: Vfiomig, saved: Path) -> None:
    Path("guest.toml").write_text(SCENARIO.replace("64K", "128K"))
    code, output, _ = vfiomig(
        *("migrate", "guest.toml", "--incoming", str(saved), "--expect", "run.json")
    )
    assert code == 0
    assert "pc.ram left out: 65536 bytes, and the simulated machine has" in output
    assert output.splitlines()[-1] == "state verified"


def test_a_stream_that_is_cut(vfiomig: Vfiomig, saved: Path) -> None:
    whole = saved.read_bytes()
    for size in (9, len(whole) // 2, len(whole) - 300):
        saved.write_bytes(whole[:size])
        code, output, errors = vfiomig(
            *("migrate", "guest.toml", "--incoming", str(saved))
        )
        assert code == 2, size
        said = output + errors
        assert "stream: byte " in said
        assert "Traceback" not in said
        assert "state verified" not in said


def test_a_device_that_is_left_resuming_is_said_to_be(
    vfiomig: Vfiomig, saved: Path
) -> None:
    saved.write_bytes(saved.read_bytes()[:-300])
    _, output, _ = vfiomig("migrate", "guest.toml", "--incoming", str(saved))
    assert "serial RESUMING" in output


def test_a_flipped_bit_is_not_verified(vfiomig: Vfiomig, saved: Path) -> None:
    whole = bytearray(saved.read_bytes())
    where = whole.index(b"\x08\x06pc.ram") + 8 + 1000  # in the first page
    whole[where] ^= 4
    saved.write_bytes(whole)
    code, output, _ = vfiomig(
        *("migrate", "guest.toml", "--incoming", str(saved), "--expect", "run.json")
    )
    assert code == 1
    assert output.splitlines()[-1] == "state differs: ram"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "it is no report"),
        ("[]", "it is no report"),
        ('{"devices": 3}', "it is no report"),
        ('{"devices": [{"name": "serial"}]}', "it is no report"),
        ('{"devices": {"serial": {"at_stop": 7}}}', "it is no report"),
        ('{"devices": {"serial": {"at_stop": null}}}', "no device of it was stopped"),
    ],
)
def test_what_is_no_report(
    vfiomig: Vfiomig, saved: Path, content: str, why: str
) -> None:
    Path("other.json").write_text(content)
    code, output, errors = vfiomig(
        *("migrate", "guest.toml", "--incoming", str(saved), "--expect", "other.json")
    )
    assert (code, output) == (2, "")
    assert errors.startswith("vfiomig: other.json: ") or "other.json: " in errors
    assert why in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--incoming", "missing"), "missing"),
        (("--incoming", "guest.toml"), "no migration stream"),
        (("--incoming", "stream", "--expect", "missing"), "missing"),
        (("--incoming", "stream", "--stream", "again"), "--stream and --html"),
        (("--expect", "run.json"), "--expect is about --incoming"),
    ],
)
def test_misuse(
    vfiomig: Vfiomig, saved: Path, arguments: tuple[str, ...], said: str
) -> None:
    code, output, errors = vfiomig("migrate", "guest.toml", *arguments)
    assert (code, output) == (2, "")
    assert said in errors
    assert len(errors.splitlines()) == 1
    assert saved.exists()


def test_devices_that_are_not_those_of_the_stream(
    vfiomig: Vfiomig, saved: Path
) -> None:
    two = ("--device", "serial", "--device", "opaque")
    code, output, errors = vfiomig("migrate", *two, "--incoming", str(saved))
    assert (code, output) == (2, "")
    assert "it has 0000:00:05.0/vfio, and the scenario serial, opaque" in errors
    Path("guest.toml").write_text(SCENARIO.replace("slot = 5", "slot = 6"))
    code, output, errors = vfiomig("migrate", "guest.toml", "--incoming", str(saved))
    assert (code, output) == (2, "")
    assert "serial at 0000:00:06.0/vfio" in errors
