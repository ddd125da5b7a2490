from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

import pytest

from tests.unit.serve.programs import LIMIT
from vfiomig.serve.qemu import QemuError, ask_program

if TYPE_CHECKING:
    from pathlib import Path


def has_no_writer(reader: int) -> bool:
    try:
        return os.read(reader, 1) == b""
    except BlockingIOError:  # there is still one
        poller = select.poll()
        poller.register(reader, 0)
        return bool(poller.poll(LIMIT * 1000))


def test_a_program_that_does_not_answer_is_ended_with_all_that_it_runs(
    tmp_path: Path,
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    wrapper = tmp_path / "qemu"
    wrapper.write_text(f"#!/bin/sh\nsleep 1000 > {fifo}\n")
    wrapper.chmod(0o755)
    words = f"^{wrapper} --version did not end in 0.25 seconds$"
    with pytest.raises(QemuError, match=words):
        ask_program(str(wrapper), patience=0.25)
    assert has_no_writer(reader)
    os.close(reader)
