"""The options of a command whose target may be a vfio-user server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

_Command = TypeVar("_Command", bound="Callable[..., Any]")


def server_options(command: _Command) -> _Command:
    """Give a command ``--server`` and ``--bench``, as ``server`` and ``bench_file``."""
    server = click.option(
        "--server",
        metavar="COMMAND",
        help="With the TARGET vfio-user: alone, start this; {socket} in it is the path "
        "at which it shall listen.",
    )
    bench = click.option(
        "--bench",
        "bench_file",
        type=click.Path(path_type=Path),
        help="With a vfio-user: TARGET, a TOML file of the BAR bytes that are state, "
        "and of writes that make it work.",
    )
    return server(bench(command))
