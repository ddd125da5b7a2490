"""A process that holds conversations, so that a driver may do to it what it likes.

A driver that hangs, in Python or in C, exits, or crashes, takes its worker with it.
What it was asked last is known by a page of memory that both processes see.
"""

from __future__ import annotations

import contextlib
import gc
import json
import mmap
import multiprocessing
import os
import signal
import struct
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vfiomig.conformance.appetite import limit_heap
from vfiomig.conformance.conversation.steps import Step
from vfiomig.conformance.deadly import words_of
from vfiomig.conformance.parent import die_with

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from vfiomig.conformance.holding import Bench, Job, Report
    from vfiomig.conformance.ruling import Broken
    from vfiomig.protocol.errors import DriverLostError
    from vfiomig.protocol.history import Record

_FORK: Final = multiprocessing.get_context("fork")
_PAGE_SIZE: Final = 1 << 20
_LAST: Final = struct.Struct("<Q8sQQQ")  # beats, access, offset, size, number
_STEPS_AT: Final = 64
_LENGTH: Final = struct.Struct("<Q")
_PRINTED_LIMIT: Final = 4000

PATIENCE: Final = 8.0  # seconds that one access may take
PATIENCE_NO_MORE: Final = 3.0  # ... once a driver has hung
_GLANCE: Final = 0.5
_STARVED: Final = 10  # times the patience, for one that is given no processor
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDied:
    """A worker that ended: how, at which access, and behind which steps.

    ``number`` counts the accesses of the conversation, that one included.  ``history``
    is that of the conversation, as far as it could be taken again; its last access is
    the deadly one, by which ``fatal`` rules are broken, and others were before.
    """

    how: str
    access: str
    steps: tuple[Step, ...]
    number: int = 0
    printed: str = ""
    history: tuple[Record, ...] = ()
    broken: dict[str, Broken] = field(default_factory=dict)
    fatal: dict[str, Broken] = field(default_factory=dict)


class _Notice:
    """What the worker was asked last, in memory that outlives it."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, _PAGE_SIZE)
        self._beats = 0
        self._number = 0
        self._end = 0

    def begin(self, access: str, offset: int, size: int) -> None:
        self._beats += 1
        self._number += 1
        name = access.encode()[:8]
        _LAST.pack_into(self._page, 0, self._beats, name, offset, size, self._number)

    def told(self, each: Step) -> None:
        line = json.dumps([each.name, *each.arguments]).encode() + b"\n"
        begin = _STEPS_AT + self._end
        if begin + len(line) <= _PAGE_SIZE:
            self._page[begin : begin + len(line)] = line
            self._end += len(line)
            _LENGTH.pack_into(self._page, _LAST.size, self._end)

    def forget(self) -> None:
        """Begin another conversation."""
        self._number = self._end = 0
        _LENGTH.pack_into(self._page, _LAST.size, 0)

    def beats(self) -> int:
        return int(_LAST.unpack_from(self._page)[0])

    def access(self) -> str:
        _, name, offset, size, _ = _LAST.unpack_from(self._page)
        return words_of(name.rstrip(b"\0").decode("ascii", "replace"), offset, size)

    def number(self) -> int:
        return int(_LAST.unpack_from(self._page)[-1])

    def steps(self) -> tuple[Step, ...]:
        (length,) = _LENGTH.unpack_from(self._page, _LAST.size)
        end = min(_STEPS_AT + length, _PAGE_SIZE)
        lines = self._page[_STEPS_AT:end].splitlines()
        plain = [json.loads(line) for line in lines]
        return tuple(Step(name, tuple(rest)) for name, *rest in plain)

    def close(self) -> None:
        self._page.close()


def work(
    bench: Bench, jobs: list[Job], *, patience: float = PATIENCE
) -> Iterator[tuple[int, Report | None]]:
    """Do jobs in another process; yield (job number, report), then (number, None).

    Raises:
        WorkerEndedError: it died or hung; jobs from the one in hand on are not done.
    """
    notice = _Notice()
    ours, theirs = _FORK.Pipe(duplex=False)
    with tempfile.TemporaryFile() as output:
        process = _FORK.Process(
            target=_run,
            args=(bench, jobs, theirs, notice, output.fileno(), os.getpid()),
            daemon=True,
        )
        process.start()
        theirs.close()
        try:
            yield from _reports(ours, process, notice, output.fileno(), patience)
        finally:
            if process.is_alive():
                process.kill()
            process.join()
            process.close()
            ours.close()
            notice.close()


class WorkerEndedError(Exception):
    """A worker ended before its jobs were done."""

    def __init__(self, died: WorkerDied) -> None:
        super().__init__(died.how)
        self.died = died


def _reports(
    ours: Connection,
    process: Any,
    notice: _Notice,
    output: int,
    patience: float,
) -> Iterator[tuple[int, Report | None]]:
    silence = _Silence(process.pid, patience)
    while True:
        if ours.poll(min(_GLANCE, patience / 4)):
            try:
                message = ours.recv()
            except EOFError:
                break
            if message is None:
                return
            if isinstance(message, _Lost):
                died = _died(message.how, notice, output)
                if message.access == "close":  # known at the access behind it
                    died = replace(died, access=message.access)
                raise WorkerEndedError(died)
            yield message
            silence.begin(notice.beats())
        elif notice.beats() != silence.beats:
            silence.begin(notice.beats())
        elif silence.is_too_long():
            how = f"it did not answer within {patience:g} seconds"
            raise WorkerEndedError(_died(how, notice, output))
    process.join()
    raise WorkerEndedError(_died(_how_it_ended(process.exitcode), notice, output))


@dataclass(frozen=True, slots=True)
class _Lost:
    """The last message of a worker: the driver is gone, with what held it."""

    how: str
    access: str


class _Silence:
    """How long a worker has made no access.

    A busy machine is no fault of the driver's: one that would go on, but is not given
    the processor, has not been silent.  Half of its patience is enough to have had.
    """

    def __init__(self, pid: int, patience: float) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._patience = patience
        self.begin(-1)

    def begin(self, beats: int) -> None:
        """Start anew: it has made so many."""
        self.beats = beats
        self._since = time.monotonic()
        self._worked_before = self._look()[1]

    def is_too_long(self) -> bool:
        """Tell whether the driver, and not the machine, keeps us waiting."""
        waited = time.monotonic() - self._since
        if waited <= self._patience:
            return False
        state, worked = self._look()
        is_starved = state == "R" and worked - self._worked_before < self._patience / 2
        return not is_starved or waited > _STARVED * self._patience

    def _look(self) -> tuple[str, float]:
        """Return the worker's state, as ps has it, and its seconds of processor."""
        try:
            # The name before may hold anything, a bracket too.
            fields = self._stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            return "Z", 0.0
        return fields[0], (int(fields[11]) + int(fields[12])) / _TICKS


