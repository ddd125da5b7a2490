"""The JSON of `vfiomig qemu`, as specs/README.md has it."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from tests.unit.frontends.documented import SECTIONS, paths_in, rows_of
from vfiomig.frontends.attached_device import Account
from vfiomig.frontends.attaching import Attached
from vfiomig.frontends.report.qemu_as_json import attached_as_dict, moved_as_dict
from vfiomig.frontends.two_qemus import DeviceVerdict, Moved, MovedDevice, TwoQemus
from vfiomig.protocol.errors import DriverDiedError
from vfiomig.serve.monitor import Seen

QEMU: Final = SECTIONS["The JSON of `vfiomig qemu --json`"]


def a_side() -> Attached:
    return Attached(
        accounts={"a/gpu": Account(states=["STOP"])},
        seen=Seen(statuses=["completed"], figures={"status": "completed"}),
        deaths=[DriverDiedError("read", "driver.py:1", "ValueError")],
    )


def outermost(path: str) -> str:
    """Name the key of a path as the table has it."""
    path = re.sub(r"^sides\.[a-z]+\.", "sides.*.", path)
    path = re.sub(r"^(sides\.\*\.devices\.)[^.]+", r"\1*", path)
    return re.sub(r"(query_migrate)\..*", r"\1", path)


def test_every_key_of_a_migration_is_in_the_table_and_no_other() -> None:
    device = MovedDevice(
        name="gpu",
        source=Account(),
        destination=Account(),
        verdict=DeviceVerdict.VERIFIED,
    )
    moved = Moved(
        status="completed",
        devices=[device],
        sides={"source": a_side(), "destination": a_side()},
        notes=["a note"],
    )
    what = TwoQemus(command=("qemu",), targets=("reference",), work=1, limit=1.0)
    facts = msgspec.json.decode(msgspec.json.encode(moved_as_dict(moved, what)))
    assert rows_of(QEMU).keys() == {outermost(path) for path in paths_in(facts)}


def test_one_qemu_has_the_keys_of_a_side() -> None:
    facts = msgspec.json.decode(msgspec.json.encode(attached_as_dict(a_side())))
    facts.pop("schema")
    paths = {outermost(f"sides.source.{path}") for path in paths_in(facts)}
    assert paths == {key for key in rows_of(QEMU) if key.startswith("sides.")}


def test_every_verdict_is_named() -> None:
    (told,) = rows_of(QEMU)["devices[].verdict"]
    assert set(re.findall(r"`(\w+)`", told)) == {v.name.lower() for v in DeviceVerdict}
