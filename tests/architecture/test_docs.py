"""The README does what it shows, block by block, in one folder and in order.

```python and ```toml   a first line `# FILE: name` writes the block to that file; a
                        Python block without one is run as a script
```console              `$ command` is run and must exit 0, or N after `# exit N`; the
                        lines under it must occur in what it prints, in that order, as
                        far as they are shown: `...` stands for anything
```text and ```mermaid  are for reading only

`make TARGET` is not run (these tests would start themselves) but its target must
exist; what prepares a checkout is not run either.  See NOT_RUN.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
README = CHECKOUT / "README.md"
HAS_QEMU = shutil.which("qemu-system-x86_64") is not None

FOR_READING = {"text", "mermaid"}
RUN = {"vfiomig", "python", "python3", "cat", "ls"}
NOT_RUN = {
    "git clone": ".ci/run does it",
    "cd": "the blocks share one folder",
    "pip install": "test_wheel.py does it",
    "python3 -m venv": "test_wheel.py does it",
    ". .venv/bin/activate": "the commands are found without it",
    "source .venv/bin/activate": "the commands are found without it",
}


class DocumentError(Exception):
    """A document that cannot be run as it stands, or shows what does not happen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block: its language, its text, and the line where it begins."""

    language: str
    text: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command that a console block shows, with the output under it."""

    words: str
    exit_code: int
    shown: tuple[str, ...]


def blocks_of(document: str) -> list[Block]:
    """Cut the fenced blocks out of a document."""
    blocks: list[Block] = []
    inside: list[str] | None = None
    language, start = "", 0
    for number, line in enumerate(document.splitlines(), start=1):
        if not line.startswith("```"):
            if inside is not None:
                inside.append(line)
        elif inside is None:
            inside, language, start = [], line[3:].strip(), number
        else:
            text = "".join(f"{line}\n" for line in inside)
            blocks.append(Block(language=language, text=text, line=start))
            inside = None
    if inside is not None:
        message = f"line {start}: the block has no end"
        raise DocumentError(message)
    return blocks


def commands_of(console: str) -> list[Command]:
    """Read `$ command` lines, continued by a backslash, and the output under each."""
    commands = []
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        words, _, output = re.sub(r"\\\n>?", "", part).partition("\n")
        declared = re.search(r"\s#\s*exit (\d+)\s*$", words)
        command = Command(
            words=words[: declared.start()] if declared else words,
            exit_code=int(declared[1]) if declared else 0,
            shown=tuple(line for line in output.splitlines() if line.strip()),
        )
        commands.append(command)
    return commands


def missing_from(printed: str, shown: tuple[str, ...]) -> str | None:
    """Return the first shown line that was not printed, in order; blanks count once."""
    position, text = 0, " ".join(printed.split())
    for line in shown:
        pieces = [re.escape(" ".join(piece.split())) for piece in line.split("...")]
        found = re.compile(".*?".join(pieces)).search(text, position)
        if found is None:
            return line
        position = found.end()
    return None


def run_command(command: Command, folder: Path) -> None:
    """Run one command in ``folder``, or tell why what it shows is not so."""
    words = command.words.replace(".venv/bin/", "")
    if any(command.words.startswith(prefix) for prefix in NOT_RUN):
        return
    if words.startswith("vfiomig qemu") and not HAS_QEMU:
        return
    if words.startswith("make "):
        run_shell(f"make --dry-run {words[5:]}", 0, CHECKOUT)
        return
    if words.split()[0] not in RUN:
        message = f"$ {words}: test_docs.py does not know this command"
        raise DocumentError(message)
    printed = run_shell(words, command.exit_code, folder)
    if (line := missing_from(printed, command.shown)) is not None:
        message = f"$ {words}: shown but not printed: {line}\n{printed}"
        raise DocumentError(message)


