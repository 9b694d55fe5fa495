"""ens's blending against its peers: python benchmarks/blend.py --case mid

Every run is a process of its own, forked from one that holds the data, so that its peak of memory is its own; rounds
alternate over the systems. Peers are given probabilities, ens logits (its kernels: probabilities). Scores on fresh
rows are those of the fit on all rows, which saw none of them; cross-fitted ones are of five fits, each scored on the
fold that it did not see. A table of ens's methods, each against the best of the others with a 95% interval over the
fresh rows, says which of them earn their place: --only ens --seed N. A system whose first run takes over 30 s runs
once, and no such peer is cross-fitted.

The peers: pip install -e ".[benchmarks]"
"""

import argparse
import importlib
import importlib.metadata
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blend_peers import Data, System, probabilities, systems
from synthetic import digits, synthetic

from ensemble.blend.methods import names as method_names
from ensemble.scoring.counts import class_counts, macro_f1
from ensemble.scoring.row_values import row_losses

CASES = {"large": (30, 50_000, 100), "mid": (12, 20_000, 18), "binary": (8, 20_000, 2)}  # members, rows, classes
FOR_MACRO_F1 = ("vote:macro_f1", "greedy:macro_f1", "stack:macro_f1")
LONG = 30.0  # s
RESAMPLES = 500
AGAINST = {  # peer -> what of ens does the same, in the peer's own input and as its user calls it
    "mean of logits": ("vote", "stack", "auto"),
    "mean of probabilities": ("vote", "stack", "auto"),
    "autogluon": ("kernel:greedy", "greedy", "vote", "auto"),
    "autogluon:macro_f1": ("greedy:macro_f1", "vote:macro_f1", "stack:macro_f1"),
    "slsqp": ("kernel:vote", "vote", "auto"),
    "slsqp:true-class": ("kernel:vote", "vote"),
    "logistic": ("stack", "auto"),
    "hillclimbers": ("kernel:vote", "vote", "auto"),
}


@dataclass(frozen=True)
class Run:
    """One fit: wall and processor seconds (apart where the machine is busy), extra peak memory (MB), and of the fresh
    rows -log(p) and the predicted class."""

    seconds: float
    cpu: float
    memory: float
    losses: np.ndarray
    predicted: np.ndarray
    note: str


@dataclass
class Result:
    system: System
    runs: list[Run]
    cross_fitted: tuple[float, float] | None = None  # log loss, macro F1

    def spread(self, what: Callable[[Run], float]) -> tuple[float, float, float]:
        """Median, least, greatest."""
        values = [what(run) for run in self.runs]
        return statistics.median(values), min(values), max(values)


def f1_of(labels: np.ndarray, predicted: np.ndarray, classes: int, weights: np.ndarray | None = None) -> float:
    return float(macro_f1(class_counts(labels, predicted, classes, weights)))


def case_data(case: str, quick: bool, seed: int) -> Data:
    if case == "digits":
        z, labels, folds, fresh_z, fresh_labels = in_child(digits)
    else:
        members, rows, classes = CASES[case]
        size = (min(members, 5), 400, min(classes, 4)) if quick else (members, rows, classes)
        z, labels, fresh_z, fresh_labels = synthetic(*size, seed=seed, fresh=300 if quick else 20_000)
        folds = np.random.default_rng(1).permutation(len(labels)) % 5
    return Data(z, probabilities(z), labels, folds, fresh_z, fresh_labels)


def in_child(work: Callable[[], Any]) -> Any:
    """What `work` returns in a forked process; raises RuntimeError with its complaint if it fails or is killed."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def run() -> None:
        try:
            send.send(work())
        except Exception as error:
            send.send(RuntimeError(f"{type(error).__name__}: {error}"))

    child = context.Process(target=run)
    child.start()
    send.close()
    try:
        out = receive.recv()
    except EOFError:
        out = RuntimeError("the process died")
    child.join()
    if isinstance(out, RuntimeError):
        raise out
    return out


def status(key: str) -> float:
    """VmRSS or VmHWM (the highest RSS since the last reset) of this process, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024 / 1e6


def measure(system: System, data: Data) -> Run:
    """One fit and its fresh scores, in this process, after a tiny fit for the imports."""
    z, labels, fresh_z, fresh_labels = synthetic(2, 200, 2, seed=0, fresh=10)
    system.fit(Data(z, probabilities(z), labels, np.arange(200) % 5, fresh_z, fresh_labels))
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before = status("VmRSS")
    start, start_cpu = time.perf_counter(), time.process_time()
    fitted = system.fit(data)
    wall, busy = time.perf_counter() - start, time.process_time() - start_cpu
    peak = status("VmHWM") - before
    probs = fitted.predict(data.fresh_z)
    return Run(wall, busy, peak, row_losses(data.fresh_labels, probs), probs.argmax(axis=1), fitted.note)


