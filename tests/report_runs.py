"""Run directories written by hand, in the files' real formats, for the tests of the report: no network is trained."""

import csv
import json

import numpy as np
from safetensors.numpy import save_file

from ensemble.data.logits import Logits
from ensemble.files.atomic import write_text
from ensemble.files.sealed import write_json
from ensemble.run import Run


def write_run(run, classes, labels, folds, members, groups=None, settings=None, logs=None, done=None, config=None):
    """A run of N rows with ids r0, r1, ...; members: name -> logits (V, N, C) or (N, C); fold -1: never validated.

    settings, logs, done: by member; further settings, fold -> log lines, the finished folds (all, where not given).
    """
    labels, folds = np.asarray(labels), np.asarray(folds)
    ids = np.array([f"r{row}" for row in range(len(labels))])
    run.mkdir(parents=True)
    write_json(Run(run).classes_json, list(classes))
    with Run(run).folds_csv.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "label", "fold"] + ["group"] * (groups is not None))
        for row, name in enumerate(ids):
            table.writerow([name, classes[labels[row]], folds[row]] + ([groups[row]] if groups is not None else []))
    backbones = "".join(f'[[backbone]]\nname = "{name}"\ntimm = "test_resnet"\n' for name in members)
    text = config or f'run = {json.dumps(str(run))}\n[data]\ntrain = "images"\n{backbones}'
    write_text(Run(run).config_toml, text)
    write_json(Run(run).provenance_json, {"facts": {"seed": 0}, "made with": {"ens": "0.1.0", "git": "abc"}})
    for name, values in members.items():
        values = np.asarray(values, dtype=np.float32)
        values = values[None] if values.ndim == 2 else values
        own = {"timm": "test_resnet", "loss": "cross_entropy", "label_smoothing": 0.0, "image_size": 32}
        write_json(Run(run).member(name).settings_json, own | (settings or {}).get(name, {}))
        views = ("identity", "hflip")[: len(values)]
        numbers = sorted(set(folds[folds >= 0].tolist()))
        for fold in numbers:
            job = Run(run).member(name).fold(fold)
            job.path.mkdir(parents=True)
            lines = (logs or {}).get(name, {}).get(fold, [])
            job.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
            if fold not in (done or {}).get(name, numbers):
                continue
            where = np.flatnonzero(folds == fold)
            Logits(ids[where], views, tuple(classes), values[:, where]).save(job.oof_file)
            save_file({"w": np.zeros((3, 5), np.float32), "n": np.zeros(1, np.int64)}, job.model_file)
            files = [job.model_file, job.oof_file, job.log_file]
            job.mark_done(files, seconds=60.0)
    return run


def noisy_logits(labels, classes, strength, seed, spread=1.0):
    """Logits float32 (N, C) that favour the label by `strength`."""
    values = np.random.default_rng(seed).normal(0, spread, (len(labels), classes))
    values[np.arange(len(labels)), labels] += strength
    return values.astype(np.float32)
