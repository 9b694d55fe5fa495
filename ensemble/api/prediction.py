"""Prediction from Python, by a run's networks or by an exported file. Only the former load torch."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble.errors import UserError
from ensemble.exported.cascade_description import is_exported
from ensemble.predictions.certainty import OF_FILES, CertaintyRequest
from ensemble.predictions.images import Images, Prediction, named_images
from ensemble.run import Run

if TYPE_CHECKING:
    from ensemble.exported.model import ExportedModel
    from ensemble.tta.predictor import Predictor


def load(
    run: str | Path | Run,
    blend: str | None = None,
    views: Sequence[str] | None = None,
    networks: str = "folds",
    *,
    sets: float | None = None,
    sets_by: str | None = None,
    abstain: float | None = None,
    unknown: float | None = None,
) -> "Predictor | ExportedModel":
    """A run's blend with its networks on the device, or an exported file, for many calls of `predict`.

    run: a run directory; or a file that `ens export` wrote, or the folder that it wrote of a cascade, which take
        neither torch nor the run, and hold one blend
    blend: the name of a blend; None for the run's only one
    views: must be those that the blend was fitted on, as they are for None
    networks: which of its members' networks predict: those of the folds, their "soup" (of `ens soup`) or "refit"
    sets: to have a prediction set of each image: the share of images whose set is to hold the true class, 0 to 1
    sets_by: "class" to keep that promise in each class, "group" to count the images of a group as one
    abstain: to have the images marked that are better left unanswered: the error rate that the others may have, 0 to 1
    unknown: to have the images marked that may be none of the classes (see `ens unknown`): the share of images like the
        training ones that may be marked by mistake, 0 to 1

    Raises UserError for a run, blend, views or files that don't fit, and for a blend with a member that ens did not
    train, which can't predict other images; for a file as `load_exported` does.

    >>> predictor = ens.load("runs/art", "mean")
    >>> ens.predict(predictor, "data/art/train/a/0.png").classes
    ('a', 'b')
    """
    return _loaded(run, blend, views, networks, certainty=CertaintyRequest(sets, sets_by, abstain, unknown))


def predict(
    run: "str | Path | Run | Predictor | ExportedModel",
    images: Images,
    views: Sequence[str] | None = None,
    blend: str | None = None,
) -> Prediction:
    """The blend's prediction of one image or several: that of `ens tta-predict` for files of these pixels (of an
    exported file, that of `ens predict-file`), to the bit from eight images on. On a CPU a run computes each of fewer
    by itself, instead of in the batches of 16 that make an image's bits the same beside any others; their probabilities
    differ by about 1e-6.

    run: a run directory, an exported file, or what `load` gives, with which nothing is read from disk again
    images: the path of an image file; a PIL image; an array uint8 (H, W, 3), or (H, W) for grey; a tensor uint8
        (3, H, W) or float (3, H, W) in [0, 1]; a batch of such arrays (N, H, W, 3) or tensors (N, 3, H, W); or a list
        of any of these
    views, blend: as in `load`; None for what `load` gives, since it was loaded with them

    Floats are rounded to bytes, as a file would hold them, and must not be normalised by a mean. All images are turned
    upright, scaled and cropped as files are. A JPEG that PIL has opened is scaled down from its full size; one given by
    its path is first decoded at a fraction of its size, as JPEG allows.

    Raises UserError that names an image's place in the list, what it is and what is wanted, or the file that can't be
    read, and as `load` does.

    >>> prediction = ens.predict("runs/art", ["data/art/train/a/0.png", "data/art/train/b/1.png"])
    >>> prediction.probabilities.shape, len(prediction.labels)
    ((2, 2), 2)
    """
    if isinstance(run, str | Path | Run):
        count = len(named_images(images))  # what is wrong with them is told before anything is loaded
        run = _loaded(run, blend, views, images=count)
    elif views is not None or blend is not None:
        raise UserError("views and blend were chosen when the run was loaded; give them to ensemble.load instead")
    from ensemble.exported.model import ExportedModel

    if isinstance(run, ExportedModel):
        return run.predict(images)
    from ensemble.tta import images as of_run

    return of_run.predict(run, images)


def _loaded(
    run: str | Path | Run,
    blend: str | None,
    views: Sequence[str] | None,
    networks: str = "folds",
    images: int = sys.maxsize,
    certainty: CertaintyRequest | None = None,
) -> "Predictor | ExportedModel":
    """See `load`. images: how many will be predicted. certainty: what is said of each beside its class."""
    if not isinstance(run, Run) and is_exported(Path(run)):
        if blend is not None or views is not None or networks != "folds":
            raise UserError(f"{run}: an exported file holds one blend with its views and networks: name none of these")
        if certainty is not None and not certainty.is_empty:
            raise UserError(f"{run}: {OF_FILES}")
        from ensemble.exported.engines import FEW, engine_for
        from ensemble.exported.model import load_exported

        return load_exported(run, engine=engine_for("auto", images), at_once=images >= FEW)
    from ensemble.tta.images import load as load_run

    return load_run(run, blend, views, networks, certainty)
