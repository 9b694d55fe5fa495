"""Near-copy search against imagededup: python benchmarks/audit.py PAINTINGS [--part found|tiers|natural|speed|large]

PAINTINGS is the training folder of the art paintings. All but tiers and natural need imagededup (pip install -e
".[benchmarks]").

- tiers: six copies of each of 600 paintings (mirrored, turned by 90 degrees, 5 % of each side cut off, JPEG quality 50,
  half the size, brighter or darker) are planted among all paintings: how many are found as copies, and how many as
  copies or look-alikes, and which share of the pairs found is right: shows one painting. What shows one painting to
  begin with (KNOWN: what any search found, judged by eye) is left out.
- natural: what is found where nothing is planted, of each tier: among the paintings (how many are KNOWN), in each of
  the --images-of folders (to be judged by eye), among the digits enlarged to 64 px and among drawn look-alikes
  (look_alikes.py), of which none is a copy of another.
- found: the same copies, by ens (both tiers) and by imagededup as its users call it, at its own threshold of 10, and at
  others, with each of its hashes.
- speed: scan and search of 300 files with nothing remembered, and imagededup's encoding and search, alternating.
- large: the search among 100,000 thumbnails that are mixtures of two paintings each, and its peak memory.

Thresholds were set with the masks' training images, the digits and the CALIBRATION families of look-alikes, of another
seed. The measure that they are thresholds of was chosen with paintings and EVALUATION families in view.
"""

import argparse
import io
import os
import platform
import resource
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from itertools import combinations
from pathlib import Path

import numpy as np
from look_alikes import CALIBRATION, EVALUATION, write
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_digits

from ensemble.data.copies.near import near_copies
from ensemble.data.scan import Scan, scan
from ensemble.data.scan_pieces import SIDE
from ensemble.events import SILENT

CLASSES = ("elephant", "guitar", "person")
KINDS = ("mirrored", "turned by 90", "5 % cut", "JPEG 50", "half size", "brightness")
THRESHOLDS = (2, 6, 10, 14)
KNOWN = (
    {"elephant/pic_020", "elephant/pic_168", "elephant/pic_239"},
    {"elephant/pic_048", "elephant/pic_077"},
    {"elephant/pic_147", "elephant/pic_162"},
    {"elephant/pic_209", "elephant/pic_255"},
    {"giraffe/pic_062", "giraffe/pic_074"},
    {"guitar/pic_033", "guitar/pic_112"},
    {"guitar/pic_052", "guitar/pic_138"},
    {"guitar/pic_055", "guitar/pic_175"},
    {"horse/pic_066", "horse/pic_089"},
    {"horse/pic_130", "horse/pic_168", "horse/pic_214"},
    {"horse/pic_150", "horse/pic_196"},
    {"person/pic_069", "person/pic_283"},
    {"person/pic_361", "person/pic_414", "person/pic_550"},
    {"person/pic_397", "person/pic_542"},
)
Pair = tuple[str, str]


