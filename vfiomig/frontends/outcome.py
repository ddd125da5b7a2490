"""How a command ends: its exit code, and what its error means in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from vfiomig.conformance.target import TargetError, TargetStartError
from vfiomig.frontends.exit_codes import (
    DONE,
    INTERRUPTED,
    MISUSE,
    NOT_AS_EXPECTED,
    NOT_STARTED,
)
from vfiomig.protocol.errors import VfiomigError

if TYPE_CHECKING:
    from collections.abc import Mapping

# What the help of every command looks like.
CONTEXT_SETTINGS: Final[Mapping[str, object]] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 88,
}


def outcome_of(
    commands: click.Group, misuses: tuple[type[VfiomigError], ...]
) -> tuple[int, str]:
    """Run what the command line asks for; return exit code and message, or no text.

    ``misuses`` are the errors, beside TargetError, that are the caller's own.
    """
    try:
        return commands.main(standalone_mode=False) or DONE, ""
    except click.exceptions.Exit as end:
        return end.exit_code, ""
    except click.UsageError as error:
        hint = f" (try: {error.ctx.command_path} --help)" if error.ctx else ""
        return MISUSE, " ".join(error.format_message().split()) + hint
    except click.Abort:
        return INTERRUPTED, "interrupted"
    except TargetError as error:
        return MISUSE, str(error)
    except misuses as error:
        return MISUSE, str(error)
    except TargetStartError as error:
        return NOT_STARTED, str(error)
    except VfiomigError as error:
        return NOT_AS_EXPECTED, str(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return MISUSE, f"{place}{error.strerror or error}"
