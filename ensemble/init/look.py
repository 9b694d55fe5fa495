"""Where the labelled images are, how large they are, and what the test set and the sample submission hold."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ensemble.data.table import image_files, nfc, read_images, read_table
from ensemble.errors import UserError
from ensemble.init.columns import find_columns
from ensemble.tta.submission import SampleSubmission, form_of, id_forms

TRAIN_FOLDERS = {"train", "training", "train_images", "train_data", "trainset"}
OTHER_FOLDERS = {"test", "testing", "test_images", "test_data", "testset", "val", "valid", "validation", "eval", "dev"}
NOT_LABELS = ("submission", "test", "eval", "val")  # in the name of a table: not the one to train on
SAMPLE_FILES = 200  # whose headers are read


def follow(data: Path, sample_submission: Path | None) -> tuple[Path, list[str]]:
    """From what the user named to the table or the folder of class folders that it means, and a line on each step.

    A folder is left for the table in it that names images and their labels, or for its train folder. Raises UserError
    if there is nothing there, or two tables and neither named train.
    """
    if not data.exists():
        raise UserError(f"{data}: no such file or folder")
    if data.is_file():
        return data, []
    tables, failure = _tables(data, sample_submission)
    if len(tables) > 1:
        tables = [table for table in tables if table.stem.lower().startswith("train")] or tables
        if len(tables) > 1:
            names = ", ".join(table.name for table in tables)
            raise UserError(f"{data}: several tables name images and labels ({names}); give one: ens init {tables[0]}")
    if tables:
        return tables[0], [f"{tables[0].name} in {data} names the images and their labels, so it is what is trained on"]
    folders = [folder for folder in sorted(data.iterdir()) if folder.is_dir() and image_files(folder)]
    train = [folder for folder in folders if folder.name.lower() in TRAIN_FOLDERS]
    others = [folder for folder in folders if folder not in train]
    # A class may be called "train" too: it is a part of the data only where all that lies beside it is another part.
    if len(train) == 1 and all(folder.name.lower() in OTHER_FOLDERS for folder in others):
        source, notes = follow(train[0], sample_submission)
        aside = f"; not trained on: {', '.join(folder.name for folder in others)}" if others else ""
        return source, [f"{train[0].name} in {data} holds the training images{aside}", *notes]
    loose = [file for file in image_files(data) if file.parent == data]
    if failure is not None and (loose or len(folders) < 2):
        raise failure
    if len(folders) == 1 and not loose and any(path.is_dir() for path in folders[0].iterdir()):
        source, notes = follow(folders[0], sample_submission)
        return source, [f"{folders[0].name} is the only folder with images in {data}", *notes]
    odd = [folder.name for folder in folders if folder.name.lower() in OTHER_FOLDERS]
    if odd:
        return data, [f"warning: the folder {odd[0]!r} is taken for a class; if it is not one, move it out of {data}"]
    return data, []


def _tables(folder: Path, sample_submission: Path | None) -> tuple[list[Path], UserError | None]:
    """The tables in `folder` that name images and labels, and what the first of the others lacks."""
    usable: list[Path] = []
    failure: UserError | None = None
    for table in sorted(folder.iterdir()):
        known = table.suffix.lower() in (".csv", ".parquet", ".pq") and not table.name.startswith(".")
        asked = sample_submission is not None and table.resolve() == sample_submission.resolve()
        if not known or asked or any(word in table.stem.lower() for word in NOT_LABELS):
            continue
        try:
            find_columns(table, read_table(table))
        except UserError as error:
            failure = failure or error
        else:
            usable.append(table)
    return usable, failure


def short_sides(paths: Sequence[Path]) -> np.ndarray:
    """Shorter sides in pixels, sorted, int64, of an even sample of the files; only their headers are read.

    Raises UserError that names a file that is not an image.
    """
    rows = np.unique(np.linspace(0, len(paths) - 1, SAMPLE_FILES).astype(int))
    sides = []
    for path in (paths[row] for row in rows):
        try:
            with Image.open(path) as image:
                sides.append(min(image.size))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            raise UserError(f"{path}: not a readable image; replace it or remove it") from None
    return np.sort(np.array(sides, dtype=np.int64))


def look_at_test(test: Path, source: Path, train_paths: Sequence[Path]) -> tuple[list[str], str]:
    """Ids of the test images and a line on them. Raises UserError if they would be trained on."""
    try:
        ids, files = read_images(test)
    except UserError as error:
        hint = "; --test may also be the folder that its images lie in" if test.is_file() else ""
        raise UserError(f"{error}{hint}") from None
    seen = set(_real(train_paths))
    shared = sum(file in seen for file in _real(files))
    if shared and source.is_dir():
        raise UserError(
            f"{test}: {shared} of its images are among the training images of {source}; keep the two in folders of "
            "their own, for example train/<class>/ and test/"
        )
    warning = f"; warning: {shared} of them are training images too" if shared else ""
    return ids, f"{len(ids):,} test images in {test}{warning}"


def look_at_submission(sample: SampleSubmission, test_ids: Sequence[str] | None, classes: Sequence[str]) -> list[str]:
    """Lines on a sample submission: its columns, in which form its ids are test images, what its answers look like."""
    rows = len(sample.ids)
    lines = [f"{sample.path} has {rows:,} rows and the columns {', '.join(sample.table.columns)}"]
    if test_ids is None:
        lines.append("its ids are not compared with the test images, for no --test was given")
    else:
        asked = [nfc(id) for id in sample.ids]
        missing: dict[str, list[str]] = {}
        for form, ids in id_forms(test_ids).items():
            once = {id for id, count in Counter(ids).items() if count == 1}
            missing[form] = [id for id in asked if id not in once]
        form = min(missing, key=lambda form: len(missing[form]))  # the first of equals
        matched = rows - len(missing[form])
        what = f"its {sample.table.columns[0]!r}"
        if matched == 0:
            lines.append(
                f"warning: nothing in {what} is a test image: it has {asked[0]!r}, the images are {test_ids[0]!r}, "
                "...; give the folder or table that it names as --test"
            )
        else:
            lines.append(f"{what} holds each image's {form}: {matched:,} of {rows:,} are test images")
            if matched < rows:
                lines.append(f"warning: {rows - matched:,} are not, the first is {missing[form][0]!r}")
            if matched < len(test_ids):
                lines.append(f"{len(test_ids) - matched:,} test images are not asked for in it")
    return [*lines, _answers(sample, tuple(classes))]


def _answers(sample: SampleSubmission, classes: tuple[str, ...]) -> str:
    """In which form `ens tta-predict` will write its answers, and whether that is in doubt."""
    names = list(sample.table.columns[1:])
    form = form_of(sample, classes)
    if form == "probability":
        if len(names) == 1:
            return f"its {names[0]!r} holds probabilities: those of {classes[1]!r} will be written"
        if {nfc(name) for name in names} == set(classes):
            return "it has a column for each class: probabilities will be written"
        return (
            f"warning: its {len(names)} answer columns are not the {len(classes)} classes: {', '.join(names[:4])}, ..."
        )
    values = sorted({nfc(value.strip()) for value in sample.table.iloc[:, 1]})
    if form == "index":
        order = ", ".join(f"{index} = {name}" for index, name in enumerate(classes[:8]))
        doubt = f" (as far as {values[0]!r} in every row tells)" if len(values) == 1 else ""
        return f"its {names[0]!r} holds class numbers{doubt}: {order}{', ...' if len(classes) > 8 else ''}"
    odd = [value for value in values if value not in classes]
    if odd:
        return f"warning: its {names[0]!r} holds {odd[0]!r}, which is no class; class names will be written"
    return f"its {names[0]!r} holds class names"


def _real(files: Sequence[Path]) -> list[Path]:
    folders = {folder: folder.resolve() for folder in {file.parent for file in files}}
    return [folders[file.parent] / file.name for file in files]
