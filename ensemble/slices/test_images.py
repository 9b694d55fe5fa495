"""How many test images lie in the slices that were found."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.blend import load_blend
from ensemble.data.logits import load_logits
from ensemble.data.samples import image_column, image_names, read_image_table, read_images
from ensemble.data.table.read import number
from ensemble.data.unpacked.local import as_local
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files import sealed
from ensemble.run import Run
from ensemble.slices.columns import read_columns
from ensemble.slices.properties import image_properties
from ensemble.slices.result import TestImages
from ensemble.slices.rules import Rule


@dataclass(frozen=True)
class ImageSources:
    """Where the properties of test images come from.

    images: a folder or a table.
    cache: `data.cache`.
    clusters: gives the cluster of each image file, str (n,); None where there are no clusters.
    blend: whose predictions of these images tell their classes.
    """

    images: Path
    cache: str
    clusters: Callable[[list[Path]], np.ndarray] | None
    blend: str | None


def count_test_images(
    run: Run, rules: list[Rule], given: ImageSources, events: Events
) -> tuple[TestImages, list[int | None]]:
    """How many test images lie in any of the slices, and how many in each; None where that can't be known, with a note
    that says why. Raises UserError as `read_images` does.

    rules: of the slices.
    given: where the images' properties come from.
    """
    ids, paths, read = read_images(given.images, events)
    names = np.array(ids, dtype=np.str_)
    kinds = {rule.kind for rule in rules}
    notes = list(read)
    values: dict[tuple[str, str], np.ndarray] = {}
    if "image" in kinds:
        for name, found in image_properties(paths, given.cache, events).items():
            values["image", name] = found
    if "column" in kinds and (table := as_local(given.images, events)).is_file():
        for name, texts in _columns(table, names).items():
            values["column", name] = texts
    if "class" in kinds and (predicted := _predicted(run, given, names)) is not None:
        values["class", "class"] = predicted
        notes.append("test images count as of the class that is predicted for them")
        if unpredicted := int((predicted == "").sum()):
            has = "image has" if unpredicted == 1 else "images have"
            notes.append(f"{unpredicted:,} test {has} no prediction, and count in no slice of a class")
    if "cluster" in kinds and given.clusters is not None:
        try:
            values["cluster", "cluster"] = given.clusters(paths)
        except UserError as error:
            notes.append(f"the clusters of test images are not known: {error}")
    inside = np.zeros(len(names), dtype=bool)
    counts: list[int | None] = []
    for rule in rules:
        of_rule = values.get((rule.kind, rule.of))
        lies_in = None if of_rule is None else rule.holds(_comparable(rule, of_rule))
        counts.append(None if lies_in is None else int(lies_in.sum()))
        if lies_in is not None:
            inside |= lies_in
        elif rule.kind == "class":
            blend = "" if given.blend is None else f" --blend {given.blend}"
            notes.append(
                "the classes of test images are not known, since the run holds no predictions of all of them by the "
                f"blend as it is fitted now: ens tta-predict {run} {given.images}{blend} predicts them"
            )
        else:
            notes.append(f"of test images it is not known whether they lie in: {rule.text}")
    return TestImages(str(given.images), len(names), int(inside.sum()), tuple(dict.fromkeys(notes))), counts


def _columns(table: Path, ids: np.ndarray) -> dict[str, np.ndarray]:
    read, _ = read_image_table(table, table.parent, image_names)
    return read_columns(table, ids, None, image_column(table, read).name).values


def _comparable(rule: Rule, values: np.ndarray) -> np.ndarray:
    """The values as the rule takes them: for an interval, the numbers in a column's cells."""
    if rule.value is not None or values.dtype.kind == "f":
        return values
    return np.array([number(text) for text in values.tolist()])


def _predicted(run: Run, given: ImageSources, ids: np.ndarray) -> np.ndarray | None:
    """The class that each image is decided for, str (n,), "" for one that could not be read; None if the run holds no
    predictions of them all by the blend as it is fitted now."""
    images = given.images
    name = images.stem if images.is_file() else images.resolve().name
    path = run.predictions_file(name, given.blend or "")
    if given.blend is None or not path.is_file():
        return None
    try:
        made = load_logits(path).align(ids)
        blend = load_blend(run, given.blend)
        fitted = sealed.file_checksum(run.blend_json(given.blend))
    except UserError:
        return None
    if made.meta.get("fitted") != fitted:
        return None
    probabilities = np.exp(made.values[0])  # (n, C): the file holds their logarithms
    known = ~np.isnan(probabilities).any(axis=1)
    decided = np.full(len(ids), "", dtype=object)
    decided[known] = np.array(made.classes, dtype=object)[blend.decide(probabilities[known])]
    return decided.astype(np.str_)
