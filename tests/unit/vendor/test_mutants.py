"""The museum: every mutant starts, says what it breaks, and can be found.

That the suite finds each of them by its rule is tested where the suite is.
"""

from __future__ import annotations

import ast
import errno
import importlib
import inspect
import pkgutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import pytest

from vfiomig.host.device_fd import DeviceFd
from vfiomig.vendor import mutants
from vfiomig.vendor.mutants import MODULES, every_mutant
from vfiomig.vendor.mutants.mutable import MutableDriver
from vfiomig.vendor.mutants.standalone import StandaloneDriver
from vfiomig.vendor.mutants.standalone_saving import BlockCountWraps
from vfiomig.vendor.reference import ReferenceDriver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.host.device_ops import VendorDriver

CHECKOUT: Final = Path(__file__).parents[3]
BASE: Final = 9 << 40
MUTANTS: Final = every_mutant()
BASES: Final = ("mutable", "standalone")

# The registers and states of kernel_uapi.md, A.1.
DEVICE_STATE, PENDING_BYTES, DATA_OFFSET, DATA_SIZE = 0, 8, 16, 24
STOP, RUNNING, STOP_AND_COPY, PRE_COPY, RESUMING, ERROR = 0, 1, 2, 3, 4, 6


def rules() -> Iterator[str]:
    for file in (CHECKOUT / "specs" / "v1").glob("*.toml"):
        section = tomllib.loads(file.read_text())
        for rule in section.get("rule", ()):
            if rule["party"] == "vendor driver":
                yield f"{section['section']}/{rule['id']}"


RULES: Final = frozenset(rules())


@pytest.mark.parametrize("target", MUTANTS)
def test_every_mutant_opens_and_closes(target: str) -> None:
    driver = cast("VendorDriver", MUTANTS[target]())
    fd = DeviceFd(driver)
    try:
        # A device that cannot even be asked for its state could be found by anything.
        assert len(fd.pread(4, BASE)) == 4
    finally:
        if target.endswith(":CloseRefusedWhileRunning"):
            fd.pwrite(bytes(4), BASE)
        fd.close()


@pytest.mark.parametrize("target", MUTANTS)
def test_every_mutant_names_a_rule_of_the_catalogue(target: str) -> None:
    violates = MUTANTS[target].__dict__["violates"]  # its own, not one inherited
    assert isinstance(violates, frozenset)
    assert violates
    assert violates <= RULES


@pytest.mark.parametrize("target", MUTANTS)
def test_every_mutant_tells_its_bug_in_a_sentence(target: str) -> None:
    text = inspect.cleandoc(MUTANTS[target].__dict__["__doc__"])
    assert text.split("\n")[0].endswith((".", ")."))


@pytest.mark.parametrize("target", MUTANTS)
def test_a_target_leads_to_its_mutant(target: str) -> None:
    module, _, name = target.partition(":")
    assert getattr(importlib.import_module(module), name) is MUTANTS[target]


def test_no_two_mutants_have_one_name() -> None:
    names = [target.partition(":")[2] for target in MUTANTS]
    assert sorted(names) == sorted(set(names))


def test_every_module_of_the_museum_is_listed() -> None:
    found = {module.name for module in pkgutil.iter_modules(mutants.__path__)}
    assert found == {*MODULES, *BASES}


@pytest.mark.parametrize("name", MODULES)
def test_all_is_complete(name: str) -> None:
    module = importlib.import_module(f"{mutants.__name__}.{name}")
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text())
    public = {
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }
    assert public == set(module.__all__)
    assert len(public) == len(module.__all__)


def test_the_museum_has_two_wings() -> None:
    alone = [m for m in MUTANTS.values() if issubclass(m, StandaloneDriver)]
    rest = [m for m in MUTANTS.values() if issubclass(m, MutableDriver)]
    assert len(alone) + len(rest) == len(MUTANTS)
    assert len(alone) >= 20
    assert not issubclass(StandaloneDriver, ReferenceDriver)


