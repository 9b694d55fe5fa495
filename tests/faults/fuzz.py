"""Every reader is given damaged and hostile files: only ens's own errors may come out.

    python tests/faults/fuzz.py --n 200000 --seed 0

prints how many inputs each reader was given, refused and took, and what else it raised; status 1 if there is any. The
suite runs a short form of it. A reader that takes longer than 20 seconds counts as one that raised.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(place) for place in (HERE, HERE.parent, HERE.parents[1]) if str(place) not in sys.path]

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from mutate import mutated  # noqa: E402
from PIL import Image  # noqa: E402
from report_runs import noisy_logits, write_run  # noqa: E402

from ensemble.errors import RunFailure, UserError  # noqa: E402
from ensemble.events import SILENT  # noqa: E402
from ensemble.files.reading import read_json  # noqa: E402
from ensemble.files.sealed import write_json  # noqa: E402
from ensemble.run import Run  # noqa: E402
from ensemble.run.shapes import SavedAudit  # noqa: E402

CLASSES = ("cat", "dog", "고양이")
SECONDS = 20  # of one reading
QUICK = 0.01  # share of a reader that has a turn in the shortest form too
MEMORY = 12 * 2**30  # bytes of address space: what allocates by a header fails here


@dataclass
class Target:
    """A reader of one file. share: of the inputs, against the others' shares; a slow one has less. beside: other files
    that the reading may change. whole: what they all hold before it."""

    name: str
    path: Path
    kind: str
    read: object
    share: float = 1.0
    beside: tuple = ()
    counts: Counter = field(default_factory=Counter)
    odd: dict = field(default_factory=dict)

    def __post_init__(self):
        self.whole = {path: path.read_bytes() for path in (self.path, *self.beside)}


def silent(*_):
    return None


def make(folder):
    """The targets, with their valid files below `folder`."""
    run = make_run(folder / "run")
    return [
        *of_the_run(run),
        *of_blends(run),
        *of_tensors(run, folder / "tensors"),
        *of_the_cache(folder / "cache"),
        *of_tables(folder / "tables"),
        *of_external(folder / "foreign"),
        *of_images(folder / "images"),
    ]


def make_run(run):
    from ensemble.blend import BlendOptions, blend_run, methods
    from ensemble.blend.fit import read_oof
    from ensemble.data.pixels.preprocess import Preprocess
    from ensemble.inference.formats import Inference, save_inference
    from ensemble.train.numerics import Numerics, save_numerics
    from ensemble.tta.view_sets import search_views

    labels = np.arange(60) % 3
    members = {
        name: np.stack([noisy_logits(labels, 3, 2, seed), noisy_logits(labels, 3, 2, seed + 9)])
        for seed, name in enumerate(("net", "vit"))
    }
    line = {"lr": 1e-3, "seconds": 2.5, "images_per_second": 100.0, "micro_batch": 8, "held_out_accuracy": 0.75}
    log = [{"epoch": e, "loss": 1 / e, "held_out_log_loss": 1 / e, **line} for e in (1, 2, 3)]
    logs = {name: dict.fromkeys(range(3), log) for name in members}
    write_run(run, CLASSES, labels, np.arange(60) // 3 % 3, members, logs=logs)
    for name in members:
        Preprocess(32, 36, "bicubic", (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)).save(Run(run).member(name).preprocess_json)
        save_numerics(Run(run).member(name).numerics_json, Numerics("float32", "contiguous", False, 8, 100.0))
        write_json(Run(run).member(name).speeds_json, {"float32": 10.0, "bfloat16": 20.0})
        save_inference(Run(run).member(name).fold(0).inference_json, Inference("cpu", "float32"))
    for method in methods.names():
        blend_run(Run(run), BlendOptions(method), events=SILENT)
    blend_run(Run(run), BlendOptions("stack", "macro_f1", name="directed"), events=SILENT)
    oof = read_oof(Run(run))
    found = search_views(oof, np.ones((2, 2)), 1.0)
    from dataclasses import asdict

    write_json(Run(run).view_search_json, asdict(found))
    finding = {"kind": "shift", "level": "warning", "count": 2, "what": "odd", "advice": "look", "side": "train"}
    pair = {"first": "r0", "second": "r1", "kind": "exact", "sides": "train-train"}
    audit = {"fingerprint": None, "test": None, "findings": [finding], "pairs": [pair], "classes": {"cat": 20}}
    write_json(Run(run).audit_json, audit)
    Run(run).submissions_csv.write_text(
        "written,file,sha256,run,blend,accuracy,board\n" + "2026-01-02T03:04:05+00:00,s.csv,ab,run,mean,0.9,0.8\n" * 4
    )
    return run


def of_the_run(run):
    from ensemble.blend import compare, members_table
    from ensemble.blend.oof import read_rows
    from ensemble.config import load_config
    from ensemble.data.folds import read_folds
    from ensemble.data.pixels.preprocess import load_preprocess
    from ensemble.overview.ledger import entries
    from ensemble.overview.runs import read_run
    from ensemble.overview.trust import trust
    from ensemble.report.run import read_run as read_all
    from ensemble.run.outputs import inputs_of
    from ensemble.train.enough import enough_epochs
    from ensemble.train.numerics import load_numerics
    from ensemble.train.prepare import read_speeds

    fold = Run(run).member("net").fold(0)
    small = [
        ("done.json", fold.done_json, "json", lambda: fold.is_done()),
        ("settings.json", Run(run).member("net").settings_json, "json", lambda: Run(run).member("net").is_optimistic()),
        ("preprocess.json", Run(run).member("net").preprocess_json, "json",
         lambda: load_preprocess(Run(run).member("net").preprocess_json)),
        ("numerics.json", Run(run).member("net").numerics_json, "json",
         lambda: load_numerics(Run(run).member("net").numerics_json)),
        ("speeds.json", Run(run).member("net").speeds_json, "json",
         lambda: read_speeds(Run(run).member("net").speeds_json)),
        ("inference.json", fold.inference_json, "json", lambda: _inference(fold)),
        ("provenance.json", Run(run).provenance_json, "json", lambda: Run(run).read_provenance()),
        ("log.jsonl", fold.log_file, "jsonl",
         lambda: (fold.read_log(), enough_epochs(Run(run).member("net")))),
        ("audit.json", Run(run).audit_json, "json", lambda: read_json(Run(run).audit_json, SavedAudit)),
        ("tta-search.json", Run(run).view_search_json, "json", lambda: Run(run).read_view_search()),
        ("classes.json", Run(run).classes_json, "json", lambda: read_rows(Run(run))),
        ("folds.csv", Run(run).folds_csv, "csv", lambda: (read_rows(Run(run)), read_folds(Run(run)))),
        ("config.toml", Run(run).config_toml, "toml",
         lambda: (load_config(Run(run).config_toml), inputs_of(Run(run)))),
        ("submissions.csv", Run(run).submissions_csv, "csv", lambda: trust(entries(run))),
    ]  # fmt: skip
    targets = [Target(name, path, kind, read, 12) for name, path, kind, read in small]
    for name, path, kind, _ in small:  # and what reads them all; `ens runs` lists a run whatever is wrong with it
        targets.append(Target(f"ens report: {name}", path, kind, lambda: read_all(Run(run), SILENT), 0.004))
        targets.append(Target(f"ens compare: {name}", path, kind, lambda: compare([run]), 0.004))
        targets.append(Target(f"ens runs: {name}", path, kind, lambda: _without_a_bug(read_run(run)), 0.05))
    return [*targets, Target("members of folds.csv", Run(run).folds_csv, "csv", lambda: members_table(Run(run)), 0.05)]


def _inference(fold):
    import torch

    from ensemble.inference.formats import load_inference

    return load_inference(fold.inference_json, torch.device("cpu"))


def _without_a_bug(row):
    """`ens runs` turns every error into a note: one of no kind that ens knows begins with its class."""
    bugs = [note for note in row.notes if "can't be read (" in note]
    if bugs:
        raise AssertionError(bugs[0])


def of_blends(run):
    from ensemble.blend import list_blends, load_blend
    from ensemble.blend.oof import read_rows
    from ensemble.blend.saved import check_sources
    from ensemble.overview.blends import read_blends

    values = [np.zeros((2, 4, 3), np.float32)] * 2
    rows = read_rows(Run(run))

    def read(name):
        blend = load_blend(Run(run), name)
        check_sources(Run(run), name)
        shapes = [(len(own), 4, len(blend.classes)) for own in blend.views]
        if shapes == [value.shape for value in values]:
            made = blend.apply(values)
            assert made.shape == (4, 3) and np.isfinite(made).all(), "a blend gave no probabilities"

    targets = []
    for name in list_blends(Run(run)):
        path = Run(run).blend_json(name)
        targets.append(Target(f"blend {name}: json", path, "json", lambda name=name: read(name)))
        targets.append(Target(f"blend {name}: report", path, "json", lambda: read_blends(Run(run), rows), 0.02))
        targets.append(Target(f"blend {name}: arrays", Run(run).blend_file(name), "safetensors",
                              lambda name=name: (_vouch(run, name), read(name)), beside=(path,)))  # fmt: skip
    return targets


def _vouch(run, name):
    """The JSON of a blend says of its arrays what they are now: so that shapes and numbers are looked at."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = Run(run).blend_json(name)
    held = json.loads(path.read_bytes())
    held.pop("checksum", None)
    content = Run(run).blend_file(name).read_bytes()
    held["sha256"] = hashlib.sha256(content).hexdigest()
    try:
        held["arrays"] = {key: list(value.shape) for key, value in load(content).items()}
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError):
        return
    write_json(path, held)


