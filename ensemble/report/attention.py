"""What a network looked at, on request (`ens report RUN --attention`): which parts of an image its answer hangs on.

Occlusion (Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014), as captum computes it:
a grey square is slid over the image, and what counts is how far the log-probability of the answer falls while a part is
hidden. It needs no gradients and no choice of a layer, so it is the same for every architecture. An image is shown to
the fold's network that never saw it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.errors import UserError
from ensemble.report.images import confidently_wrong
from ensemble.report.run import RunResults
from ensemble.report.thumbnails import from_pixels, thumbnails

MISTAKES, TYPICAL = 8, 8  # images of the most confident mistakes, and of classes
ACROSS = 8  # steps of the square over a side; it covers two
AT_ONCE = 16  # hidden copies of an image in a batch
SIDE = 224  # px of a picture
DARK = 0.25  # what is left of the light where nothing hangs on it


@dataclass(frozen=True)
class AttentionMap:
    """How much each part of an image matters for a network's prediction.

    pixels: uint8 (S, S, 3), as the network is given them
    parts: float64 (S, S), how far the log-probability of the predicted class falls where this pixel is hidden, in nats
    predicted: the number of the class
    probability: of this class
    """

    pixels: np.ndarray
    parts: np.ndarray
    predicted: int
    probability: float


def require_captum() -> None:
    """Raise UserError if captum is not installed."""
    try:
        import captum  # noqa: F401
    except ImportError:
        raise UserError('--attention needs captum; install with: pip install "ens-vision[attention]"') from None


def section(results: RunResults) -> dict[str, Any] | None:
    """Pairs of pictures from the best single member; None where it was not asked for."""
    if not results.attention:
        return None
    if results.oof is None:
        return {"missing": "No fold is finished yet, so there is no network to look at."}
    if results.files_problem:
        return {"missing": f"The images can’t be shown: {results.files_problem}."}
    files = results.files
    member = results.oof.members[int(np.argmin([one.losses.mean() for one in results.single]))]
    rows = results.oof.rows
    groups = {
        "Most confident mistakes": confidently_wrong(results, 2 * MISTAKES).tolist(),
        "One image of each class": _typical(results),
    }
    paths = {row: files[str(rows.ids[row])] for of in groups.values() for row in of if str(rows.ids[row]) in files}
    readable = dict(zip(paths, thumbnails(list(paths.values()), 8), strict=True))
    chosen = {
        title: [row for row in of if row in readable and not readable[row].problem][:most]
        for (title, of), most in zip(groups.items(), (MISTAKES, TYPICAL), strict=True)
    }
    every = np.unique([row for of in chosen.values() for row in of]).astype(np.int64)
    seen: dict[int, AttentionMap] = {}
    for fold in np.unique(rows.folds[every]).tolist():
        of_fold = every[rows.folds[every] == fold].tolist()
        found = attention_maps(results, member, fold, [paths[row] for row in of_fold])
        seen |= dict(zip(of_fold, found, strict=True))
    return {
        "member": member,
        "groups": {title: [_card(results, row, seen[row]) for row in of] for title, of in chosen.items() if of},
    }


def attention_maps(results: RunResults, member: str, fold: int, paths: Sequence[Path]) -> list[AttentionMap]:
    """The attention maps of these images, by the network of a member's fold."""
    import torch
    from captum.attr import Occlusion
    from scipy.ndimage import gaussian_filter

    from ensemble.device import choose_device
    from ensemble.inference.eval_model import logits_of
    from ensemble.inference.member import load_fold
    from ensemble.inference.network_input import normalise
    from ensemble.report.examples import evaluation_views

    device = choose_device()
    preprocess, network = load_fold(results.run.member(member).fold(fold), len(results.classes), "float32", device)
    pixels = evaluation_views(paths, preprocess, ("identity",))["identity"]

    def answer(images: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(logits_of(network, images)[0], dim=1)

    found = []
    step = max(1, preprocess.image_size // ACROSS)
    for square in pixels:
        image = normalise(torch.from_numpy(square).permute(2, 0, 1)[None], preprocess).to(device)
        with torch.no_grad():
            log_probabilities = answer(image)[0]
            predicted = int(log_probabilities.argmax())
            fall = Occlusion(answer).attribute(
                image,
                (3, 2 * step, 2 * step),
                strides=(3, step, step),
                target=predicted,
                perturbations_per_eval=AT_ONCE,
            )
        parts = gaussian_filter(fall[0].mean(dim=0).cpu().numpy().astype(np.float64), step / 2)  # its squares show
        found.append(AttentionMap(square, parts, predicted, float(log_probabilities[predicted].exp())))
    return found


def spotlight(pixels: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """The image, dark where hiding a part costs the answer nothing; uint8 (S, S, 3)."""
    weight = np.clip(parts, 0, None)
    weight = weight / (weight.max() or 1.0)
    return np.asarray(np.rint(pixels * (DARK + (1 - DARK) * weight[..., None])), dtype=np.uint8)


def _typical(results: RunResults) -> list[int]:
    """One row of each of at most TYPICAL classes, evenly spread: of those predicted right, the median probability."""
    assert results.oof is not None
    labels = results.oof.rows.labels
    right = np.flatnonzero(results.predicted == labels)
    there = np.unique(labels[right])
    found = []
    for c in there[np.unique(np.linspace(0, len(there) - 1, min(TYPICAL, len(there))).round().astype(int))].tolist():
        of_class = right[labels[right] == c]
        found.append(int(of_class[np.argsort(results.probabilities[of_class, c], kind="stable")[len(of_class) // 2]]))
    return found


def _card(results: RunResults, row: int, seen: AttentionMap) -> dict[str, Any]:
    assert results.oof is not None
    rows = results.oof.rows
    return {
        "id": str(rows.ids[row]),
        "fold": int(rows.folds[row]),
        "label": results.classes[rows.labels[row]],
        "predicted": results.classes[seen.predicted],
        "right": seen.predicted == rows.labels[row],
        "probability": seen.probability,
        "input": from_pixels(seen.pixels, SIDE),
        "seen": from_pixels(spotlight(seen.pixels, seen.parts), SIDE),
    }
