"""Steps that a XenStore and its model take side by side, compared after each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.property.xenstore_model import Model
from vfiomig.vm.xen.xenstore import XenStore

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

GUEST: Final = 1
DOMAINS: Final = (0, 0, 1, 1, 1, 1, 2)
PATHS: Final = (
    *(("a", "/local/domain/1/a", "/local/domain/1/a/b") * 4),
    *("a/b", "a/b/c", "d", "/local/domain/1/a/b/c", "/local/domain/1/d/e"),
    *("/local/domain/1", "/local/domain/2/a", "/g", "/", "/local"),
)
BAD_PATHS: Final = ("", "a//b", "a/", "b@", "/" + "x" * 3072, "y" * 2049)
VALUES: Final = (b"", b"1", b"2", b"value", *(b"3",) * 8, bytes(2048), bytes(2049))
PERMS: Final = (
    *("n1", "b1 n0", "b0", "r0 w1", "n1 r2", "r1 n2 b2", "n2", "n0 b1 b2"),
    *("n1", "n1 b2", "r1", "w1 r2"),
    *("", "x1", "n", "n1 r1 r2 r3 r4 r5"),
)
READS: Final = ("read", "directory", "get_perms")
ENDS: Final = ("commit", "abort")
OPERATIONS: Final = (
    *(("write",) * 8),
    *(("start",) * 6),
    *(("rm",) * 4),
    *(("mkdir", "set_perms", "watch", "commit") * 2),
    *READS,
    *("unwatch", "reset_watches", "move", "abort"),
)


class Step(NamedTuple):
    """An operation; ``which`` chooses an open transaction, or none, modulo."""

    operation: str
    domid: int
    which: int
    path: str
    choice: int


class Taken(NamedTuple):
    """What a sequence was: its operations, and transactions open at each, summed."""

    operations: int
    open_transactions: int


def some_step(rng: random.Random) -> Step:
    """Return a step, most often one that can be taken."""
    paths = PATHS if rng.random() < 0.95 else BAD_PATHS
    return Step(
        rng.choice(OPERATIONS),
        rng.choice(DOMAINS),
        rng.randrange(64),
        rng.choice(paths),
        rng.randrange(64),
    )


def take(steps: Iterable[Step]) -> Taken:
    """Take the steps with both, from the same beginning."""
    both = Both()
    operations = open_transactions = 0
    for step in steps:
        both.take(step)
        operations += 1
        open_transactions += len(both.model.open)
    both.compare_nodes({0, *both.model.open})
    return Taken(operations, open_transactions)


class Both:
    """A store and its model."""

    def __init__(self) -> None:
        self.store = XenStore(GUEST)
        self.model = Model()
        home = f"/local/domain/{GUEST}"
        for each in (self.store, self.model):
            each.write(0, 0, home, b"")
            each.set_perms(0, 0, home, ["n1", "r2"])

    def take(self, step: Step) -> None:
        step = self.of_whom(step)
        if step.operation == "move":
            data = self.store.serialize()
            self.store = XenStore.deserialize(data, GUEST)
            self.model.move(GUEST)
            assert self.store.serialize() == data
        else:
            assert self.asked(self.store, step) == self.asked(self.model, step), step
            self.compare_events(step)
        self.compare_nodes({0, self.chosen})

    def transaction(self, step: Step) -> int:
        own = [n for n, each in self.model.open.items() if each.domid == step.domid]
        if step.operation in ENDS:
            own = own or [0]
            return own[step.which % len(own)] if step.which < 60 else 99
        choices = [*own, *own, *own, 0, 0, 0, *list(self.model.open)[:1]]
        return choices[step.which % len(choices)] if step.which < 62 else 99

    def of_whom(self, step: Step) -> Step:
        """Let a transaction be ended by its owner, if it can be."""
        if step.operation not in ENDS or not self.model.open or step.which > 60:
            return step
        owners = [each.domid for each in self.model.open.values()]
        return step._replace(domid=owners[step.which % len(owners)])

    def asked(self, party: XenStore | Model, step: Step) -> Any:
        try:
            return self.call(party, step)
        except OSError as error:
            return f"errno {error.errno}"

    def call(self, party: XenStore | Model, step: Step) -> Any:
        tx = self.chosen if isinstance(party, Model) else self.choose(step)
        domid, path, token = step.domid, step.path, f"t{step.choice % 3}"
        store = isinstance(party, XenStore)
        match step.operation:
            case "read" | "directory" | "get_perms" | "rm" | "mkdir":
                return getattr(party, step.operation)(domid, tx, path)
            case "write":
                value = VALUES[step.choice % len(VALUES)]
                return party.write(domid, tx, path, value)
            case "set_perms":
                perms = PERMS[step.choice % len(PERMS)].split()
                return party.set_perms(domid, tx, path, perms)
            case "watch" | "unwatch":
                given = (domid, tx, path, token) if store else (domid, path, token)
                return getattr(party, step.operation)(*given)
            case "reset_watches":
                return party.reset_watches(domid) if step.choice < 8 else None
            case "start":
                return self.start(party, domid, tx if step.choice < 4 else 0)
            case operation:
                return party.transaction_end(domid, tx, operation == "commit")

    chosen = 0
    started = 0

    def choose(self, step: Step) -> int:
        self.chosen = self.transaction(step)
        return self.chosen

    def start(self, party: XenStore | Model, domid: int, tx: int) -> None:
        if isinstance(party, XenStore):
            self.started = party.transaction_start(domid, tx)
            assert self.started not in {0, 1, *self.model.open}
        else:
            party.transaction_start(domid, tx, self.started)

    def compare_events(self, step: Step) -> None:
        """Compare what watches said; the order of siblings is nobody's to say."""
        for domid in sorted(set(DOMAINS)):
            said = []
            while event := self.store.next_event(domid):
                said.append(tuple(event))
            told = [each[1:] for each in self.model.events if each[0] == domid]
            if step.operation in ("rm", "commit"):
                said, told = sorted(said), sorted(told)
            assert said == told, (step, domid)
        self.model.events.clear()

    def compare_nodes(self, which: set[int]) -> None:
        """Compare all that can be seen in these transactions; 0: in none."""
        assert self.store.nodes == len(self.model.main.nodes)
        worlds = {0: self.model.main, **self.model.open}
        for tx in which & worlds.keys():
            world = worlds[tx]
            for path in {*world.nodes, *world.gone, *self.model.main.nodes}:
                for operation in READS:
                    step = Step(operation, world.domid, 0, path or "/", 0)
                    seen = self.seen(self.store, step, tx)
                    assert seen == self.seen(self.model, step, tx), (step, tx)

    def seen(self, party: XenStore | Model, step: Step, tx: int) -> Any:
        try:
            return getattr(party, step.operation)(step.domid, tx, step.path)
        except OSError as error:
            return f"errno {error.errno}"
