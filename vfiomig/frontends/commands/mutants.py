"""``vfiomig mutants``: the suite on trial, by drivers whose bug is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from vfiomig.conformance.effort import EFFORTS
from vfiomig.conformance.processes import cores, processes
from vfiomig.frontends.exit_codes import DONE, INTERRUPTED, NOT_AS_EXPECTED
from vfiomig.frontends.plain_text import quoted
from vfiomig.frontends.report.mutants_as_json import mutants_as_json
from vfiomig.frontends.report.mutants_terminal import MuseumView, print_museum
from vfiomig.frontends.report.writing import writing_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.conformance.museum import Exhibit, Tried


@click.command()
@click.argument("name", required=False, metavar="[ID]")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Where the generated conversations begin.",
)
@click.option(
    "--effort",
    type=click.Choice(tuple(EFFORTS)),
    default="normal",
    show_default=True,
    help="How many conversations are held with each driver.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=cores,
    show_default="the number of cores",
    help="How many mutants are tried at once.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    help="Write the outcome as JSON.",
)
def mutants(
    *, name: str | None, seed: int, effort: str, jobs: int, json_file: Path | None
) -> int:
    """Run the suite on the drivers and clients that come with a planted bug.

    ID is the name of a mutant, or a rule (its id, its origin, or what several begin
    with): those that break it. Without it all are tried, which takes long. Exit code 1
    if one was not found by a rule that it breaks.

    \b
    vfiomig mutants ShrinkingBuffer
    vfiomig mutants v1/data-size --effort quick
    vfiomig mutants "user application"
    """  # noqa: D301 -- click wants the character
    # Not at the top: no other command has a use for the mutants.
    from vfiomig.conformance.museum import every_exhibit, exhibits_named, totals_of

    exhibits = every_exhibit() if name is None else exhibits_named(name)
    if not exhibits:
        message = f"no mutant is called {quoted(name or '')}, nor breaks such a rule"
        raise click.UsageError(message)
    if json_file is None:
        tried, is_interrupted = _try(exhibits, effort=effort, seed=seed, jobs=jobs)
        totals = totals_of(tried)
    else:
        with writing_whole(json_file) as write:
            tried, is_interrupted = _try(exhibits, effort=effort, seed=seed, jobs=jobs)
            totals = totals_of(tried)
            write(
                mutants_as_json(
                    tried,
                    totals,
                    effort=effort,
                    seed=seed,
                    is_interrupted=is_interrupted,
                )
            )
    console = Console(highlight=False)
    print_museum(
        tried, totals, console, number=len(exhibits), is_interrupted=is_interrupted
    )
    return exit_code(missed=totals.missed, is_interrupted=is_interrupted)


def exit_code(*, missed: int, is_interrupted: bool) -> int:
    """Return how a run ends of which so many were missed."""
    if is_interrupted:
        return INTERRUPTED
    return NOT_AS_EXPECTED if missed else DONE


def _try(
    exhibits: Sequence[Exhibit], *, effort: str, seed: int, jobs: int
) -> tuple[list[Tried], bool]:
    """Return what was done, in the museum's order, and whether that was cut short."""
    from vfiomig.conformance.museum import try_all

    number = min(jobs, len(exhibits))
    done: dict[str, Tried] = {}
    is_interrupted = False
    try:
        with (
            processes(number) as executor,
            MuseumView(Console(stderr=True), exhibits) as view,
        ):
            for tried in try_all(exhibits, effort=effort, seed=seed, executor=executor):
                done[tried.exhibit.target] = tried
                view.done(tried)
    except KeyboardInterrupt:
        is_interrupted = True
    in_order = [done[each.target] for each in exhibits if each.target in done]
    return in_order, is_interrupted