def run_shell(words: str, exit_code: int, folder: Path) -> str:
    """Run words as a shell would, with this interpreter's commands found first."""
    tools = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    for changing in ("COLUMNS", "FORCE_COLOR", "MAKEFLAGS"):
        environment.pop(changing, None)
    done = subprocess.run(
        ["bash", "-c", words],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode != exit_code:
        message = f"$ {words}: exit {done.returncode}, not {exit_code}\n{done.stdout}"
        raise DocumentError(message)
    return done.stdout


def run_block(block: Block, folder: Path) -> None:
    """Do what a block is for: write it, run it, or leave it to the reader."""
    named = re.match(r"# FILE: (\S+)\n", block.text)
    if block.language in {"python", "toml"} and named:
        (folder / named[1]).write_text(block.text)
    elif block.language == "python":
        (folder / "unnamed.py").write_text(block.text)
        run_shell("python unnamed.py", 0, folder)
    elif block.language == "console":
        for command in commands_of(block.text):
            run_command(command, folder)
    elif block.language not in FOR_READING:
        message = f"a block of {block.language or 'no language'} cannot be run"
        raise DocumentError(message)


def run_document(document: str, folder: Path) -> None:
    """Run every block of a document in ``folder``; raise at the first that fails."""
    for block in blocks_of(document):
        try:
            run_block(block, folder)
        except DocumentError as error:
            message = f"the block at line {block.line}: {error}"
            raise DocumentError(message) from None


@pytest.mark.slow
def test_the_readme_does_what_it_shows(tmp_path: Path) -> None:
    run_document(README.read_text(), tmp_path)
    if not HAS_QEMU:
        pytest.skip("all but `vfiomig qemu` was run: apt-get install qemu-system-x86")


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_readme_shows_how_to_begin(command: str) -> None:
    consoles = [b for b in blocks_of(README.read_text()) if b.language == "console"]
    shown = [c.words for block in consoles for c in commands_of(block.text)]
    assert command in shown


@pytest.mark.parametrize(
    "document",
    [*sorted(CHECKOUT.glob("*.md")), *sorted(CHECKOUT.glob("[!.]*/**/*.md"))],
    ids=lambda path: str(path.relative_to(CHECKOUT)),
)
def test_every_link_into_the_checkout_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_a_file_is_written_and_the_next_block_finds_it(tmp_path: Path) -> None:
    run_document(
        "Text.\n```python\n# FILE: hello.py\nprint('hello  there')\n```\n"
        "```console\n$ python hello.py\nhello there\n```\n",
        tmp_path,
    )
    assert (tmp_path / "hello.py").exists()


@pytest.mark.parametrize(
    "document",
    [
        "```console\n$ python -c 'print(1); print(2)'\n1\n2\n```\n",
        "```console\n$ python -c 'print(1); print(2); print(3)'\n1\n...\n3\n```\n",
        "```console\n$ python -c 'print(\"took 5 ms\")'\ntook ... ms\n```\n",
        "```console\n$ python -c 'raise SystemExit(3)'  # exit 3\n```\n",
        "```console\n$ python -c \\\n    'print(1)'\n1\n```\n",
        "```console\n$ .venv/bin/python -c 'print(1)'\n1\n```\n",
        "```console\n$ git clone somewhere\n$ make help\n```\n",
        "```python\nassert 1 + 1 == 2\n```\n",
        "```text\nnothing\n```\n",
    ],
)
def test_what_is_so_passes(document: str, tmp_path: Path) -> None:
    run_document(document, tmp_path)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("```console\n$ python -c 'print(1)'\n2\n```\n", "shown but not printed: 2"),
        ("```console\n$ python -c 'print(2); print(1)'\n1\n2\n```\n", "printed: 2"),
        ("```console\n$ python -c 'raise SystemExit(3)'\n```\n", "exit 3, not 0"),
        ("```console\n$ python -c ''  # exit 1\n```\n", "exit 0, not 1"),
        ("```console\n$ curl something\n```\n", "does not know this command"),
        ("```console\n$ make no-such-target\n```\n", "No rule to make target"),
        ("```python\nraise ValueError('no')\n```\n", "ValueError: no"),
        ("```toml\nseed = 1\n```\n", "a block of toml"),
        ("```\nwhat am I\n```\n", "a block of no language"),
        ("```text\nno end\n", "line 1: the block has no end"),
    ],
)
def test_what_is_not_so_is_found(document: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=re.escape(why)):
        run_document(document, tmp_path)
