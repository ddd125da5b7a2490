"""XenStore said simply: flat dicts, copied whole.  A path is a text, the root "".

To move costs other domains their watches, and makes empty contents none.
"""

from __future__ import annotations

import copy
import errno
import re
from dataclasses import dataclass, field
from typing import NoReturn

Nodes = dict[str, tuple[bytes | None, list[str]]]


def fail(name: str) -> NoReturn:
    raise OSError(getattr(errno, name), name)


@dataclass
class World:
    nodes: Nodes
    domid: int = 0
    version: int = 0
    changed: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)  # as `changed`: of a transaction


def absolute(domid: int, path: str) -> str:
    if path == "/":
        return ""
    if not re.fullmatch("[-A-Za-z0-9_/]*[-A-Za-z0-9_]", path) or "//" in path:
        fail("EINVAL")
    if len(path) > (3072 if path.startswith("/") else 2048):
        fail("E2BIG")
    return path if path.startswith("/") else f"/local/domain/{domid}/{path}"


def parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def allowed(domid: int, perms: list[str], letters: str) -> bool:
    if domid == 0 or int(perms[0][1:]) == domid:
        return True
    letter = perms[0][0]
    for each in perms[1:]:
        if int(each[1:]) == domid:
            letter = each[0]
    return letter in letters


class Model:
    def __init__(self) -> None:
        self.main = World({"": (None, ["n0"])})
        self.open: dict[int, World] = {}
        self.watches: dict[str, list[tuple[int, str, int]]] = {}
        self.events: list[tuple[int, str, str]] = []  # domain, path, token

    def world(self, domid: int, tx: int) -> World:
        if tx == 0:
            return self.main
        if tx not in self.open or self.open[tx].domid != domid:
            fail("ENOENT")
        return self.open[tx]

    def node(self, domid: int, tx: int, path: str, letters: str) -> tuple[World, str]:
        where = absolute(domid, path)
        world = self.world(domid, tx)
        if where not in world.nodes:
            fail("ENOENT")
        if not allowed(domid, world.nodes[where][1], letters):
            fail("EACCES")
        return world, where

    def read(self, domid: int, tx: int, path: str) -> bytes:
        world, where = self.node(domid, tx, path, "rb")
        return world.nodes[where][0] or b""

    def get_perms(self, domid: int, tx: int, path: str) -> list[str]:
        world, where = self.node(domid, tx, path, "rb")
        return list(world.nodes[where][1])

    def directory(self, domid: int, tx: int, path: str) -> list[str]:
        world, where = self.node(domid, tx, path, "rb")
        below = [each for each in world.nodes if each.startswith(where + "/")]
        return sorted({each[len(where) + 1 :].split("/")[0] for each in below})

    def write(self, domid: int, tx: int, path: str, value: bytes) -> None:
        where = absolute(domid, path)
        world = self.world(domid, tx)
        if domid and len(value) > 2048:
            fail("E2BIG")
        way = [*parents(where), where] if where else [""]
        there = [each for each in way if each in world.nodes]
        perms = world.nodes[there[-1]][1]
        if not allowed(domid, perms, "wb"):
            fail("EACCES")
        if domid and way != there and len(world.nodes) + len(way) - len(there) > 1000:
            fail("ENOSPC")
        for each in way[len(there) :]:
            world.nodes[each] = (None, list(perms))
            world.gone.discard(each)
        world.nodes[where] = (value, world.nodes[where][1])
        self.happened(world, where)

    def mkdir(self, domid: int, tx: int, path: str) -> None:
        try:
            self.read(domid, tx, path)
        except FileNotFoundError:
            self.write(domid, tx, path, b"")

    def rm(self, domid: int, tx: int, path: str) -> None:
        world, where = self.node(domid, tx, path, "wb")
        if not where:
            fail("EINVAL")
        victims = [n for n in world.nodes if n == where or n.startswith(where + "/")]
        for each in victims:
            content, _ = world.nodes.pop(each)
            if world is self.main:
                self.fire(each, above=each == where)
            else:
                world.gone.add(each)
                (world.changed.discard if content is None else world.changed.add)(each)
        if world is self.main:
            world.version += 1

    def set_perms(self, domid: int, tx: int, path: str, perms: list[str]) -> None:
        if not perms or not all(re.fullmatch("[nrwb][0-9]+", each) for each in perms):
            fail("EINVAL")
        world, where = self.node(domid, tx, path, "wb")
        content, old = world.nodes[where]
        if domid and any(int(each[0][1:]) != domid for each in (old, perms)):
            fail("EPERM")
        if domid and len(perms) > 5:
            fail("ENOSPC")
        world.nodes[where] = (content, list(perms))
        self.happened(world, where)

    def happened(self, world: World, where: str) -> None:
        if world is self.main:
            world.version += 1
            self.fire(where, above=True)
        else:
            world.changed.add(where)

    def fire(self, where: str, *, above: bool) -> None:
        for place in [where, *(parents(where) if above else ())]:
            for domid, token, prefix in self.watches.get(place or "/", []):
                if place:  # a watch on the root stays silent
                    self.events.append((domid, where[prefix:], token))

    def watch(self, domid: int, path: str, token: str) -> None:
        where = absolute(domid, path) or "/"
        some = self.watches.setdefault(where, [])
        if (domid, token) in [each[:2] for each in some]:
            fail("EEXIST")
        if domid and sum(w[0] == domid for x in self.watches.values() for w in x) > 127:
            fail("E2BIG")
        prefix = 0 if path.startswith("/") else len(f"/local/domain/{domid}/")
        some.insert(1, (domid, token, prefix))
        self.events.append((domid, path, token))

    def unwatch(self, domid: int, path: str, token: str) -> None:
        some = self.watches.get(absolute(domid, path) or "/", [])
        found = [each for each in some if each[:2] == (domid, token)]
        some.remove(found[0] if found else fail("ENOENT"))

    def reset_watches(self, domid: int) -> None:
        for some in self.watches.values():
            some[:] = [each for each in some if each[0] != domid]
        self.open = {n: each for n, each in self.open.items() if each.domid != domid}

    def transaction_start(self, domid: int, tx: int, new: int) -> None:
        if tx:
            fail("EINVAL")
        if domid and [each.domid for each in self.open.values()].count(domid) >= 10:
            fail("ENOSPC")
        self.open[new] = World(copy.deepcopy(self.main.nodes), domid, self.main.version)

    def transaction_end(self, domid: int, tx: int, commit: bool) -> None:
        world = self.world(domid, tx or -1)
        del self.open[tx]
        if commit and world.version != self.main.version:
            fail("EAGAIN")
        if commit:
            self.main = World(world.nodes, version=world.version + 1)
            for each in world.changed | world.gone:
                both = each in world.gone and each.rpartition("/")[0] in world.gone
                self.fire(each, above=not both)

    def move(self, guest: int) -> None:
        for some in self.watches.values():
            some[:] = [each for each in some if each[0] == guest]
        for world in (self.main, *self.open.values()):
            nodes = world.nodes.items()
            world.nodes = {n: (content or None, perms) for n, (content, perms) in nodes}
