"""One byte of a run's files is flipped or zeroed, again and again: what reads the file has to say so in one line, or
to give the very same numbers.

    python tests/faults/flips.py --n 2000

prints for each kind of file how many were tried, noticed (a UserError of one line) and harmless (equal numbers); what
is silent (other numbers) or crashes (another exception) is listed, and the exit status is then 1. `ens verify` is asked
about each as well: it has to notice all but those that lie in what nothing vouches for.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import built
import numpy as np
import torch
from recorder import Recorder

from ensemble.backbones.weights import read_tensors
from ensemble.blend import load_blend, read_result
from ensemble.blend.described import read_described
from ensemble.blend.held_out import load_held_out
from ensemble.blend.oof import read_rows
from ensemble.config import load_config, load_run_config
from ensemble.data.cache.store import open_pixels
from ensemble.data.folds import read_folds
from ensemble.data.labelled import read_labelled
from ensemble.data.logits import load_logits
from ensemble.data.pixels.preprocess import load_preprocess
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.files.reading import read_json
from ensemble.files.tensors import read_bytes
from ensemble.inference.formats import load_inference
from ensemble.overview.verify import verify
from ensemble.run import Run
from ensemble.run.shapes import SavedAudit
from ensemble.train.numerics import load_numerics
from ensemble.train.probe import load_heads

Read = Callable[[Path], object]


def told(value):
    """Anything that was read, as something to compare."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.cpu().numpy().tobytes()
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes() if value.dtype != object else value.tolist()
    if isinstance(value, dict):
        return {key: told(own) for key, own in value.items()}
    if isinstance(value, (tuple, list)):
        return [told(own) for own in value]
    return told(vars(value)) if hasattr(value, "__dict__") and not isinstance(value, type) else value


def of_rows(path):
    return read_rows(Run(path.parent)), read_folds(Run(path.parent)).to_dict("list")


def fold_of(path):
    """The fold whose directory a file lies in."""
    folder = path.parent
    return Run(folder.parent.parent).member(folder.parent.name).fold(int(folder.name.removeprefix("fold")))


def blended(path):
    return load_blend(Run(path.parent.parent), path.stem), read_result(Run(path.parent.parent), path.stem)


def held_out(path):
    run = Run(path.parents[2])
    described = read_described(run, path.stem)
    return load_held_out(run, path.stem, described["held_out"], len(described["classes"]))


READERS: dict[str, Read] = {
    "provenance.json": lambda path: (Run(path.parent).read_provenance(), of_rows(path)),
    "folds.csv": of_rows,
    "classes.json": of_rows,
    "config.toml": lambda path: load_run_config(path).model_dump(mode="json"),
    "contents.json": read_json,
    "settings.json": lambda path: Run(path.parent.parent).member(path.parent.name).read_settings(),
    "preprocess.json": load_preprocess,
    "numerics.json": load_numerics,
    "speeds.json": read_json,
    "inference.json": lambda path: load_inference(path, torch.device("cpu")),
    "probe.safetensors": load_heads,
    "model.safetensors": read_tensors,
    "oof.safetensors": load_logits,
    "views.safetensors": load_logits,
    "log.jsonl": lambda path: fold_of(path).read_log(),
    "done.json": lambda path: (fold_of(path).is_done(), fold_of(path).read_done()),
    "state/last.safetensors": read_tensors,
    "blends/*.json": blended,
    "blends/*.safetensors": blended,
    "held-out/*.safetensors": held_out,
    "predictions/*.safetensors": load_logits,
    "predictions/shards": read_bytes,
    "tta-search.json": lambda path: Run(path.parent).read_view_search(),
    "audit.json": lambda path: read_json(path, SavedAudit),
}
UNVOUCHED = {"log.jsonl"}  # of a fold that is not finished


def kind_of(path: Path) -> str | None:
    if path.parent.name == "state":
        return f"state/{path.name}"
    if path.parent.name in ("blends", "held-out", "predictions"):
        return f"{path.parent.name}/*{path.suffix}"
    if path.parent.parent.name == "predictions":
        return "predictions/shards"
    return path.name if path.name in READERS else None


