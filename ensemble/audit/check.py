"""The command itself: read, scan, compare, write `audit.json`, and perhaps a cleaned table."""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.audit.copies import check_copies, check_test_copies
from ensemble.audit.features import features
from ensemble.audit.files import check_files, check_test_ids, has_image
from ensemble.audit.findings import Audit, Finding, ordered, save_audit
from ensemble.audit.fix import fixed, require_new, write_fixed
from ensemble.audit.groups import check_groups, check_own_folds, check_suggestion, suggest_groups
from ensemble.audit.labels import check_labels, class_counts
from ensemble.audit.read import fingerprint, read_given, read_test
from ensemble.audit.row_pairs import describe_pairs, first_rows, pairs_between, pairs_within
from ensemble.audit.rows import Given, Rows, clean_labels
from ensemble.audit.shift import check_shift, shift
from ensemble.audit.shortcuts import check_shortcuts, class_shortcuts
from ensemble.audit.sizes import by_class, check_appearance, check_sizes, size_quantiles
from ensemble.audit.submission import check_submission
from ensemble.data.copies.align import LOOK_ALIKE
from ensemble.data.copies.remembered import find_copies
from ensemble.data.copies.ties import counted, near_ties, scan_folder
from ensemble.data.name_groups import label_key
from ensemble.data.scan import Scan, scan
from ensemble.data.unpacked.source_names import source_name
from ensemble.events import Events
from ensemble.plural import pluralize
from ensemble.run import Run
from ensemble.run.outputs import require_output


def check(
    data: Path,
    test: Path | None,
    sample_submission: Path | None,
    fix: Path | None,
    output: Path | None,
    classes: tuple[str, ...],
    events: Events,
) -> Audit:
    """Audit labelled images and write what was found.

    data: a folder of class folders, a folder that holds those, a table, or an experiment file. fix: where to write the
    cleaned table; a name that is free. output: where `audit.json` goes; None: into the experiment's run directory if
    there is one, else into the working directory. classes: patterns of a folder's class folders, where it can be read
    in several ways.
    Raises UserError if there is nothing to audit, or if a file can't be written.
    """
    given = read_given(data, sample_submission, classes, events)
    default = Run(given.run or Path()).audit_json
    output = output or default
    inputs = [data, given.rows.source, test, sample_submission]
    require_output(output, inputs, allowed=default, begins="{")
    if fix is not None:
        require_new(fix)
        require_output(fix, inputs)
    for text in given.notes:
        events.message(text)
    rows, tested = given.rows, None if test is None else read_test(test, events)
    for text in () if tested is None else tested.notes:
        events.message(f"test: {text}")
    paths, at, test_at = _files(rows, tested)
    with scan_folder(given.cache) as folder:
        seen = scan(paths, folder, events)
        train_files = np.unique(at[at >= 0])
        # among the training images alone, as training does: test images would change the neighbours
        ours = find_copies(seen, train_files, folder, events)
        pairs = ours if tested is None else find_copies(seen, np.arange(len(paths)), folder, events)
    events.progress("comparing the images with their labels", 0, 3)
    train_of, test_of = first_rows(at, len(paths)), first_rows(test_at, len(paths))
    within = pairs_within(ours, train_of[train_files])
    if ours_counted := counted(ours):
        events.message(ours_counted)
    pair_rows = describe_pairs(within, "train-train", rows, rows)
    labels = clean_labels(rows)
    counts = class_counts(labels)
    found = [
        *check_labels(given),
        *check_groups(given),
        *check_own_folds(given),
        *_of_one_side(given, rows, at, seen, "train"),
        *check_copies(given, within),
    ]
    sizes = {"train": size_quantiles(at, seen)}
    if tested is not None:
        between, among = pairs_between(pairs, train_of, test_of), pairs_within(pairs, test_of)
        pair_rows += describe_pairs(between, "train-test", rows, tested) + describe_pairs(
            among, "test-test", tested, tested
        )
        found += check_test_ids(tested) + _of_one_side(given, tested, test_at, seen, "test")
        found += check_test_copies(rows, tested, between, among)
        sizes["test"] = size_quantiles(test_at, seen)
    if sample_submission is not None:
        found += check_submission(sample_submission, tested, list(counts))
    events.progress("looking for what gives a class away", 1, 3)
    values, ties = features(seen), near_ties(pairs, len(paths))
    of_use = np.flatnonzero(has_image(at, seen))
    keys = np.array([label_key(name) for name in labels.tolist()], dtype=np.str_)
    scores: dict[str, Any] = {
        "shortcuts": class_shortcuts(values[at[of_use]], keys[of_use], ties[at[of_use]]),
        "shift": None,
    }
    found += check_shortcuts(scores["shortcuts"], list(counts))
    if tested is not None:
        events.progress("comparing the test images with the others", 2, 3)
        unseen = np.flatnonzero(has_image(test_at, seen))
        both = at[of_use], test_at[unseen]
        scores["shift"] = shift(values[both[0]], values[both[1]], ties[both[0]], ties[both[1]])
        found += check_shift(scores["shift"], tested.ids[unseen])
    suggested = suggest_groups(given)
    found += check_suggestion(suggested)
    class_sizes, class_colours = by_class(labels, at, seen)
    audit = Audit(
        source=source_name(rows.source),
        test=None if test is None else source_name(test),
        sample_submission=None if sample_submission is None else str(sample_submission),
        run=None if given.run is None else str(given.run),
        images=len(rows),
        test_images=None if tested is None else len(tested),
        classes=counts,
        findings=ordered(found),
        pairs=tuple(pair_rows),
        sizes=sizes,
        class_sizes=class_sizes,
        class_colours=class_colours,
        scores=scores,
        groups=None
        if suggested is None
        else {key: value for key, value in asdict(suggested).items() if key != "names"},
        fingerprint=fingerprint(data, given),
    )
    save_audit(output, audit)
    alike = sum(pair["kind"] == LOOK_ALIKE for pair in pair_rows)
    more = f", {alike:,} of look-alikes" if alike else ""
    events.message(f"{output}: all rows concerned, and {pluralize(len(pair_rows) - alike, 'pair')} of copies{more}")
    if fix is not None:
        if suggested is not None:
            given = replace(given, rows=replace(rows, groups=suggested.each(rows.ids.tolist())))
            events.message(f'{suggested.describe()}: they are the column "group" of {fix}')
        for text in write_fixed(fix, fixed(given, at, seen, within, fix)):
            events.message(text)
    return audit


def _files(rows: Rows, test: Rows | None) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """Each file once, and which of them each row is: int64 (N,) and (M,), -1 where it is missing."""
    place: dict[str, int] = {}
    paths: list[Path] = []

    def places(files: Sequence[Path | None]) -> np.ndarray:
        at = np.full(len(files), -1, dtype=np.int64)
        for row, file in enumerate(files):
            if file is not None:
                name = os.path.abspath(file)  # noqa: PTH100 (Path.absolute keeps "..")
                if name not in place:
                    place[name] = len(paths)
                    paths.append(file)
                at[row] = place[name]
        return at

    return paths, places(rows.files), places(() if test is None else test.files)


def _of_one_side(given: Given, rows: Rows, at: np.ndarray, seen: Scan, side: str) -> list[Finding]:
    return [
        *check_files(rows, at, seen, side),
        *check_sizes(given, rows, at, seen, side),
        *check_appearance(rows, at, seen, side),
    ]
