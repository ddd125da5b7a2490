"""The command line with ``serve`` alone: servers are started by the dozen.

All other commands, whose imports take longer than a server lives in a test, are left
out; what is printed is the same.
"""

from __future__ import annotations

import click

from vfiomig.frontends.commands.serve import serve
from vfiomig.frontends.outcome import CONTEXT_SETTINGS, outcome_of
from vfiomig.serve.vfio_user.listening import ListenError


def run_command() -> tuple[int, str]:
    """Run ``vfiomig serve``; return exit code and message, or no text."""
    commands = click.Group(
        "vfiomig", {"serve": serve}, context_settings=dict(CONTEXT_SETTINGS)
    )
    return outcome_of(commands, (ListenError,))
