"""`vfiomig stream` as a user types it, on streams that QEMU wrote and on small ones.

What is expected of QEMU's streams is what is known of them without us: the device's
data was bytes 0 to 255, 1024 times; offsets and counts are QEMU's own tool's.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.frontends.stream_files import (
    END,
    END_OF_FILE,
    FULL,
    HEADER,
    INIT_DATA_SENT,
    PAGE,
    PART,
    SETUP,
    START,
    a_vm,
    be32,
    be64,
    configuration,
    data,
    page,
    ram,
    ram_start,
    section,
    vfio,
    vfio_full,
    vfio_start,
    zero_page,
)
from vfiomig.frontends.exit_codes import DONE, MISUSE, NOT_AS_EXPECTED

if TYPE_CHECKING:
    from tests.unit.frontends.conftest import Vfiomig

FILES = Path(__file__).parents[2] / "data"
V1 = str(FILES / "qemu-7.2-vfio-v1.mig.xz")
V2 = str(FILES / "qemu-10.0-vfio-v2.mig.xz")
DEVICE_DATA = bytes(range(256)) * 1024
DEVICE = b"0000:00:04.0/vfio"


def written(stream: bytes, name: str = "vm.mig") -> str:
    Path(name).write_bytes(stream)
    return name


def of_device(*sections: bytes, machine: bytes = b"pc-i440fx-7.2") -> bytes:
    """Return a stream of one VFIO device, with these sections behind its START."""
    head = HEADER + configuration(machine) + vfio_start(3, DEVICE)
    return head + b"".join(sections) + END_OF_FILE


def facts(vfiomig: Vfiomig, *arguments: str) -> Any:
    code, output, errors = vfiomig("stream", *arguments, "--json", "-")
    assert (code, errors) == (DONE, "")
    return json.loads(output)


# -- the table and the totals ----------------------------------------------------------


def test_the_sections_of_a_real_stream_are_listed(vfiomig: Vfiomig) -> None:
    code, output, errors = vfiomig("stream", V1)
    assert (code, errors) == (DONE, "")
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert "configuration 0x8 18 pc-i440fx-7.2" in lines
    assert "1 START 0x1a 170 2 0 4 ram 6 blocks of 16.51 MiB" in lines
    assert "4 PART 0x78581 65,570 39 0 0000:00:02.0/vfio 1 buffer, 64 KiB" in lines
    # 5 + 1 + 17 + 8 before, 8 + 276 + 8 of payload, 5 of footer.
    assert any(re.match(r"41 FULL \S+ 328 39 0 1 0000:00:02.0/vfio ", x) for x in lines)
    assert any(x.startswith("0000:00:02.0/vfio 7 ") for x in lines)
    assert "footers: yes" in lines


def test_the_rows_leave_no_byte_out_and_the_parts_add_up(vfiomig: Vfiomig) -> None:
    for file in (V1, V2):
        told = facts(vfiomig, file)
        position = 0
        for row in told["sections"]:
            assert row["offset"] == position
            position += row["size"]
        assert position == told["size"] == len(lzma.decompress(Path(file).read_bytes()))
        assert sum(part["size"] for part in told["parts"]) == position
        assert told["damage"] is None


def test_a_stream_of_a_machine_type_before_2_4_has_no_footers(vfiomig: Vfiomig) -> None:
    output = vfiomig("stream", str(FILES / "qemu-7.2-pc-2.3.mig.xz"))[1]
    assert "footers: no" in output
    assert "configuration: none" in output


def test_standard_input_is_read(
    vfiomig: Vfiomig, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.write(writer, a_vm())
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pipe))
        code, output, errors = vfiomig("stream", "-")
    assert (code, errors) == (DONE, "")
    assert output.startswith("standard input: ")
    assert "1 zero page, 1 full page" in output


# -- values, RAM -----------------------------------------------------------------------


def test_the_tree_shows_values(vfiomig: Vfiomig) -> None:
    file = written(a_vm(state=4096))
    code, output, _ = vfiomig("stream", file, "--tree")
    assert code == DONE
    assert "clock (instance 0, version 1)" in output
    assert "  ticks (uint32) 4096 (0x1000)\n" in output
    assert vfiomig("stream", "--tree", file)[1] == output
    assert "no described device state" in vfiomig("stream", file, "--tree", "vga")[1]


def test_only_the_states_that_are_named_are_shown(vfiomig: Vfiomig) -> None:
    output = vfiomig("stream", V1, "--tree", "i8259")[1]
    headings = re.findall(r"^(\S+) \(instance (\d), version 1\) at", output, re.M)
    assert headings == [("i8259", "0"), ("i8259", "1")]


def test_runs_of_pages_are_shown(vfiomig: Vfiomig) -> None:
    output = vfiomig("stream", written(a_vm()), "--ram")[1]
    assert "block ram0: 0x4000 bytes (16 KiB)" in output
    assert "ram0: 1 full page, at 0x0\n" in output
    assert "ram0: 1 zero page, at 0x1000\n" in output


def test_a_long_list_of_runs_is_cut_and_counted(vfiomig: Vfiomig) -> None:
    pages = [
        zero_page(n * PAGE) if n % 2 else page(n * PAGE, b"\x01" * PAGE)
        for n in range(100)
    ]
    stream = HEADER + ram_start(ram0=100 * PAGE) + ram(END, *pages) + END_OF_FILE
    output = vfiomig("stream", written(stream), "--ram")[1]
    assert "  ... and 84 more runs\n" in output
    assert "in all: 50 zero pages, 50 full pages" in output
    told = facts(vfiomig, "vm.mig", "--ram")
    runs = [r for r in told["sections"][2]["records"] if r["record"] == "pages"]
    assert [(r["first"], r["kind"]) for r in runs[:2]] == [(0, "full"), (PAGE, "zero")]
    assert len(runs) == 100
    assert not any(
        r["record"] == "pages"
        for row in facts(vfiomig, "vm.mig")["sections"]
        for r in row["records"]
    )


# -- VFIO ------------------------------------------------------------------------------


def test_every_record_of_a_real_device_is_shown(vfiomig: Vfiomig) -> None:
    output = vfiomig("stream", V1, "--vfio")[1]
    sizes = re.findall(r"PART +0x\w+ +65,552  DATA +65,536  0000:00:02.0/vfio", output)
    assert len(sizes) == 4
    assert "pre-copy: 4 buffers, 256 KiB, were sent while the device ran" in output
    assert "protocol: v1 or v2: nothing in the stream tells" in output
    output = vfiomig("stream", V2, "--vfio")[1]
    assert "stop-and-copy: 1 buffer, 256 KiB" in output
    assert "protocol: v2 (QEMU 8.0 or later), by the machine type" in output
    assert "pre-copy: no PART section." in output


@pytest.mark.parametrize(
    ("sections", "remark"),
    [
        (
            (vfio(PART, 3, data(b"")), vfio(END, 3), vfio_full(3, DEVICE)),
            "protocol: v1 (QEMU 7.2 or before), by a buffer of size 0 in a PART",
        ),
        (
            (vfio(PART, 3, data(b"")), vfio(END, 3), vfio_full(3, DEVICE)),
            "pre-copy: 1 poll found nothing pending",
        ),
        (
            (vfio(PART, 3, data(bytes((1 << 20) + 1))), vfio(END, 3)),
            "protocol: v1 (QEMU 7.2 or before), by a buffer of more than 1 MiB",
        ),
        (
            (section(PART, 3, data(b"x") + be64(INIT_DATA_SENT)), vfio(END, 3)),
            "protocol: v2 (QEMU 8.0 or later), by INIT_DATA_SENT",
        ),
        (
            (vfio(PART, 3), vfio(END, 3), vfio_full(3, DEVICE)),
            "protocol: v2 (QEMU 8.0 or later), by a PART section without DATA",
        ),
        (
            (vfio(END, 3), section(FULL, 3, be64(0xFFFFFFFFEF100001), DEVICE)),
            "a FULL section without CONFIG, as with multifd",
        ),
        (
            (vfio(PART, 3, data(b"")), vfio(PART, 3), vfio(END, 3)),
            "protocol: the marks contradict each other: of v1",
        ),
        ((vfio(END, 3, data(b"")),), "stop-and-copy: 1 buffer of size 0"),
        ((), "stop-and-copy: no END section"),
        ((), "configuration: no FULL section"),
    ],
)
def test_what_the_sequence_tells_is_said(
    vfiomig: Vfiomig, sections: tuple[bytes, ...], remark: str
) -> None:
    code, output, errors = vfiomig("stream", written(of_device(*sections)), "--vfio")
    assert (code, errors) == (DONE, "")
    assert remark in output


def test_a_cut_stream_says_nothing_of_what_may_have_followed(vfiomig: Vfiomig) -> None:
    stream = of_device(vfio(PART, 3, data(b"some")))[:-1]
    code, output, errors = vfiomig("stream", written(stream), "--vfio")
    assert code == MISUSE
    assert f"byte {len(stream)} of the stream" in errors
    assert "pre-copy: 1 buffer, 4 B, were sent" in output
    assert "no END section" not in output
    assert "no FULL section" not in output


def test_a_section_that_is_cut_is_not_said_to_lack_its_end(vfiomig: Vfiomig) -> None:
    stream = of_device(vfio(PART, 3, data(b"some")))
    file = written(stream[: stream.index(b"some") + 4])
    assert "odd: " not in vfiomig("stream", file, "--vfio")[1]
    # save_setup failed behind SETUP: the footer follows at once.
    failed = HEADER + section(START, 3, be64(SETUP), DEVICE) + END_OF_FILE
    output = vfiomig("stream", written(failed), "--vfio")[1]
    assert "odd: 1 START section without END_OF_STATE" in output


# -- extracting ------------------------------------------------------------------------


@pytest.mark.parametrize("file", [V1, V2])
def test_the_data_of_a_device_comes_out_byte_for_byte(
    vfiomig: Vfiomig, file: str
) -> None:
    code, _, errors = vfiomig("stream", file, "--extract", "vfio", "-o", "out")
    assert (code, errors) == (DONE, "")
    assert Path("out").read_bytes() == DEVICE_DATA


def test_an_image_is_what_a_destination_has_and_sparse(vfiomig: Vfiomig) -> None:
    again = page(2 * PAGE, b"\x02" * PAGE) + zero_page(0)
    stream = written(a_vm(ram_pages=again))
    assert vfiomig("stream", stream, "--extract", "ram0", "-o", "image")[0] == DONE
    image = Path("image").read_bytes()
    assert image == bytes(2 * PAGE) + b"\x02" * PAGE + bytes(PAGE)
    assert Path("image").stat().st_blocks * 512 < 4 * PAGE


@pytest.mark.parametrize(
    ("file", "digest"),
    [
        ("xbzrle", "37b09f0bf582f9c149ed8f029b51f05b62d928e90f50a3e16fccfeba0dc9abb0"),
        (
            "compress",
            "60b2a1e137cd403fc03d7fe44a91849926144604ffb41d9533d3b41788ca1539",
        ),
    ],
)
def test_an_image_is_what_qemu_has_after_it_loaded_the_stream(
    vfiomig: Vfiomig, file: str, digest: str
) -> None:
    # QEMU 7.2.22, `-S -incoming`, then `pmemsave 0 0xf0000`; behind that is the BIOS.
    stream = str(FILES / f"qemu-7.2-{file}.mig.xz")
    assert vfiomig("stream", stream, "--extract", "pc.ram", "-o", "image")[0] == DONE
    image = Path("image").read_bytes()
    assert len(image) == 4 << 20
    assert hashlib.sha256(image[:0xF0000]).hexdigest() == digest


def test_a_name_must_be_of_one_thing(vfiomig: Vfiomig) -> None:
    stream = written(
        HEADER + vfio_start(3, DEVICE) + vfio_start(4, b"0000:00:05.0/vfio") + b"\0"
    )
    code, _, errors = vfiomig("stream", stream, "--extract", "vfio", "-o", "out")
    assert code == MISUSE
    assert '"vfio" may be "0000:00:04.0/vfio" and "0000:00:05.0/vfio"' in errors
    assert vfiomig("stream", stream, "--extract", "04.0", "-o", "out")[0] == DONE
    code, _, errors = vfiomig("stream", stream, "--extract", "gpu", "-o", "no")
    assert (code, Path("no").exists()) == (MISUSE, False)
    assert 'nothing is called "gpu"' in errors


def test_of_a_cut_stream_only_what_is_whole_comes_out(vfiomig: Vfiomig) -> None:
    stream = a_vm()
    cut = written(stream[: stream.index(b"stopped") + 3])
    code, _, errors = vfiomig("stream", cut, "--extract", "vfio", "-o", "out")
    assert (code, Path("out").exists()) == (MISUSE, False)
    assert "of the stream: " in errors
    behind = written(stream[:-10])
    assert vfiomig("stream", behind, "--extract", "vfio", "-o", "out")[0] == MISUSE
    assert Path("out").read_bytes() == b"pre-copystopped"


# -- differences -----------------------------------------------------------------------


def test_a_stream_differs_from_itself_in_nothing(vfiomig: Vfiomig) -> None:
    code, output, _ = vfiomig("stream", V1, "--diff", V1)
    assert code == DONE
    assert output.splitlines()[-1] == "the streams hold the same"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"state": 8}, "clock: ticks\n  < 7\n  > 8\n"),
        (
            {"ram_pages": page(0, b"\x01" * 9 + b"\x05" + b"\x01" * 4086)},
            "block ram0: 1 page from 0x0 on, first at 0x9\n  < 01",
        ),
        (
            {"buffers": data(b"!")},
            "device data: 1 byte differs, the first at 0xf\n"
            "  < - (15 bytes)\n  > 21 (16 bytes)\n",
        ),
    ],
)
def test_what_differs_is_told_with_both_values(
    vfiomig: Vfiomig, changed: dict[str, Any], told: str
) -> None:
    one, other = written(a_vm()), written(a_vm(**changed), "other.mig")
    code, output, _ = vfiomig("stream", one, "--diff", other)
    assert code == NOT_AS_EXPECTED
    assert told in output


def test_what_differs_far_behind_is_found(vfiomig: Vfiomig) -> None:
    def stream(last: bytes) -> bytes:
        head = HEADER + ram_start(ram0=4 << 20) + vfio_start(3, DEVICE)
        pages = [page(n << 20, b"\x01" * PAGE) for n in range(3)]
        pages.append(page((3 << 20) + PAGE, last * PAGE))
        device = vfio(END, 3, data(bytes(3 << 20)), data(bytes(9) + last))
        return head + ram(END, *pages) + device + END_OF_FILE

    one, other = written(stream(b"\x02")), written(stream(b"\x03"), "other.mig")
    code, output, _ = vfiomig("stream", one, "--diff", other)
    assert code == NOT_AS_EXPECTED
    assert "1 page from 0x301000 on, first at 0x301000\n  < 02 02 " in output
    assert "1 byte differs, the first at 0x300009\n  < 02 (3,145,738 bytes)" in output


def test_how_pages_were_sent_makes_no_difference(vfiomig: Vfiomig) -> None:
    twice = page(0, b"\x09" * PAGE) + page(0, b"\x01" * PAGE, None)
    one, other = written(a_vm()), written(a_vm(ram_pages=twice), "other.mig")
    assert vfiomig("stream", one, "--diff", other)[0] == DONE


def test_a_section_that_only_one_has_is_told(vfiomig: Vfiomig) -> None:
    one = written(of_device(vfio(END, 3)))
    more = section(FULL, 9, be32(1), b"lamp")
    other = written(of_device(vfio(END, 3), more), "other.mig")
    code, output, _ = vfiomig("stream", one, "--diff", other)
    assert code == NOT_AS_EXPECTED
    assert "lamp: FULL sections\n  < 0\n  > 1\n" in output


# -- damage and misuse -----------------------------------------------------------------


def test_what_stands_before_a_cut_is_shown(vfiomig: Vfiomig) -> None:
    whole = lzma.decompress(Path(V1).read_bytes())
    file = written(whole[: 0x78581 + 1000])
    code, output, errors = vfiomig("stream", file, "--json", "out.json")
    assert code == MISUSE
    assert "4,115 zero pages, 111 full pages" in output
    row = next(
        line for line in output.splitlines() if line.split()[:2] == ["4", "PART"]
    )
    assert row.endswith("(cut)")
    assert errors.startswith("vfiomig: vm.mig: byte ")
    assert len(errors.splitlines()) == 1
    told = json.loads(Path("out.json").read_text())
    assert told["damage"]["position"] >= 0x78581
    assert told["sections"][-1]["is_cut"] is True


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (b"", "it is empty"),
        (b"\x7fELF and more", "no migration stream of QEMU: it begins with 7f 45 4c"),
        (b"QEVM", "byte 4 of the stream"),
        (b"QEVM\0\0\0\2", "version 2"),
        (b"\x1f\x8b\x08", "the gzip file ends too early"),
        (b"\xfd7zXZ\0 and more", "the xz file is damaged"),
    ],
)
def test_a_file_that_is_none_is_one_line(
    vfiomig: Vfiomig, stream: bytes, why: str
) -> None:
    code, _, errors = vfiomig("stream", written(stream))
    assert code == MISUSE
    assert why in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["missing.mig"], "missing.mig: No such file or directory"),
        (["."], ".: Is a directory"),
        ([], "Missing argument 'FILE'"),
        (["vm.mig", "--extract", "ram0"], "--extract and --output go together"),
        (["vm.mig", "--output", "out"], "--extract and --output go together"),
        (["-", "--diff", "-"], "standard input holds one stream"),
        (["vm.mig", "--extract", "ram0", "-o", "/dev/null"], "regular file only"),
        (["vm.mig", "--json", "missing/out.json"], "missing/out.json: No such file"),
    ],
)
def test_misuse_is_one_line(vfiomig: Vfiomig, arguments: list[str], why: str) -> None:
    written(a_vm())
    code, _, errors = vfiomig("stream", *arguments)
    assert code == MISUSE
    assert why in errors
    assert len(errors.splitlines()) == 1


def test_names_of_a_stream_are_printed_plain(vfiomig: Vfiomig) -> None:
    name = b"\x1b[2J\n\xff/vfio"
    stream = HEADER + vfio_start(3, name) + END_OF_FILE
    for view in ([], ["--vfio"], ["--ram"], ["--tree"]):
        code, output, _ = vfiomig("stream", written(stream), *view)
        assert code == DONE
        assert "\x1b" not in output
    told = facts(vfiomig, "vm.mig")
    assert told["sections"][1]["name"] == "\x1b[2J\n\\udcff/vfio"
