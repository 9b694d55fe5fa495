"""All that needs a GPU, in one command without a network: python benchmarks/gpu.py [-o gpu.json] [--dry-run]

From a checkout, with the packages that ens needs: PYTHONPATH=. python benchmarks/gpu.py -o gpu.json writes gpu.json and
gpu.md, within eight minutes on one H200; a card of 16 GB does. Each row is written as soon as it is known, so that an
abort loses nothing.

- gpu_checks.py: what ens computes on the GPU against what it computes on the CPU: training, crops, views, networks and
  half formats, probes.
- gpu_runs.py: want of memory, and whole runs: several jobs on the GPU, stopped and resumed, on several GPUs, the demo.
- gpu_training.py, gpu_prediction.py: images per second of training, packed jobs and prediction, beside their limits.

A section that fails has its error's last line in the table, and the next ones follow in another process, since an error
may leave a GPU unusable to the process that met it. --dry-run does all of it on the CPU with tiny networks.
"""

import argparse
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

TOTAL = 470.0  # seconds; what has not ended by then is skipped
START = 40.0  # seconds for the first imports, beside the first section's own
DRY_LIMIT = 120.0  # seconds of each section of a dry run
NO_TIME = "no time was left"

# In this order, with the seconds that each may take.
SECTIONS: Mapping[str, tuple[str, float]] = {
    "machine": ("gpu_checks", 30),
    "steps": ("gpu_checks", 40),
    "crops": ("gpu_checks", 20),
    "views": ("gpu_checks", 20),
    "networks": ("gpu_checks", 60),
    "probes": ("gpu_checks", 30),
    "training": ("gpu_checks", 120),
    "memory": ("gpu_runs", 40),
    "runs": ("gpu_runs", 90),
    "several GPUs": ("gpu_runs", 60),
    "export": ("gpu_runs", 40),
    "training speed": ("gpu_training", 170),
    "prediction speed": ("gpu_prediction", 120),
    "packing": ("gpu_training", 100),
    "demo": ("gpu_runs", 110),
    "compiled": ("gpu_training", 100),
    "tests": ("gpu_runs", 40),
}


@dataclass(frozen=True)
class Row:
    """A row of the table.

    what: was checked or timed
    result: in words
    state: "ok", "FAILED", "skipped", or "" for a figure
    numbers: of the result, by name
    """

    what: str
    result: str
    state: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """What a section is given.

    device: to be tried; the CPU in a dry run
    folder: for its files
    is_dry: whether networks and counts are tiny
    """

    device: Any
    folder: Path
    is_dry: bool


Section = Callable[[Bench], Iterator[Row]]


def check(what: str, result: str, is_ok: bool, **numbers: Any) -> Row:
    return Row(what, result, "ok" if is_ok else "FAILED", numbers)


def skipped(what: str, why: str) -> Row:
    return Row(what, why, "skipped")


# ---- the process that works ----------------------------------------------------------------------------------------


def work(names: list[str], lines: Path, folder: Path, is_dry: bool) -> None:
    """Run sections, and append a line of JSON for each beginning, row and end. Ends early after an error of CUDA."""
    import importlib

    import torch

    device = torch.device("cpu" if is_dry else "cuda:0")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with lines.open("a", encoding="utf-8") as file:

        def tell(**line: Any) -> None:
            file.write(json.dumps(line, default=str) + "\n")
            file.flush()

        for name in names:
            tell(section=name, begun=time.time())
            place = folder / name.replace(" ", "-")
            place.mkdir(exist_ok=True)
            is_lost = False
            try:
                section: Section = getattr(importlib.import_module(SECTIONS[name][0]), name.replace(" ", "_").lower())
                for row in section(Bench(device, place, is_dry)):
                    tell(section=name, row=asdict(row))
            except Exception as error:
                traceback.print_exc()
                text = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
                tell(section=name, row=asdict(Row("the section", text, "FAILED")))
                is_lost = "CUDA error" in str(error)
            tell(section=name, ended=time.time())
            gc.collect()
            if is_lost:
                return
            if device.type == "cuda":
                torch.cuda.empty_cache()


# ---- the process that watches --------------------------------------------------------------------------------------


