"""A run directory: every file name of it, and what its small files say.

    runs/art/
      config.toml  folds.csv  classes.json  provenance.json  contents.json
      convnext/settings.json  preprocess.json  numerics.json  speeds.json  memory.json  probe.safetensors
               teachers.json  aside.json
      convnext/fold0/model.safetensors  inference.json  oof.safetensors  views.safetensors  log.jsonl  state/
                     done.json (last)  failure.json (on a cluster, where a worker could not train it)
      .slurm/ (scripts and logs of the workers of --on slurm)
      .trackers/<name>.json (what an experiment tracker was sent)  tensorboard/  wandb/ (their own files)
      blends/stack.json  stack.safetensors  held-out/stack.safetensors
      unknown/model.safetensors  features.safetensors  blends/stack.safetensors
      predictions/<set>-<blend>.safetensors  .<set>-<blend>/ (only while unfinished)
      predictions/logits/<set>/<digest>.safetensors
      tta-search.json  audit.json  slices.json  report.html  submissions.csv  ens.log

Nothing here is a pickle. Every file has a digest, in itself (JSON, TOML and safetensors, see `ensemble.files.sealed`)
or in another one (log.jsonl in done.json, folds.csv and classes.json in provenance.json); only what people write into,
submissions.csv, and what no number comes from, ens.log and the report, have none. Files are written by
`ensemble.files.atomic`.
"""

import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from ensemble.errors import UserError
from ensemble.files import mirror, sealed
from ensemble.files.atomic import write_text
from ensemble.files.reading import read_json
from ensemble.run.member import Member
from ensemble.run.shapes import Provenance, SavedSearch
from ensemble.run.vouched import require_vouched

if TYPE_CHECKING:
    import pandas as pd

    from ensemble.api.blending import BlendKeywords, RunBlend
    from ensemble.events import Events
    from ensemble.predictions.images import Images, Prediction


