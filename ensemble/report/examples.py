"""What the networks see: for one image of each class the file, the evaluation input, training crops and views.

All of it is made by the code that trains and predicts, with the stored preprocessing and settings, and then
denormalised. So a crop that differs between training and prediction can be seen here, and not only in its effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ensemble.config import Train
from ensemble.data.pixels.decode import MAX_ASPECT, Files
from ensemble.data.pixels.preprocess import Decoding, Preprocess, load_preprocess
from ensemble.inference.decodings import decodings
from ensemble.inference.network_input import view_of
from ensemble.inference.views import expand
from ensemble.report.run import MemberResults, RunResults
from ensemble.report.thumbnails import Thumbnail, from_pixels, thumbnails, upright_size
from ensemble.train.augment.crops import crops
from ensemble.train.augment.mix import mix
from ensemble.train.augment.policy import Draws, finish
from ensemble.train.augment.rarity import rare_shares
from ensemble.train.batches import batches

SIDE = 128  # px of a picture's longer side
DRAWS = 5  # of each image
CLASSES = 10
GROUPS = 4  # of members that see the same pixels
VIEWS = 10
PICTURES = 360  # 5 kB each
TRIES = 20  # images of a class, until one can be read
AUGMENTATION = (
    "crop_area", "hflip", "vflip", "rotate", "color_jitter", "trivial_augment", "augment_rare", "erase", "mixup",
    "cutmix",
)  # fmt: skip


@dataclass(frozen=True)
class SharedInput:
    """Members that see the same pixels.

    members: their names
    preprocess, settings: those of the first member
    views: without `identity`, which is the evaluation input
    whole: training crops are cut from the file at its own scale
    """

    members: tuple[str, ...]
    preprocess: Preprocess
    settings: Train
    views: tuple[str, ...]
    whole: bool

    @property
    def size(self) -> int:
        """Side of the training crops."""
        return self.settings.crop_size or self.preprocess.image_size

    @property
    def augmented(self) -> bool:
        """False for a linear probe, which is fitted on the evaluation input."""
        return self.settings.strategy != "probe"


def section(results: RunResults) -> dict[str, Any] | None:
    """For each group of members a table of pictures, and what they show in words."""
    inputs = shared_inputs(results)
    if not inputs:
        return {"missing": "No member has stored its preprocessing yet."}
    if results.files_problem:
        return {"missing": f"The images can’t be shown: {results.files_problem}."}
    shown = inputs[:GROUPS]
    columns = sum(2 + DRAWS + len(shared.views) for shared in shown)
    chosen = typical(results, results.files, min(CLASSES, max(2, PICTURES // columns)))
    if not chosen:
        return {"missing": "None of the images could be read."}
    labels = results.rows.labels
    of_classes = dict(zip(labels.tolist(), rare_shares(labels, np.arange(len(labels))), strict=True))
    rarities = np.array([of_classes[results.classes.index(name)] for name, _, _ in chosen])
    return {
        "groups": [_group(shared, chosen, rarities) for shared in shown],
        "classes_shown": len(chosen),
        "not_shown": [", ".join(shared.members) for shared in inputs[GROUPS:]],
    }


def shared_inputs(results: RunResults) -> list[SharedInput]:
    """The members in groups that see the same pixels, the largest group first. Normalisation makes no difference, since
    it is undone here."""
    groups: dict[tuple[Any, ...], SharedInput] = {}
    for member in results.members:
        path = results.run.member(member.name).preprocess_json
        if not path.is_file():
            continue
        preprocess = load_preprocess(path)
        settings = Train.model_validate(
            {key: member.settings[key] for key in Train.model_fields if key in member.settings}
        )
        views = _views(results, member)
        whole = results.config is not None and results.config.data.cache == "off"
        kind = tuple(getattr(settings, key) for key in AUGMENTATION) if settings.strategy != "probe" else ()
        size = settings.crop_size or preprocess.image_size
        key = (preprocess.image_size, preprocess.decoding, preprocess.cropping, size, kind, views, whole)
        before = groups[key].members if key in groups else ()
        first = groups.get(key, SharedInput((), preprocess, settings, views, whole))
        groups[key] = SharedInput((*before, member.name), first.preprocess, first.settings, views, whole)
    return sorted(groups.values(), key=lambda shared: -len(shared.members))


def typical(results: RunResults, files: dict[str, Path], count: int) -> list[tuple[str, str, Path]]:
    """(class, id, file) of one image a class, of at most `count` classes, evenly spread: the readable one whose
    probability of its label is nearest to the median of its class."""
    rows, numbers = results.rows, np.arange(len(results.classes))
    probability = np.zeros(len(rows.ids))
    if results.oof is not None:
        rows = results.oof.rows
        probability = results.probabilities[np.arange(len(rows.ids)), rows.labels]
    there = numbers[np.bincount(rows.labels, minlength=len(numbers)) > 0]
    found = []
    for c in there[np.unique(np.linspace(0, len(there) - 1, min(count, len(there))).round().astype(int))]:
        of_class = np.flatnonzero(rows.labels == c)
        distance = np.abs(probability[of_class] - np.median(probability[of_class]))
        nearest = of_class[np.argsort(distance, kind="stable")]
        for name in (str(rows.ids[row]) for row in nearest[:TRIES]):
            if name in files and not thumbnails([files[name]], 8)[0].problem:
                found.append((results.classes[c], name, files[name]))
                break
    return found


def seen_boxes(width: int, height: int, preprocess: Preprocess) -> dict[str, tuple[float, float, float, float]]:
    """What of an upright file of this size training crops are drawn from, and what evaluation sees: left, top, width,
    height in pixels of the file. (ensemble.data.pixels.decode cuts the same, on whole pixels.)"""
    down, across = preprocess.crop or (height, width)
    across, down = min(across, width), min(down, height)
    short = min(across, down)
    across, down = min(across, MAX_ASPECT * short), min(down, MAX_ASPECT * short)
    side = short * preprocess.image_size / preprocess.decode_size

    def middle(wide: float, high: float) -> tuple[float, float, float, float]:
        return (width - wide) / 2, (height - high) / 2, wide, high

    return {"training": middle(across, down), "evaluation": middle(side, side)}


def evaluation_views(paths: Sequence[Path], preprocess: Preprocess, views: Sequence[str]) -> dict[str, np.ndarray]:
    """Each view of each file as its network is given it, denormalised: uint8 (N, S, S, 3)."""
    squares = {
        decoding: torch.from_numpy(Files(paths, decoding).squares(np.arange(len(paths))))
        for decoding in decodings(preprocess, views)
    }
    return {
        view: _pixels(view_of(squares, preprocess, view, slice(0, len(paths)), len(paths)), preprocess)
        for view in views
    }


def training_draws(
    paths: Sequence[Path], shared: SharedInput, count: int, rarities: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """`count` batches of these files as training makes them, mixing them with each other where it mixes.

    Each is uint8 (N, S, S, 3), denormalised, with the row of each image's partner, int64 (N,), and the image's own
    share in the result, float32 (N,). rarities: float (N,), each image's chance where rarer classes are augmented more.
    """
    preprocess = shared.preprocess
    uncut = Decoding(None, preprocess.interpolation, preprocess.crop)
    files = Files(paths, uncut if shared.whole else preprocess.cropping)
    order = np.tile(np.arange(len(paths)), (count, 1))
    rng, mixing = np.random.default_rng(0), np.random.default_rng(1)
    found = []
    rare = rarities if shared.settings.augment_rare else None

    def cut(rows: np.ndarray, draws: Draws, size: int) -> torch.Tensor:
        return crops(files, rows, draws, size)

    for batch, draws, _ in batches(rng, files, cut, order, shared.size, shared.settings, 0, rare):
        images = finish(batch, draws, preprocess.mean, preprocess.std)
        images, partner, share = mix(mixing, images, shared.settings.mixup, shared.settings.cutmix)
        found.append((_pixels(images, preprocess), partner.numpy(), share.numpy()))
    return found


def _group(shared: SharedInput, chosen: Sequence[tuple[str, str, Path]], rarities: np.ndarray) -> dict[str, Any]:
    paths = [path for _, _, path in chosen]
    views = evaluation_views(paths, shared.preprocess, ("identity", *shared.views))
    drawn = training_draws(paths, shared, DRAWS, rarities) if shared.augmented else []
    rows = []
    for row, ((name, id_, path), picture) in enumerate(zip(chosen, thumbnails(paths, SIDE), strict=True)):
        width, height = upright_size(path)
        rows.append(
            {
                "name": name,
                "id": id_,
                "file": picture,
                "width": width,
                "height": height,
                "boxes": _shares(seen_boxes(width, height, shared.preprocess), width, height),
                "evaluation": from_pixels(views["identity"][row], SIDE),
                "training": [_draw(draw, row, chosen) for draw in drawn],
                "views": [(view, from_pixels(views[view][row], SIDE)) for view in shared.views],
            }
        )
    return {
        "members": shared.members,
        "views": shared.views,
        "draws": len(drawn),
        "lines": in_words(shared),
        "rows": rows,
        "size": shared.preprocess.image_size,
        "training_size": shared.size,
    }


def in_words(shared: SharedInput) -> list[str]:
    """What lies between a file and the network's input, in evaluation and in training."""
    preprocess, settings = shared.preprocess, shared.settings
    cut = (
        f"cut to its middle {preprocess.crop[1]} x {preprocess.crop[0]} px (width x height), "
        if preprocess.crop
        else ""
    )
    share = 100 * preprocess.image_size / preprocess.decode_size
    middle = (
        f"the middle {preprocess.image_size} px of that ({share:.0f} % of the side)" if share < 100 else "all of that"
    )
    lines = [
        f"Evaluation and prediction: the file is {cut}scaled ({preprocess.interpolation}) until its shorter side has "
        f"{preprocess.decode_size} px, and the network sees {middle if share < 100 else 'the middle square'}."
    ]
    if not shared.augmented:
        return [*lines, "Training: a linear probe is fitted on the evaluation input, without augmentation."]
    low, high = (100 * part for part in settings.crop_area)
    parts = [
        f"a random box of {low:.0f} to {high:.0f} % of the {'cut ' if preprocess.crop else ''}picture, "
        f"at {shared.size} px"
    ]
    parts += [
        text
        for wanted, text in (
            (settings.hflip, "half of them mirrored"),
            (settings.vflip, "half of them upside down"),
            (settings.rotate, f"turned by up to {settings.rotate:g}°"),
            (settings.color_jitter, f"light and colours changed by up to {100 * settings.color_jitter:.0f} %"),
            (settings.trivial_augment, "one operation of TrivialAugment"),
            (settings.augment_rare, "one operation of TrivialAugment, the rarer its class the more often"),
            (settings.erase, f"a box erased in {100 * settings.erase:.0f} %"),
            (settings.mixup, f"mixup ({settings.mixup:g})"),
            (settings.cutmix, f"CutMix ({settings.cutmix:g})"),
        )
        if wanted
    ]
    return [*lines, f"Training: {'; '.join(parts)}."]


