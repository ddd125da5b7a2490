"""A saved XenStore as plain values: written from its form, apart from our reader."""

from __future__ import annotations

from typing import Any

Plain = dict[str, Any]


class Form:
    """Parses what QEMU migrates; the order of siblings is lost."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.trees: dict[int, Plain] = {}

    def be32(self) -> int:
        self.at += 4
        return int.from_bytes(self.data[self.at - 4 : self.at], "big")

    def text(self) -> str:
        end = self.data.index(b"\0", self.at)
        text = self.data[self.at : end].decode()
        self.at = end + 1
        return text

    def texts(self) -> list[str]:
        return list(iter(self.text, ""))

    def node(self, way: list[str]) -> Plain:
        flags = self.data[self.at]
        self.at += 1
        if flags == 4:
            number = self.be32()
            found = self.trees[number]
            for name in way:
                found = found["children"][name]
            return {"shared": number, **found}
        size = self.be32()
        content = self.data[self.at : self.at + size]
        self.at += size
        node: Plain = {"flags": flags, "content": content, "perms": self.texts()}
        node["children"] = {n: self.node([*way, n]) for n in iter(self.text, "")}
        return node

    def tree(self) -> tuple[int, Plain]:
        number = self.be32()
        self.trees[number] = self.node([])
        return number, self.trees[number]

    def store(self) -> Plain:
        store: Plain = {"last": self.be32(), "main": self.tree()}
        store["transactions"] = []
        while base := self.be32():
            store["transactions"].append((base, self.be32(), self.tree()))
        texts = [(path, self.text()) for path in iter(self.text, "")]
        store["watches"] = sorted(texts)
        assert self.at == len(self.data)
        return store


def parse(data: bytes) -> Plain:
    """Return a saved store."""
    return Form(data).store()
