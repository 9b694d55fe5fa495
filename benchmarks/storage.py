"""What it takes to share a run: claims in a folder and on an object store, files written to a mirror and read from one.

    python benchmarks/storage.py FOLDER                    a local disk, or a share that is mounted there
    python benchmarks/storage.py s3://bucket/folder        a store
    python benchmarks/storage.py moto                      moto's S3 on this machine, for the software's own share

A fold holds six files; a fold's weights are --mb large. Medians of --n; what is written is removed at the end.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from ensemble.files import mirror
from ensemble.files.atomic import remove_folder, replacing, write_text
from ensemble.files.claims import Taken, claimed
from ensemble.run import Run


def median_ms(work, n):
    seconds = []
    for _ in range(n):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return 1000 * statistics.median(seconds)


def claim(path):
    with claimed(path):
        pass


def refused(path):
    try:
        claim(path)
    except Taken:
        return
    raise AssertionError("two processes hold one claim")


def measure(run, folds, mb, n):
    """Lines of (what, figure)."""
    fold = run.member("net").fold(0)
    fold.path.mkdir(parents=True, exist_ok=True)
    yield "a claim, taken and given back", f"{median_ms(lambda: claim(fold.claim_file), n):.1f} ms"
    with claimed(fold.claim_file) as held:
        yield "a claim that another process holds", f"{median_ms(lambda: refused(fold.claim_file), n):.1f} ms"
        yield "whether a claim is still held", f"{median_ms(held.require_held, n):.1f} ms"
        yield "a small file, under a claim", f"{median_ms(lambda: write_text(fold.log_file, 'x'), n):.1f} ms"
    data = os.urandom(10**6)

    def write():
        with replacing(fold.model_file) as temporary, temporary.open("wb") as file:
            for _ in range(mb):
                file.write(data)

    yield f"weights of {mb} MB, written", f"{1000 * mb / median_ms(write, 3):.0f} MB/s"
    if mirror.url_of(run.path) is None:
        return

    def read():
        fold.model_file.unlink()
        run.refresh()

    yield f"weights of {mb} MB, read", f"{1000 * mb / median_ms(read, 3):.0f} MB/s"
    begun = time.perf_counter()
    for number in range(1, folds):
        for name in (
            "model.safetensors",
            "oof.safetensors",
            "inference.json",
            "log.jsonl",
            "done.json",
            "views.safetensors",
        ):
            write_text(run.member("net").fold(number).path / name, name)
    yield f"{6 * (folds - 1)} small files, written", f"{time.perf_counter() - begun:.1f} s"
    yield f"a mirror of {6 * folds - 4} files in which nothing has changed", f"{median_ms(run.refresh, 5):.0f} ms"


def main():
    options = argparse.ArgumentParser()
    options.add_argument("place")
    options.add_argument("--folds", type=int, default=50)
    options.add_argument("--mb", type=int, default=100)
    options.add_argument("--n", type=int, default=100)
    options = options.parse_args()
    place, server = options.place, None
    with tempfile.TemporaryDirectory() as cache:
        os.environ["ENS_CACHE"] = cache
        if place == "moto":
            import logging

            import boto3
            from moto.server import ThreadedMotoServer

            logging.getLogger("werkzeug").setLevel(logging.ERROR)
            server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
            server.start()
            host, port = server.get_host_and_port()
            os.environ |= {
                "AWS_ENDPOINT_URL": f"http://{host}:{port}",
                "AWS_ACCESS_KEY_ID": "moto",
                "AWS_SECRET_ACCESS_KEY": "moto",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
            boto3.client("s3").create_bucket(Bucket="bucket")
            place = "s3://bucket"
        run = Run(f"{place}/ens-benchmark-{os.getpid()}")
        try:
            for what, figure in measure(run, options.folds, options.mb, options.n):
                print(f"{what:60} {figure}", flush=True)
        finally:
            remove_folder(Path(run.path))
            if server is not None:
                server.stop()


if __name__ == "__main__":
    main()
