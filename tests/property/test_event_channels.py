"""Events by chance, while the pages they go through are replaced, unmapped and moved.

A guest takes what it is told of, a host sends: each event that was not covered by
another is taken once.  A page that nobody sees any more is not written to, and what
was written is in the log.
"""

from __future__ import annotations

import enum
import errno
from typing import Final, TypeAlias

from hypothesis import find, given, settings
from hypothesis import strategies as st

from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.layout import Slot
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.ram_block import PAGE_SIZE, RamBlock
from vfiomig.vm.xen.event_channel import EventChannels, GuestChannels, Outcome
from vfiomig.vm.xen.guest_page import WAYS, CachedPage
from vfiomig.vm.xen.overlay import overlaid, without
from vfiomig.vm.xen.shared_info import LAYOUTS

PORTS: Final = (1, 2, 63, 64, 1000)
PAGES: Final = 8
HOMES: Final = (2 * PAGE_SIZE, 4 * PAGE_SIZE)  # where shared_info may be put
INFO: Final = 6 * PAGE_SIZE
INFO_OFFSET: Final = 128
_NAMES: Final = ("shared", "info")


class Do(enum.Enum):
    """What happens, and to what: a port, or one of the two pages."""

    SEND = enum.auto()
    SERVE = enum.auto()
    MASK = enum.auto()
    UNMASK = enum.auto()
    REPLACE = enum.auto()  # by another page with the same in it
    UNMAP = enum.auto()
    MAP = enum.auto()
    MOVE = enum.auto()  # shared_info alone; the guest says so


Step: TypeAlias = "tuple[Do, int]"


class Silent:
    def inject(self, vcpu: int, vector: int) -> None:
        pass

    def kick(self, vcpu: int) -> None:
        pass

    def set_line(self, *, is_raised: bool) -> None:
        pass


class World:
    """Two pages, each one of two blocks over RAM, and who meets in them."""

    def __init__(self, way: str, bits: int) -> None:
        self.ram = RamBlock("pc.ram", PAGES * PAGE_SIZE)
        self.pages = {
            name: [RamBlock(f"{name}{number}", PAGE_SIZE) for number in range(2)]
            for name in _NAMES
        }
        blocks = [self.ram, *self.pages["shared"], *self.pages["info"]]
        self.memory = GuestMemory(blocks, [Slot(0, self.ram.size, self.ram, 0)])
        for user in (LogUser.KERNEL, LogUser.MIGRATION):
            self.memory.start_log(user)
        self.at = {"shared": HOMES[0], "info": INFO}
        self.shown = {"shared": 0, "info": 0}
        self.unmapped: set[str] = set()
        self.show()
        layout = LAYOUTS[bits]
        self.host = EventChannels(
            self.memory, HOMES[0], layout, Silent(), way=WAYS[way]
        )
        self.host.set_vcpu_info(0, INFO + INFO_OFFSET)
        for port in PORTS:
            self.host.bind(port)
        self.layout = layout
        self.sent = dict.fromkeys(PORTS, 0)
        self.taken = dict.fromkeys(PORTS, 0)
        self.hidden: dict[str, bytes] = {}  # blocks that nobody sees, as they were

    def show(self) -> None:
        slots = [Slot(0, self.ram.size, self.ram, 0)]
        for name in _NAMES:
            block = self.pages[name][self.shown[name]]
            slots = overlaid(slots, self.at[name], block)
            if name in self.unmapped:
                slots = without(slots, self.at[name], PAGE_SIZE)
        self.memory.set_slots(slots)
        seen = {slot.block.idstr for slot in self.memory.slots}
        self.hidden = {
            block.idstr: bytes(block.view)
            for block in self.memory.blocks
            if block.idstr not in seen
        }

    def do(self, step: Step) -> None:
        what, which = step
        name, port = _NAMES[which % 2], PORTS[which]
        match what:
            case Do.SEND:
                self.send(port)
            case Do.SERVE:
                self.serve()
            case Do.MASK | Do.UNMASK if "shared" not in self.unmapped:
                (self.host.mask if what is Do.MASK else self.host.unmask)(port)
            case Do.REPLACE if name not in self.unmapped:
                old, new = self.pages[name][:: 1 - 2 * self.shown[name]]
                new.view[:] = bytes(old.view)
                self.memory.mark(LogUser.MIGRATION, new, 0, PAGE_SIZE)
                self.shown[name] ^= 1
                self.show()
            case Do.UNMAP:
                self.unmapped.add(name)
                self.show()
            case Do.MAP:
                self.unmapped.discard(name)
                self.show()
            case Do.MOVE if "shared" not in self.unmapped:
                self.at["shared"] = HOMES[self.at["shared"] == HOMES[0]]
                self.show()
                self.host.move(self.at["shared"])
            case _:
                pass

    def send(self, port: int) -> None:
        try:
            outcome = self.host.deliver(port)
        except OSError as error:
            if error.errno != errno.EFAULT or "shared" not in self.unmapped:
                raise
            return
        self.sent[port] += outcome is not Outcome.ALREADY_PENDING

    def serve(self) -> None:
        """Serve upcalls, as a guest does that sees both pages."""
        if self.unmapped or not self.host.enter(0):
            return
        guest = GuestChannels(
            self.layout,
            CachedPage(self.memory, self.at["shared"]),
            CachedPage(self.memory, INFO),
            INFO_OFFSET,
        )
        while guest.is_called():
            for port in guest.upcall():
                if port is not None:
                    self.taken[port] += 1

    def settle(self) -> None:
        """Show both pages, unmask all, and let the guest take what it is told of."""
        self.unmapped.clear()
        self.show()
        for port in PORTS:
            self.host.unmask(port)
        self.serve()

    def untouched(self) -> bool:
        """Whether nobody wrote to what nobody sees."""
        return all(
            bytes(self.memory.block(name).view) == before
            for name, before in self.hidden.items()
        )

    def copy(self, into: dict[str, bytearray]) -> None:
        """Copy what is dirty."""
        self.memory.sync(LogUser.KERNEL)
        for block in self.memory.blocks:
            log = self.memory.log(LogUser.MIGRATION, block)
            assert log is not None
            for first, count in log.ranges().tolist():
                at, end = first * PAGE_SIZE, (first + count) * PAGE_SIZE
                into[block.idstr][at:end] = block.view[at:end]
            log.clear_all()


