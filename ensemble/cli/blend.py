"""`ens blend`, `ens compare`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ensemble.cli.options import FOLDER_OR_FILE, JSON, METRIC, OneOf, names
from ensemble.cli.overview import recorded
from ensemble.cli.session import Session, session
from ensemble.errors import UserError
from ensemble.run import Run

if TYPE_CHECKING:
    from ensemble.blend import BlendOptions, BlendResult, ExternalFiles
    from ensemble.data.submission.write import Layout


OF_EVERY_ROW = {"ids", "labels", "clusters", "predicted", "losses", "tempered_losses", "Block.folds"}


def _methods() -> Sequence[str]:
    from ensemble.blend import methods

    return methods.names()


def _calibrations() -> Sequence[str]:
    from ensemble.blend.scaling import KINDS

    return KINDS


@click.command("blend")
@click.argument("runs", metavar="[RUN]...", type=FOLDER_OR_FILE, nargs=-1)
@click.option(
    "--method",
    type=OneOf(_methods),
    default="auto",
    show_default=True,
    help="How to combine; auto takes the simplest within one standard error of the best.",
)
@METRIC
@click.option(
    "--calibration",
    type=OneOf(_calibrations),
    default="temperature",
    show_default=True,
    help="What makes probabilities as sure as they are right: one temperature where the method has no scale of its "
    "own; vector, after it a factor and a bias for each class; dirichlet, a matrix; auto, the simplest within one "
    "standard error of the best.",
)
@click.option("--views", help="These views of the OOF logits, comma-separated. [default: those of training]")
@click.option("--members", help="Only these members, comma-separated. [default: all that are finished]")
@click.option("--name", help="Save it under this name. [default: the method's]")
@click.option("--prune", is_flag=True, help="Say which members and views can be left out without loss.")
@click.option(
    "--priors",
    metavar="uniform|FILE",
    help="The test set's class shares, if you know them: all equal, or a CSV with the columns class and share.",
)
@click.option(
    "--costs",
    type=FOLDER_OR_FILE,
    metavar="FILE",
    help="With --metric expected_cost: what mistakes cost, a CSV with the true classes in its first column and the "
    "predicted ones in its header. Images are then decided for the class of the least expected cost, which may not be "
    "the most probable one.",
)
@click.option(
    "--add",
    "added",
    multiple=True,
    metavar="NAME=OOF[,TEST]",
    help="Blend these predictions too, which ens did not make: out of fold, and of the test set.",
)
@click.option(
    "--read-as",
    "kinds",
    multiple=True,
    metavar="NAME=KIND",
    help="What the numbers of an added member are, where that can't be seen: probabilities, percentages, "
    "log-probabilities (natural) or logits.",
)
@click.option(
    "--labels",
    type=FOLDER_OR_FILE,
    help="Instead of a RUN: a table with the columns id, label and, if there are any, fold and group.",
)
@click.option("--apply", "output", type=FOLDER_OR_FILE, help="With --labels: blend the TEST predictions into this CSV.")
@click.option("--sample-submission", type=FOLDER_OR_FILE, help="With --apply: whose ids, order and header to follow.")
@click.option(
    "--form",
    type=click.Choice(["label", "index", "probability"]),
    help="With --apply: class names, their numbers or probabilities. [default: as in the sample]",
)
@click.option("--details", is_flag=True, help="Also print the calibration, and how the members differ.")
@JSON
def blend_command(
    runs: tuple[Path, ...],
    labels: Path | None,
    added: tuple[str, ...],
    kinds: tuple[str, ...],
    output: Path | None,
    sample_submission: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Fit a blend on a RUN's out-of-fold logits, and score it on rows that it was not fitted on.

    The plain mean and the best single member stand beside it, with 95% intervals. With --labels and --add it
    blends predictions that ens did not make, with no run directory. Of several RUNs on the same rows all members are
    blended, those of the others as NAME/MEMBER, and the blend is saved in the first.

    Example: ens blend runs/digits --method vote
    """
    run = runs[0] if runs else None
    with session(as_json, run) as events:
        from ensemble import blend

        form, details = options.pop("form"), options.pop("details")
        options |= {key: names(options[key]) for key in ("views", "members")}
        chosen = blend.BlendOptions(external=_external(added, kinds), with_runs=runs[1:], **options)
        if run is not None and labels is None:
            for option, given in (("--apply", output), ("--sample-submission", sample_submission), ("--form", form)):
                if given is not None:
                    raise UserError(
                        f"{option} goes with --labels; the images of a run are predicted by: ens tta-predict {run}"
                    )
            _blend_run(run, chosen, details, events)
        elif run is None and labels is not None:
            _blend_files(labels, chosen, Submission(output, sample_submission, form), details, events)
        else:
            raise UserError("name either a RUN, or --labels with --add; see: ens blend --help")


@dataclass(frozen=True)
class Submission:
    """What `--apply` writes.

    output: the CSV; None if the blend is not applied
    sample: a CSV whose ids, order and header are followed
    form: "label", "index" or "probability"; None for the form of the sample
    """

    output: Path | None
    sample: Path | None
    form: str | None


def _blend_run(run: Path, options: "BlendOptions", details: bool, events: Session) -> None:
    from ensemble import blend

    result = blend.blend_run(Run(run), options, events)
    _show(result, details, events)
    events.message(f"saved {result.path}")
    if result.fitted.members != result.external:
        events.message(f"next: ens tta-predict {Run(run)} IMAGES --blend {result.name} -o submission.csv")


