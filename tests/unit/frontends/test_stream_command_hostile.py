"""`vfiomig stream` on files that mean harm: one line, in time, with little memory."""

from __future__ import annotations

import contextlib
import io
import json
import lzma
import random
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from tests.unit.frontends.stream_files import (
    END,
    END_OF_FILE,
    FULL,
    HEADER,
    PAGE,
    PART,
    a_vm,
    be32,
    be64,
    described,
    page,
    ram,
    ram_start,
    section,
    vfio,
    vfio_start,
)
from vfiomig.frontends.exit_codes import DONE, MISUSE
from vfiomig.frontends.report.stream_as_json import write_json
from vfiomig.frontends.report.stream_diff import differences
from vfiomig.frontends.report.stream_records import print_ram, print_vfio
from vfiomig.frontends.report.stream_terminal import print_sections
from vfiomig.frontends.report.stream_tree import print_tree
from vfiomig.frontends.stream_facts import gathered
from vfiomig.migration.qemu_image import ImageError, mapped_image

if TYPE_CHECKING:
    from tests.unit.frontends.conftest import Vfiomig

V1 = Path(__file__).parents[2] / "data" / "qemu-7.2-vfio-v1.mig.xz"


def shown(path: Path) -> Any:
    """Show a stream in every view; whatever it holds, it is shown or refused."""
    console = Console(file=io.StringIO(), highlight=False)
    pieces: list[bytes] = []
    with path.open("rb") as file, mapped_image(file, "a stream") as image:
        for view in (
            lambda: print_sections(image, console),
            lambda: print_ram(image, console),
            lambda: print_vfio(image, console),
            lambda: print_tree(image, "", console),
            lambda: write_json(image, pieces.append, with_runs=True),
        ):
            with contextlib.suppress(ImageError):
                view()
        with gathered(image) as facts, gathered(image) as other:
            assert list(differences((image, image), facts, other)) == []
    return json.loads(b"".join(pieces))


def test_a_stream_cut_anywhere_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    stream = a_vm()
    for size in [*range(8, 60), *range(60, len(stream), 397), len(stream) - 1]:
        (tmp_path / "cut").write_bytes(stream[:size])
        told = shown(tmp_path / "cut")
        assert told["damage"]["position"] <= size
        rows = told["sections"]
        assert sum(row["size"] for row in rows) <= size
    (tmp_path / "cut").write_bytes(stream)
    assert shown(tmp_path / "cut")["damage"] is None


@pytest.mark.slow
def test_flipped_bytes_are_shown_or_refused(tmp_path: Path) -> None:
    chance = random.Random(6)
    whole = lzma.decompress(V1.read_bytes())
    small = a_vm()
    for turn in range(32):
        stream = bytearray(small if turn % 4 else whole)
        # The end describes the rest: what is flipped there is believed the longest.
        at = chance.choice([chance.randrange(8, len(stream)), len(stream) - 200])
        stream[at] ^= 1 << chance.randrange(8)
        (tmp_path / "flipped").write_bytes(stream)
        shown(tmp_path / "flipped")


def test_a_block_of_any_size_and_a_page_outside_are_refused(vfiomig: Vfiomig) -> None:
    for size in (1 << 62, (1 << 64) - PAGE):
        name = b"\x04ram0"
        listed = be64(size | 4) + name + be64(size) + be64(0x10)
        stream = HEADER + section(1, 2, listed, b"ram", 4)
        stream += ram(END, page(0, bytes(PAGE))) + END_OF_FILE
        Path("vm.mig").write_bytes(stream)
        code, _, errors = vfiomig("stream", "vm.mig", "--extract", "ram0", "-o", "out")
        assert (code, Path("out").exists()) == (MISUSE, False)
        assert len(errors.splitlines()) == 1
        assert vfiomig("stream", "vm.mig")[0] == DONE
    # It is in the block as it was listed first, and not as it is listed then.
    outside = HEADER + ram_start(ram0=2 * PAGE) + ram(PART, page(PAGE, bytes(PAGE)))
    Path("vm.mig").write_bytes(outside + ram_start(ram0=PAGE) + END_OF_FILE)
    code, _, errors = vfiomig("stream", "vm.mig", "--extract", "ram0", "-o", "out")
    assert (code, Path("out").exists()) == (MISUSE, False)
    assert "a page at 0x1000 of a block that has 0x1000 bytes" in errors


