"""`ens train-folds`, `ens demo`."""

from pathlib import Path
from typing import Any

import click

from ensemble.cli.options import FOLDER_OR_FILE, JSON, ON, slurm_options
from ensemble.cli.session import session
from ensemble.errors import Damaged, RunFailure, UserError
from ensemble.files import sealed
from ensemble.plural import pluralize
from ensemble.run import Run


@click.command()
@click.argument("file", type=FOLDER_OR_FILE)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key: --set train.epochs=3")
@click.option(
    "--gpus-per-job",
    metavar="N",
    help="GPUs that train one fold together; 1/k: k folds side by side on each GPU; auto: by a trial. "
    "[default: as in the FILE, or auto]",
)
@ON
@slurm_options
@click.option(
    "--wait",
    "waits",
    is_flag=True,
    help="Wait for jobs that other processes hold, in case that one dies, as the workers of a cluster do.",
)
@JSON
def train_folds(
    file: Path,
    changes: tuple[str, ...],
    gpus_per_job: str | None,
    on: str,
    waits: bool,
    as_json: bool,
    **slurm: Any,
) -> None:
    """Train every backbone of an experiment FILE on every fold.

    Finished folds are skipped and an unfinished one goes on from its last epoch, so the same command resumes a run
    that was stopped.

    Example: ens train-folds configs/digits.toml
    """
    from ensemble import blend
    from ensemble.cli.plain import plain
    from ensemble.config import load_config
    from ensemble.launch.engine import parse_engine
    from ensemble.launch.slurm import plan, read_request, require_folder, script
    from ensemble.tables.members import show_members

    if gpus_per_job is not None:
        changes = (*changes, f"gpus_per_job={gpus_per_job}")
    with session(as_json) as events:
        engine = parse_engine(on)
        request = read_request(engine.name, **slurm)
        if waits and engine.name != "local":
            raise UserError(f"--wait is for a worker on its own machine; leave it out with --on {engine.name}")
        config = load_config(file, changes)
        words = [word for change in changes for word in ("--set", change)]
        command = ("train-folds", str(file), *words, "--wait", "--json")
        if request is not None:
            require_folder(config.run)
        if request is not None and request.prints:
            text = script(*plan(config, request, command))
            events.answer({"script": text})
            print(text, end="")
            return
        events.in_run(config.run)
        if _is_changed(file):
            events.message(
                f"{file}: not as ens wrote it: read as you edited it; if you did not, put it back from a copy"
            )
        if request is None:
            from ensemble.train import jobs

            failures = jobs.train_folds(config, events, engine, waits)
        else:
            from ensemble.train import on_slurm

            failures = on_slurm.train_on_slurm(config, request, command, events)
        rows = blend.members_table(Run(config.run))
        show_members(rows)
        events.answer({"run": str(Run(config.run)), "members": plain(rows), "failed": failures})
        if failures:
            raise RunFailure(f"{pluralize(len(failures), 'job')} failed: " + "; ".join(failures))
        if request is None or not request.detaches:
            events.message(f"next: ens blend {Run(config.run)}")


def _is_changed(file: Path) -> bool:
    """True of a run's config.toml, or a copy of it, that was edited (or damaged: nobody can tell)."""
    try:
        sealed.require_sound_file(file)
    except Damaged:
        return True
    return False


@click.command()
@click.argument("folder", type=FOLDER_OR_FILE, default="ens-demo")
@JSON
def demo(folder: Path, as_json: bool) -> None:
    """Run the whole way on scikit-learn's handwritten digits, into FOLDER (ens-demo). Needs no download.

    Example: ens demo
    """
    with session(as_json) as events:
        from ensemble import demo as digits

        events.in_run(folder / "run")
        events.answer({"run": str(folder / "run"), "held_out": digits.run_demo(folder, events)})
