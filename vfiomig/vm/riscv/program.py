"""The guest program, put into RAM, and what its RAM tells of it.

What a hart does is its `Role`.  It all is in RAM, registers and the timer: who carries
these over, and nothing else, sees each hart go on; who does not, sees it here.
"""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.riscv import kernel
from vfiomig.vm.riscv.assembler import assemble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.vm.memory import GuestMemory
    from vfiomig.vm.riscv.hart import Hart

_WORD: Final = 8


class Role(enum.Enum):
    """What a hart does once the guest is booted."""

    USER = "user"  # counts in U mode, and calls the kernel now and then
    SUPERVISOR = "supervisor"  # counts in S mode, and takes timer interrupts
    WAITING = "waiting"  # WFI in S mode, woken by its timer each millisecond
    STOPPED = "stopped"  # counts a little, then stops itself (SBI hart_stop)
    NEVER_STARTED = "never-started"


_NUMBERS: Final = {role: number for number, role in enumerate(Role)}


class Panic(NamedTuple):
    """A trap that the kernel does not expect: scause and sepc."""

    cause: int
    pc: int


class Progress(NamedTuple):
    """What a hart did since the last boot, and what ever befell it.

    ``loops`` counts in either mode, ``ticks`` timer interrupts, ``wakeups`` the ends of
    WFI by the timer.  ``returned``: hart_stop came back, which it never does.
    ``reached``: it is in its role, or was.
    """

    loops: int
    ecalls: int
    ticks: int
    wakeups: int
    panic: Panic | None
    returned: bool
    reached: bool


class Facts(NamedTuple):
    """What is in the guest's RAM; ``boots`` is 1 unless a second hart booted."""

    boots: int
    harts: tuple[Progress, ...]


def load_program(memory: GuestMemory, roles: Sequence[Role]) -> int:
    """Put the program into RAM; hart ``i`` has ``roles[i]``.

    Return the entry: hart 0 begins there, in S mode, a0 its id and a1 `kernel.ROLES`.
    RAM is that of `GuestMemory.of_virt`.  Marks the migration's log: QEMU writes it.

    Raises:
        ValueError: no role, too many, or hart 0 is never to be started; RAM is too
            small, or not where it should be.
    """
    if not 0 < len(roles) <= kernel.MOST_HARTS:
        message = f"{len(roles)} harts: 1 to {kernel.MOST_HARTS} can be"
        raise ValueError(message)
    if roles[0] is Role.NEVER_STARTED:
        message = "hart 0 boots the guest: it cannot be never-started"
        raise ValueError(message)
    try:
        memory.pieces(kernel.ENTRY, kernel.END - kernel.ENTRY)
    except OSError as error:
        message = f"the guest program does not fit: {error.strerror}"
        raise ValueError(message) from None
    texts = _assembled()
    table = [len(roles), *(_NUMBERS[role] for role in roles)]
    for gpa, data in (
        (kernel.ENTRY, texts[0]),
        (kernel.USER_PROGRAM, texts[1]),
        (kernel.ROLES, b"".join(word.to_bytes(_WORD, "little") for word in table)),
        (kernel.BOOTS, bytes(_WORD)),
    ):
        memory.write(gpa, data, LogUser.MIGRATION)
    return kernel.ENTRY


def roles_of(memory: GuestMemory) -> tuple[Role, ...]:
    """Return the roles that are in a guest's RAM.

    Raises ``ValueError`` if there are none that `load_program` wrote.
    """
    count, *numbers = _words(memory, kernel.ROLES, 1 + kernel.MOST_HARTS)
    by_number = tuple(Role)
    known = all(number < len(by_number) for number in numbers[:count])
    if not 0 < count <= kernel.MOST_HARTS or not known:
        message = f"no table of roles at {kernel.ROLES:#x}"
        raise ValueError(message)
    return tuple(by_number[number] for number in numbers[:count])


def read_progress(memory: GuestMemory, hart_count: int) -> Facts:
    """Return what the guest's RAM tells of its harts.

    Raises ``ValueError`` for a count that is none.
    """
    if not 0 <= hart_count <= kernel.MOST_HARTS:
        message = f"{hart_count} harts: at most {kernel.MOST_HARTS} can be"
        raise ValueError(message)
    (boots,) = _words(memory, kernel.BOOTS, 1)
    return Facts(boots, tuple(_progress(memory, at) for at in range(hart_count)))


def is_settled(memory: GuestMemory, harts: Sequence[Hart]) -> bool:
    """Whether each hart reached its role; ``harts`` are in the order of their ids."""
    facts = read_progress(memory, len(harts))
    for hart, progress, role in zip(harts, facts.harts, roles_of(memory), strict=True):
        should_stand = role in (Role.STOPPED, Role.NEVER_STARTED)
        should_reach = role is not Role.NEVER_STARTED
        if hart.is_stopped is not should_stand or progress.reached is not should_reach:
            return False
    return True


def _progress(memory: GuestMemory, at: int) -> Progress:
    area = _named(memory, kernel.AREAS + at * kernel.AREA_SIZE, kernel.AREA)
    counters = at * kernel.COUNTERS_SIZE
    done = _named(memory, kernel.COUNTERS + counters, kernel.HART_COUNTERS)
    done["loops"] += _words(memory, kernel.USER_COUNTERS + counters, 1)[0]
    return Progress(
        **done,
        panic=Panic(area["cause"], area["pc"]) if area["panicked"] else None,
        returned=bool(area["returned"]),
        reached=bool(area["reached"]),
    )


def _named(memory: GuestMemory, gpa: int, names: Sequence[str]) -> dict[str, int]:
    return dict(zip(names, _words(memory, gpa, len(names)), strict=True))


def _words(memory: GuestMemory, gpa: int, count: int) -> list[int]:
    data = memory.read(gpa, count * _WORD)
    return [
        int.from_bytes(data[at : at + _WORD], "little")
        for at in range(0, len(data), _WORD)
    ]


@functools.cache
def _assembled() -> tuple[bytes, bytes]:
    """Return the kernel and the user program."""
    texts = (kernel.KERNEL, kernel.ENTRY), (kernel.USER, kernel.USER_CODE)
    first, second = (assemble(text, at, kernel.SYMBOLS)[0] for text, at in texts)
    return _bytes(first), _bytes(second)


def _bytes(words: list[int]) -> bytes:
    return b"".join(word.to_bytes(4, "little") for word in words)