def cross_fit(system: System, data: Data) -> tuple[float, float]:
    """Log loss and macro F1 of the rows of each fold by a fit on the others."""
    classes = data.z.shape[2]
    losses, predicted = np.empty(len(data.labels)), np.empty(len(data.labels), dtype=np.int64)
    for fold in np.unique(data.folds):
        train, test = np.flatnonzero(data.folds != fold), np.flatnonzero(data.folds == fold)
        held, labels = data.z[:, test], data.labels[test]
        part = Data(data.z[:, train], data.p[:, train], data.labels[train], data.folds[train], held, labels)
        probs = system.fit(part).predict(held)
        losses[test], predicted[test] = row_losses(labels, probs), probs.argmax(axis=1)
    return float(losses.mean()), f1_of(data.labels, predicted, classes)


def compare(chosen: list[System], data: Data, repeat: int, say: Callable[[str], None]) -> list[Result]:
    """Rounds over all systems in turn; what fails or isn't installed is said and left out."""
    results: list[Result] = []
    for system in chosen:
        try:
            importlib.import_module(system.needs)  # here, once for all the processes
        except ImportError as error:
            say(f"{system.name}: not installed, skipped ({error})")
            continue
        try:
            results.append(Result(system, [in_child(lambda s=system: measure(s, data))]))
        except RuntimeError as error:
            say(f"{system.name}: failed: {error}")
            continue
        run = results[-1].runs[0]
        costs = f"{run.seconds:.3g} s, {run.cpu:.3g} of CPU, {run.memory:.0f} MB"
        print(f"{system.name}: {costs}; fresh log loss {run.losses.mean():.4f}", file=sys.stderr, flush=True)
    for _ in range(repeat - 1):
        for result in results:
            if result.runs[0].seconds <= LONG:
                result.runs.append(in_child(lambda r=result: measure(r.system, data)))
    for result in results:
        if result.system.ens or result.runs[0].seconds <= LONG:
            try:
                result.cross_fitted = in_child(lambda r=result: cross_fit(r.system, data))
            except RuntimeError as error:
                say(f"{result.system.name}: cross-fitting failed: {error}")
    return results


def best_logistic(results: list[Result], say: Callable[[str], None]) -> list[Result]:
    """Of the logistic regressions the one of least fresh log loss, named "logistic", and the one with C = 1."""
    tried = [r for r in results if r.system.name.startswith("logistic:")]
    if not tried:
        return results
    best = min(tried, key=lambda r: r.runs[0].losses.mean())
    each = (f"{r.system.name[9:]}: {r.runs[0].losses.mean():.4f}, {r.spread(seconds)[0]:.3g} s" for r in tried)
    say(f"logistic by C, fresh log loss and time: {'; '.join(each)}")
    named = Result(System("logistic", "the C best on the fresh rows", best.system.fit), best.runs, best.cross_fitted)
    kept = [r for r in results if r not in tried or r.system.name == "logistic:1"]
    return [*kept, named]


def seconds(run: Run) -> float:
    return run.seconds


def cpu(run: Run) -> float:
    return run.cpu


def memory(run: Run) -> float:
    return max(run.memory, 1.0)  # the kernel counts no finer


def ratio(a: Result, b: Result, what: Callable[[Run], float]) -> str:
    """Of the medians, with the least and the greatest that any two runs could give."""
    (mid_a, low_a, high_a), (mid_b, low_b, high_b) = a.spread(what), b.spread(what)
    spread = f" [{low_a / high_b:.3g}, {high_a / low_b:.3g}]" if len(a.runs) + len(b.runs) > 2 else ""
    return f"{mid_a / mid_b:.3g}{spread}"