def harm(data: bytes, chance: random.Random) -> bytes:
    """One byte flipped in one bit, or zeroed; in half of the cases in the first or last 300, where headers lie."""
    place = chance.randrange(len(data))
    if chance.random() < 0.5:
        near = chance.randrange(min(300, len(data)))
        place = near if chance.random() < 0.5 else len(data) - 1 - near
    harmed = bytearray(data)
    harmed[place] = 0 if chance.random() < 0.3 and harmed[place] else harmed[place] ^ 1 << chance.randrange(8)
    return bytes(harmed)


def flip_run(runs, n, seed, ask_verify):
    """Counter of (kind, outcome), and lines on what went wrong."""
    chance = random.Random(seed)
    by_kind: dict[str, list[Path]] = {}
    for run in runs:
        for path in sorted(run.rglob("*")):
            kind = kind_of(path) if path.is_file() and path.stat().st_size else None
            if kind is not None:
                by_kind.setdefault(kind, []).append(path)
    counts: Counter[tuple[str, str]] = Counter()
    wrong = []
    for turn in range(n):
        kind = list(by_kind)[turn % len(by_kind)]
        path = chance.choice(by_kind[kind])
        read = READERS[kind]
        whole, before = path.read_bytes(), told(read(path))
        path.write_bytes(harm(whole, chance))
        try:
            outcome, line = "harmless", ""
            try:
                if told(read(path)) != before:
                    outcome, line = "silent", "other numbers without a word"
            except UserError as error:
                outcome = "noticed" if "\n" not in str(error) else "crashed"
                line = str(error)
            except Exception as error:
                outcome, line = "crashed", f"{type(error).__name__}: {error}"
            counts[kind, outcome] += 1
            if outcome in ("silent", "crashed"):
                wrong.append(f"{path}: {outcome}: {line}")
            if ask_verify(turn):
                run = next(run for run in runs if path.is_relative_to(run))
                seen = any(finding.state == "damaged" for finding in verify(Run(run), SILENT).findings)
                counts["ens verify", "noticed" if seen else "harmless"] += 1
                if not seen and kind not in UNVOUCHED:
                    wrong.append(f"{path}: ens verify does not see it")
        finally:
            path.write_bytes(whole)
    return counts, wrong


def flip_cache(experiment, folder, n, seed):
    """The same for the cached pixels in `folder`: what is damaged is decoded again, to the same bytes."""
    config = load_config(experiment)
    samples = read_labelled(config)
    decoding = load_preprocess(Run(config.run).member("resnet").preprocess_json).decoding

    def pixels(events):
        found = open_pixels(samples.paths, [decoding], folder, 10**9, events)[decoding]
        return told(found.squares(np.arange(len(samples))))

    chance, before = random.Random(seed), pixels(SILENT)
    counts: Counter[tuple[str, str]] = Counter()
    wrong = []
    for _ in range(n):
        files = sorted(
            path for path in folder.glob("*/**/*") if path.suffix in (".u8", ".json") and path.stat().st_size
        )
        path = chance.choice(
            [path for path in files if path.parent.parent.name == "pixels" or path.parent.name == "digests"]
        )
        path.write_bytes(harm(path.read_bytes(), chance))
        kind = f"cache/{path.parent.name if path.parent.name == 'digests' else 'pixels'}/*{path.suffix}"
        events = Recorder()
        try:
            same = pixels(events) == before
            counts[kind, ("noticed" if events.messages else "harmless") if same else "silent"] += 1
            if not same:
                wrong.append(f"{path}: other pixels without a word")
        except Exception as error:
            counts[kind, "crashed"] += 1
            wrong.append(f"{path}: {type(error).__name__}: {error}")
    return counts, wrong


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--n", type=int, default=2000, help="flips in the run; a tenth of it in the cache")
    options.add_argument("--seed", type=int, default=0)
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        runs = built.build(folder)
        counts, wrong = flip_run(runs, options.n, options.seed, lambda turn: turn % 4 == 0)
        of_cache, more = flip_cache(folder / "e.toml", folder / "cache", options.n // 10, options.seed)
    counts, wrong = counts + of_cache, wrong + more
    outcomes = ("noticed", "harmless", "silent", "crashed")
    print(f"{'file':28} {'tried':>6} " + " ".join(f"{outcome:>8}" for outcome in outcomes))
    for kind in dict.fromkeys(kind for kind, _ in counts):
        row = [counts[kind, outcome] for outcome in outcomes]
        print(f"{kind:28} {sum(row):6} " + " ".join(f"{count:8}" for count in row))
    print("\n".join(wrong) or "nothing was silent, nothing crashed")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
