"""The command itself: look, choose, check that the data would train, write, and say what was found."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ensemble.config import load_config
from ensemble.data.folds import check_own_folds, copies, joined
from ensemble.data.name_groups import FROM_NAMES, suggested_groups
from ensemble.data.samples import Samples, image_names, read_class_folders, read_image_table, read_samples
from ensemble.data.source import Source, follow, held_out, look_at_test, short_sides
from ensemble.data.submission.sample import read_sample
from ensemble.data.table.columns import Columns, find_columns
from ensemble.data.uneven import planned, uneven, written
from ensemble.data.unpacked.local import as_local, image_folder
from ensemble.data.unpacked.source_names import with_source_names
from ensemble.errors import UserError
from ensemble.files.atomic import write_text
from ensemble.init.choose import choose_k, lone_class
from ensemble.init.machine import look_at_machine
from ensemble.init.recipe import USUAL, Options, choose_recipe, training_time
from ensemble.init.sample import look_at_submission
from ensemble.init.write import header, settings, shell
from ensemble.machine import cores
from ensemble.plural import pluralize
from ensemble.run.outputs import require_output

PLAIN_NAMES = {"train", "training", "images", "data", "dataset", "labels", "info"}  # that say nothing of the data


def init(
    data: Path,
    test: Path | None,
    sample_submission: Path | None,
    output: Path,
    classes: tuple[str, ...] = (),
    images: Path | None = None,
    label: str | tuple[str, ...] | None = None,
    options: Options = USUAL,
) -> list[str]:
    """Look at `data` and write a commented experiment file to `output`, ready for `ens train-folds`.

    data: a folder of class folders, a CSV or Parquet file, or a folder that holds one of these. classes: patterns of
    the class folders, where `data` can be read in several ways. images, label: of a table, the folder that its paths
    start from and the label's column, or those of 0 and 1 for each class; None: found. Returns a line for each thing
    found or assumed. Raises UserError, and writes nothing, if `output` exists, the data would not train, or the folder
    of weights holds none.
    """
    if output.exists():
        raise UserError(f"{output}: exists already; choose another name with -o, or delete it")
    require_output(output, [data, test, sample_submission])
    images = image_folder(images)
    sample = None if sample_submission is None else read_sample(sample_submission)
    found = Source(as_local(data)) if classes else follow(data, sample_submission, test)
    source, lines, classes = found.path, list(found.notes), classes or found.classes
    columns = None
    if not source.is_dir():
        if classes:
            raise UserError(f"--classes names folders, but {source} is a table")
        table, _ = read_image_table(source, images or source.parent, image_names)  # `samples` has its notes
        columns = find_columns(source, table, sample.table() if sample else None, images, label)
    samples = read_class_folders(source, classes) if columns is None else _read(source, columns)
    if columns is not None:
        columns, note = _with_sound_groups(columns, samples)
        samples = _read(source, columns)
        lines += [_say_columns(columns), *columns.notes, *note]
    elif images is not None or label is not None:
        raise UserError(f"{source} is a folder of class folders: --images and --label are for tables")
    lines += samples.notes
    group = None if columns is None else columns.group
    if samples.groups is None and samples.folds is None:
        suggested = suggested_groups(samples, source if columns is None else columns.images or source.parent)
        if suggested is not None:
            group, samples = FROM_NAMES, replace(samples, groups=suggested.each([str(name) for name in samples.ids]))
            lines.append(f"{suggested.describe()}; each stays in one fold (to change: data.group)")
    first_copy = copies(samples.paths)
    groups = joined(samples.groups, first_copy)
    lines += _say_classes(samples)
    copied = int((first_copy != np.arange(len(samples))).sum())
    if copied:
        byte_copies = pluralize(copied, "image is a byte-for-byte copy", "images are byte-for-byte copies")
        lines.append(f"{byte_copies} of another; a copy shares its original's fold")
    assert samples.labels is not None
    folds: np.ndarray | None = None
    if samples.folds is not None:
        check_own_folds(samples.folds, groups, samples.ids)
        folds = samples.folds
        k, why_k = int(samples.folds.max()) + 1, ""
    else:
        k, why_k = choose_k(samples, groups)
        if (name := lone_class(samples, groups)) is not None:
            raise UserError(f"{source}: all images of class {name!r} are of one kind (one group, or copies): drop it")
        folds = planned(samples.labels, samples.classes, k, groups)
    odd = None if folds is None else uneven(folds, groups if samples.folds is None else None)
    if why_k:
        lines.append(f"{k} folds instead of the usual 5: {why_k}")
    scored = f"models per backbone, each scored on the 1/{k} it never saw"
    if odd is not None:
        lines.append(odd.line())
        scored = f"models per backbone, each scored on the fold it never saw: {written(odd.sizes)} images"
    scored += f"; {why_k}" if why_k else ""
    sides = short_sides(samples.paths)
    lines.append(_say_sizes(sides, len(samples)))
    test_ids = None
    if test is not None:
        test_ids, more = look_at_test(test, source, samples.paths)
        lines += more
    lines += held_out(found, test)
    if test is None and len(found.test) == 1:
        test = found.test[0][0]
    if sample is not None:
        lines += look_at_submission(sample, test_ids, samples.classes)
    found_machine = look_at_machine(options.machine)
    counts = np.bincount(samples.labels, minlength=len(samples.classes))
    recipe = choose_recipe(found_machine.kind, options, sides, counts)
    time = training_time(recipe, found_machine.kind, len(samples), k, cores())
    lines += [*recipe.notes, f"{found_machine.description}: {recipe.describe()}; {time}"]
    usual, run = _free_run(data)
    if run != usual:
        lines.append(f"{usual} is there already, so this run is named {run}")
    text = header(run, test, sample_submission, output, [with_source_names(line) for line in lines])
    text += settings(source, run, columns or classes, samples, k, scored, recipe, group)
    write_text(output, text)
    load_config(output)
    return [*lines, f"wrote {output}: read it, then run  ens train-folds {shell(output)}"]


def _read(source: Path, columns: Columns) -> Samples:
    return read_samples(source, columns.path, columns.label, columns.id, columns.group, columns.fold, columns.images)


def _with_sound_groups(columns: Columns, samples: Samples) -> tuple[Columns, list[str]]:
    """The columns without the group, and why, if the folds that it asks for cannot be made."""
    if samples.groups is None:
        return columns, []
    reason = ""
    if samples.folds is not None:
        try:
            check_own_folds(samples.folds, samples.groups, samples.ids)
        except UserError:
            reason = f"your own folds in {columns.fold!r} split its groups"
    elif (name := lone_class(samples, samples.groups)) is not None:
        reason = f"class {name!r} stands in one group only; without that class it could be used"
    if not reason:
        return columns, []
    note = f"warning: groups of {columns.group!r} are left out: {reason}. Scores will look better than they are"
    return replace(columns, group=None), [note]


def _say_columns(columns: Columns) -> str:
    label = columns.label if isinstance(columns.label, str) else None
    kinds = {"images": columns.path, "labels": label, "ids": columns.id}
    kinds |= {"groups": columns.group, "your own folds": columns.fold}
    below = "" if columns.images is None else f"; their files are in {columns.images}"
    return "columns: " + ", ".join(f"{kind} in {name!r}" for kind, name in kinds.items() if name is not None) + below


def _say_classes(samples: Samples) -> list[str]:
    assert samples.labels is not None
    counts = np.bincount(samples.labels, minlength=len(samples.classes))
    order = np.argsort(-counts, kind="stable")
    shown = order if len(order) <= 12 else np.concatenate([order[:6], order[-3:]])
    names = [f"{samples.classes[index]} {counts[index]:,}" for index in shown]
    if len(order) > len(shown):
        names.insert(6, "...")
    lines = [f"{pluralize(len(samples), 'image')}, {pluralize(len(counts), 'class', 'classes')}: {', '.join(names)}"]
    ratio = counts.max() / counts.min()
    if ratio >= 1.5:
        lines.append(f"the largest class has {ratio:.1f} times the images of the smallest")
    if samples.groups is not None:
        unique = len(np.unique(samples.groups))
        lines.append(
            f"{pluralize(unique, 'group')}, about {len(samples) / unique:.1f} images each; none is split between folds"
        )
    if all(len(name) == 1 for name in samples.classes):
        lines.append("class names are single characters: if the images show digits or letters, turn hflip off")
    return lines


def _say_sizes(sides: np.ndarray, rows: int) -> str:
    looked = "" if len(sides) == rows else f" ({len(sides)} files looked at)"
    if sides[0] == sides[-1]:
        return f"the shorter side of every image is {sides[0]} px{looked}"
    return f"shorter sides of the images: {sides[0]} to {sides[-1]} px, median {np.median(sides):.0f}{looked}"


def _free_run(data: Path) -> tuple[Path, Path]:
    """runs/<name>, and that again, numbered if a run stands there: it would refuse another experiment."""
    full = data.resolve()
    above = [parent.stem if parent.is_file() else parent.name for parent in full.parents]  # art.zip, of art.zip/train
    candidates = [full.name if full.is_dir() else full.stem, *above]
    name = next((name for name in candidates if name and name.lower() not in PLAIN_NAMES), "images")
    usual = free = Path("runs") / name
    number = 1
    while free.exists():
        number += 1
        free = usual.with_name(f"{name}-{number}")
    return usual, free
