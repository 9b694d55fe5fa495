"""Weights & Biases: offline, in RUN/wandb, unless WANDB_MODE says otherwise; `wandb sync` sends it to the server."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from ensemble.trackers.opened import Opened, Start, Status


def open_wandb(start: Start) -> Opened:
    """Each command writes a folder of its own, of one run. Steps count what was sent by all of them, since the server
    drops those that don't rise; charts are drawn over the epochs of each fold."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # ens calls nobody unasked
    import wandb

    id = start.id or secrets.token_hex(4)
    start.folder.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project=start.project,
        name=start.name,
        id=id,
        resume="allow",
        dir=str(start.folder),
        mode=os.environ.get("WANDB_MODE", "offline"),
        config=dict(start.settings),
        settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True),
    )
    known: set[str] = set()
    count = start.logged

    def log(series: str, step: int, values: Mapping[str, float]) -> None:
        nonlocal count
        if series not in known:
            known.add(series)
            run.define_metric(f"{series}/epoch", hidden=True)
            run.define_metric(f"{series}/*", step_metric=f"{series}/epoch")
        run.log({f"{series}/{name}": value for name, value in {"epoch": step, **values}.items()}, step=count)
        count += 1

    def note(name: str, text: str) -> None:
        run.summary[name] = text

    def keep(file: Path) -> None:
        artifact = wandb.Artifact(f"{start.name}-{file.stem}", type=file.stem)
        artifact.add_file(str(file))
        run.log_artifact(artifact)

    def close(status: Status) -> None:
        run.finish(exit_code=0 if status == "finished" else 1)

    return Opened(id, log, note, keep, close)
