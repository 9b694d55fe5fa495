"""What packed images cost: seconds and processor-seconds of unpacking, and of each later command's look at the copy.

    PYTHONPATH=. python benchmarks/packed.py [FILE]

FILE: a zip, a tar or a table of images; without one, a zip, a tar and Parquet of 20,000 files of 4 kB are made. Nothing
but a temporary folder is written.
"""

import io
import os
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

FILES, BYTES = 20_000, 4096


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ENS_CACHE"] = f"{folder}/cache"
        for source in map(Path, sys.argv[1:]) if sys.argv[1:] else made(Path(folder)):
            print(f"{source.name}: {source.stat().st_size / 1e6:.0f} MB")
            measure(source)


def measure(source: Path) -> None:
    from ensemble.data.unpacked import copies
    from ensemble.data.unpacked.local import as_local

    timed("unpacked", lambda: as_local(source))
    copies._opened.clear()  # as in the next process
    timed("looked at again", lambda: as_local(source))


def timed(what: str, work: Callable[[], object]) -> None:
    begun, used = time.perf_counter(), time.process_time()
    work()
    print(f"  {what}: {time.perf_counter() - begun:.2f} s, {time.process_time() - used:.2f} processor-seconds")


def made(folder: Path) -> list[Path]:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    begin = b"\x89PNG\r\n\x1a\n"
    files = {f"{number % 100:02}/{number:06}.png": begin + os.urandom(BYTES - 8) for number in range(FILES)}
    with zipfile.ZipFile(folder / "files.zip", "w") as zipped, tarfile.open(folder / "files.tar", "w") as tarred:
        for name, data in files.items():
            zipped.writestr(name, data)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tarred.addfile(info, io.BytesIO(data))
    rows = [{"bytes": data, "path": name.replace("/", "-")} for name, data in files.items()]
    write_table(pa.table({"image": rows}), folder / "files.parquet", row_group_size=1000)
    for name in ("files.zip", "files.tar", "files.parquet"):
        os.utime(folder / name, (1e9, 1e9))  # one written just now would be read again: it may still change
    return [folder / name for name in ("files.zip", "files.tar", "files.parquet")]


if __name__ == "__main__":
    main()