def _views(results: RunResults, member: MemberResults) -> tuple[str, ...]:
    """Of training and of the best blend, without the first one, identity."""
    blended = results.best.views.get(member.name, ()) if results.best is not None else ()
    views = dict.fromkeys((*expand(member.settings.get("views", [])), *blended))
    return tuple(view for view in views if view not in ("identity", "given"))[:VIEWS]


def _pixels(images: torch.Tensor, preprocess: Preprocess) -> np.ndarray:
    """Normalised float32 (N, 3, S, S) as uint8 (N, S, S, 3)."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    values = ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(values.permute(0, 2, 3, 1).numpy())


def _draw(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray], row: int, chosen: Sequence[tuple[str, str, Path]]
) -> tuple[Thumbnail, str]:
    """A training image, and what was mixed into it."""
    pixels, partner, share = drawn
    part = round(100 * float(share[row]))
    other = chosen[int(partner[row])][0]
    mixed = f"{part} % + {100 - part} % {other}" if part < 100 and int(partner[row]) != row else ""
    return from_pixels(pixels[row], SIDE), mixed


def _shares(
    boxes: dict[str, tuple[float, float, float, float]], width: int, height: int
) -> dict[str, tuple[float, ...]]:
    """Left, top, width and height in % of the file's."""
    whole = (width, height, width, height)
    return {
        name: tuple(round(100 * side / length, 2) for side, length in zip(box, whole, strict=True))
        for name, box in boxes.items()
    }
