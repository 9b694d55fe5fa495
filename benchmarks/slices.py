"""How often `ens slices` reports a slice where none is bad, and how often it finds one that is.

    python benchmarks/slices.py [--repeat 300] [--part rows|groups|planted]
    python benchmarks/slices.py --run runs/art      (of a real run, where its experiment's paths start)

Rows of known error rates are drawn, with numbers, kinds and groups that have nothing to do with what is wrong, as many
as a run has: 6 numbers (36 slices), 3 columns of 8 kinds (24 slices), and the groups where there are any. A false alarm
is a repetition in which any of them is reported at alpha = 0.05 (of 300, the 95% interval of a rate of 5% ends at 2.7
and 7.8 %). Then a slice is planted among them, and it is counted how often it is found and how often another one is.

With --run a tenth of the images of each class in turn is darkened, and taken as predicted wrongly: is that found, and
what else is?
"""

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from ensemble.config import load_run_config
from ensemble.data.labelled import read_labelled
from ensemble.events import SILENT
from ensemble.run import Run
from ensemble.scoring.wilson import wilson
from ensemble.slices.found import describe
from ensemble.slices.predicted import read_predicted
from ensemble.slices.properties import image_properties, property_slices
from ensemble.slices.rules import Candidate, Rule, of_numbers, of_values
from ensemble.slices.worse import adjusted_p

ALPHA = 0.05
KINDS = np.array(list("abcdefgh"))


@dataclass(frozen=True)
class Setting:
    """What is drawn.

    rows: about how many. share: of them that is wrong. groups: how many, of very different sizes; 0: none.
    by_group: whether the properties belong to groups, and not to rows.
    spread: of the groups' error rates: the larger, the more alike are the rows of a group (the intraclass correlation).
    """

    rows: int
    share: float
    groups: int = 0
    by_group: bool = False
    spread: float = 0.0


SETTINGS = {
    "1,700 rows, 3 % wrong": Setting(1700, 0.03),
    "200 rows, 10 % wrong": Setting(200, 0.1),
    "2,400 rows in 300 groups, 10 % wrong, correlation 0.25, properties of groups": Setting(2400, 0.1, 300, True, 0.25),
    "2,400 rows in 300 groups, 10 % wrong, correlation 0.25, properties of rows": Setting(2400, 0.1, 300, False, 0.25),
    "1,200 rows in 40 groups, 10 % wrong, correlation 0.1, properties of groups": Setting(1200, 0.1, 40, True, 0.1),
}


def draw(setting: Setting, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[Candidate]]:
    """What is wrong, the clusters, and the slices without meaning."""
    if setting.groups:
        sizes = rng.geometric(setting.groups / setting.rows, setting.groups)
        clusters = np.repeat(np.arange(setting.groups), sizes)
        a = setting.share * (1 / setting.spread - 1)
        rates = rng.beta(a, a * (1 / setting.share - 1), setting.groups)[clusters]
    else:
        clusters = np.arange(setting.rows)
        rates = np.full(setting.rows, setting.share)
    count = len(clusters)

    def uniform() -> np.ndarray:
        return rng.random(setting.groups)[clusters] if setting.by_group else rng.random(count)

    slices: list[Candidate] = []
    for number in range(6):
        slices += of_numbers("image", f"number {number}", uniform(), "{:.2f}", 20)
    for number in range(3):
        slices += of_values("column", f"kind {number}", KINDS[(8 * uniform()).astype(int)], 20)
    return rng.random(count) < rates, clusters, slices