steps = st.lists(
    st.tuples(
        st.sampled_from([Do.SEND, Do.SEND, Do.SERVE, *Do]),
        st.integers(0, len(PORTS) - 1),
    ),
    max_size=40,
)


@given(steps=steps, bits=st.sampled_from(sorted(LAYOUTS)))
@settings(max_examples=150, deadline=None)
def test_a_cached_page_loses_nothing_and_writes_to_no_old_page(
    steps: list[Step], bits: int
) -> None:
    world = World("cached", bits)
    with world.memory:
        copied = {block.idstr: bytearray(block.size) for block in world.memory.blocks}
        for step in steps:
            world.do(step)
            assert world.untouched()
            if step[0] is Do.SERVE:
                world.copy(copied)
        world.settle()
        assert world.taken == world.sent
        world.copy(copied)
        for block in world.memory.blocks:
            assert copied[block.idstr] == block.view


@given(steps=steps)
@settings(max_examples=50, deadline=None)
def test_a_pinned_page_does_as_well_while_it_stays(steps: list[Step]) -> None:
    world = World("pinned", 64)
    with world.memory:
        for step in steps:
            if step[0] in {Do.SEND, Do.SERVE, Do.MASK, Do.UNMASK}:
                world.do(step)
        world.settle()
        assert world.taken == world.sent
        assert world.untouched()


def loses(way: str, steps: list[Step]) -> bool:
    world = World(way, 64)
    with world.memory:
        for step in steps:
            world.do(step)
        is_written = not world.untouched()
        world.settle()
        return is_written and world.taken != world.sent


def test_the_shortest_scenario_in_which_a_pinned_page_loses_an_event() -> None:
    shortest = find(
        steps,
        lambda each: loses("pinned", each),
        settings=settings(max_examples=2000, derandomize=True, database=None),
    )
    assert len(shortest) == 2
    (lets_go, _), (sends, _) = shortest
    assert lets_go in {Do.REPLACE, Do.UNMAP}
    assert sends is Do.SEND
    assert not loses("cached", shortest)


def test_what_a_pinned_page_loses() -> None:
    replaced: list[Step] = [(Do.REPLACE, 0), (Do.SEND, 0)]
    world = World("pinned", 64)
    with world.memory:
        for step in replaced:
            world.do(step)
        old, new = world.pages["shared"]
        assert (old.view[0x800], new.view[0x800]) == (2, 0)
        world.settle()
        assert (world.sent[1], world.taken[1]) == (1, 0)
    assert loses("pinned", replaced)
    assert not loses("cached", replaced)
