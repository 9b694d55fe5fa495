"""Which JPEGs are called cut short: python benchmarks/jpegs.py FOLDER ... [--n 400] [--seed 0]

- sound: every JPEG below the folders is decoded; none may be refused.
- closed: n of them, drawn at random, are encoded anew in each of the ENCODINGS, cut after a random 20 to 99.5 % of
  their bytes and given an end marker, as a program leaves them that saves what it got. All should be refused.
- open: the same without the last byte, and without the last two: the whole end marker and no more. All should be read.
"""

import argparse
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from ensemble.data.folders.listing import image_files
from ensemble.data.pixels.decode import decode_each
from ensemble.data.pixels.jpeg import END
from ensemble.data.pixels.preprocess import Decoding
from ensemble.errors import UserError
from ensemble.machine import cores

ENCODINGS = {
    "quality 90": {"quality": 90},
    "quality 30, optimised": {"quality": 30, "optimize": True},
    "quality 95, full colour": {"quality": 95, "subsampling": 0},
    "progressive": {"quality": 80, "progressive": True},
    "progressive, full colour": {"quality": 95, "progressive": True, "subsampling": 0},
    "restart markers": {"quality": 80, "restart_marker_blocks": 3},
    "grey": {"quality": 85},
}
LEAST, MOST = 0.2, 0.995  # of a file's bytes that are kept of one that is cut
WHOLE = Decoding(None, "bicubic", None)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folders", nargs="+", type=Path)
    options.add_argument("--n", type=int, default=400, help="photos that are cut, in each encoding")
    options.add_argument("--seed", type=int, default=0)
    options = options.parse_args()
    files = [file for folder in options.folders for file in image_files(folder)]
    photos = [file for file in files if file.read_bytes()[:3] == b"\xff\xd8\xff"]
    random = np.random.default_rng(options.seed)
    chosen = random.choice(len(photos), min(options.n, len(photos)), replace=False)
    shares = random.uniform(LEAST, MOST, (len(ENCODINGS), len(chosen)))
    with ThreadPoolExecutor(cores()) as pool:
        refused = [file for file, sound in zip(photos, pool.map(is_read, photos), strict=True) if not sound]
        print(f"sound: {len(refused):,} of {len(photos):,} refused", *refused, sep="\n  ")
        print(f"{'encoding':26} {'cut and closed: refused':>24} {'marker missing: read':>22}")
        totals = np.zeros(4, dtype=np.int64)
        for (name, encoding), kept in zip(ENCODINGS.items(), shares, strict=True):
            jobs = [(photos[row], encoding, share) for row, share in zip(chosen, kept, strict=True)]
            counts = np.array(list(pool.map(cut, jobs))).sum(axis=0)
            totals += counts
            print(line(name, counts))
    print(line("all", totals))


def cut(job):
    """How many closed cuts of a photo are refused, of how many, and how many open ones are read, of how many."""
    file, encoding, share = job
    with Image.open(file) as image:
        data = encoded(image.convert("L" if encoding is ENCODINGS["grey"] else "RGB"), encoding)
    closed = data[: int(share * len(data))] + END
    return int(not decodes(closed)), 1, sum(decodes(data[:-lost]) for lost in (1, 2)), 2


def encoded(image, encoding):
    stream = io.BytesIO()
    image.save(stream, "JPEG", **encoding)
    return stream.getvalue()


def is_read(file):
    return decodes(file.read_bytes())


def decodes(data):
    try:
        decode_each(Path("photo.jpg"), data, [WHOLE])
    except UserError:
        return False
    return True


def line(name, counts):
    refused, closed, read, open_ones = counts
    return f"{name:26} {f'{refused:,} of {closed:,}':>24} {f'{read:,} of {open_ones:,}':>22}"


if __name__ == "__main__":
    main()
