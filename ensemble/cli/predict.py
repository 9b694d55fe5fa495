"""`ens tta-predict`, `ens tta-oof`, `ens tta-search`."""

import shlex
from pathlib import Path
from typing import Any

import click

from ensemble.cli.options import (
    CERTAINTY,
    CLUSTER,
    FOLDER_OR_FILE,
    JSON,
    NETWORKS,
    OneOf,
    certainty_options,
    cluster_options,
    names,
    searchable_metrics,
    submission_options,
)
from ensemble.cli.overview import recorded
from ensemble.cli.place import predicted, read_place, views_added, worker_command
from ensemble.cli.session import session
from ensemble.errors import UserError
from ensemble.launch.engine import LOCAL
from ensemble.run import Run
from ensemble.run.networks import UNSCORED

NOTES = {  # in the ledger
    "soup": "by soups of the folds, which have no out-of-fold score",
    "refit": "by refits on all rows; the score is the recipe's",
}


@click.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.argument("images", type=FOLDER_OR_FILE, nargs=-1, required=True)
@click.option("--blend", "blend_name", metavar="NAME", help="Which blend. [default: the only one]")
@NETWORKS
@click.option("--views", help="Comma-separated; must be those that the blend was fitted on, which is the default.")
@submission_options
@certainty_options
@click.option(
    "--keep-gb",
    type=click.FloatRange(min=0),
    default=4.0,
    show_default=True,
    help="How much of its members' logits the run stores, for other blends of the same images; 0 for none.",
)
@cluster_options
@JSON
def tta_predict(
    run: Path,
    images: tuple[Path, ...],
    blend_name: str | None,
    networks: str,
    views: str | None,
    keep_gb: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Predict IMAGES (pictures, a folder or a table) with all fold models of a RUN and a blend of them.

    Of pictures that are named one by one, the most likely classes are printed with their probabilities. Predictions of
    a folder or a table are saved in shards as they are made: after a stop the same command resumes, and ends with the
    same files. The members' logits are stored too, so that another blend of the same images runs no network.

    With --sets, --abstain and --unknown, a table beside the submission, submission.certainty.csv, says how certain each
    is.

    Example: ens tta-predict runs/art data/art/test --blend stack --sample-submission sample.csv
    """
    with session(as_json, run) as events:
        from ensemble.blend import load_blend
        from ensemble.blend.averaging import in_words
        from ensemble.cli.plain import plain
        from ensemble.data.inputs import pictures_or_source
        from ensemble.data.unpacked.source_names import source_name
        from ensemble.overview import ledger
        from ensemble.predictions.certainty import CertaintyRequest

        asked = CertaintyRequest(**{name: options.pop(name) for name in CERTAINTY})
        certainty = None if asked.is_empty else asked
        place = read_place(**{name: options.pop(name) for name in CLUSTER})
        output = options.pop("output")
        Run(run).require()
        source = pictures_or_source(images)
        if isinstance(source, list):
            if place.engine != LOCAL:
                raise UserError(f"--on {place.engine.name}: single pictures are predicted here; leave it out")
            from ensemble.tta.images import load
            from ensemble.tta.pictures import predict_pictures

            if options["sample_submission"] is not None or options["form"] is not None:
                output = output or Path("submission.csv")
            predictor = load(run, blend_name, names(views), networks, certainty, events)
            pictures = predict_pictures(Run(run), source, output, predictor, **options)
            for line in [*pictures.lines(), *filter(None, [UNSCORED.get(networks)])]:
                events.message(line)
            events.answer(plain(pictures))
            return
        from ensemble.tta.prepare import PredictionRequest

        request = PredictionRequest(
            run=Run(run),
            images=source,
            output=output or Path("submission.csv"),
            blend_name=blend_name,
            views=names(views),
            stored_bytes=int(keep_gb * 1e9),
            networks=networks,
            certainty=certainty,
            **options,
        )
        given = {"--blend": blend_name, "--networks": networks, "--views": views, "--keep-gb": keep_gb, "-o": output}
        given |= {f"--{name.replace('_', '-')}": value for name, value in {**options, **vars(asked)}.items()}
        made = predicted(request, place, worker_command("tta-predict", [run, source], given), events)
        if made is None:
            return
        events.answer({**plain(made, ("ids", "checksum", "is_new")), "rows": len(made.ids)})
        wrote = "wrote" if made.is_new else "another process wrote"
        events.message(f"{wrote} {made.submission} ({made.said}) and {made.predictions}")
        if made.certainty is not None:
            events.message(f"{wrote} {made.certainty} ({made.certain})")
        if not made.is_new:
            return
        if made.expected is not None:
            events.message(in_words(made.expected))
        fitted = load_blend(Run(run), made.blend)
        fields = {"run": Run(run), "blend": made.blend}
        fields |= {"views": ",".join(fitted.all_views), "members": ",".join(fitted.members)}
        fields |= {"images": source_name(source), "rows": len(made.ids)}
        scores = ledger.scores_of(run, made.blend)
        if networks != "folds":
            scores = {} if networks == "soup" else scores
            fields["note"] = NOTES[networks]
        recorded(Run(run).submissions_csv, made.submission, fields, scores, events)
        entry = shlex.join(["ens", "submissions", str(Run(run)), "--board", f"{made.submission}=SCORE"])
        events.message(f"next: ens report {Run(run)}; once it is scored: {entry}")


@click.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.option("--views", required=True, help="Views or named sets to add, comma-separated: --views d4,scale1.15")
@cluster_options
@JSON
def tta_oof(run: Path, views: str, as_json: bool, **cluster: Any) -> None:
    """Add out-of-fold logits under more views to a RUN that is trained, so that a blend can weigh them.

    Each row's logits come from the network that never saw the row. Nothing is trained again.

    Example: ens tta-oof runs/art --views d4,scale1.15
    """
    with session(as_json, run) as events:
        place = read_place(**cluster)
        command = worker_command("tta-oof", [run], {"--views": views})
        members = views_added(Run(run), names(views) or [], place, command, events)
        if members is None:
            return
        events.answer({"members": members})
        events.message(
            f"{', '.join(members)}: next: ens tta-search {Run(run)}, or ens blend {Run(run)} --views ... --name NAME"
        )


@click.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.option("--views", help="Views or named sets to try beside those that are there; added first.")
@click.option(
    "--metric",
    type=OneOf(searchable_metrics),
    default="log_loss",
    show_default=True,
    help="What sets of views are compared by.",
)
@JSON
def tta_search(run: Path, views: str | None, metric: str, as_json: bool) -> None:
    """Find the smallest set of views that is worth its cost, and name the views that hurt.

    Scores are out of fold, of sets that were chosen on the other folds; costs are measured on this machine.

    Example: ens tta-search runs/art --views d4
    """
    with session(as_json, run) as events:
        from ensemble.cli.plain import plain
        from ensemble.tables.views import show_view_search
        from ensemble.tta import search

        found, path = search.tta_search(Run(run), names(views), metric, events)
        show_view_search(found)
        events.answer({**plain(found), "path": str(path)})
        events.message(f"saved {path}; next: ens blend {Run(run)} --views {','.join(found.chosen)} --name NAME")
