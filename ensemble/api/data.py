"""Before training: look at the labelled images, and write an experiment file for them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from ensemble.api import html
from ensemble.api.printing import listening
from ensemble.audit.findings import Audit
from ensemble.config import Config, load_config
from ensemble.events import Events


@dataclass(frozen=True, repr=False)
class DataCheck:
    """What `check_data` found.

    audit: all of it, with every row concerned, as it is in audit.json.
    """

    audit: Audit

    @property
    def findings(self) -> pd.DataFrame:
        """A row for each finding, the worst first: kind, level ("error", "warning", "note"), count, what, advice,
        examples, rows (the ids of all that are concerned) and side ("train", "test", "submission")."""
        columns = ["kind", "level", "count", "what", "advice", "examples", "rows", "side"]
        return pd.DataFrame([asdict(found) for found in self.audit.findings], columns=columns)

    @property
    def worst(self) -> str | None:
        """The worst level found; None where nothing was."""
        return self.audit.worst

    def __repr__(self) -> str:
        return f"<DataCheck of {self.audit.images} images: {len(self.audit.findings)} findings, worst: {self.worst}>"

    def _repr_html_(self) -> str:
        rows = [
            [
                found.level,
                f"{'' if found.side == 'train' else f'{found.side}: '}{found.count:,} {found.what}",
                ", ".join(found.examples) + (", ..." if len(found.rows) > len(found.examples) else ""),
                found.advice,
            ]
            for found in self.audit.findings
        ]
        title = f"{self.audit.source}: {self.audit.images:,} images" + ("" if rows else ": nothing found")
        return html.table(title, ["", "found", "for example", "what to do"], rows)


def check_data(
    data: str | Path,
    *,
    test: str | Path | None = None,
    sample_submission: str | Path | None = None,
    classes: Sequence[str] = (),
    fix: str | Path | None = None,
    output: str | Path | None = None,
    events: Events | None = None,
) -> DataCheck:
    """Say what is wrong with labelled images, or odd, as `ens check` does: broken files, copies, labels, leaks,
    shortcuts, shift.

    data: a folder of class folders, a CSV or Parquet file, or an experiment file.
    test: a folder or table of the images to predict.
    sample_submission: a CSV whose ids to compare with the test images.
    classes: patterns of the class folders, where `data` can be read in several ways.
    fix: where to write a cleaned table; images stay as they are.
    output: where all findings go as JSON; None: audit.json, in the experiment's run if there is one, else here.
    events: what listens meanwhile; None prints messages and shows a progress bar.

    Raises UserError if there is nothing to check, or if a file can't be written.

    >>> open("data/art/train/a/empty.png", "w").close()
    >>> found = ens.check_data("data/art/train", events=ens.Silent())
    >>> found.findings[["level", "count", "what", "rows"]].values.tolist()
    [['error', 1, 'empty file', ('a/empty.png',)]]
    """
    from ensemble.audit.check import check

    with listening(events) as listener:
        found = check(
            Path(data), _path(test), _path(sample_submission), _path(fix), _path(output), tuple(classes), listener
        )
    return DataCheck(found)


def init_config(
    data: str | Path,
    output: str | Path = "experiment.toml",
    *,
    test: str | Path | None = None,
    sample_submission: str | Path | None = None,
    classes: Sequence[str] = (),
    images: str | Path | None = None,
    label: str | Sequence[str] | None = None,
    events: Events | None = None,
) -> Config:
    """Look at labelled images and at this machine, write a commented experiment file for them and read it, as
    `ens init` does (which can also choose for another machine, for less or more time, and among a folder's weights).

    data: a folder of class folders, a CSV or a Parquet file.
    output: the file to write, which must not be there yet.
    test: a folder or table of the images to predict.
    sample_submission: a CSV whose ids, order and header to follow.
    classes: patterns of the class folders, where `data` can be read in several ways.
    images, label: of a table, the folder that its paths start from, and the column of class names or those of 0 and 1
    for each class; None: found.
    events: what is told what was found and assumed; None prints it.

    Raises UserError, and writes nothing, if `output` is there or the data would not train.

    >>> config = ens.init_config("data/art/train", "mine.toml", events=ens.Silent())
    >>> config.folds.k
    5
    >>> print(config.data.train, config.run)
    data/art/train runs/art-2
    """
    from ensemble.init import init

    column = label if label is None or isinstance(label, str) else tuple(label)
    from ensemble.data.unpacked.local import as_local
    from ensemble.data.unpacked.source_names import with_source_names

    with listening(events) as listener:
        for source in (data, test, images):
            if source is not None:
                as_local(Path(source), listener)  # here, where it is seen how far that is
    lines = init(Path(data), _path(test), _path(sample_submission), Path(output), tuple(classes), _path(images), column)
    with listening(events) as listener:
        for line in lines:
            listener.message(with_source_names(line))
    return load_config(Path(output))


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
