"""trackio: in its own folder (TRACKIO_DIR, or that of Hugging Face), or wherever its environment variables say."""

import secrets
from collections.abc import Mapping
from pathlib import Path

from ensemble.trackers.opened import Opened, Start, Status


def open_trackio(start: Start) -> Opened:
    """A run of trackio is opened again by its name, which two runs of ens may share: so it gets an ending."""
    import trackio

    id = start.id or f"{start.name}-{secrets.token_hex(3)}"
    run = trackio.init(
        project=start.project,
        name=id,
        resume="allow",
        config=dict(start.settings),
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )

    def log(series: str, step: int, values: Mapping[str, float]) -> None:
        run.log({f"{series}/{name}": value for name, value in values.items()}, step=step)

    def note(name: str, text: str) -> None:
        run.log({name: trackio.Markdown(text)})

    def keep(file: Path) -> None:
        artifact = trackio.Artifact(f"{id}-{file.stem}", type=file.stem)
        artifact.add_file(str(file))
        run.log_artifact(artifact)

    def close(status: Status) -> None:
        run.finish()

    return Opened(id, log, note, keep, close)