def test_a_page_that_cannot_be_decoded_is_refused(vfiomig: Vfiomig) -> None:
    def xbzrle(changes: bytes) -> bytes:
        head = be64(0x40) + b"\x04ram0" + b"\x01" + struct.pack(">H", len(changes))
        return HEADER + ram_start(ram0=PAGE) + ram(END, head + changes) + END_OF_FILE

    # 2 bytes stay, 3 are new.
    Path("vm.mig").write_bytes(xbzrle(b"\x02\x03new"))
    extract = ("stream", "vm.mig", "--extract", "ram0", "-o", "out")
    assert vfiomig(*extract)[0] == DONE
    assert Path("out").read_bytes() == b"\0\0new".ljust(PAGE, b"\0")
    # 128 bytes stay, 1 is new.
    Path("vm.mig").write_bytes(xbzrle(b"\x80\x01\x01z"))
    assert vfiomig(*extract)[0] == DONE
    assert Path("out").read_bytes() == (bytes(128) + b"z").ljust(PAGE, b"\0")
    # A number without an end; more than the page has; fewer new bytes than told.
    for changes in (b"\x80\x80", b"\xff\x1f\x02ab", b"\x00\x05ab", b"\x00\xff\x7fa"):
        Path("vm.mig").write_bytes(xbzrle(changes))
        code, _, errors = vfiomig(*extract)
        assert code == MISUSE
        assert "XBZRLE page that cannot be decoded" in errors


def test_numbers_in_a_description_may_have_any_size(vfiomig: Vfiomig) -> None:
    clock = {
        "name": "clock",
        "instance_id": 0,
        "vmsd_name": "\ud800\x1b[1m",
        "version": 1 << 80,
        "fields": [{"name": "ticks", "type": "uint32", "size": 4}],
    }
    text = HEADER + section(FULL, 4, be32(1), b"clock") + END_OF_FILE
    Path("vm.mig").write_bytes(text + described(clock))
    for view in ([], ["--tree"], ["--json", "-"], ["--diff", "vm.mig"]):
        code, output, _ = vfiomig("stream", "vm.mig", *view)
        assert code in (DONE, MISUSE)
        assert "\x1b" not in output


def test_a_number_that_json_does_not_hold_is_hex(vfiomig: Vfiomig) -> None:
    fields = [
        {"name": "wide", "type": "bitmap", "size": 16},
        {"name": "low", "type": "int64", "size": 8},
        {"name": "high", "type": "uint64", "size": 8},
    ]
    device = {"name": "d", "instance_id": 0, "vmsd_name": "d", "version": 1}
    values = be64(1, 2, 1 << 63, (1 << 64) - 1)
    stream = HEADER + section(FULL, 4, values, b"d") + END_OF_FILE
    Path("vm.mig").write_bytes(stream + described({**device, "fields": fields}))
    code, output, _ = vfiomig("stream", "vm.mig", "--json", "-")
    (told,) = json.loads(output)["sections"][1]["records"]
    assert code == DONE
    # Bit i of a bitmap is bit i of its value: its first word is the low one.
    assert [field["value"] for field in told["state"]["fields"]] == [
        hex((2 << 64) + 1),
        -(1 << 63),
        (1 << 64) - 1,
    ]


def test_many_devices_and_sections_are_summed_up(vfiomig: Vfiomig) -> None:
    starts = b"".join(vfio_start(n, b"%d/vfio" % n) for n in range(1, 1101))
    parts = vfio(PART, 1) * 200
    Path("vm.mig").write_bytes(HEADER + starts + parts + END_OF_FILE)
    code, output, errors = vfiomig("stream", "vm.mig")
    assert (code, errors) == (DONE, "")
    assert "(more VFIO devices)" in output
    assert vfiomig("stream", "vm.mig", "--vfio")[0] == DONE
