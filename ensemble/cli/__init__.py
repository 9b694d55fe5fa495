"""The command `ens`: parse, call one function, print. Each command imports what it needs when it runs, so that
`ens --help` answers at once and `ens blend` never waits for torch."""

import io
import sys
import traceback
from types import TracebackType

import click

from ensemble import __version__
from ensemble.cli import (
    blend,
    cascade,
    distill,
    doctor,
    export,
    launch,
    look,
    networks,
    overview,
    predict,
    predict_file,
    pseudo,
    publish,
    report,
    score,
    scout,
    serve,
    slices,
    train,
    unknown,
    verify,
    view,
)
from ensemble.cli.session import ending, print_document
from ensemble.escape import escaped


def _version(context: click.Context, option: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        from ensemble.overview.doctor import version

        print(f"ens {version()}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def ens() -> None:
    """From labelled images to the best classifier they can give.

    \b
    ens demo                       see all of it work, in three minutes
    ens check DATA                 what is wrong with your images?
    ens init DATA -o mine.toml     look at your images, write an experiment file
    ens scout DATA                 which networks suit your images?
    ens train-folds mine.toml      k folds x every backbone
    ens launch mine.toml           the same on Kubernetes or a cloud: what to give to them
    ens blend RUN                  combine them, scored honestly
    ens tta-search RUN             which views are worth their cost?
    ens cascade RUN                cheapest members first, and stop when they are sure
    ens unknown RUN                tell images that are none of the classes
    ens tta-predict RUN IMAGES     predict, with test-time augmentation
    ens predict-file FILE IMAGES   the same by an exported file, without torch
    ens pseudo RUN IMAGES          learn from images without labels
    ens soup RUN                   K fold networks averaged into one
    ens refit RUN                  the same recipe on all rows
    ens export RUN -o FILE         a blend as one file, for any machine
    ens publish RUN -o FOLDER      the file with a model card, for the Hugging Face Hub
    ens view RUN                   a page that follows its training
    ens report RUN                 one page on all of it
    ens relabel RUN                which labels may be wrong?
    ens slices RUN                 in which images is it worse than elsewhere?
    ens serve RUN                  predict what programs and people send
    ens distill RUN --into NET     one small network that learns from all members
    ens compare RUN RUN            which recipe is really better?
    ens runs DIR                   all runs: scores, costs, what differs
    ens verify RUN                 is every file as it was written?
    ens score FILE --truth FILE    how good is it, now that the labels are known?
    ens submissions RUN            what was submitted, and what the board said
    ens doctor                     versions, device, cache: what would be slow here, and why
    """


for command in (
    look.check,
    look.init,
    scout.scout,
    train.train_folds,
    launch.launch,
    blend.blend_command,
    blend.compare,
    distill.distill,
    cascade.cascade,
    unknown.unknown,
    predict.tta_search,
    predict.tta_oof,
    predict.tta_predict,
    predict_file.predict_file,
    pseudo.pseudo,
    networks.soup,
    networks.refit,
    export.export,
    publish.publish,
    view.view,
    report.report,
    report.relabel,
    slices.slices,
    serve.serve,
    overview.runs,
    overview.submissions,
    score.score,
    verify.verify,
    doctor.doctor,
    train.demo,
    look.cache,
):
    ens.add_command(command)


def main() -> None:
    """Entry point: a user's mistake ends with status 2, a failure with 1, Ctrl-C with 130, each with one line and no
    traceback."""
    try:
        ens(standalone_mode=False)
    except click.UsageError as error:  # no command has begun
        text = io.StringIO()
        error.show(text)
        click.echo(escaped(text.getvalue(), lines=True), err=True, nl=False)
        if "--json" in sys.argv:
            document = {"command": error.ctx.info_name if error.ctx else None, "ens": __version__, "result": None}
            print_document({**document, "said": []}, error.format_message(), sys.stdout)
        sys.exit(2)
    except (Exception, KeyboardInterrupt) as error:
        known = ending(error)
        if known is None:
            sys.excepthook = _show_traceback
            raise
        click.echo(f"ens: {escaped(known[0])}", err=True)
        sys.exit(known[1])


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As Python does, but the error may have names in it that others gave."""
    click.echo(escaped("".join(traceback.format_exception(kind, error, trace)), lines=True), err=True, nl=False)
