"""`ens runs`, `ens submissions`: over all runs."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ensemble.cli.options import FOLDER_OR_FILE, JSON, OneOf, metric_names
from ensemble.cli.session import session
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.run import Run

if TYPE_CHECKING:
    from ensemble.scoring.bootstrap import Score


@click.command()
@click.argument("folder", metavar="DIR", type=FOLDER_OR_FILE, default=".")
@click.option(
    "--sort",
    type=click.Choice(["score", "date", "name"]),
    default="score",
    show_default=True,
    help="Best log loss first, latest first, or by name.",
)
@JSON
def runs(folder: Path, sort: str, as_json: bool) -> None:
    """List the runs in DIR and up to three folders below: scores, costs, and what differs in their settings.

    Scores are out of fold, of the best blend (by log loss) and of the best single member. Runs on different data have
    tables of their own, since their scores are not comparable. If DIR is a run itself, all its blends are listed too.

    Example: ens runs runs
    """
    with session(as_json) as events:
        from ensemble.cli.plain import plain
        from ensemble.files.mirror import local
        from ensemble.overview.blends import list_run_blends
        from ensemble.overview.runs import list_runs
        from ensemble.tables.blends import show_blends
        from ensemble.tables.runs import show_runs

        found = list_runs(folder, sort, events)
        show_runs(found)
        answer = plain(found)
        if [row.run for row in found.rows] == [local(folder)]:
            with suppress(UserError):  # the run's own line says what can't be read
                blends = list_run_blends(Run(folder))
                show_blends(Run(folder), blends)
                answer["blends"] = plain(blends)
        events.answer(answer)


@click.command()
@click.argument("place", metavar="RUN|DIR", type=FOLDER_OR_FILE, default=".")
@click.option("--board", "boards", multiple=True, metavar="FILE=SCORE", help="Enter the board's score of a submission.")
@click.option("--note", "notes", multiple=True, metavar="FILE=TEXT", help="Enter a note on a submission.")
@click.option(
    "--metric",
    type=OneOf(metric_names),
    default="accuracy",
    show_default=True,
    help="The metric of the board's scores.",
)
@JSON
def submissions(place: Path, boards: tuple[str, ...], notes: tuple[str, ...], metric: str, as_json: bool) -> None:
    """List the submissions that were written from a RUN, or from all runs in DIR, the newest last.

    ens tta-predict enters each in RUN/submissions.csv, with its out-of-fold score. Once you have entered three scores
    of the board, they are compared with the out-of-fold scores. FILE is a submission's path or name, or the first
    digits of its SHA-256; the newest entry of that file is changed.

    Example: ens submissions runs/art --board submission.csv=0.8286
    """
    with session(as_json) as events:
        from ensemble.cli.plain import plain
        from ensemble.overview import ledger
        from ensemble.overview.trust import trust
        from ensemble.tables.runs import show_submissions

        for option, column, given in (("--board", "board", boards), ("--note", "note", notes)):
            for text in given:
                file, equals, value = text.rpartition("=") if column == "board" else text.partition("=")
                if not (equals and file and value.strip()):
                    raise UserError(f"{option} {text}: want FILE={'SCORE' if column == 'board' else 'TEXT'}")
                entry = ledger.enter(place, file, column, value.strip())
                values = entry.values
                events.message(
                    f"entered in {entry.ledger}: {column} {value.strip()} for {values.get('file')} (blend "
                    f"{values.get('blend')}, written {values.get('written')})"
                    + (f"; that file is {entry.state} since then" if entry.state else "")
                )
        found = ledger.entries(place)
        agreement, of_blends = trust(found, metric), ledger.bias_of_best_blends(found, metric)
        if found:
            show_submissions(found, agreement, metric, of_blends)
        else:
            events.message(f"{place}: {ledger.NONE}")
        events.answer({"submissions": plain(found), "trust": plain(agreement), "selection_bias": plain(of_blends)})


def recorded(
    ledger: Path, submission: Path, fields: Mapping[str, Any], scores: Mapping[str, "Score"], events: Events
) -> None:
    """Enter a submission that was just written. If the ledger can't be written, that is only a warning."""
    from ensemble.overview import ledger as book

    try:
        book.record(ledger, submission, fields, scores)
    except (OSError, UserError) as error:
        events.message(f"warning: not entered in the ledger: {error}")
