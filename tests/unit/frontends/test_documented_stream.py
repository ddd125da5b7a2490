"""The JSON of `vfiomig stream`, as specs/README.md has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.unit.frontends.documented import SECTIONS, example_of, paths_in, rows_of
from tests.unit.frontends.stream_files import (
    END,
    END_OF_FILE,
    HEADER,
    configuration,
    data,
    described,
    vfio,
    vfio_start,
)
from vfiomig.protocol.qemu_stream.xen_sections import describe, full_section
from vfiomig.protocol.qemu_stream.xen_state import XenStoreDevice

if TYPE_CHECKING:
    from tests.unit.frontends.conftest import Vfiomig

STREAM: Final = SECTIONS["The JSON of `vfiomig stream --json`"]
DATA: Final = Path(__file__).parents[2] / "data"
# What holds itself again is documented once.
NESTED: Final = {"value", "subsections", "display", "argument"}


def told_of(vfiomig: Vfiomig, *arguments: str) -> Any:
    told = json.loads(vfiomig("stream", *arguments, "--json", "-")[1])
    for part in told["parts"]:  # as in sections
        part["ram"] = part["vfio"] = 0
    return told


def pruned(value: Any) -> Any:
    """Return a report without what stands in a value."""
    if isinstance(value, dict):
        return {k: 0 if k in NESTED else pruned(v) for k, v in value.items()}
    return [pruned(each) for each in value] if isinstance(value, list) else value


def an_example() -> bytes:
    name = b"0000:00:04.0/vfio"
    return b"".join(
        (
            HEADER,
            configuration(b"pc-i440fx-7.2"),
            vfio_start(2, name),
            vfio(END, 2, data(b"the device's data")),
            END_OF_FILE,
        )
    )


def a_store() -> bytes:
    """Return a stream of a Xen guest's store that is damaged: it ends early."""
    part = XenStoreDevice(impl_state=b"\0\0\0\1")
    full = full_section(3, 0, part)
    return HEADER + full + END_OF_FILE + described(describe(0, part))


@pytest.mark.slow
def test_every_key_is_in_the_table_and_no_other(vfiomig: Vfiomig) -> None:
    found: set[str] = set()
    for file in sorted(DATA.glob("*.mig.xz")):
        found.update(paths_in(pruned(told_of(vfiomig, str(file), "--ram"))))
    Path("cut").write_bytes(an_example()[:-1])
    Path("store").write_bytes(a_store())
    for name in ("cut", "store"):
        found.update(paths_in(pruned(told_of(vfiomig, name))))
    # A key that may be null stands in the table with what it holds when it is not.
    inner = {
        path
        for path in found
        for end in ".["
        if any(other.startswith(path + end) for other in found)
    }
    # No stream here has a device with MSI-X.
    has_msix = {path for path in rows_of(STREAM) if ".msix." in path}
    assert len(has_msix) == 3
    without = {path for path in found if not path.endswith(".msix")}
    assert rows_of(STREAM).keys() == (without - inner) | has_msix


def test_the_example_is_what_is_written(vfiomig: Vfiomig) -> None:
    Path("vm.mig").write_bytes(an_example())
    told = json.loads(vfiomig("stream", "vm.mig", "--json", "-")[1])
    assert json.loads(example_of(STREAM, "json")) == told