def watch(names: list[str], folder: Path, output: Path | None, is_dry: bool) -> list[dict[str, Any]]:
    """Run all sections in processes of their own, one process as long as nothing goes wrong. Returns the rows."""
    begun, left = time.monotonic(), list(names)
    rows: list[dict[str, Any]] = []
    environment = os.environ | {"ENS_CACHE": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])
    )
    while left:
        lines = folder / f"{len(left)}.jsonl"
        lines.touch()
        command = [sys.executable, __file__, "--work", *left, "--lines", str(lines), "--folder", str(folder)]
        command += ["--dry-run"] if is_dry else []
        process = subprocess.Popen(command, stdout=sys.stderr, env=environment, start_new_session=True)
        ends_at = None if is_dry else begun + TOTAL
        try:
            why = _follow(process, lines, left, rows, ends_at, output)
        finally:
            _end(process)
        if why == NO_TIME:
            rows += [{"section": name, **asdict(skipped("the section", why))} for name in left]
            left = []
        elif left and (why or process.returncode):
            rows.append({"section": left.pop(0), **asdict(Row("the section", why or _status(process), "FAILED"))})
        _write(rows, output)
    return rows


def _follow(
    process: subprocess.Popen[bytes],
    lines: Path,
    left: list[str],
    rows: list[dict[str, Any]],
    ends_at: float | None,
    output: Path | None,
) -> str:
    """Take in what the process tells until it ends. Returns why it has to be ended before, else "". `left` loses the
    sections that have ended, and `rows` gains theirs."""
    started, text = time.monotonic(), ""  # of the section; a line that is not whole yet
    with lines.open(encoding="utf-8") as file:
        while True:
            has_ended = process.poll() is not None  # before the last line is read
            while (text := text + file.readline()).endswith("\n"):
                line, text = json.loads(text), ""
                if "row" in line:
                    rows.append({"section": line["section"], **line["row"]})
                    _write(rows, output)
                    print(_line(rows[-1]), file=sys.stderr, flush=True)
                if "begun" in line:
                    started = time.monotonic()
                if "ended" in line:
                    left.remove(line["section"])
            if has_ended or not left:
                return ""
            if ends_at is not None and time.monotonic() > ends_at:
                return NO_TIME
            most = SECTIONS[left[0]][1] if ends_at is not None else DRY_LIMIT
            if time.monotonic() - started > most + START * (left[0] == next(iter(SECTIONS))):
                return f"took longer than its {most:.0f} s"
            time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and those that it started."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=2)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _status(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    return f"its process was ended by signal {-code}" if code < 0 else f"its process ended with status {code}"


# ---- the table -----------------------------------------------------------------------------------------------------


def _line(row: Mapping[str, Any]) -> str:
    return f"{row['section']}: {row['what']}: {row['result']}" + (f" [{row['state']}]" if row["state"] else "")


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table."""
    cells = [["section", "what", "result", "state"]]
    cells += [[str(row[key]).replace("|", "/") for key in cells[0]] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
             for line in cells]  # fmt: skip
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"


def _write(rows: list[dict[str, Any]], output: Path | None) -> None:
    if output is not None:
        for path, text in ((output, json.dumps(rows, indent=1)), (output.with_suffix(".md"), table(rows))):
            draft = path.with_name(f".{path.name}.tmp")
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="write the rows here as JSON, and beside it as Markdown")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, with tiny networks and counts")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), metavar="SECTION", help="; ".join(SECTIONS))
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--lines", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.lines, given.folder, given.dry_run)
        return
    if not given.dry_run:
        import torch

        if not torch.cuda.is_available():
            sys.exit("torch finds no GPU (torch.cuda.is_available() is False); --dry-run does all of it on the CPU")
    with tempfile.TemporaryDirectory(prefix="ens-gpu-", ignore_cleanup_errors=True) as folder:
        rows = watch(given.only or list(SECTIONS), Path(folder), given.output, given.dry_run)
    print(table(rows))
    failed = sum(row["state"] == "FAILED" for row in rows)
    print(f"{len(rows)} rows, {failed} failed, {sum(row['state'] == 'skipped' for row in rows)} skipped")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
