"""From what was found and chosen to the experiment file's text."""

import shlex
import textwrap
from pathlib import Path
from typing import Any

from ensemble.config import Train, Tta
from ensemble.data.name_groups import FROM_NAMES
from ensemble.data.samples import Samples
from ensemble.data.table.columns import Columns
from ensemble.data.unpacked.source_names import source_name
from ensemble.init.networks import Backbone
from ensemble.init.recipe import Recipe
from ensemble.toml import toml_value

WIDTH = 112


def header(run: Path, test: Path | None, sample_submission: Path | None, output: Path, lines: list[str]) -> str:
    """The comments at the file's head: the three commands to run next, and `lines`, what was found."""
    predict = f"ens tta-predict {shell(run)} {'TEST' if test is None else shell(test)}"
    if sample_submission is not None:
        predict += f" --sample-submission {shell(sample_submission)}"
    commands = [f"ens train-folds {shell(output)}", f"ens blend {shell(run)}"]
    rows = ["An experiment, written by ens init. Run these three in turn, in the folder where ens init was run:", ""]
    rows += [f"  {command}" for command in [*commands, f"{predict} -o submission.csv"]]
    if test is None:
        rows.append("  (TEST: a folder of the images to predict)")
    rows += ["", "What ens init found:"]
    for line in lines:
        wrapped = textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False)
        rows += [f"{'  ' if index else '- '}{part}" for index, part in enumerate(wrapped)]
    return "".join(f"# {_printable(row)}".rstrip() + "\n" for row in rows)


def settings(
    source: Path,
    run: Path,
    columns: Columns | tuple[str, ...],
    samples: Samples,
    k: int,
    scored: str,
    recipe: Recipe,
    group: str | None,
) -> str:
    """The keys, each with its comment. columns: of a table, or the patterns of a folder's class folders. k, scored:
    folds, and what each model is scored on. group: a column, or that file names
    give it."""
    table = isinstance(columns, Columns)
    kind = "a table; the paths in it start from the table's own folder" if table else "a folder of class folders"
    usual, tta = Train(), Tta()
    rows = [
        "",
        _row("run", str(run), "the folder for all that training, blending and prediction write"),
        _row("seed", 0, "of folds, augmentation and new weights"),
        "",
        "[data]",
        _row("train", source_name(source), kind),
        _row("image_size", recipe.image_size, f"side of the square that networks see, px; {recipe.why_size}"),
    ]
    if recipe.tiny:
        rows += [
            "# Images this small can also be trained from scratch, where ImageNet's photographs are no help: set",
            "# image_size = 32 and epochs = 60, and pretrained = false and lr = 1e-3 in each convolutional backbone.",
        ]
        if any(key == "freeze_bn" for key, _, _ in recipe.train):
            rows.append('# Under [train] then: strategy = "scratch", and neither head_lr nor freeze_bn.')
    if not isinstance(columns, Columns):
        if columns:
            rows.append(_row("classes", list(columns), "which folders in it are the classes"))
    else:
        rows += [
            *(
                [_row("images", source_name(columns.images), "the folder that paths start from")]
                if columns.images
                else []
            ),
            _row("path", columns.path, "column of image files"),
            _row("label", columns.label, "column of class names")
            if isinstance(columns.label, str)
            else _row("label", list(columns.label), "one column of 0 and 1 for each class"),
            _row("id", columns.id, "column that names the rows in all that is written")
            if columns.id
            else _row("id", "COLUMN", "column that names the rows; without it the path does", off=True),
        ]
    if group == FROM_NAMES:
        rows.append(_row("group", group, "images whose names say one person, place or film stay in one fold"))
    elif group is not None:
        rows.append(_row("group", group, "column of what must not be split between folds, such as one person's images"))
    elif table:
        rows.append(_row("group", "COLUMN", "column of what must not be split between folds", off=True))
    rows += [
        _row("crop", [350, 350], "cut the middle height x width px out of every image first", off=True),
        "",
        "[folds]",
    ]
    if isinstance(columns, Columns) and columns.fold is not None:
        rows.append(_row("fold", columns.fold, f"column of your own folds ({k}), used as they are"))
    else:
        rows.append(_row("k", k, scored))
    rows += ["", "[train]", *(_row(key, value, comment) for key, value, comment in recipe.train)]
    if recipe.epochs:
        rows += _usual_training(usual, {key for key, _, _ in recipe.train})
    else:
        rows.append("# To fine-tune them, where ens train-folds says that it can pay: ens init again, without --fast.")
    rows += [
        "",
        "[tta]",
        _row("views", tta.views, 'averaged at prediction; only "identity" where hflip is false'),
        _row("batch_size", tta.batch_size, "images per step in evaluation and prediction", off=True),
        "",
        "# Networks of different kinds: a blend gains most from members that err differently.",
        "#   name     of the member, and of its folder in the run",
        "#   timm     architecture and weights, as timm names them; fetched at the first use",
        '#   weights  = "FILE.safetensors" starts from a file instead; pretrained = false from scratch',
        "#   train    keys of the [train] table that are this member's own",
        *_backbones(recipe.backbones),
    ]
    return "\n".join(rows) + "\n"


def _usual_training(usual: Train, chosen: set[str]) -> list[str]:
    """Whether to mirror, and the other keys with their usual values, commented out."""
    others = {
        "crop_area": "least and largest share of the image that a random crop takes",
        "color_jitter": "random brightness, contrast, saturation; 0 where colour is all",
        "label_smoothing": "share of a target spread over all classes",
        "weight_decay": "of AdamW",
        "warmup_epochs": "while the learning rate rises; then it falls as a cosine",
        "ema": "decay of the averaged weights that are kept; 0 keeps the last ones",
    }
    rows = [
        _row("hflip", usual.hflip, "mirror at random; false where left and right matter, as in digits and text"),
        "# The usual values of the other keys; take away the # to change one.",
    ]
    rows += [_row(key, getattr(usual, key), why, off=True) for key, why in others.items() if key not in chosen]
    if "strategy" not in chosen:
        rows.append(
            _row("strategy", "full", '"probe", "partial" are faster, "probe-then-full" is often better', off=True)
        )
    return rows


def _backbones(backbones: tuple[Backbone, ...]) -> list[str]:
    rows = []
    for backbone in backbones:
        rows += [
            "",
            f"[[backbone]]  # {backbone.kind}",
            f"name = {toml_value(backbone.name)}",
            f"timm = {toml_value(backbone.timm)}",
        ]
        if backbone.weights is not None:
            rows.append(f"weights = {toml_value(str(backbone.weights))}")
        if backbone.image_size is not None:
            rows.append(f"image_size = {backbone.image_size}")
        if backbone.train:
            keys = ", ".join(f"{key} = {toml_value(value)}" for key, value in backbone.train)
            rows.append(f"train = {{ {keys} }}")
    return rows


def _row(key: str, value: Any, comment: str, off: bool = False) -> str:
    """One key with its comment beside it, or above it where the two don't fit on a line. off: commented out."""
    text = f"{'# ' if off else ''}{key} = {toml_value(value)}"
    line = f"{text.ljust(26)}  # {_printable(comment)}"
    return line if len(line) <= 120 else f"# {_printable(comment)}\n{text}"


def shell(path: Path) -> str:
    return shlex.quote(source_name(path))


def _printable(text: str) -> str:
    """A line break or a control character in a name would end the comment that it stands in."""
    return "".join(character if character.isprintable() else "?" for character in text)