def _died(how: str, notice: _Notice, output: int) -> WorkerDied:
    size = os.fstat(output).st_size
    printed = os.pread(output, _PRINTED_LIMIT, max(0, size - _PRINTED_LIMIT))
    return WorkerDied(
        how=how,
        access=notice.access(),
        steps=notice.steps(),
        number=notice.number(),
        printed=printed.decode("utf-8", "replace"),
    )


class _Printed:
    """What goes to standard output and standard error, a stretch at a time."""

    def __init__(self, output: int) -> None:
        self._output = output
        self._end = 0

    def since(self) -> str:
        """Return what was printed since this was asked the last time."""
        sys.stdout.flush()
        sys.stderr.flush()
        size = os.fstat(self._output).st_size
        begin = max(self._end, size - _PRINTED_LIMIT)
        self._end = size
        text = os.pread(self._output, size - begin, begin)
        return text.decode("utf-8", "replace")


def _print_to(output: int) -> None:
    """Let all that the driver prints go there, a line at a time: it may not end well.

    A test runner may have put something else in the place of ``sys.stdout``.
    """
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = open(1, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"it was killed by {signal.Signals(-code).name}"
    return f"it ended the process with status {code}"


def _run(
    bench: Bench,
    jobs: list[Job],
    theirs: Connection,
    notice: _Notice,
    output: int,
    parent: int,
) -> None:
    """Be the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    die_with(parent)
    _print_to(output)
    limit_heap()
    gc.freeze()  # what the parent made is nobody's garbage here
    bench.begin = notice.begin
    bench.told = notice.told
    bench.ended = notice.forget
    bench.printed = _Printed(output).since

    def lose(death: DriverLostError) -> None:
        theirs.send(_Lost(death.error, death.access))
        os._exit(0)  # hypothesis would hold the conversation once more

    bench.lost = lose
    for number, job in enumerate(jobs):
        for report in bench.perform(job):
            theirs.send((number, report))
        theirs.send((number, None))
    theirs.send(None)
    theirs.close()