@dataclass(frozen=True)
class Run:
    """A run directory, which need not be there yet. Of a URL (s3://bucket/runs/art) it is the mirror on this machine
    (`ensemble.files.mirror`).

    From Python, `members`, `blend` and `predict` say what is in it and use it; the rest are its files and its state.

    >>> run = ens.Run("runs/art")
    >>> run.members[["folds_done", "rows"]].loc["resnet"].tolist()
    [2, 24]
    """

    path: Path

    def __init__(self, path: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "path", mirror.local(Path(path)))

    def __reduce__(self) -> tuple[type["Run"], tuple[str]]:
        return Run, (str(self),)  # another machine has its mirror elsewhere

    def __str__(self) -> str:
        return mirror.display_name(self.path)

    def refresh(self) -> None:
        """Take in what other machines have written, of a run on an object store."""
        mirror.refresh(self.path)

    @property
    def members(self) -> "pd.DataFrame":
        """The members' out-of-fold scores: a row for each, the index being their names.

        rows: how many rows the scores are of, those of its finished folds.
        folds, folds_done: of the run, and how many of them the member has finished.
        optimistic: whether each fold kept the epoch that was best on these rows.
        Then of each metric the value, the ends `_low` and `_high` of its 95% interval, and `_std`, the standard
        deviation over folds; NaN where no fold is finished.

        Raises UserError if this is no run, or names a file that can't be read.
        """
        from ensemble.api.blending import member_scores

        return member_scores(self)

    def blend(
        self,
        method: str = "auto",
        metric: str = "log_loss",
        *,
        events: "Events | None" = None,
        **options: "Unpack[BlendKeywords]",
    ) -> "RunBlend":
        """Fit a blend of the members on their out-of-fold logits, score it by cross-fitting and save it, as `ens blend`
        does.

        method: as `ens blend --method`: "mean", "vote", "pool", "greedy", "stack", "trees" or "auto".
        metric: what the blend is for, as `ens blend --metric`: "log_loss", "accuracy", "macro_f1", "roc_auc", ...
        events: what listens meanwhile; None prints messages and shows a progress bar.

        The options are keywords:

        name: what it is saved as; None: the method, with "-metric" for another one than log_loss, and so on.
        views, members: lists of the names of those to use; None: all that were trained.
        priors: the test set's class shares: "uniform", or a CSV with the columns class and share; None: those of the
        rows.
        costs: with metric="expected_cost": a CSV of what mistakes cost, with the true classes in its first column and
        the predicted ones in its header.
        calibration: as `ens blend --calibration`: "temperature" (the default), "vector", "dirichlet" or "auto".
        with_runs: further runs on the same rows, whose members are blended too, under names such as "b/resnet".

        Raises UserError for an unknown name, for members that are not finished, and for files that can't be read;
        TypeError for a keyword that there is not.

        >>> blend = ens.Run("runs/art").blend("vote", events=ens.Silent())
        >>> blend.weights["weight"].sum().round(6).item()
        1.0
        """
        from ensemble.api.blending import fit_run_blend

        return fit_run_blend(self, method, metric, options, events)

    def predict(self, images: "Images", blend: str | None = None) -> "Prediction":
        """The prediction of one image or several by a blend of this run; None takes the only one. See `ens.predict`.

        >>> ens.Run("runs/art").predict("data/art/train/a/0.png", blend="mean").probabilities.shape
        (1, 2)
        """
        from ensemble.api.prediction import predict

        return predict(self, images, blend=blend)

    @property
    def config_toml(self) -> Path:
        return self.path / "config.toml"

    @property
    def folds_csv(self) -> Path:
        return self.path / "folds.csv"

    @property
    def classes_json(self) -> Path:
        return self.path / "classes.json"

    @property
    def provenance_json(self) -> Path:
        return self.path / "provenance.json"

    @property
    def contents_json(self) -> Path:
        return self.path / "contents.json"

    @property
    def view_search_json(self) -> Path:
        return self.path / "tta-search.json"

    @property
    def audit_json(self) -> Path:
        """What `ens check` found."""
        return self.path / "audit.json"

    @property
    def slices_json(self) -> Path:
        """In which parts of the images accuracy is worse than elsewhere."""
        return self.path / "slices.json"

    @property
    def report_html(self) -> Path:
        return self.path / "report.html"

    @property
    def submissions_csv(self) -> Path:
        """The ledger of what was predicted."""
        return self.path / "submissions.csv"

    @property
    def ens_log(self) -> Path:
        """On an object store, to which nothing can be appended, each machine has its own."""
        host = re.sub("[^A-Za-z0-9.-]", "-", socket.gethostname())
        return self.path / ("ens.log" if mirror.url_of(self.path) is None else f"ens-{host}.log")

    def tracker_json(self, name: str) -> Path:
        """What an experiment tracker was sent."""
        return self.path / ".trackers" / f"{name}.json"

    def blend_json(self, name: str) -> Path:
        return self.path / "blends" / f"{name}.json"

    def blend_file(self, name: str) -> Path:
        return self.path / "blends" / f"{name}.safetensors"

    def held_out_file(self, name: str) -> Path:
        """The cross-fitted probabilities of a blend."""
        return self.path / "blends" / "held-out" / f"{name}.safetensors"

    def external_file(self, name: str, member: str) -> Path:
        """The test predictions of a blend's external member."""
        return self.path / "blends" / f"{name}-{member}.safetensors"

    def predictions_file(self, images: str, blend: str) -> Path:
        return self.path / "predictions" / f"{images}-{blend}.safetensors"

    def logits_dir(self, images: str) -> Path:
        """The members' logits of a set of images, kept for the next blend of them."""
        return self.path / "predictions" / "logits" / images

    @property
    def frozen_model_file(self) -> Path:
        """A network that never saw the run's rows, whose features tell how unlike them an image is."""
        return self.path / "unknown" / "model.safetensors"

    @property
    def frozen_features_file(self) -> Path:
        """Its features of the run's rows."""
        return self.path / "unknown" / "features.safetensors"

    def detector_file(self, blend: str) -> Path:
        """What tells unknown images from the run's rows, beside this blend."""
        return self.path / "unknown" / "blends" / f"{blend}.safetensors"

    def member(self, name: str) -> Member:
        return Member(self, name)

    def member_names(self) -> list[str]:
        """Names of the backbones that the run holds, finished or not, in sorted order."""
        return sorted(path.parent.name for path in self.path.glob("*/settings.json"))

    def require(self) -> None:
        """Raise UserError unless this is a directory that `ens train-folds` has made."""
        if not self.folds_csv.is_file():
            raise UserError(f"{self}: not a run directory (it has no folds.csv); make one with: ens train-folds FILE")

    def is_begun(self) -> bool:
        """True if a fold has begun to train: the run's settings are then a fact."""
        return any(self.path.glob("*/fold*/log.jsonl"))

    def is_vouched(self) -> bool:
        """False of a run that was begun before there were digests. A file that can't be read says so where it is
        used."""
        try:
            return not self.provenance_json.is_file() or sealed.file_checksum(self.provenance_json) is not None
        except (UserError, OSError):
            return True

    def read_provenance(self) -> Provenance:
        """What provenance.json says. Raises UserError that names the file."""
        return read_json(self.provenance_json, Provenance)

    def read_classes(self) -> list[str]:
        """The names of the classes, in the order of the logits. Raises UserError that names the file."""
        if self.classes_json.is_file():
            require_vouched(self.classes_json)
        return read_json(self.classes_json, list[str])

    def read_view_search(self) -> SavedSearch:
        """What tta-search.json says. Raises UserError that names the file."""
        return read_json(self.view_search_json, SavedSearch, f"search again with: ens tta-search {self}")

    def write_config(self, text: str) -> None:
        """Write config.toml, with its checksum in a comment at the end."""
        write_text(self.config_toml, sealed.sealed_text(f"{text}# {sealed.KEY} {sealed.BLANK}\n"))


def shards_dir(predictions: Path) -> Path:
    """The finished pieces of predictions that are not whole yet."""
    return predictions.with_name(f".{predictions.stem}")


def predictions_claim(predictions: Path) -> Path:
    """Beside the pieces' folder, not in it: that is removed while the claim is held."""
    return predictions.with_name(f".{predictions.stem}.claim")
