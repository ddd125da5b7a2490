"""What the tests of the commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import pytest

from vfiomig.frontends import cli

if TYPE_CHECKING:
    from pathlib import Path

Vfiomig: TypeAlias = Callable[..., tuple[int, str, str]]


@pytest.fixture
def vfiomig(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Vfiomig:
    """Run a command line in an empty folder; return exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vfiomig", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        output, errors = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, output, errors

    return run