def _blend_files(labels: Path, options: "BlendOptions", submission: Submission, details: bool, events: Session) -> None:
    """Blend predictions that ens did not make, and write those of the test set if `submission` names an output."""
    from ensemble import blend

    _require_fitting(labels, options, submission)
    output = submission.output
    if output is None:
        _show(blend.blend_files(labels, options, events), details, events)
        return
    planned: list[tuple[Layout, list[str], list[str]]] = []

    def wanted(images: Sequence[str], classes: tuple[str, ...]) -> list[str]:
        from ensemble.blend.costs import read_costs
        from ensemble.data.submission.write import follow

        matrix = None if options.costs is None else read_costs(options.costs, classes)
        layout, ids, rows = follow(submission.sample, images, classes, submission.form, matrix)
        for line in layout.notes:
            events.message(line)
        planned.append((layout, ids, [images[row] for row in rows]))
        return planned[0][2]

    result = blend.blend_files(labels, options, events, wanted)
    _show(result, details, events)
    from ensemble.data.submission.write import write_submission

    layout, ids, images = planned[0]
    probabilities = blend.apply_files(result, images)[1]
    content = write_submission(output, layout, ids, [probabilities])
    events.answer({**_plain(result), "submission": str(output), "said": content})
    events.message(f"wrote {output} ({content})")
    fields = {"blend": options.method, "members": ",".join(result.fitted.members), "rows": len(ids)}
    recorded(Run(output.parent).submissions_csv, output, fields, result.blend, events)


def _require_fitting(labels: Path, options: "BlendOptions", submission: Submission) -> None:
    """Raise UserError if options don't fit together, or if the output is one of the files that are read."""
    for option, given in (("--name", options.name), ("--members", options.members), ("--views", options.views)):
        if given is not None:
            raise UserError(f"{option} goes with a RUN; with --labels every --add is a member, and no blend is saved")
    if submission.output is None:
        for option, value in (("--sample-submission", submission.sample), ("--form", submission.form)):
            if value is not None:
                raise UserError(f"{option} goes with --apply, which names the CSV to write")
        return
    from ensemble.run.outputs import require_output

    predictions = [file for member in options.external for file in (member.oof, member.test)]
    read = [labels, options.costs, submission.sample, *predictions]
    require_output(submission.output, [*read, Run(submission.output.parent).submissions_csv])
    lacking = [member.name for member in options.external if member.test is None]
    if lacking:
        raise UserError(f"--apply needs test predictions of every member: --add {lacking[0]}=OOF,TEST")


def _show(result: "BlendResult", details: bool, events: Session) -> None:
    from ensemble.tables.blend import blend_verdict, show_blend, show_details

    if details:
        show_details(result)
    show_blend(result, details)
    events.answer(_plain(result))
    events.message(blend_verdict(result))


@click.command()
@click.argument("runs", metavar="RUN...", type=FOLDER_OR_FILE, nargs=-1, required=True)
@JSON
def compare(runs: tuple[Path, ...], as_json: bool) -> None:
    """Say which recipe is really better, on the same out-of-fold rows, with paired intervals.

    RUN is a run directory, for all its finished members in the order of its experiment file, or one member, RUN/MEMBER.
    The first is the baseline. Members of the same name in different runs are paired, and so are the plain means of such
    members. Rows are joined by what their files hold, or by id where a run keeps no digests.

    Example: ens compare runs/a runs/b
    """
    with session(as_json) as events:
        from ensemble import blend
        from ensemble.cli.plain import plain
        from ensemble.tables.compare import show_comparison, verdict

        result = blend.compare(runs, events)
        show_comparison(result)
        verdicts = [{"verdict": verdict(block)} for block in result.blocks]
        answer = plain(result, OF_EVERY_ROW)
        answer["blocks"] = [block | lines for block, lines in zip(answer["blocks"], verdicts, strict=True)]
        events.answer(answer | {"rows": len(result.labels)})


def _plain(result: "BlendResult") -> dict[str, Any]:
    from ensemble.cli.plain import plain

    fitted = result.fitted
    scores = plain(result, ("fitted", "tests", "held_out"))
    return {**scores, "method": fitted.method, "metric": fitted.metric, "classes": list(fitted.classes)}


def _external(added: Sequence[str], kinds: Sequence[str]) -> list["ExternalFiles"]:
    from ensemble.blend import ExternalFiles
    from ensemble.blend.external.scale import KINDS

    found: dict[str, str] = {}
    for text in kinds:
        name, _, kind = text.partition("=")
        if kind not in KINDS or not any(option.startswith(f"{name}=") for option in added):
            raise UserError(f"--read-as {text}: want the NAME of an --add, and one of: {', '.join(KINDS)}")
        found[name] = kind
    files = []
    for text in added:
        name, equals, paths = text.partition("=")
        oof, _, test = paths.partition(",")
        if not (name and equals and oof):
            raise UserError(f"--add {text}: want NAME=OOF or NAME=OOF,TEST, as in --add xgb=oof_xgb.csv,test_xgb.csv")
        files.append(ExternalFiles(name, Path(oof), Path(test) if test else None, found.get(name)))
    return files