def results_table(results: list[Result], data: Data) -> list[str]:
    classes = data.z.shape[2]
    lines = [
        "| system | seconds | CPU s | extra MB | cross-fitted log loss | macro F1 % "
        "| fresh log loss | macro F1 % | accuracy % | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        run, (middle, least, most) = result.runs[0], result.spread(seconds)
        f1 = f1_of(data.fresh_labels, run.predicted, classes)
        right = (run.predicted == data.fresh_labels).mean()
        cells = [
            f"`{result.system.name}`: {result.system.what}",
            f"{middle:.3g} [{least:.3g}, {most:.3g}] n={len(result.runs)}" if len(result.runs) > 1 else f"{middle:.3g}",
            f"{result.spread(cpu)[0]:.3g}",
            f"{result.spread(lambda r: r.memory)[0]:.0f}",
            *(
                f"{result.cross_fitted[0]:.4f} {100 * result.cross_fitted[1]:.2f}" if result.cross_fitted else "- -"
            ).split(),
            f"{run.losses.mean():.4f}",
            f"{100 * f1:.2f}",
            f"{100 * right:.2f}",
            run.note,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def ratios_table(results: list[Result], data: Data) -> list[str]:
    """Each peer over what of ens does the same; differences on the fresh rows, with the 95% bootstrap over them."""
    by_name = {result.system.name: result for result in results}
    lines = [
        "| peer | ens | seconds, peer / ens | CPU s, peer / ens | extra MB, peer / ens "
        "| log loss, peer - ens | macro F1, ens - peer, points |",
        "|---|---|---|---|---|---|---|",
    ]
    for peer, counterparts in AGAINST.items():
        for name in counterparts:
            a, b = by_name.get(peer), by_name.get(f"ens {name}")
            if a is None or b is None:
                continue
            loss, f1 = differences(a.runs[0], b.runs[0], data)
            costs = [ratio(a, b, what) for what in (seconds, cpu, memory)]
            cells = [peer, name, *(["", "", ""] if peer.startswith("mean") else costs), loss, f1]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def methods_table(results: list[Result], data: Data) -> list[str]:
    """Each of ens's methods for log loss against the best of the others by fresh log loss: what there would be without
    it. The other is chosen on the same fresh rows. A method that picks among the others, `auto`, is none of them."""
    methods = [r for r in results if r.system.ens and r.system.name.removeprefix("ens ") in set(method_names())]
    lines = [
        "| method | best of the others | log loss, other - method | macro F1, method - other, points |",
        "|---|---|---|---|",
    ]
    for result in methods:
        others = [r for r in methods if r is not result and r.system.name != "ens auto"]
        if others:
            other = min(others, key=lambda r: r.runs[0].losses.mean())
            names = [r.system.name.removeprefix("ens ") for r in (result, other)]
            lines.append(f"| {' | '.join([*names, *differences(other.runs[0], result.runs[0], data)])} |")
    return lines


def differences(peer: Run, ens: Run, data: Data) -> tuple[str, str]:
    """Paired, so that greater than 0 is better for ens, each with its 95% interval."""
    labels, classes = data.fresh_labels, data.z.shape[2]
    draw = np.random.default_rng(0)

    def f1_gain(weights: np.ndarray | None) -> float:
        ours, theirs = (f1_of(labels, run.predicted, classes, weights) for run in (ens, peer))
        return 100 * (ours - theirs)

    losses = peer.losses - ens.losses
    drawn_losses, drawn_f1 = np.empty(RESAMPLES), np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        weights = np.bincount(draw.integers(len(labels), size=len(labels)), minlength=len(labels)).astype(np.float64)
        drawn_losses[i], drawn_f1[i] = weights @ losses / len(labels), f1_gain(weights)
    low, high = np.quantile(drawn_losses, [0.025, 0.975])
    f1_low, f1_high = np.quantile(drawn_f1, [0.025, 0.975])
    return f"{losses.mean():+.4f} [{low:+.4f}, {high:+.4f}]", f"{f1_gain(None):+.2f} [{f1_low:+.2f}, {f1_high:+.2f}]"


def machine() -> str:
    """Processor, cores, memory and versions in a line."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next(
        (line.split(":")[1].strip() for line in info if line.startswith("model name")), "unknown processor"
    )
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"Python {platform.python_version()}"]
    for name in ("numpy", "scipy", "scikit-learn", "autogluon.core", "hillclimbers", "ens"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} not installed")
    use = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}, load {os.getloadavg()[0]:.1f} at the start"
    return f"{processor}, {os.cpu_count()} cores, {gib:.0f} GiB; {', '.join(versions)}; {use}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=[*CASES, "digits", "all"], default="all")
    parser.add_argument(
        "--methods", default=",".join((*method_names(), *FOR_MACRO_F1)), help="ens's, also as method:metric"
    )
    parser.add_argument("--only", help="of these systems: by name, by its part before a colon, peers or ens")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic members and rows")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    args = parser.parse_args()
    limits = {f"{name}_NUM_THREADS": str(args.threads) for name in ("OMP", "OPENBLAS", "MKL")}
    if any(os.environ.get(key) != value for key, value in limits.items()):
        os.environ.update(limits)  # read when numpy loads: start again
        os.execv(sys.executable, [sys.executable, *sys.argv])

    print(f"`python {' '.join(sys.argv)}`, {time.strftime('%Y-%m-%d')}; {machine()}.")
    for case in (*CASES, "digits") if args.case == "all" else (args.case,):
        data = case_data(case, args.quick, args.seed)
        members, rows, classes = data.z.shape
        fresh = len(data.fresh_labels)
        print(f"\n### {case}: {members} members, {rows} rows and {fresh} fresh ones, {classes} classes\n")
        notes: list[str] = []
        chosen = systems(args.methods.split(","), classes, case == "large" and not args.quick)
        for name in args.only.split(",") if args.only else ():
            if not any(wanted(system, [name]) for system in chosen):
                notes.append(f"{name}: no such system in this case")
        if args.only:
            chosen = [system for system in chosen if wanted(system, args.only.split(","))]
        results = best_logistic(compare(chosen, data, args.repeat, notes.append), notes.append)
        paired = [lines for lines in (ratios_table(results, data), methods_table(results, data)) if len(lines) > 2]
        tables = [results_table(results, data), *paired, [f"- {note}" for note in notes]]
        print("\n\n".join("\n".join(lines) for lines in tables if lines), flush=True)


def wanted(system: System, names: list[str]) -> bool:
    """Whether it is named, in full or up to a colon, with "ens" before it or without; or its side is."""
    short = system.name.removeprefix("ens ")
    known = {"ens" if system.ens else "peers", system.name, short, short.split(":")[0]}
    return not known.isdisjoint(names)


if __name__ == "__main__":
    main()
