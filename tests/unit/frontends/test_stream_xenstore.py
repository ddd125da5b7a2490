"""`vfiomig stream` on a Xen guest's store.

The stores are QEMU's own (tests/data/xenstore-golden.json) or made by hand, byte by
byte; what they hold is what the scripts say that led to them.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.unit.frontends.stream_files import (
    END_OF_FILE,
    FULL,
    HEADER,
    described,
    section,
)
from vfiomig.frontends.exit_codes import DONE, MISUSE
from vfiomig.protocol.qemu_stream.xen_sections import describe, full_section
from vfiomig.protocol.qemu_stream.xen_state import (
    XenEventChannels,
    XenOverlay,
    XenPort,
    XenStoreDevice,
    XenVcpu,
)

if TYPE_CHECKING:
    from tests.unit.frontends.conftest import Vfiomig
    from vfiomig.protocol.qemu_stream.xen_state import XenPart

DATA: Final = Path(__file__).parents[2] / "data"
VECTORS: Final = {
    name: bytes.fromhex(text)
    for name, text in json.loads((DATA / "xenstore-golden.json").read_text()).items()
}


def be32(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


# Of the stream: header, the section's head, all of the payload before the store.
STORE_AT: Final = 8 + 26 + 8242
ROOT: Final = b"\0" + be32(0) + b"n0\0\0"  # no children yet


def written(*parts: XenPart) -> str:
    full = [full_section(number, 0, part) for number, part in enumerate(parts)]
    told = described(*[describe(0, part) for part in parts])
    Path("xen.mig").write_bytes(HEADER + b"".join(full) + END_OF_FILE + told)
    return "xen.mig"


def store(data: bytes, events: bytes = b"") -> str:
    return written(XenStoreDevice(impl_state=data, events=events))


def shown_by(vfiomig: Vfiomig, *arguments: str) -> str:
    """Return what is printed; of a damaged store one line tells, behind all."""
    code, output, errors = vfiomig("stream", *arguments)
    if code == MISUSE:
        assert "of the stream: xen_xenstore: " in errors
        assert errors.count("\n") == 1
    else:
        assert (code, errors) == (DONE, "")
    return output


def row_of(vfiomig: Vfiomig, file: str) -> str:
    output = shown_by(vfiomig, file)
    (row,) = [line for line in output.splitlines() if " xen_xenstore " in line]
    return row.partition(" xen_xenstore ")[2].strip()


def tree_of(vfiomig: Vfiomig, file: str, *options: str) -> str:
    """Return what stands below the size of the store."""
    output = shown_by(vfiomig, file, "--tree", "xen_xenstore", *options)
    return output.partition("impl_state_size")[2].partition("\n")[2]


def facts_of(vfiomig: Vfiomig, file: str) -> Any:
    output = shown_by(vfiomig, file, "--json", "-")
    (told,) = [row for row in json.loads(output)["sections"] if row["xenstore"]]
    assert told["name"] == "xen_xenstore"
    return told["xenstore"]


def node(name: bytes, content: bytes = b"", flags: int = 0) -> bytes:
    """Return a child without children of its own."""
    return name + b"\0" + bytes([flags]) + be32(len(content)) + content + b"n1\0\0\0"


# --- stores of QEMU -------------------------------------------------------------------


def test_a_store_is_shown_as_a_tree(vfiomig: Vfiomig) -> None:
    # write 1 2 attr/y yy and rm 1 2 attr/x in the transaction; /attr/x is watched, and
    # attr, relative, by the token tok.
    assert tree_of(vfiomig, store(VECTORS["g1_3"], b"attr\0tok\0\0")) == (
        "  impl_state: a store of 256 bytes\n"
        "    tree 1: 6 nodes; the last id given is 2\n"
        "      / [n0]\n"
        "        local [n0]\n"
        "          domain [n0]\n"
        "            1 [n0,r1]\n"
        '              attr [n1] "hello"\n'
        '                x [n1] "2"\n'
        "    1 transaction\n"
        "      transaction 2 of domain 1, begun at 1: 2 nodes differ from tree 1\n"
        "        deleted /local/domain/1/attr/x [n1] (modified)\n"
        '        new /local/domain/1/attr/y [n1] "yy" (modified)\n'
        "    2 watches\n"
        '      "/local/domain/1/attr/x" "abs"\n'
        '      "attr" "tok"\n'
        "  subsection xen_xenstore/watch_events, version 1\n"
        "    events_size (uint32) 10 (0xa)\n"
        "    events: 1 watch event for the guest\n"
        '      "attr" "tok"\n'
    )


def test_a_transaction_is_told_by_what_differs(vfiomig: Vfiomig) -> None:
    # Transactions 2 and 3 began at tree 1; then the main tree got b/d and became 4.
    shown = tree_of(vfiomig, store(VECTORS["g3_1"]))
    assert shown.partition("    2 transactions\n")[2] == (
        "      transaction 2 of domain 1, begun at 1: 2 nodes differ from tree 4\n"
        '        changed /local/domain/1/a [n1] "9" (modified)\n'
        '        missing /local/domain/1/b/d [n1] "3"\n'
        "      transaction 3 of domain 1, begun at 1: 2 nodes differ from tree 4\n"
        '        missing /local/domain/1/b/d [n1] "3"\n'
        '        new /local/domain/1/b/e [n1] "4" (modified)\n'
        "    0 watches\n"
    )


@pytest.mark.parametrize(
    ("name", "words", "counts"),
    [
        ("g1_0", "1 node, 0 transactions, 0 watches", (23, 1, 0, 0)),
        ("g1_1", "5 nodes, 0 transactions, 0 watches", (91, 5, 0, 0)),
        ("g1_3", "6 nodes, 1 transaction, 2 watches", (256, 6, 1, 2)),
        ("g3_1", "8 nodes, 2 transactions, 0 watches", (324, 8, 2, 0)),
    ],
)
def test_a_store_is_summed_up(
    vfiomig: Vfiomig, name: str, words: str, counts: tuple[int, ...]
) -> None:
    assert row_of(vfiomig, store(VECTORS[name])) == f"9 fields, {words}"
    keys = ("bytes", "nodes", "transactions", "watches")
    assert facts_of(vfiomig, "xen.mig") == {
        **dict(zip(keys, counts, strict=True)),
        "events": 0,
        "damage": None,
    }


def test_events_that_wait_are_counted(vfiomig: Vfiomig) -> None:
    events = b"attr\0tok\0attr/x\0tok\0\0"
    row = row_of(vfiomig, store(VECTORS["g1_0"], events))
    assert row == (
        "9 fields, 1 subsection, 1 node, 0 transactions, 0 watches, 2 watch events"
    )
    assert facts_of(vfiomig, "xen.mig")["events"] == 2


def test_the_other_sections_are_shown_by_their_fields(vfiomig: Vfiomig) -> None:
    ports = (XenPort(0, 0, 0), XenPort(1, 4, 0))
    file = written(XenOverlay(0xFEFF_0000), XenEventChannels(ports=ports), XenVcpu())
    output = vfiomig("stream", file, "--tree", "xen")[1]
    for line in (
        "xen_overlay (instance 0, version 1) at 0x8",
        "  shinfo_gpa (uint64) 4278124544 (0xfeff0000)",
        "  long_mode (bool) false",
        "xen_evtchn (instance 0, version 1) at 0x2f",
        "  port_table[1]: xen_evtchn_port",
        "    type (uint16) 4",
        "  env.xen_vcpu_callback_vector (uint8) 0",
    ):
        assert f"\n{line}\n" in output


# --- many, and strange ----------------------------------------------------------------


def test_a_long_list_is_cut_and_counted_unless_all_is_wanted(vfiomig: Vfiomig) -> None:
    nodes = b"".join(node(f"n{number:03}".encode()) for number in range(99))
    more = b"".join(node(f"m{number:03}".encode(), b"new") for number in range(80))
    watches = b"".join(f"w{number}\0token\0".encode() for number in range(70))
    # The transaction begins as a reference could not: all anew, and its own besides.
    file = store(
        be32(2, 1)
        + (ROOT + nodes + b"\0")
        + (be32(1, 1, 2) + ROOT + nodes + more + b"\0")
        + (be32(0) + watches + b"\0")
    )
    assert "100 nodes, 1 transaction, 70 watches" in row_of(vfiomig, file)
    shown = tree_of(vfiomig, file)
    assert shown.count("\n        n0") == 63  # and the root
    assert "        n062 [n1]\n      ... and 36 more nodes\n    1 tr" in shown
    assert "1: 80 nodes differ from tree 1\n        new /m000" in shown
    assert '/m063 [n1] "new"\n        ... and 16 more nodes\n    70 w' in shown
    assert shown.endswith('      "w63" "token"\n      ... and 6 more pairs\n')
    everything = tree_of(vfiomig, file, "--all")
    assert everything.count("\n") == 1 + 1 + 100 + 1 + 1 + 80 + 1 + 70
    assert "more" not in everything


def test_a_node_that_was_written_anew_or_went_with_its_parent_is_told(
    vfiomig: Vfiomig,
) -> None:
    # "same" is written with what it had; "top" is removed, what is below not said.
    top = b"top\0\0" + be32(0) + b"n1\0\0"
    main = node(b"same", b"1") + top + node(b"below", b"2") + b"\0"
    own = node(b"same", b"1", flags=1) + node(b"top", flags=2)
    file = store(
        be32(2, 1)
        + (ROOT + main + b"\0")
        + (be32(1, 1, 2) + ROOT + own + b"\0")
        + (be32(0) + b"\0")
    )
    assert tree_of(vfiomig, file).partition("begun at 1: ")[2] == (
        "3 nodes differ from tree 1\n"
        '        changed /same [n1] "1" (modified)\n'
        "        deleted /top [n1]\n"
        '        deleted /top/below [n1] "2"\n'
        "    0 watches\n"
    )


def test_what_trees_share_does_not_count(vfiomig: Vfiomig) -> None:
    nodes = b"".join(node(f"n{number}".encode()) for number in range(5000))
    again = b"".join(be32(1, 1, number) + b"\4" + be32(1) for number in range(2, 66))
    file = store(be32(65, 1) + ROOT + nodes + b"\0" + again + be32(0) + b"\0")
    shown = tree_of(vfiomig, file)
    assert shown.count("begun at 1: 0 nodes differ from tree 1\n") == 64
    assert shown.endswith(" 0 nodes differ from tree 1\n    0 watches\n")


def test_all_goes_with_a_tree(vfiomig: Vfiomig) -> None:
    code, _, errors = vfiomig("stream", store(VECTORS["g1_0"]), "--all")
    assert code == MISUSE
    assert "--all goes with --tree" in errors


def test_what_does_not_print_is_shown_plain(vfiomig: Vfiomig) -> None:
    content = b'\x1b[31mstate verified\n\xff"' + b"x" * 60
    file = store(
        be32(1, 1) + ROOT + node(b"a", content) + b"\0" + be32(0) + b"w\0\x1b\0\0"
    )
    shown = tree_of(vfiomig, file)
    assert "\x1b" not in shown
    assert '        a [n1] "\\x1b[31mstate-verified\\x0a\\xff\\x22xxx' in shown
    assert f'xxx"... ({len(content) - 60} more)\n' in shown
    assert '      "w" "\\x1b"\n' in shown


@pytest.mark.parametrize(
    "options", [[], pytest.param(["--all"], marks=pytest.mark.slow)]
)
def test_trees_that_share_without_end_are_told_to_an_end(
    vfiomig: Vfiomig, options: list[str]
) -> None:
    # 9 bytes say once more what 20,000 nodes are.
    nodes = b"".join(node(f"n{number}".encode()) for number in range(20_000))
    again = b"".join(be32(1, 1, number) + b"\4" + be32(2) for number in range(3, 3000))
    first = be32(1, 1, 2) + ROOT + nodes + b"\0"
    file = store(be32(3000, 1) + ROOT + b"\0" + first + again + be32(0) + b"\0")
    shown = tree_of(vfiomig, file, *options)
    assert "      ... and more: the trees share too much to be told\n" in shown
    assert shown.count("\n") < (1 << 18) + 200


# --- damaged --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "at", "reason"),
    [
        (VECTORS["g1_1"] + b"x", 91, "1 bytes behind the end of the store"),
        (VECTORS["g1_1"][:-1], 90, "the store ends within a watch"),
        (b"\0", 1, "the store ends within the last transaction's id"),
        (be32(1, 1) + b"\x08" + VECTORS["g1_0"][9:], 8, "flags 0x8 of a node"),
    ],
)
def test_a_damaged_store_is_told_by_its_byte(
    vfiomig: Vfiomig, data: bytes, at: int, reason: str
) -> None:
    shown = tree_of(vfiomig, store(data))
    where = f"damaged at byte {at} of it, byte {STORE_AT + at} of the stream"
    size = f"{len(data)} byte" + ("" if len(data) == 1 else "s")
    assert shown == f"  impl_state: a store of {size}\n    {where}: {reason}\n"
    assert row_of(vfiomig, "xen.mig") == "9 fields, the store is damaged"
    assert facts_of(vfiomig, "xen.mig") == {
        "bytes": len(data),
        "nodes": None,
        "transactions": None,
        "watches": None,
        "events": 0,
        "damage": {"position": STORE_AT + at, "reason": reason},
    }
    code, _, errors = vfiomig("stream", "xen.mig")
    assert code == MISUSE
    place = f"xen.mig: byte {STORE_AT + at} of the stream: xen_xenstore: {reason}"
    assert errors == f"vfiomig: {place}\n"
    stream = Path("xen.mig").read_bytes()
    assert stream[STORE_AT : STORE_AT + len(data)] == data


def test_damaged_events_are_told_by_their_byte(vfiomig: Vfiomig) -> None:
    whole = VECTORS["g1_0"]
    shown = tree_of(vfiomig, store(whole, b"attr\0to"))
    began = STORE_AT + len(whole) + 2 + len("xen_xenstore/watch_events") + 8
    assert Path("xen.mig").read_bytes()[began : began + 7] == b"attr\0to"
    assert shown.endswith(
        f"    events: damaged at byte 7 of it, byte {began + 7} of the stream: "
        "the store ends within an event\n"
    )
    told = facts_of(vfiomig, "xen.mig")
    assert (told["nodes"], told["events"]) == (1, None)
    assert told["damage"]["position"] == began + 7


def test_a_store_cut_anywhere_or_of_flipped_bytes_is_shown(vfiomig: Vfiomig) -> None:
    whole = VECTORS["g3_1"]
    wrong = [whole[:size] for size in range(1, len(whole), 13)]
    for at in range(0, len(whole), 11):
        wrong.append(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
    told = 0
    for data in wrong:
        told += "damaged at byte" in tree_of(vfiomig, store(data))
    assert told > len(wrong) // 2  # others are another store, of other contents


def test_without_a_byte_there_is_no_store(vfiomig: Vfiomig) -> None:
    file = store(b"")
    assert row_of(vfiomig, file) == "8 fields"
    assert tree_of(vfiomig, file) == ""
    told = facts_of(vfiomig, file)
    assert (told["bytes"], told["nodes"], told["damage"]) == (0, None, None)


@pytest.mark.parametrize(
    ("fields", "payload"),
    [
        ([{"name": "impl_state_size", "type": "uint32", "size": 4}], be32(9)),
        (
            [
                {"name": "impl_state_size", "type": "uint32", "size": 4},
                {"name": "impl_state", "array_len": 2, "type": "int8", "size": 1},
            ],
            be32(2) + b"\xff\xff",
        ),
        ([{"name": "impl_state", "array_len": 2, "type": "uint8", "size": 1}], b"ab"),
    ],
)
def test_a_description_of_another_shape_is_believed(
    vfiomig: Vfiomig, fields: list[dict[str, object]], payload: bytes
) -> None:
    device = {"name": "xen_xenstore", "instance_id": 0, "vmsd_name": "xen_xenstore"}
    told = described({**device, "version": 1, "fields": fields})
    full = section(FULL, 1, payload, b"xen_xenstore")
    Path("xen.mig").write_bytes(HEADER + full + END_OF_FILE + told)
    for view in ([], ["--tree"], ["--json", "-"]):
        code, _, errors = vfiomig("stream", "xen.mig", *view)
        assert (code, errors) == (DONE, "")


@pytest.mark.slow
def test_a_store_that_is_longer_than_any_is_not_read(vfiomig: Vfiomig) -> None:
    size = (64 << 20) + 1
    fields = [
        {"name": "impl_state_size", "type": "uint32", "size": 4},
        {"name": "impl_state", "array_len": size, "type": "uint8", "size": 1},
    ]
    device = {"name": "xen_xenstore", "instance_id": 0, "vmsd_name": "xen_xenstore"}
    told = described({**device, "version": 1, "fields": fields})
    full = section(FULL, 1, be32(size) + bytes(size), b"xen_xenstore")
    Path("xen.mig").write_bytes(HEADER + full + END_OF_FILE + told)
    assert "none has more than 67108864" in tree_of(vfiomig, "xen.mig")


def test_stores_that_differ_are_compared_as_a_whole(vfiomig: Vfiomig) -> None:
    """Not byte by byte: a store has millions."""
    data = max(VECTORS.values(), key=len)
    one = Path(store(data)).rename("one.mig")
    changed = bytearray(data)
    changed[-3] ^= 1  # of the last watch's token
    other = Path(store(bytes(changed))).rename("other.mig")
    code, output, _ = vfiomig("stream", str(one), "--diff", str(other))
    assert code == 1
    where = f"impl_state: 1 byte differs, the first at {len(data) - 3:#x}"
    assert where in output
    assert output.count("  < ") == 1
