"""All commands together, and what their errors mean."""

from __future__ import annotations

from typing import Final

import click

from vfiomig import __version__
from vfiomig.conformance.conversation.steps import TokenError
from vfiomig.conformance.judge import UnknownDeviceError
from vfiomig.conformance.target import TargetError, TargetStartError
from vfiomig.frontends.baseline import BaselineError
from vfiomig.frontends.commands.check import check
from vfiomig.frontends.commands.doctor import doctor
from vfiomig.frontends.commands.judge import judge
from vfiomig.frontends.commands.migrate import migrate
from vfiomig.frontends.commands.mutants import mutants
from vfiomig.frontends.commands.qemu import qemu
from vfiomig.frontends.commands.replay import replay
from vfiomig.frontends.commands.rules import rules
from vfiomig.frontends.exit_codes import (
    DONE,
    INTERRUPTED,
    MISUSE,
    NOT_AS_EXPECTED,
    NOT_STARTED,
)
from vfiomig.frontends.scenario import ScenarioError
from vfiomig.protocol.errors import VfiomigError
from vfiomig.protocol.history import HistoryError
from vfiomig.serve.broker.child import StartError
from vfiomig.serve.broker.filter import SeccompError
from vfiomig.serve.qemu import QemuError

_MISUSES: Final = (
    BaselineError,
    HistoryError,
    QemuError,
    ScenarioError,
    SeccompError,
    StartError,
    TargetError,
    TokenError,
    UnknownDeviceError,
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
    epilog="Exit codes: 0 done, 1 not as expected, 2 misuse or unreadable input, "
    "3 a target that does not start, 130 interrupted.",
)
@click.version_option(__version__, prog_name="vfiomig")
def vfiomig() -> None:
    """Prove a VFIO migration driver: simulate it before hardware, or QEMU, meets it.

    A driver is a TARGET: path/file.py:NAME, package.module:NAME, or a device that
    comes with vfiomig (reference, serial, accelerator, opaque) with its options, such
    as accelerator,memory=1G,data-section=split. NAME is called without arguments and
    returns a fresh driver.
    """


vfiomig.add_command(migrate)
vfiomig.add_command(check)
vfiomig.add_command(replay)
vfiomig.add_command(qemu)
vfiomig.add_command(doctor)
vfiomig.add_command(judge)
vfiomig.add_command(rules)
vfiomig.add_command(mutants)


def run_command() -> tuple[int, str]:
    """Run what the command line asks for; return exit code and message, or no text."""
    try:
        return vfiomig.main(standalone_mode=False) or DONE, ""
    except click.exceptions.Exit as end:
        return end.exit_code, ""
    except click.UsageError as error:
        hint = f" (try: {error.ctx.command_path} --help)" if error.ctx else ""
        return MISUSE, " ".join(error.format_message().split()) + hint
    except click.Abort:
        return INTERRUPTED, "interrupted"
    except _MISUSES as error:
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