class _Open:
    """A device fd with a word for each register."""

    def __init__(self, driver: object) -> None:
        self.fd = DeviceFd(cast("VendorDriver", driver))

    def read(self, register: int) -> int:
        width = 4 if register == DEVICE_STATE else 8
        return int.from_bytes(self.fd.pread(width, BASE + register), "little")

    def write(self, register: int, value: int) -> None:
        width = 4 if register == DEVICE_STATE else 8
        self.fd.pwrite(value.to_bytes(width, "little"), BASE + register)

    def take(self) -> bytes:
        offset, size = self.read(DATA_OFFSET), self.read(DATA_SIZE)
        return self.fd.pread(size, BASE + offset)

    def save(self) -> list[bytes]:
        chunks = []
        while self.read(PENDING_BYTES):
            chunks.append(self.take())
        return chunks

    def load(self, chunks: list[bytes]) -> None:
        self.write(DEVICE_STATE, RESUMING)
        for chunk in chunks:
            self.fd.pwrite(chunk, BASE + self.read(DATA_OFFSET))
            self.write(DATA_SIZE, len(chunk))
        self.write(DEVICE_STATE, RUNNING)


@pytest.mark.parametrize("base", [StandaloneDriver, MutableDriver])
@pytest.mark.parametrize("rounds", [0, 1, 3])
@pytest.mark.parametrize("unread", [False, True])
def test_an_unmutated_driver_migrates(
    base: type[StandaloneDriver | MutableDriver], *, rounds: int, unread: bool
) -> None:
    source, destination = base(), base()
    user, other = _Open(source), _Open(destination)
    source.work(50)
    chunks = []
    if rounds or unread:
        user.write(DEVICE_STATE, PRE_COPY)
    for _ in range(rounds):
        chunks += user.save()
        source.work(7)
    if unread:
        source.work(3)
        assert user.read(PENDING_BYTES)
        user.read(DATA_OFFSET)
    user.write(DEVICE_STATE, STOP_AND_COPY)
    chunks += user.save()
    user.write(DEVICE_STATE, STOP)
    other.load(chunks)
    assert other.read(DEVICE_STATE) == RUNNING
    assert bytes(destination.snapshot()) == bytes(source.snapshot())
    assert any(destination.snapshot())
    user.fd.close()
    other.fd.close()


@pytest.mark.parametrize("damage", ["first", "last", "cut", "empty"])
def test_the_unmutated_standalone_driver_refuses_a_bad_stream(damage: str) -> None:
    source = StandaloneDriver()
    source.work(50)
    user = _Open(source)
    user.write(DEVICE_STATE, STOP_AND_COPY)
    chunks = user.save()
    match damage:
        case "first" | "last":
            at = 0 if damage == "first" else -1
            chunks[at] = chunks[at][:-6] + bytes([chunks[at][-6] ^ 1]) + chunks[at][-5:]
        case "cut":
            del chunks[-1]
        case "empty":
            chunks.clear()
    other = _Open(StandaloneDriver())
    with pytest.raises(OSError) as refused:  # noqa: PT011 - the errno is what counts
        other.load(chunks)
    assert refused.value.errno in (errno.EINVAL, errno.EBADMSG)
    assert other.read(DEVICE_STATE) == RESUMING
    other.fd.ioctl(0x3B6F)
    assert other.read(DEVICE_STATE) == RUNNING


def test_the_unmutated_standalone_driver_gives_an_errno_for_every_odd_access() -> None:
    fd = DeviceFd(cast("VendorDriver", StandaloneDriver()))
    native = {(0, 4), (4, 4), (8, 8), (16, 8), (24, 8)}
    for offset in range(32):
        for size in (1, 2, 4, 8, 12, 32):
            if (offset, size) not in native:
                with pytest.raises(OSError, match="no register"):
                    fd.pread(size, BASE + offset)
                with pytest.raises(OSError, match="no register"):
                    fd.pwrite(bytes(size), BASE + offset)


def test_more_than_255_blocks_are_needed_to_see_a_count_wrap() -> None:
    user = _Open(BlockCountWraps())
    user.write(DEVICE_STATE, STOP_AND_COPY)
    assert len(user.save()) == 261
