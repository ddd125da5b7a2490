"""The JSON of `vfiomig migrate --incoming`, as specs/README.md has it."""

from __future__ import annotations

import json
from typing import Final

from tests.unit.frontends.documented import SECTIONS, example_of, paths_in, rows_of
from vfiomig.frontends.incoming_report import IncomingReport, LoadedDevice, LoadedRam
from vfiomig.frontends.report.incoming_as_json import incoming_as_dict
from vfiomig.frontends.run_report import DeviceReport, Digests

INCOMING: Final = SECTIONS["The JSON of `vfiomig migrate --incoming --json`"]


def reported(name: str) -> DeviceReport:
    return DeviceReport(name=name, target="", digests=Digests())


def whole() -> set[str]:
    """Return the keys of a report that has everything."""
    report = IncomingReport(
        file="vm.mig",
        size=1,
        scenario="a guest",
        devices=[LoadedDevice(report=reported("gpu0"), idstr="vfio")],
        ram=LoadedRam(report=reported("ram"), left_out={"*": "no such block"}),
        passed_over={"*": 2},
        commands=[1],
        notes=["a remark"],
    )
    return set(paths_in(incoming_as_dict(report)))


def test_every_key_is_in_the_table_and_no_other() -> None:
    assert rows_of(INCOMING).keys() == whole()


def test_the_example_is_a_stream_that_was_verified() -> None:
    example = json.loads(example_of(INCOMING, "json"))
    lists = {path for path in whole() if path.endswith(("[]", "*"))}
    assert set(paths_in(example)) == whole() - lists
    assert example["verified"] == "state verified"