def of_tensors(run, folder):
    import timm
    import torch

    from ensemble.backbones import weights
    from ensemble.data.logits import Logits, load_logits
    from ensemble.predictions import shards
    from ensemble.report.members import _numbers
    from ensemble.train.heads import Heads
    from ensemble.train.probe import load_heads
    from ensemble.train.state import TrainState, load_state, save_state

    folder.mkdir(parents=True)
    ids = np.array([f"r{row}" for row in range(20)])
    logits = Logits(ids, ("identity", "hflip"), CLASSES, np.zeros((2, 20, 3), np.float32), {"member": "net"})
    logits.save(folder / "logits.safetensors")
    shard = shards.PredictionShard(folder / "shard.safetensors", 0, 5)
    shards.write(shard, np.full((5, 3), 1 / 3, np.float32), {1: "broken"})
    model = timm.create_model("test_resnet", num_classes=3)
    optimizer = torch.optim.AdamW(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    (folder / "state").mkdir()
    state = folder / "state" / "last.safetensors"
    training = TrainState(model, optimizer, log=[{"epoch": 1, "loss": 1.0, "seconds": 1.0}])
    save_state(state, training)
    head = folder / "small.safetensors"
    small = {"fc.weight": torch.zeros(3, 4), "fc.bias": torch.zeros(3)}
    from safetensors.torch import save_file

    save_file(small, head)
    probe = folder / "probe.safetensors"
    from ensemble.backbones.weights import write_state

    heads = Heads(torch.zeros(3, 3, 4), torch.zeros(3, 3), (1.0, 1.0, 1.0))
    facts = {"strengths": json.dumps(heads.strengths)}
    write_state(probe, {"weights": heads.weights, "biases": heads.biases}, facts)
    fold = Run(run).member("net").fold(0)
    from ensemble.blend import members_table
    from ensemble.report.run import MemberResults

    facts_of_net = MemberResults("net", members_table(Run(run))[0], {}, {}, {})
    return [
        Target("logits", folder / "logits.safetensors", "safetensors",
               lambda: load_logits(folder / "logits.safetensors"), 12),
        Target("logits, mapped", folder / "logits.safetensors", "safetensors",
               lambda: load_logits(folder / "logits.safetensors", mapped=True).values.sum(), 2),
        Target("oof of a fold", fold.oof_file, "safetensors", lambda: load_logits(fold.oof_file), 8),
        Target("shard of predictions", shard.path, "safetensors",
               lambda: (shards.unreadable_rows(shard, 3), shards.read(shard)), 10),
        Target("training state", state, "safetensors", lambda: load_state(state, training), 0.05),
        Target("weights", head, "safetensors", lambda: weights.read_state(head), 10),
        Target("probes", probe, "safetensors", lambda: load_heads(probe), 10),
        Target("numbers of a model", fold.model_file, "safetensors", lambda: _numbers(Run(run), facts_of_net), 6),
    ]  # fmt: skip


def of_the_cache(folder):
    from ensemble.data.cache import shards, store
    from ensemble.data.digests import RACY_SECONDS, digests
    from ensemble.data.pixels.preprocess import Decoding
    from ensemble.data.scan import scan

    paths = [paint(folder / "images" / f"{number}.png", number) for number in range(4)]
    how = Decoding(16, "bilinear", None)
    kept = folder / "kept"

    def pixels():
        found = store.open_pixels(paths, [how], kept, 10**9, SILENT)
        assert all(min(found[how].image(row).shape[:2]) == 16 for row in range(4))
        store.summary(kept)

    pixels()
    time.sleep(RACY_SECONDS + 0.1)  # or nothing is remembered of files that young
    pixels()
    scan(paths, kept, SILENT)
    (places,) = list((kept / "pixels").rglob("*.json"))
    pixels_file = shards.data_file(places)

    def alone():
        """Without what was decoded again, in other shards, for the inputs before."""
        for path in places.parent.glob("*"):
            if path not in (places, pixels_file):
                path.unlink()
        pixels()

    (index,) = list((kept / "digests").glob("*.json"))[:1]
    (piece,) = (kept / "scans").rglob("*.safetensors")
    return [
        Target("cache: places", places, "json",
               lambda: [own.damaged(own.places, True) for own in shards.open_shards(places.parent, _held(places))], 2),
        Target("cache: pixels' places", places, "json", alone, 0.05, (pixels_file,)),
        Target("cache: pixels", pixels_file, "bytes", alone, 0.05, (places,)),
        Target("cache: digests", index, "json", lambda: digests(paths, kept / "digests", SILENT), 0.5),
        Target("cache: scan", piece, "safetensors", lambda: scan(paths, kept, SILENT), 0.3),
    ]  # fmt: skip


def _held(places):
    from ensemble.data.cache.shards import read_places

    return read_places(places) or {}


def of_tables(folder):
    from ensemble.audit.read import read_given
    from ensemble.data.corrections import read_new_labels
    from ensemble.data.samples import read_images, read_samples, read_table
    from ensemble.data.submission.write import follow
    from ensemble.data.table.columns import find_columns

    names = [paint(folder / "images" / f"{number}.png", number).name for number in range(12)]
    table = pd.DataFrame({
        "path": [f"images/{name}" for name in names], "label": [CLASSES[n % 3] for n in range(12)],
        "person": [f"p{n // 2}" for n in range(12)], "fold": np.arange(12) % 3, "weight": 1.5,
    })  # fmt: skip
    train, test, sample, edited = (folder / name for name in ("train.csv", "test.csv", "sample.csv", "relabel.csv"))
    table.to_csv(train, index=False)
    table.to_parquet(folder / "train.parquet")
    table[["path"]].to_csv(test, index=False)
    ids = [f"images/{name}" for name in names]
    pd.DataFrame({"id": ids, "label": CLASSES[0]}).to_csv(sample, index=False)
    pd.DataFrame({"id": ids, "cat": 0.1, "dog": 0.2, CLASSES[2]: 0.7}).to_csv(folder / "wide.csv", index=False)
    pd.DataFrame({"id": ids, "label": CLASSES[0], "new_label": "keep"}).to_csv(edited, index=False)

    def samples(path):
        read_samples(path, "path", "label", None, "person", "fold", None, "weight")

    def asked(path):
        layout, found, _ = follow(path, ids, CLASSES, None)
        for part in layout.tables(found, [np.full((len(found), 3), 1 / 3)]):
            part.to_csv(index=False)

    return [
        Target("table: csv", train, "csv", lambda: samples(train), 1),
        Target("table: parquet", folder / "train.parquet", "bytes", lambda: samples(folder / "train.parquet"), 0.5),
        Target("table: columns", train, "csv", lambda: find_columns(train, read_table(train)), 0.3),
        Target("table: check", train, "csv", lambda: read_given(train, None), 0.3),
        Target("table: images", test, "csv", lambda: read_images(test), 1),
        Target("sample submission", sample, "csv", lambda: asked(sample), 0.5),
        Target("sample submission, wide", folder / "wide.csv", "csv", lambda: asked(folder / "wide.csv"), 0.5),
        Target("relabel.csv", edited, "csv", lambda: read_new_labels(edited), 1),
    ]


def of_external(folder):
    from ensemble.blend.external.members import read_labels, read_predictions

    folder.mkdir(parents=True)
    values = np.random.default_rng(0).dirichlet(np.ones(3), 20)
    ids = [f"r{row}" for row in range(20)]
    wide = pd.DataFrame({"id": ids} | {name: values[:, c] for c, name in enumerate(CLASSES)})
    wide.to_csv(folder / "p.csv", index=False)
    wide.to_parquet(folder / "p.parquet")
    np.savez(folder / "p.npz", values=values, ids=np.array(ids), classes=np.array(CLASSES))
    np.savez_compressed(folder / "q.npz", values=values, ids=np.array(ids))
    np.save(folder / "p.npy", values)
    (folder / "p.ids.txt").write_text("".join(f"{name}\n" for name in ids))
    labels = pd.DataFrame({"id": ids, "label": [CLASSES[n % 3] for n in range(20)], "fold": np.arange(20) % 5})
    labels.assign(group=np.arange(20) // 2).to_csv(folder / "labels.csv", index=False)

    def read(name):
        return lambda: read_predictions(folder / name, CLASSES, silent, "x")

    return [
        Target("external: csv", folder / "p.csv", "csv", read("p.csv"), 1),
        Target("external: parquet", folder / "p.parquet", "bytes", read("p.parquet"), 0.5),
        Target("external: npz", folder / "p.npz", "npy", read("p.npz"), 1),
        Target("external: npz, compressed", folder / "q.npz", "bytes", read("q.npz"), 1),
        Target("external: npy", folder / "p.npy", "npy", read("p.npy"), 2),
        Target("external: ids", folder / "p.ids.txt", "bytes", read("p.npy"), 2),
        Target("external: labels", folder / "labels.csv", "csv", lambda: read_labels(folder / "labels.csv"), 1),
    ]


def of_images(folder):
    from ensemble.data.pixels.decode import decode, shape
    from ensemble.data.pixels.preprocess import Decoding
    from ensemble.data.scan import look
    from ensemble.report.thumbnails import thumbnails, upright_size

    how = Decoding(16, "bilinear", None)
    targets = []
    for ending in ("png", "jpg", "gif", "bmp", "tif", "webp", "ppm"):
        path = paint(folder / f"a.{ending}", 1)

        def read(path=path):
            look(path)
            thumbnails([path])
            for one in (lambda: decode(path, how), lambda: shape(path, how), lambda: upright_size(path)):
                try:
                    one()
                except UserError as error:
                    refused = error
                else:
                    refused = None
            if refused:
                raise refused

        targets.append(Target(f"image: {ending}", path, "bytes", read, 0.5))
    return targets


def paint(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if path.suffix in (".jpg", ".webp", ".png") else {}
    Image.fromarray(pixels).save(path, **options)
    return path


def try_one(target, rng):
    """Give the reader one more version of its file; the file is whole again after it."""
    data = mutated(rng, target.whole[target.path], target.kind)
    target.path.write_bytes(data)
    target.counts["tried"] += 1
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        target.read()
        target.counts["taken"] += 1
    except (UserError, RunFailure):
        target.counts["refused"] += 1
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic in Rust is no Exception
        target.counts["uncaught"] += 1
        where = traceback.extract_tb(error.__traceback__)[-1]
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "/ensemble/" in frame.filename]
        at = own[-1] if own else where
        kind = f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}"
        target.odd.setdefault(kind, (str(error)[:300], data))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for path, content in target.whole.items():
            path.write_bytes(content)


def fuzz(folder, n, seed, show=silent):
    """The targets after n inputs in all. Equal seeds make equal inputs."""
    warnings.simplefilter("ignore")
    targets = make(folder)
    rng = random.Random(seed)
    signal.signal(signal.SIGALRM, _too_long)
    quick = [own for own in targets if own.share >= QUICK]
    for done in range(n):
        target = quick[done] if done < len(quick) else rng.choices(targets, [own.share for own in targets])[0]
        try_one(target, rng)
        show(done + 1, targets)
    return targets


def _too_long(*_):
    raise TimeoutError(f"a reader took longer than {SECONDS} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the inputs that raised something else")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    memory = Path("/dev/shm")  # a disk would be asked to flush each file
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    os.environ["ENS_CACHE"] = str(folder / "unused")
    begun = time.monotonic()

    def show(done, targets):
        if done % 5000 == 0:
            bad = sum(own.counts["uncaught"] for own in targets)
            print(f"{done:,} inputs, {bad} uncaught, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)

    try:
        targets = fuzz(folder / "inputs", options.n, options.seed, show)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{'reader':34} {'inputs':>8} {'refused':>8} {'taken':>8} {'uncaught':>8}")
    for own in targets:
        numbers = " ".join(f"{own.counts[key]:8,}" for key in ("tried", "refused", "taken", "uncaught"))
        print(f"{own.name:34} {numbers}")
        for number, (kind, (text, data)) in enumerate(own.odd.items()):
            print(f"    {kind}: {text!r}"[:200])
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / f"{own.name.replace('/', '_')}-{number}").write_bytes(data)
    total = sum((own.counts for own in targets), Counter())
    print(f"{total['tried']:,} inputs, {total['uncaught']:,} uncaught, in {time.monotonic() - begun:.0f} s")
    sys.exit(1 if total["uncaught"] else 0)


if __name__ == "__main__":
    main()
