"""What is committed names no package registry and no path of one machine.

A pattern does not match its own text, because its dots are escaped.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]

FORBIDDEN = {
    "a package registry's host": re.compile(
        rb"pypi\.org|pythonhosted\.org|(?:deb|security|snapshot)\.debian\.org"
        rb"|registry\.npmjs\.org|proxy\.golang\.org|static\.crates\.io",
        re.IGNORECASE,
    ),
    "a path that exists on one machine": re.compile(
        rb"(?<![\w.])/(?:work/(?:main|shared|\.library|\.mirror)|tmp/brief)\b"
    ),
    "a folder beside the checkout": re.compile(rb"(?<![\w.])\.\./shared\b"),
}


def committed_files() -> list[Path]:
    """List what git tracks, and what it would track: all that is not ignored.

    A tree without .git, unpacked from an archive, is taken less its dot folders.
    """
    if not (CHECKOUT / ".git").exists():
        visible = (path for path in CHECKOUT.glob("[!.]*/**/*") if path.is_file())
        return [*CHECKOUT.glob("*.*"), *visible]
    git = ("git", "-c", "safe.directory=*", "-C", str(CHECKOUT))
    which = ("--cached", "--others", "--exclude-standard")
    listed = subprocess.check_output([*git, "ls-files", "-z", *which], text=True)
    paths = (CHECKOUT / name for name in listed.split("\0") if name)
    return [path for path in paths if path.is_file()]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_committed_file_names(what: str) -> None:
    files = committed_files()
    assert CHECKOUT / "pyproject.toml" in files
    found = {
        str(path.relative_to(CHECKOUT)): match.group()
        for path in files
        if (match := FORBIDDEN[what].search(path.read_bytes()))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a package registry's host", ("https://files.pythonhosted", ".org/x")),
        ("a package registry's host", ("index = 'PyPI", ".org'")),
        ("a path that exists on one machine", ("see /work", "/main/README.md")),
        ("a path that exists on one machine", ("(/tmp", "/brief/brief.md)")),
        ("a folder beside the checkout", ("open('..", "/shared/data')")),
    ],
)
def test_the_patterns_find_what_they_are_for(what: str, text: tuple[str, str]) -> None:
    assert FORBIDDEN[what].search("".join(text).encode())