def plant(paintings: Path, folder: Path, count: int, seed: int) -> None:
    """Write all paintings and the copies of `count` of them into one folder, as class_name.jpg and
    class_name__kind.jpg."""
    draw = np.random.default_rng(seed)
    files = sorted(paintings.rglob("*.jpg"))
    for file in files:
        shutil.copyfile(file, folder / f"{file.parent.name}_{file.name}")
    of_classes = [file for file in files if file.parent.name in CLASSES]
    for row in draw.choice(len(of_classes), min(count, len(of_classes)), replace=False):
        file = of_classes[row]
        image = Image.open(file).convert("RGB")
        width, height = image.size
        left, top = draw.uniform(0, 0.05, 2)
        box = (round(left * width), round(top * height), round((left + 0.95) * width), round((top + 0.95) * height))
        copies = (
            (ImageOps.mirror(image), 90),
            (image.transpose(Image.Transpose.ROTATE_90), 90),
            (image.crop(box), 90),
            (image, 50),
            (image.resize((width // 2, height // 2), Image.Resampling.BICUBIC), 90),
            (ImageEnhance.Brightness(image).enhance(draw.choice([0.7, 1.3])), 90),
        )
        for kind, (copy, quality) in enumerate(copies):
            copy.save(folder / f"{file.parent.name}_{file.stem}__{kind}.jpg", quality=quality)


def painting(name: str) -> str:
    """class/stem of the painting that a planted file shows; of those that are the same to begin with, the first."""
    own = name.removesuffix(".jpg").split("__")[0].replace("_", "/", 1)
    return min(next((known for known in KNOWN if own in known), {own}))


def ours(files: list[Path]) -> tuple[set[Pair], set[Pair]]:
    """Copies, and look-alikes, by the files' last two names."""
    names = [f"{file.parent.name}/{file.name}" for file in files]
    with tempfile.TemporaryDirectory() as memory:
        pairs = near_copies(scan(files, Path(memory), SILENT), SILENT)
    tiers: tuple[set[Pair], set[Pair]] = set(), set()
    for i, j, copy in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.copies.tolist(), strict=True):
        tiers[0 if copy else 1].add((names[i], names[j]))
    return tiers


def planted_tiers(folder: Path) -> tuple[set[Pair], set[Pair]]:
    """As `ours`, by the names alone."""
    copies, alike = (
        {(one.split("/")[1], other.split("/")[1]) for one, other in tier} for tier in ours(sorted(folder.iterdir()))
    )
    return copies, alike


def theirs(folder: Path, method: str, threshold: int, encodings: dict[str, str] | None = None) -> set[Pair]:
    from imagededup import methods

    found = getattr(methods, method)(verbose=False).find_duplicates(
        **({"image_dir": str(folder)} if encodings is None else {"encoding_map": encodings}),
        max_distance_threshold=threshold,
    )
    return {(min(one, other), max(one, other)) for one, others in found.items() for other in others}


def score(found: set[Pair], names: list[str]) -> tuple[list[float], float, float, float, float]:
    """Of each kind, the share of copies found as one of their painting; that of all; that of all pairs of one file; and
    the share of the found pairs that are right, raw and less those that are KNOWN."""
    copies = [name for name in names if "__" in name]
    hit = {name: (name.split("__")[0] + ".jpg", name) in found for name in copies}
    by_kind = [
        statistics.fmean(hit[name] for name in copies if name.endswith(f"__{kind}.jpg")) for kind in range(len(KINDS))
    ]
    family: dict[str, list[str]] = {}
    for name in names:
        family.setdefault(name.split("__")[0].removesuffix(".jpg"), []).append(name)
    true = {pair for own in family.values() for pair in combinations(sorted(own), 2)}
    counted = {pair for pair in found if pair in true or painting(pair[0]) != painting(pair[1])}
    right = len(counted & true)
    raw = right / max(len(found), 1)
    return by_kind, statistics.fmean(hit.values()), right / len(true), raw, right / max(len(counted), 1)


def show_found(paintings: Path, count: int, seed: int, peers: bool) -> None:
    print(
        "| search | " + " | ".join(KINDS) + " | recall of copies % | of all pairs % | raw precision % | precision % |"
    )
    print("|---|" + "---|" * (len(KINDS) + 4))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        plant(paintings, folder, count, seed)
        names = sorted(path.name for path in folder.iterdir())

        def row(name: str, found: set[Pair]) -> None:
            by_kind, *others = score(found, names)
            cells = [*by_kind, *others]
            print(f"| {name} | " + " | ".join(f"{100 * cell:.2f}" for cell in cells) + " |", flush=True)

        copies, alike = planted_tiers(folder)
        row("ens, copies", copies)
        row("ens, copies and look-alikes", copies | alike)
        if peers:
            from imagededup import methods

            row("imagededup, PHash(), as it comes", theirs(folder, "PHash", 10))
            for method in ("PHash", "DHash", "AHash", "WHash"):
                encodings = getattr(methods, method)(verbose=False).encode_images(str(folder))
                for threshold in THRESHOLDS:
                    row(f"{method}, threshold {threshold}", theirs(folder, method, threshold, encodings))
        print(f"{len(names)} files, {sum('__' in name for name in names)} of them planted")


def show_natural(paintings: Path, others: list[Path], count: int, seed: int) -> None:
    print("| images | copies | right | look-alikes | right |")
    print("|---|---|---|---|---|")

    def row(name: str, files: list[Path], right: Callable[[set[Pair]], str]) -> None:
        copies, alike = ours(files)
        print(
            f"| {name}: {len(files):,} | {len(copies)} | {right(copies)} | {len(alike)} | {right(alike)} |", flush=True
        )

    def known(tier: set[Pair]) -> str:
        stems = [tuple(name.removesuffix(".jpg") for name in pair) for pair in tier]
        return str(sum(any(set(pair) <= own for own in KNOWN) for pair in stems))

    row("paintings", sorted(paintings.rglob("*.jpg")), known)
    for folder in others:
        row(folder.name, sorted(folder.rglob("*.jpg")), lambda _: "by eye")
    with tempfile.TemporaryDirectory() as made:
        digits = load_digits()
        for at, image in enumerate(digits.images):
            large = Image.fromarray(np.uint8(image * 15.9)).resize((64, 64), Image.Resampling.BICUBIC)
            large.save(Path(made) / f"{at:04}.png")
        row("digits, enlarged", sorted(Path(made).iterdir()), lambda _: "0")
    for sort, families in (("calibration", CALIBRATION), ("evaluation", EVALUATION)):
        with tempfile.TemporaryDirectory() as made:
            write(families, Path(made), count, seed + 1)  # thresholds were set with seed 0
            for name in families:
                row(f"{name} ({sort})", sorted((Path(made) / name).iterdir()), lambda _: "0")


def show_speed(paintings: Path, rounds: int, seed: int) -> None:
    from imagededup import methods

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        files = sorted(paintings.rglob("*.jpg"))
        for row in np.random.default_rng(seed).choice(len(files), 300, replace=False):
            shutil.copyfile(files[row], folder / f"{files[row].parent.name}_{files[row].name}")
        own = sorted(folder.iterdir())
        times: dict[str, list[float]] = {"ens: scan": [], "ens: search": [], "imagededup": [], "decoding alone": []}
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as memory:
                begun = time.perf_counter()
                scanned = scan(own, Path(memory), SILENT)
                times["ens: scan"].append(time.perf_counter() - begun)
                times["ens: search"].append(taken(partial(near_copies, scanned, SILENT)))
            times["imagededup"].append(
                taken(lambda: methods.PHash(verbose=False).find_duplicates(image_dir=str(folder)))
            )
            times["decoding alone"].append(taken(lambda: [decode(path) for path in own]))
        for name, seconds in times.items():
            ms = [1000 * own / 300 for own in seconds]
            print(f"{name}: {statistics.median(ms):.2f} [{min(ms):.2f}, {max(ms):.2f}] ms an image")
        ratios = [
            peer / (scan_seconds + search_seconds)
            for peer, scan_seconds, search_seconds in zip(
                times["imagededup"], times["ens: scan"], times["ens: search"], strict=True
            )
        ]
        print(f"imagededup takes {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] times as long")


def show_large(paintings: Path, count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as made:
        files = sorted(paintings.rglob("*.jpg"))
        small = scan(files, Path(made) / "memory", SILENT).thumbnails
        mixed = np.lib.format.open_memmap(
            Path(made) / "mixed.npy", mode="w+", dtype=np.uint8, shape=(count, SIDE, SIDE)
        )
        for start in range(0, count, 4096):
            rows = draw.integers(0, len(small), (min(4096, count - start), 2))
            share = draw.uniform(0.35, 0.65, (len(rows), 1, 1))
            mixed[start : start + len(rows)] = share * small[rows[:, 0]] + (1 - share) * small[rows[:, 1]]
        rows_of = np.zeros(count)
        before = peak()
        one = Scan(
            digests=np.array([f"{row:064x}" for row in range(count)]),
            errors=(None,) * count,
            formats=np.full(count, "JPEG"),
            modes=np.full(count, "RGB"),
            widths=np.full(count, 227),
            heights=np.full(count, 227),
            orientations=np.ones(count, dtype=np.int64),
            frames=np.ones(count, dtype=np.int64),
            bytes=np.full(count, 30_000),
            means=np.zeros((count, 3), dtype=np.float32),
            stds=np.zeros((count, 3), dtype=np.float32),
            sharpness=rows_of.astype(np.float32),
            thumbnails=mixed,
        )
        begun = time.process_time()
        seconds = taken(lambda: print(f"{len(near_copies(one, SILENT).first)} pairs"))
        cores = time.process_time() - begun
        print(f"{count:,} thumbnails: {seconds:.0f} s, {cores:.0f} processor seconds, {peak() - before:.0f} MB more")


def decode(path: Path) -> None:
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        image.load()


def taken(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def peak() -> float:
    """Peak memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paintings", type=Path)
    parser.add_argument("--part", choices=("found", "tiers", "natural", "speed", "large"), default="found")
    parser.add_argument("--images-of", type=Path, nargs="*", default=[], help="more folders of the natural part")
    parser.add_argument("--each", type=int, default=150, help="drawn look-alikes of each family")
    parser.add_argument("--originals", type=int, default=600)
    parser.add_argument("--images", type=int, default=100_000, help="of the large part")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    own = parser.parse_args()
    warnings.filterwarnings("ignore")
    peer = "" if own.part in ("large", "tiers", "natural") else f", imagededup {version('imagededup')}"
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, Python {platform.python_version()}, numpy {np.__version__}{peer}")
    if own.part in ("found", "tiers"):
        show_found(own.paintings, own.originals, own.seed, own.part == "found")
    elif own.part == "natural":
        show_natural(own.paintings, own.images_of, own.each, own.seed)
    elif own.part == "speed":
        show_speed(own.paintings, own.rounds, own.seed)
    else:
        show_large(own.paintings, own.images, own.seed)


if __name__ == "__main__":
    main()
