"""Guest memory by chance: logs against sets, a container's bitmap against a loop."""

from __future__ import annotations

from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.layout import Slot
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.ram_block import PAGE_SIZE, RamBlock

PAGES = {"pc.ram": 300, "vga.vram": 130}

# (block, its first page, guest page, pages): a hole, one block in three places and out
# of order, slots that touch, and one that begins with no word and no large page.
PLACES = (
    ("pc.ram", 0, 0, 65),
    ("pc.ram", 65, 130, 35),
    ("vga.vram", 1, 165, 128),
    ("pc.ram", 100, 331, 200),
)
GUEST_PAGES = 540

Dirty: TypeAlias = set[tuple[str, int]]  # blocks' names and pages


def guest() -> GuestMemory:
    blocks = {name: RamBlock(name, pages * PAGE_SIZE) for name, pages in PAGES.items()}
    slots = [
        Slot(gpa * PAGE_SIZE, pages * PAGE_SIZE, blocks[name], first * PAGE_SIZE)
        for name, first, gpa, pages in PLACES
    ]
    return GuestMemory(blocks.values(), slots)


def page_at(gpa: int) -> tuple[str, int] | None:
    """Return the block and page of an address, the slow way."""
    for name, first, start, pages in PLACES:
        if start <= gpa // PAGE_SIZE < start + pages:
            return name, first + gpa // PAGE_SIZE - start
    return None


def held(memory: GuestMemory, user: LogUser) -> Dirty:
    """Read a log bit by bit."""
    found = set()
    for block in memory.blocks:
        log = memory.log(user, block)
        assert log is not None
        number = int.from_bytes(log.words.tobytes(), "little")
        pages = {page for page in range(len(log.words) * 64) if number >> page & 1}
        assert log.count == len(pages)
        found |= {(block.idstr, page) for page in pages}
    return found


runs = st.lists(
    st.tuples(st.integers(0, GUEST_PAGES), st.integers(1, 70)), max_size=4
).map(lambda rows: {page for at, n in rows for page in range(at, at + n)})
# In 512 bytes; often whole pages of the guest.
places = st.one_of(
    st.integers(0, GUEST_PAGES * 8), st.integers(0, GUEST_PAGES).map(lambda n: n * 8)
)
dirty_bits = st.one_of(runs, st.sets(st.integers(0, 600), max_size=30))


@given(
    page_size=st.one_of(
        st.just(PAGE_SIZE),
        st.sampled_from([512, 1024, 2048, 8192, 1 << 14, 1 << 16, 1 << 21]),
    ),
    base=places,
    size=places,
    bits=dirty_bits,
    before=runs,
)
@settings(max_examples=200)
def test_a_containers_bitmap_means_what_a_loop_reads_in_it(
    page_size: int, base: int, size: int, bits: set[int], before: set[int]
) -> None:
    gpa, size = base * 512, size * 512
    pages = -(-size // page_size)
    # Whole words are there, and beyond the size they hold what is not to be believed.
    words = -(-max(pages, *bits, 0) // 64) + 1
    bitmap = sum(1 << bit for bit in bits).to_bytes(words * 8, "little")

    expected: Dirty = set()
    for bit in range(pages):
        if bitmap[bit // 8] >> bit % 8 & 1:
            first = gpa + bit * page_size
            end = min(first + page_size, gpa + size)
            touched = {page_at(byte) for byte in range(first, end, 512)}
            expected |= {page for page in touched if page is not None}

    with guest() as memory:
        memory.start_log(LogUser.MIGRATION)
        known: Dirty = set()
        for page in before:
            if place := page_at(page * PAGE_SIZE):
                memory.write(page * PAGE_SIZE, b"x", LogUser.MIGRATION)
                known.add(place)
        fresh = memory.merge(bitmap, gpa, size, page_size)
        assert held(memory, LogUser.MIGRATION) == known | expected
        assert fresh == len(expected - known)


users = st.sampled_from(LogUser)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("start"), users, st.just(0), st.just(0)),
        st.tuples(st.just("stop"), users, st.just(0), st.just(0)),
        st.tuples(
            st.just("write"),
            users,
            st.integers(0, GUEST_PAGES * PAGE_SIZE),
            st.integers(0, 3 * PAGE_SIZE),
        ),
        st.tuples(
            st.just("sync"),
            st.sampled_from([LogUser.DMA, LogUser.KERNEL]),
            st.just(0),
            st.just(0),
        ),
    ),
    max_size=25,
)


class Oracle:
    """The logs as sets of pages, and the bytes that were written."""

    def __init__(self) -> None:
        self.logs: dict[LogUser, Dirty] = {}

    def start(self, memory: GuestMemory, user: LogUser, _: int, __: int) -> None:
        memory.start_log(user)
        self.logs[user] = set()

    def stop(self, memory: GuestMemory, user: LogUser, _: int, __: int) -> None:
        memory.stop_log(user)
        self.logs.pop(user, None)

    def write(self, memory: GuestMemory, user: LogUser, gpa: int, size: int) -> None:
        touched = {page_at(byte) for byte in range(gpa, gpa + size)}
        try:
            memory.write(gpa, b"\1" * size, user)
        except OSError:
            assert None in touched
            return
        assert None not in touched
        assert memory.read(gpa, size) == b"\1" * size
        if user in self.logs:
            self.logs[user] |= {page for page in touched if page is not None}

    def sync(self, memory: GuestMemory, user: LogUser, _: int, __: int) -> None:
        fresh = memory.sync(user)
        if user in self.logs and LogUser.MIGRATION in self.logs:
            assert fresh == len(self.logs[user] - self.logs[LogUser.MIGRATION])
            self.logs[LogUser.MIGRATION] |= self.logs[user]
            self.logs[user] = set()
        else:
            assert fresh == 0


@given(steps=steps)
@settings(max_examples=60)
def test_the_logs_are_sets_of_pages(
    steps: list[tuple[str, LogUser, int, int]],
) -> None:
    oracle = Oracle()
    with guest() as memory:
        for name, user, gpa, size in steps:
            getattr(oracle, name)(memory, user, gpa, size)
            for logging, pages in oracle.logs.items():
                assert held(memory, logging) == pages
        assert memory.dirty_pages == len(oracle.logs.get(LogUser.MIGRATION, ()))
