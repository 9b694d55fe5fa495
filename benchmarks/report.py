"""How long `ens report` takes of a large run, and how large its page is.

    python benchmarks/report.py [--rows 100000] [--classes 10] [--members 4] [--folds 5] [--images]

Writes a run of noise that favours the labels, with out-of-fold logits and learning curves but no weights, fits a blend
and renders its page. --images: with a picture of 48 px for each row, all scanned and searched for copies first, as
training does. Prints seconds of wall and of processor, the peak of memory and the page's size, by section too.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ensemble.blend import BlendOptions, blend_run
from ensemble.data.logits import Logits
from ensemble.events import SILENT
from ensemble.files.atomic import write_text
from ensemble.files.sealed import write_json
from ensemble.report import page, read_run
from ensemble.run import Run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--images", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = made_run(Path(folder), given.rows, given.classes, given.members, given.folds, given.images)
        with measured("blend"):
            blend_run(run, BlendOptions("pool"), events=SILENT)
        if given.images:
            with measured("searching for copies, once per data set"):
                from ensemble.report.copies import run_copies
                from ensemble.report.thumbnails import image_files

                results = read_run(run, SILENT)
                run_copies(results, results.rows.ids, image_files(results.config))
        with measured("report"):
            with measured("  reading the run"):
                results = read_run(run, SILENT)
            sections = page.SECTIONS
            for section in sections:
                page.SECTIONS = (section,)
                with measured(f"  {section[1]}"):
                    text = page.render(results, SILENT)
                print(f"    {len(text.encode()) / 1e6:.2f} MB with its frame")
            page.SECTIONS = sections
        with measured("the whole command again"):
            path = page.write_report(run, None, SILENT)
        print(f"page {path.stat().st_size / 1e6:.2f} MB")
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


class measured:
    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        self.begun = time.monotonic(), time.process_time()

    def __exit__(self, *_: object) -> None:
        wall, processor = time.monotonic() - self.begun[0], time.process_time() - self.begun[1]
        print(f"{self.what}: {wall:.1f} s, processor {processor:.1f} s", flush=True)


def made_run(folder: Path, rows: int, classes: int, members: int, folds: int, images: bool) -> Run:
    """A run in the files' real formats."""
    rng = np.random.default_rng(0)
    names = tuple(f"class {c}" for c in range(classes))
    labels, fold = rng.integers(classes, size=rows), rng.integers(folds, size=rows)
    ids = np.array([f"{names[label]}/{row}.jpg" for row, label in enumerate(labels)])
    run = Run(folder / "run")
    run.path.mkdir()
    write_json(run.classes_json, list(names))
    lines = [f"{name},{names[label]},{at}" for name, label, at in zip(ids, labels, fold, strict=True)]
    write_text(run.folds_csv, "id,label,fold\n" + "\n".join(lines) + "\n")
    backbones = "".join(f'[[backbone]]\nname = "m{m}"\ntimm = "test_resnet"\n' for m in range(members))
    write_text(
        run.config_toml,
        f"run = {json.dumps(str(run))}\n[data]\ntrain = {json.dumps(str(folder / 'train'))}\n{backbones}",
    )
    write_json(run.provenance_json, {"facts": {"seed": 0}, "made with": {}})
    shared = rng.normal(0, 1, (rows, classes))
    for m in range(members):
        member = run.member(f"m{m}")
        write_json(member.settings_json, {"timm": "test_resnet", "image_size": 32, "epochs": 20})
        values = (shared + rng.normal(0, 1, (rows, classes)) + 4 * np.eye(classes)[labels]).astype(np.float32)
        for number in range(folds):
            job = member.fold(number)
            job.path.mkdir(parents=True)
            log = [
                {"epoch": e, "loss": 2 / e, "lr": 1e-3 / e, "seconds": 9.0, "held_out_log_loss": 1 / e}
                for e in range(1, 21)
            ]
            job.log_file.write_text("".join(json.dumps(line) + "\n" for line in log))
            where = np.flatnonzero(fold == number)
            Logits(ids[where], ("identity",), names, values[None, where]).save(job.oof_file)
            job.mark_done([job.oof_file, job.log_file], seconds=60.0)
    if images:
        for name in names:
            (folder / "train" / name).mkdir(parents=True)
        for name in ids:
            small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            small.resize((48, 48)).save(folder / "train" / name, quality=80)
    return run


if __name__ == "__main__":
    main()
