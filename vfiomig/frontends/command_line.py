"""All commands together, and what their errors mean."""

from __future__ import annotations

from typing import Final

import click

from vfiomig import __version__
from vfiomig.conformance.conversation.steps import TokenError
from vfiomig.conformance.judge import UnknownDeviceError
from vfiomig.frontends.baseline import BaselineError
from vfiomig.frontends.commands.check import check
from vfiomig.frontends.commands.doctor import doctor
from vfiomig.frontends.commands.judge import judge
from vfiomig.frontends.commands.migrate import migrate
from vfiomig.frontends.commands.mutants import mutants
from vfiomig.frontends.commands.qemu import qemu
from vfiomig.frontends.commands.replay import replay
from vfiomig.frontends.commands.rules import rules
from vfiomig.frontends.commands.serve import serve
from vfiomig.frontends.commands.stream import stream
from vfiomig.frontends.outcome import CONTEXT_SETTINGS, outcome_of
from vfiomig.frontends.scenario import ScenarioError
from vfiomig.frontends.stream_extract import ExtractError
from vfiomig.migration.qemu_image import ImageError
from vfiomig.protocol.history import HistoryError
from vfiomig.serve.broker.child import StartError
from vfiomig.serve.broker.filter import SeccompError
from vfiomig.serve.qemu import QemuError
from vfiomig.serve.vfio_user.listening import ListenError

_MISUSES: Final = (
    BaselineError,
    ExtractError,
    HistoryError,
    ImageError,
    ListenError,
    QemuError,
    ScenarioError,
    SeccompError,
    StartError,
    TokenError,
    UnknownDeviceError,
)


@click.group(
    context_settings=dict(CONTEXT_SETTINGS),
    epilog="Exit codes: 0 done, 1 not as expected, 2 misuse or unreadable input, "
    "3 a target that does not start, 130 interrupted.",
)
@click.version_option(__version__, prog_name="vfiomig")
def vfiomig() -> None:
    """Prove a VFIO migration driver: simulate it before hardware, or QEMU, meets it.

    A driver is a TARGET: path/file.py:NAME, package.module:NAME, or a device that
    comes with vfiomig (reference, serial, accelerator, opaque) with its options, such
    as accelerator,memory=1G,data-section=split. NAME is called without arguments and
    returns a fresh driver. One in another process, behind a vfio-user socket, is
    vfio-user:/path/to.sock, or vfio-user: and a server's command with {socket} in it.
    """


vfiomig.add_command(migrate)
vfiomig.add_command(check)
vfiomig.add_command(replay)
vfiomig.add_command(qemu)
vfiomig.add_command(serve)
vfiomig.add_command(doctor)
vfiomig.add_command(judge)
vfiomig.add_command(stream)
vfiomig.add_command(rules)
vfiomig.add_command(mutants)


def run_command() -> tuple[int, str]:
    """Run what the command line asks for; return exit code and message, or no text."""
    return outcome_of(vfiomig, _MISUSES)
