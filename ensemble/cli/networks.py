"""`ens soup`, `ens refit`: other networks of a run than those of its folds."""

from pathlib import Path

import click

from ensemble.cli.options import FOLDER_OR_FILE, JSON, names
from ensemble.cli.session import Session, session
from ensemble.errors import RunFailure, UserError
from ensemble.plural import pluralize
from ensemble.run import Run
from ensemble.run.networks import UNSCORED


@click.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.option("--members", help="Only these members, comma-separated. [default: all that can be averaged]")
@click.option(
    "--on", "images", type=FOLDER_OR_FILE, help="Images (no labels needed) to compare soups and ensembles on."
)
@click.option("--name", help="Average the --members with each other, fold by fold, and save that as a member NAME.")
@JSON
def soup(run: Path, members: str | None, images: Path | None, name: str | None, as_json: bool) -> None:
    """Average the fold networks of each member of a RUN into one, its soup, at a K-th of their cost.

    Their weights are averaged, which takes networks that were trained from one start (pretrained weights). A soup has
    no out-of-fold score of its own. It is compared with the ensemble of the fold networks, on IMAGES or on training
    images, and refused if a single fold network is nearer to the ensemble than the soup is.

    With --name, networks of the same fold are averaged across members (recipes, or seeds), those that pay on the other
    folds; what comes of it has an out-of-fold score like any member.

    Example: ens soup runs/art --on data/art/test
    """
    with session(as_json, run) as events:
        chosen = names(members)
        if name is not None:
            if images is not None:
                raise UserError("--on goes without --name: a soup of members has an out-of-fold score")
            _soup_of_members(Run(run), chosen or [], name, events)
            return
        from ensemble.cli.plain import plain
        from ensemble.soup.folds import soup_folds

        soups = soup_folds(Run(run), chosen, images, events)
        events.answer(
            {"run": str(Run(run)), "soups": [{**plain(each), "barrier": each.closeness.barrier} for each in soups]}
        )
        events.message(UNSCORED["soup"])
        refused = [each.member for each in soups if not each.is_kept]
        if refused:
            raise RunFailure(f"refused, since the networks don't connect: {', '.join(refused)}")
        events.message(f"next: ens tta-predict {Run(run)} IMAGES --networks soup")


def _soup_of_members(run: Run, members: list[str], name: str, events: Session) -> None:
    from ensemble.blend import members_table
    from ensemble.cli.plain import plain
    from ensemble.soup.recipes import soup_members
    from ensemble.tables.members import show_members

    made = soup_members(run, members, name, events)
    for fold, chosen in enumerate(made.chosen):
        events.message(f"{name} fold {fold}: {' + '.join(chosen)}")
    rows = [row for row in members_table(run) if row.member in (*members, name)]
    show_members(rows)
    events.answer({"run": str(run), **plain(made), "members": plain(rows)})
    events.message(f"next: ens compare {run}/{members[0]} {run}/{name}")


@click.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.option("--members", help="Only these members, comma-separated. [default: all of the experiment]")
@click.option("--seeds", type=click.IntRange(1, 100), default=1, show_default=True, help="Networks of each member.")
@JSON
def refit(run: Path, members: str | None, seeds: int, as_json: bool) -> None:
    """Train the members of a finished RUN once more, on all rows.

    A refit learns from K / (K - 1) times the rows of a fold network, and costs one network at prediction. No row is
    left to score it: its score is the recipe's, which the folds say. Several seeds are averaged at prediction. The same
    command resumes where it was stopped.

    Example: ens refit runs/art --members lite0 --seeds 2
    """
    with session(as_json, run) as events:
        from ensemble.blend import members_table
        from ensemble.cli.plain import plain
        from ensemble.refit.jobs import refit as refit_members
        from ensemble.tables.members import show_members

        refits, failures = refit_members(Run(run), names(members), seeds, events)
        done = [each for each in refits if each.is_done()]
        rows = [row for row in members_table(Run(run)) if row.member in {each.member.name for each in refits}]
        show_members(rows)
        events.answer({"run": str(Run(run)), "refits": [str(each) for each in done], "recipes": plain(rows)})
        events.message(UNSCORED["refit"])
        if failures:
            raise RunFailure(f"{pluralize(len(failures), 'job')} failed: " + "; ".join(failures))
        events.message(f"next: ens tta-predict {Run(run)} IMAGES --networks refit")
