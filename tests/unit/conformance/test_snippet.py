"""A finding's conversation as a program: it asks again what was asked."""

from __future__ import annotations

import contextlib
import io

from vfiomig.conformance.snippet import snippet_of
from vfiomig.protocol.history import Access, BenchEvent, Record

TARGET = "vfiomig.vendor.mutants.data_size:ShrinkingBuffer"


def printed_by(program: str) -> list[str]:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(program, "snippet", "exec"), {})
    return output.getvalue().splitlines()


def test_the_program_gets_the_answers_that_were_recorded() -> None:
    history: list[Record] = [
        BenchEvent("source", "work", amount=3),
        Access("source", "write", 0, 4, "0x3"),
        Access("source", "read", 8, 8, "0x3028"),
        Access("source", "read", 16, 8, "0x1000"),
        Access("source", "read", 24, 8, "0x1038"),
        Access("source", "read", 24, 8, "0x81c"),
        Access("source", "write", 0, 4, "0x5", 22),
        Access("source", "close"),
    ]
    lines = printed_by(snippet_of(TARGET, history))
    assert lines[-2] == f"data_size {(0x1038).to_bytes(8, 'little')!r} was 0x1038"
    assert lines[-1] == f"data_size {(0x81C).to_bytes(8, 'little')!r} was 0x81c"


def test_data_goes_to_the_other_device_by_its_digest() -> None:
    history = [
        Access("source", "read", 4096, 100, "xxh3-128:ab"),
        Access("destination-2", "write", 4096, 100, "xxh3-128:ab"),
    ]
    program = snippet_of(TARGET, history)
    assert "data['xxh3-128:ab'] = source.read(0x1000, 100)" in program
    assert "destination_2 = make_driver()" in program
    assert "destination_2.write(0x1000, data.get('xxh3-128:ab', bytes(100)))" in program


def test_a_name_that_is_no_variable_becomes_one() -> None:
    program = snippet_of(TARGET, [Access("0); import os", "reset")])
    compile(program, "snippet", "exec")
    assert "import os" not in program.partition("data = {}")[2]


def test_without_a_history_there_is_no_program() -> None:
    assert snippet_of(TARGET, []) == ""
