"""Trees of nodes that share what is equal, and copy it before they change it.

Rule 1: a node says who owns it, the token of one tree, and only that tree changes it in
place.  To take a snapshot gives both trees new tokens: from then on neither owns what
they share, and the first change copies the path down to its node.

Rule 2: inside a transaction nothing disappears: a node that is removed stays as one
that is ``deleted`` until the commit, which fires its watches.

Rule 3: no function here recurses: a path has up to 1,536 names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.vm.xen.xenstore_rules import Names, Perms


class Node:
    """A node; ``content`` is None where nobody ever wrote any.

    ``generation`` counts the children that came and went.  ``modified`` and ``deleted``
    are set in transactions only.
    """

    __slots__ = (
        "children",
        "content",
        "deleted",
        "generation",
        "modified",
        "owner",
        "perms",
    )

    def __init__(
        self, perms: Perms, owner: object = None, content: bytes | None = None
    ) -> None:
        self.perms = perms
        self.owner = owner
        self.content = content
        self.children: dict[str, Node] = {}
        self.generation = 0
        self.modified = False
        self.deleted = False

    def copy_for(self, owner: object) -> Node:
        """Return a copy that ``owner`` may change; children are shared."""
        node = Node(self.perms, owner, self.content)
        node.children = self.children.copy()
        node.generation = self.generation
        return node


class Changed(NamedTuple):
    """What a watch may have to hear of: a path, and whether those above it do, too."""

    path: str
    above: bool


class Tree:
    """A tree, and the number of nodes in it that exist.

    ``sees_deleted``: QEMU finds a node that was removed in this transaction, and counts
    it again when it is removed again.
    """

    def __init__(self, root: Node, count: int, *, sees_deleted: bool = False) -> None:
        self.root = root
        self.count = count
        self.owner = object()
        self._sees_deleted = sees_deleted

    def snapshot(self) -> Tree:
        """Return a tree that is equal now and changes by itself."""
        self.owner = object()
        return Tree(self.root, self.count, sees_deleted=self._sees_deleted)

    def find(self, names: Names) -> Node | None:
        """Return a node that exists."""
        node, depth = self.deepest(names)
        return node if depth == len(names) else None

    def deepest(self, names: Names) -> tuple[Node, int]:
        """Return the last node on a path that exists, and how many names lead to it."""
        node = self.root
        for depth, name in enumerate(names):
            child = node.children.get(name)
            if child is None or (child.deleted and not self._sees_deleted):
                return node, depth
            node = child
        return node, len(names)

    def visible(self, node: Node) -> list[str]:
        """Return the names of the children that exist, sorted."""
        children = node.children.items()
        return sorted([n for n, each in children if self._exists(each)])

    def _exists(self, node: Node) -> bool:
        return self._sees_deleted or not node.deleted

    def own(self, names: Names) -> Node:
        """Return the node at a path that is there, so that it can be changed."""
        node = self.root = self._owned(self.root)
        for name in names:
            child = node.children[name]
            if child.owner is not self.owner:
                child = node.children[name] = child.copy_for(self.owner)
            node = child
        return node

    def make(self, names: Names) -> Node:
        """Return the node at a path, to be changed; made where it does not exist.

        New nodes have their parent's permissions.
        """
        node = self.root = self._owned(self.root)
        for name in names:
            child = node.children.get(name)
            if child is None:
                child = node.children[name] = Node(node.perms, self.owner)
                self.count += 1
                node.generation += 1
            elif child.owner is not self.owner:
                child = node.children[name] = child.copy_for(self.owner)
            elif child.deleted:
                self._revive(child, node)
            node = child
        return node

    def _revive(self, node: Node, parent: Node) -> None:
        node.deleted = False
        self.count += 1
        parent.generation += 1
        if not self._sees_deleted:  # else it never went, and keeps what it had
            node.perms = parent.perms

    def remove(self, names: Names) -> list[Changed]:
        """Remove the node at a path that is there, and all below it; not the root."""
        parent = self.own(names[:-1])
        node = parent.children.pop(names[-1])
        parent.generation += 1
        path = "".join([f"/{name}" for name in names])
        gone = [Changed(each, above=False) for each, _ in below(node, path)]
        self.count -= len(gone) + 1
        return [*gone, Changed(path, above=True)]

    def bury(self, names: Names) -> None:
        """Mark the node at a path that is there as deleted, and all below it."""
        if not names:
            self.root = self._buried(self.root)
            return
        parent = self.own(names[:-1])
        parent.children[names[-1]] = self._buried(parent.children[names[-1]])
        parent.generation += 1

    def _buried(self, node: Node) -> Node:
        top = self._deleted(node)
        pairs = [(node, top)]
        while pairs:
            old, new = pairs.pop()
            for name, child in old.children.items():
                new.children[name] = self._deleted(child)
                pairs.append((child, new.children[name]))
        return top

    def _deleted(self, node: Node) -> Node:
        """Return a node without children that says that this one is deleted."""
        buried = Node(node.perms, self.owner)
        buried.generation = node.generation
        buried.deleted = True
        if node.deleted and not self._sees_deleted:
            buried.modified = node.modified
        else:
            # One that is made again has changed if it lost something.
            buried.modified = node.content is not None
            self.count -= 1
        return buried

    def _owned(self, node: Node) -> Node:
        return node if node.owner is self.owner else node.copy_for(self.owner)

    def commit(self, *, one_burial: bool) -> Iterator[Changed]:
        """Drop what is deleted and yield what changed, children before parents.

        Those above a deleted node hear of it unless its parent is deleted with it;
        with ``one_burial``, as in QEMU, unless any was before it.
        """
        any_deleted = False
        names: list[str] = []
        rows = [(self.root, iter(list(self.root.children.items())), "", True)]
        while rows:
            node, children, path, above = rows[-1]
            for name, child in children:
                if child.owner is not self.owner:
                    continue
                said = any_deleted if one_burial else node.deleted
                any_deleted = any_deleted or child.deleted
                rows.append(
                    (
                        child,
                        iter(list(child.children.items())),
                        f"{path}/{name}",
                        not (child.deleted and said),
                    )
                )
                names.append(name)
                break
            else:
                rows.pop()
                if rows and (node.modified or node.deleted):
                    yield Changed(path, above)
                if rows and node.deleted:
                    del rows[-1][0].children[names[-1]]
                node.modified = False
                if rows:
                    names.pop()
        self.root.deleted = False


def below(node: Node, path: str) -> Iterator[tuple[str, Node]]:
    """Yield all below a node, which is at ``path``, children before parents."""
    rows = [(node, path, iter(node.children.items()))]
    while rows:
        node, path, children = rows[-1]
        for name, child in children:
            rows.append((child, f"{path}/{name}", iter(child.children.items())))
            break
        else:
            rows.pop()
            if rows:
                yield path, node
