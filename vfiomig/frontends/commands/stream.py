"""``vfiomig stream``: what a QEMU migration stream holds."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import click
from rich.console import Console

from vfiomig.frontends.exit_codes import DONE, NOT_AS_EXPECTED
from vfiomig.frontends.plain_text import plain, quoted
from vfiomig.frontends.report.stream_as_json import write_json
from vfiomig.frontends.report.stream_diff import differences
from vfiomig.frontends.report.stream_records import print_ram, print_vfio
from vfiomig.frontends.report.stream_terminal import (
    print_line,
    print_row,
    print_sections,
)
from vfiomig.frontends.report.stream_tree import print_tree
from vfiomig.frontends.report.stream_words import counted
from vfiomig.frontends.report.writing import building_whole, writing_whole
from vfiomig.frontends.stream_extract import (
    DeviceName,
    extract_block,
    extract_data,
    named,
)
from vfiomig.frontends.stream_facts import gathered
from vfiomig.frontends.stream_xenstore import damage_in
from vfiomig.migration.qemu_image import ImageError, mapped_image, open_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from vfiomig.frontends.stream_extract import Extracted
    from vfiomig.migration.qemu_image import QemuImage

_STDIO: Final = "-"


class _Tree(NamedTuple):
    """The tree that was asked for: of which states, and whether all of a store."""

    name: str
    everything: bool


@click.command()
@click.argument("file", required=False)
@click.option(
    "--tree",
    metavar="[NAME]",
    is_flag=False,
    flag_value="",
    help="Print the values of the device states; of those with NAME in their name.",
)
@click.option(
    "--all", "everything", is_flag=True, help="With --tree: all of a Xen guest's store."
)
@click.option("--ram", is_flag=True, help="Print the RAM blocks and the runs of pages.")
@click.option(
    "--vfio",
    is_flag=True,
    help="Print every record of the VFIO devices, and what they tell of the source.",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    help="Write all of it as JSON; - is standard output. With --ram, every run.",
)
@click.option(
    "--extract",
    metavar="NAME",
    help="Write a VFIO device's data, or the image of a RAM block, to --output.",
)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="Where --extract writes."
)
@click.option(
    "--diff", "other", metavar="FILE", help="Tell where that stream differs from FILE."
)
def stream(
    file: str | None,
    *,
    tree: str | None,
    everything: bool,
    ram: bool,
    vfio: bool,
    json_file: str | None,
    extract: str | None,
    output: Path | None,
    other: str | None,
) -> int:
    """Show what a QEMU migration stream holds, VFIO devices included.

    FILE is what `migrate file:FILE`, `migrate "exec:cat > FILE"` or `vfiomig migrate
    --stream FILE` wrote, as it is or packed by xz or gzip; - reads standard input.
    Streams of QEMU 7.2 to 10.0 are known. Without an option the sections are listed,
    with their places and sizes, and summed up by part.

    A stream that is damaged or cut is shown as far as it can be read, then the place
    and the reason: exit code 2. With --diff, exit code 1 if the streams differ.

    \b
    vfiomig stream vm.mig
    vfiomig stream vm.mig --vfio
    vfiomig stream vm.mig.xz --tree serial
    vfiomig stream vm.mig --tree xen_xenstore --all
    vfiomig stream vm.mig --extract 00:04.0/vfio --output device.bin
    vfiomig stream vm.mig --extract pc.ram --output ram.img
    vfiomig stream before.mig --diff after.mig
    """  # noqa: D301 -- click wants the character
    if file is None and tree:  # `vfiomig stream --tree FILE`
        file, tree = tree, ""
    _check(file, extract, output, other)
    if everything and tree is None:
        message = "--all goes with --tree"
        raise click.UsageError(message, click.get_current_context())
    assert file is not None
    console = Console(highlight=False)
    with contextlib.ExitStack() as files:
        # Opened first: that it cannot be written is known before the work is done.
        write = _json_writer(files, json_file)
        image = files.enter_context(_opened(file))
        if other is not None:
            return _compare(image, files.enter_context(_opened(other)), console)
        if extract is not None and output is not None:
            return _extract(image, extract, output, console)
        shown: list[Callable[[], object]] = []
        if write is not None:
            shown.append(lambda: write_json(image, write, with_runs=ram))
        if json_file != _STDIO:
            tree_of = None if tree is None else _Tree(tree, everything)
            shown.extend(_views(image, console, tree=tree_of, ram=ram, vfio=vfio))
        damage = _show(shown) or damage_in(image)
    if damage is not None:
        raise damage
    return DONE


def _check(
    file: str | None, extract: str | None, output: Path | None, other: str | None
) -> None:
    if file is None:
        message = "Missing argument 'FILE': the stream to be read."
        raise click.UsageError(message, click.get_current_context())
    if (extract is None) != (output is None):
        message = "--extract and --output go together"
        raise click.UsageError(message, click.get_current_context())
    if file == other == _STDIO:
        message = "standard input holds one stream, not two"
        raise click.UsageError(message, click.get_current_context())


def _views(
    image: QemuImage,
    console: Console,
    *,
    tree: _Tree | None,
    ram: bool,
    vfio: bool,
) -> list[Callable[[], object]]:
    """Return what prints the views that were asked for; the table if none was."""
    views: list[Callable[[], object]] = []
    if ram:
        views.append(lambda: print_ram(image, console))
    if vfio:
        views.append(lambda: print_vfio(image, console))
    if tree is not None:
        views.append(lambda: _print_tree(image, tree, console))
    return views or [lambda: print_sections(image, console)]


def _show(views: list[Callable[[], object]]) -> ImageError | None:
    """Show all views, each as far as the stream can be read; return the damage."""
    damage = None
    for view in views:
        try:
            view()
        except ImageError as error:
            # Without the views of the stream that its frames hold.
            damage = error.with_traceback(None)
    return damage


def _print_tree(image: QemuImage, tree: _Tree, console: Console) -> None:
    if not print_tree(image, tree.name, console, everything=tree.everything):
        what = f" with {quoted(tree.name)} in its name" if tree.name else ""
        print_line(console, f"no described device state{what}")


def _opened(name: str) -> contextlib.AbstractContextManager[QemuImage]:
    if name != _STDIO:
        return open_image(Path(name))
    if sys.stdin is None:  # it was closed before we began
        message = "standard input is closed"
        raise click.UsageError(message)
    return mapped_image(cast("BinaryIO", sys.stdin.buffer), "standard input")


def _json_writer(
    files: contextlib.ExitStack, name: str | None
) -> Callable[[bytes], object] | None:
    if name is None:
        return None
    if name == _STDIO:
        if sys.stdout is None:  # it was closed before we began
            message = "standard output is closed"
            raise click.UsageError(message)
        # JSON is UTF-8, whatever the terminal's encoding is.
        return lambda data: sys.stdout.buffer.write(data)
    return files.enter_context(writing_whole(Path(name)))


def _compare(one: QemuImage, other: QemuImage, console: Console) -> int:
    """Print where two streams differ; the first damage is raised at the end."""
    print_line(console, f"< {plain(one.name)}")
    print_line(console, f"> {plain(other.name)}")
    with gathered(one) as facts, gathered(other) as other_facts:
        count = 0
        for difference in differences((one, other), facts, other_facts):
            count += 1
            print_row(console, difference.where)
            print_row(console, f"  < {difference.one}")
            print_row(console, f"  > {difference.other}")
        damage = facts.damage or other_facts.damage
        if damage is not None:
            raise damage
    if count:
        print_line(console, counted(count, "difference"), "bold red")
        return NOT_AS_EXPECTED
    print_line(console, "the streams hold the same", "bold green")
    return DONE


def _extract(image: QemuImage, name: str, output: Path, console: Console) -> int:
    what = named(image, name)
    extracted: Extracted
    if isinstance(what, DeviceName):
        with writing_whole(output) as write:
            extracted = extract_data(image, what, write)
        told = counted(extracted.count, "byte")
    else:
        with building_whole(output) as file:
            extracted = extract_block(image, what, file)
        size = counted(what.used_length, "byte")
        told = f"{size}, {counted(extracted.count, 'page')} of the stream"
    print_line(console, f"{plain(what.idstr)}: {told} -> {plain(str(output))}")
    if extracted.damage is not None:
        raise extracted.damage
    return DONE