def interval(hits: int, of: int) -> str:
    low, high = wilson(np.array([hits]), np.array([of]))[:, 0]
    return f"{100 * hits / of:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def false_alarms(settings: dict[str, Setting], repeat: int) -> None:
    print("\n| no slice is bad | slices | runs with a false one, % [95%] | seconds a run |\n|---|---|---|---|")
    for name, setting in settings.items():
        rng = np.random.default_rng(0)
        hits, begun, slices = 0, time.process_time(), []
        for seed in range(repeat):
            wrong, clusters, slices = draw(setting, rng)
            hits += bool((adjusted_p(wrong, clusters, slices, seed)[0] <= ALPHA).any())
        seconds = (time.process_time() - begun) / repeat
        print(f"| {name} | {len(slices)} | {interval(hits, repeat)} | {seconds:.2f} |", flush=True)


def planted(repeat: int) -> None:
    print(
        "\n| planted in 1,700 rows, 3 % wrong | found, % [95%] | with a false one beside it, % [95%] |\n|---|---|---|"
    )
    for size, share in ((20, 0.2), (20, 0.4), (80, 0.1), (80, 0.2), (340, 0.06), (340, 0.1)):
        rng = np.random.default_rng(1)
        found = false = 0
        for seed in range(repeat):
            wrong, clusters, slices = draw(SETTINGS["1,700 rows, 3 % wrong"], rng)
            rows = rng.choice(len(wrong), size, replace=False)
            wrong[rows] = rng.random(size) < share
            rule = Rule("column", "planted", "yes", None, None, "planted")
            p = adjusted_p(wrong, clusters, [Candidate(rule, np.sort(rows)), *slices], seed)[0]
            found += bool(p[0] <= ALPHA)
            false += bool((p[1:] <= ALPHA).any())
        text = f"{size} rows, {100 * share:.0f} % of them wrong"
        print(f"| {text} | {interval(found, repeat)} | {interval(false, repeat)} |", flush=True)


def darkened(run: Run) -> None:
    predicted = read_predicted(run, None, SILENT)
    rows, config = predicted.rows, load_run_config(run.config_toml)
    samples = read_labelled(config)
    path_of = dict(zip(samples.ids.tolist(), samples.paths, strict=True))
    paths = [path_of[name] for name in rows.ids.tolist()]
    properties = image_properties(paths, config.data.cache, SILENT)
    print("\n| darkened to a quarter, and taken as wrong | found (images, wrong) |\n|---|---|")
    with TemporaryDirectory() as folder:
        for c, name in enumerate(rows.classes):
            chosen = np.random.default_rng(c).choice(
                np.flatnonzero(rows.labels == c), max((rows.labels == c).sum() // 10, 1), replace=False
            )
            dark = []
            for row in chosen.tolist():
                dark.append(Path(folder) / f"{row}.png")
                with Image.open(paths[row]) as image:
                    image.convert("RGB").point(lambda value: value // 4).save(dark[-1])
            changed = {key: values.copy() for key, values in properties.items()}
            for key, values in image_properties(dark, "off", SILENT).items():
                if key in ("brightness", "contrast", "sharpness"):
                    changed[key][chosen] = values
            slices = of_values("class", "class", np.array(rows.classes)[rows.labels], 20)
            slices += property_slices(changed, 20)[0]
            answers = predicted.predicted.copy()
            answers[chosen] = (c + 1) % len(rows.classes)
            now = replace(predicted, predicted=answers)
            found = describe(now, slices, *adjusted_p(now.wrong, rows.clusters, slices), ALPHA)
            texts = "; ".join(f"{each.rule.text} ({each.rows}, {each.wrong})" for each in found)
            print(f"| {len(chosen)} of {name} | {texts or 'nothing'} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=300)
    parser.add_argument("--part", choices=("rows", "groups", "planted", "all"), default="all")
    parser.add_argument("--run", type=Path)
    given = parser.parse_args()
    if given.run is not None:
        darkened(Run(given.run))
        raise SystemExit
    if given.part in ("rows", "groups", "all"):
        false_alarms(
            {
                name: setting
                for name, setting in SETTINGS.items()
                if given.part in ("all", "groups" if setting.groups else "rows")
            },
            given.repeat,
        )
    if given.part in ("planted", "all"):
        planted(given.repeat)
