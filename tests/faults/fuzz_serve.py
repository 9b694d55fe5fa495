"""`ens serve` is given damaged and hostile requests, in this process and without a network: each has to end with one
whole answer of a known status, in JSON, and sound requests in between have to be answered as ever.

    python tests/faults/fuzz_serve.py --n 200000 --seed 0

prints how often each status was answered; exit status 1 if anything else came out. The suite runs a short form of it.
"""

import argparse
import asyncio
import base64
import json
import logging
import os
import random
import resource
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(place) for place in (HERE, HERE.parent, HERE.parents[1]) if str(place) not in sys.path]

from mutate import mutated  # noqa: E402
from serve_model import form, picture, request, service_of  # noqa: E402

from ensemble.serve.answers import Answer, Failure  # noqa: E402
from ensemble.serve.app import make_app  # noqa: E402

STATUSES = {200, 400, 401, 404, 405, 408, 413, 415, 422, 503}  # never 500
KINDS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "ICO", "PPM", "TGA")
TYPES = (
    "image/png", "image/jpeg", "image/", "image", "application/json", "application/json; charset=utf-16",
    "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=frontier",
    'multipart/form-data; boundary="frontier', "multipart/form-data; boundary=\xff", "text/html", "", ";", "\xe9" * 300,
    "multipart/mixed; boundary=frontier", "application/x-www-form-urlencoded", "application/octet-stream",
)  # fmt: skip
PATHS = (
    "/predict", "/predict?members=true", "/predict?members=2", "/predict?members=true&members=", "/predict?%00=\x1b",
    "/predict/", "//predict", "/", "/healthz", "/metrics", "/openapi.json", "/docs", "/../../etc/passwd", "/\x1b[2J",
)  # fmt: skip
METHODS = ("GET", "HEAD", "PUT", "OPTIONS", "BREW", "post")
FIELDS = (
    ("content-length", "-1"), ("content-length", "9" * 400), ("content-length", "x"), ("content-length", "\xb2"),
    ("authorization", "Bearer \xff"), ("accept", "\xff"), ("content-encoding", "gzip"), ("expect", "100-continue"),
    ("content-type", "image/png"), ("transfer-encoding", "chunked"), ("host", ""), ("cookie", "a" * 9000),
)  # fmt: skip
MEMORY = 12 * 2**30  # bytes of address space: what allocates by a header fails here
SECONDS = 20  # of one request


def sound(rng, pictures):
    """The content type and the body of a request as it should be."""
    files = [(f"{number}.png", rng.choice(pictures)) for number in range(rng.choice((1, 1, 2, 5)))]
    what = rng.randrange(3)
    if what == 0:
        return "image/png", files[0][1]
    if what == 1:
        return form(*files)
    texts = [base64.b64encode(data).decode() for _, data in files]
    return "application/json", json.dumps({"images": texts}).encode()


def hostile(rng, pictures):
    """The arguments of `request`: something of a sound one is damaged, more often one thing than many."""
    content_type, body = sound(rng, [mutated(rng, each, "bytes") for each in rng.choices(pictures, k=3)])
    method, path, fields = "POST", "/predict", []
    if rng.random() < 0.5:
        kind = "json" if content_type == "application/json" and rng.random() < 0.7 else "bytes"
        body = mutated(rng, body, kind)
    if rng.random() < 0.1:
        content_type = rng.choice(TYPES)
    if rng.random() < 0.1:
        path = rng.choice(PATHS)
    if rng.random() < 0.05:
        method = rng.choice(METHODS)
    if rng.random() < 0.1:
        fields = [rng.choice(FIELDS) for _ in range(rng.choice((1, 3)))]
    if rng.random() < 0.9:
        fields.append(("content-type", content_type))
    cuts = sorted(rng.randint(0, len(body)) for _ in range(rng.choice((0, 0, 1, 5))))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    if rng.random() < 0.01:
        pieces.insert(rng.randint(0, len(pieces)), 0.06)  # seconds, longer than the server waits
    return method, path, fields, pieces, rng.random() > 0.03


def check(path, method, status, headers, body):
    """Raise AssertionError for an answer that is none."""
    assert status in STATUSES, f"status {status}: {body[:200]!r}"
    if status >= 400 or path.startswith("/predict"):
        found = json.loads(body)
        (Answer if "images" in found else Failure).model_validate(found)
        assert ("images" in found) == (status in (200, 422))
        assert "\n" not in found.get("error", "")
    assert int(headers["content-length"]) == len(body), "another length"


async def fuzz(count, seed, show=lambda done, counts: None):
    """Send so many requests: how often each status was answered, and what else came out, by kind."""
    os.environ["ENS_MAX_PIXELS"] = "4000000"  # what is decoded has to be quick
    rng = random.Random(seed)
    pictures = [picture(colour, kind, (24, 18)) for kind in KINDS for colour in ("red", "navy")]
    service = service_of(max_bytes=50_000, max_images=4, max_seconds=0.05)
    app = make_app(service)
    counts, odd = Counter(), {}
    try:
        for done in range(1, count + 1):
            method, path, fields, pieces, is_whole = hostile(rng, pictures)
            try:
                async with asyncio.timeout(SECONDS):
                    status, headers, body = await request(app, method, path, fields, pieces, is_whole)
                check(path, method, status, headers, body)
                counts[status] += 1
            except Exception as error:
                counts["odd"] += 1
                at = traceback.extract_tb(error.__traceback__)[-1]
                odd.setdefault(f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}: {error}"[:300],
                               (method, path, fields, pieces, is_whole))  # fmt: skip
            if done % 100 == 0:
                content_type, body = sound(rng, pictures)
                status, _, answer = await request(app, "POST", "/predict", [("content-type", content_type)], [body])
                if status not in (200, 413):  # five images are too many
                    odd[f"a sound request was answered {status}: {answer[:200]!r}"] = content_type
            show(done, counts)
        load = service.load
        if (load.images, load.bytes) != (0, 0):
            odd[f"the server still holds {load.images} images and {load.bytes} bytes"] = None
    finally:
        service.close()
    return counts, odd


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    logging.disable()
    warnings.simplefilter("ignore")  # Pillow's
    begun = time.monotonic()

    def show(done, counts):
        if done % 5000 == 0:
            seconds = time.monotonic() - begun
            print(f"{done:,} requests, {counts['odd']} odd, {seconds:.0f} s", file=sys.stderr, flush=True)

    counts, odd = asyncio.run(fuzz(options.n, options.seed, show))
    for status, number in sorted(counts.items(), key=str):
        print(f"{status}: {number:,}")
    for line, sent in odd.items():
        print(f"    {line}\n        {sent!r}"[:1500])
    print(f"{options.n:,} requests, {len(odd)} kinds of odd answers, in {time.monotonic() - begun:.0f} s")
    sys.exit(1 if odd else 0)


if __name__ == "__main__":
    main()
