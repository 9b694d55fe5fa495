"""`ens slices` on runs in which a slice was planted."""

import csv
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from commands import ens
from PIL import Image
from report_runs import noisy_logits, write_run

from ensemble.blend import BlendOptions, blend_run
from ensemble.blend.oof import read_rows
from ensemble.config import load_run_config
from ensemble.data.labelled import read_labelled
from ensemble.data.logits import Logits
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.files import sealed
from ensemble.ood.saved import load_features
from ensemble.report.page import SECTIONS
from ensemble.run import Run
from ensemble.slices.command import SliceOptions, slices_run
from ensemble.slices.features import new_features, run_features
from ensemble.slices.result import read_slices
from ensemble.slices.rules import Rule
from ensemble.slices.test_images import ImageSources, count_test_images

ROWS = 240
DARK = np.arange(ROWS) % 7 == 0
SITES = np.where(np.arange(ROWS) % 3 == 0, "B", "A")


def write_planted(folder, groups=None, bad=DARK):
    """A run of two members on a table of 240 images, a seventh of them dark, of which those that are `bad` are
    predicted wrongly; its config names files, and no network is there."""
    labels = np.arange(ROWS) // 2 % 2
    answers = np.where(bad, 1 - labels, labels)
    answers[np.arange(5, ROWS, 40)] ^= 1
    draw = np.random.default_rng(0)
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "path", "label", "site"])
        for row in range(ROWS):
            level = 10 if DARK[row] else 120
            pixels = draw.integers(0, 60, (24, 24, 3)) + level
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{row}.png")
            table.writerow([f"r{row}", f"{row}.png", "ab"[labels[row]], SITES[row]])
    members = {name: noisy_logits(answers, 2, 6, seed) for seed, name in enumerate(("one", "two"))}
    backbones = "".join(
        f'[[backbone]]\nname = "{name}"\ntimm = "test_resnet"\npretrained = false\n' for name in members
    )
    config = f'run = "{folder / "run"}"\n[data]\ntrain = "{folder / "table.csv"}"\nid = "id"\n{backbones}'
    return write_run(folder / "run", "ab", labels, np.arange(ROWS) // 2 % 5, members, groups=groups, config=config)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return write_planted(tmp_path_factory.mktemp("planted"))


def test_a_dark_slice_is_found_with_its_images_and_those_of_the_test(planted, monkeypatch, capfd, tmp_path):
    for number in range(6):
        Image.new("RGB", (24, 24), (15 + 200 * (number > 3),) * 3).save(tmp_path / f"{number}.png")
    status, out, err = ens(monkeypatch, capfd, "slices", planted, "--test", tmp_path, "--json")
    assert status == 0, err
    document = json.loads(out)
    found = document["result"]["found"]
    assert document["said"][-1] == f"saved {planted / 'slices.json'}; next: ens report {planted}"
    first = found[0]
    assert first["rule"]["of"] == "brightness" and first["rule"]["low"] is None and first["p"] < 0.001
    assert (first["rows"], first["wrong"]) == (48, 35)  # the darkest fifth holds all 35 dark ones
    assert first["accuracy"]["high"] < first["elsewhere"]["low"]
    assert {example["id"] for example in first["examples"]} <= {f"r{row}" for row in np.flatnonzero(DARK)}
    assert not [each for each in found if each["rule"]["of"] in ("site", "class")]
    assert first["test_images"] == 4 and document["result"]["test"]["inside"] >= 4
    assert document["result"]["looked_at"]["column"] == 2  # the sites
    assert document["result"]["wrong"] == DARK.sum() + 6

    status, out, err = ens(monkeypatch, capfd, "slices", planted)
    assert status == 0 and "brightness up to" in out and "< 0.001" in out
    assert "clusters are not looked at" in out
    assert max(map(len, out[out.index("where accuracy") : out.index("not looked at, since")].splitlines())) <= 120


def test_test_images_count_by_the_columns_of_their_table_and_by_their_predicted_classes(tmp_path):
    run = Run(write_planted(tmp_path, bad=SITES == "B"))  # whatever the class: all of one site
    images = tmp_path / "new.csv"
    images.write_text("id,path,site\n" + "".join(f"t{n},{n}.png,{'B' if n < 3 else 'A'}\n" for n in range(9)))
    found = slices_run(run, SliceOptions(test=images), SILENT)
    assert [each.rule.text for each in found.found] == ["site B"]
    assert (found.found[0].test_images, found.test.inside, found.test.rows) == (3, 3, 9)

    names = [f"{n}.png" for n in range(9)]
    rules = [Rule("class", "class", "b", None, None, "class b"), Rule("group", "group", "p", None, None, "group p")]
    given = ImageSources(images, "off", None, "mean")
    counted, counts = count_test_images(run, rules, given, SILENT)
    assert counts == [None, None] and "ens tta-predict" in counted.notes[0] and "group p" in counted.notes[1]
    costs = tmp_path / "costs.csv"
    costs.write_text("true,a,b\na,0,1\nb,9,0\n")
    blend_run(run, BlendOptions("mean", "expected_cost", name="mean", costs=costs))
    chance = np.repeat([[0.8, 0.2], [0.99, 0.01], [np.nan, np.nan]], (4, 3, 2), axis=0)  # 0.2: b is the cheaper answer
    meta = {"blend": "mean", "fitted": sealed.file_checksum(run.blend_json("mean"))}
    made = Logits(np.array(names), ("blend",), ("a", "b"), np.log(chance[None]).astype(np.float32), meta)
    made.save(run.predictions_file("new", "mean"))
    counted, counts = count_test_images(run, rules, given, SILENT)
    assert counts == [4, None] and "2 test images have no prediction, and count in no slice of a class" in counted.notes
    assert count_test_images(run, [replace(rules[0], value="a")], given, SILENT)[1] == [3]
    blend_run(run, BlendOptions("mean"))
    counted, counts = count_test_images(run, rules, given, SILENT)
    assert counts == [None, None] and "as it is fitted now: ens tta-predict" in counted.notes[0]


def test_the_table_fits_80_columns(planted, monkeypatch, capfd):
    status, out, _ = ens(monkeypatch, capfd, "slices", planted)
    rows = out[out.index("where accuracy") : out.index("not looked at, since")].splitlines()
    assert status == 0 and max(map(len, rows)) <= 80 and not any("…" in row for row in rows)


def test_what_was_found_is_kept_and_vouched_for(planted, monkeypatch, capfd):
    made = slices_run(Run(planted), SliceOptions(), SILENT)
    kept = read_slices(Run(planted))
    assert kept.found == made.found and kept.map == made.map and kept.looked_at == made.looked_at
    text = Run(planted).slices_json.read_text()
    Run(planted).slices_json.write_text(text.replace("brightness", "brighpness", 1))
    with pytest.raises(UserError, match=r"slices\.json: damaged.*ens slices .* finds them again"):
        read_slices(Run(planted))
    status, out, _ = ens(monkeypatch, capfd, "verify", planted)
    assert status == 1 and "slices.json" in out
    Run(planted).slices_json.write_text(text)


def test_a_blend_is_looked_at_and_a_cascade_or_another_is_refused(planted, monkeypatch, capfd):
    blend_run(Run(planted), BlendOptions("mean"))
    assert slices_run(Run(planted), SliceOptions(), SILENT).blend == "mean"
    blend_run(Run(planted), BlendOptions("mean", name="shifted", priors="uniform"))
    status, _, err = ens(monkeypatch, capfd, "slices", planted, "--blend", "shifted")
    assert status == 2 and "blend 'shifted' is for other class shares than the rows have" in err
    status, _, err = ens(monkeypatch, capfd, "slices", planted, "--blend", "none")
    assert status == 2 and "no blend 'none'; there are: mean, shifted" in err


def test_what_is_asked_for_wrongly_is_one_line(planted, monkeypatch, capfd):
    for words, line in (
        (("--by", "sight"), "no column 'sight'; nearest: site"),
        (("--min-size", 121), "240 images with out-of-fold predictions are too few for slices of 121"),
        (("--alpha", 1), "'--alpha': 1.0 is not in the range"),
        (("--columns", planted / "none.csv"), "no such file"),
    ):
        status, _, err = ens(monkeypatch, capfd, "slices", planted, *words)
        assert status == 2 and line in err and len(err.strip().splitlines()) <= 4


def test_a_bad_group_is_found(tmp_path):
    groups = [f"person {row // 24}" for row in range(ROWS)]
    bad = np.array([group == "person 4" for group in groups]) & (np.arange(ROWS) % 2 == 0)
    run = write_planted(tmp_path, groups, bad)
    found = slices_run(Run(run), SliceOptions(), SILENT).found
    assert [each.rule.text for each in found] == ["group person 4"]
    assert found[0].rows == 24 and found[0].wrong == 12


def test_without_the_images_classes_and_groups_are_looked_at(tmp_path):
    labels = np.arange(80) % 2
    run = write_run(tmp_path / "run", "ab", labels, np.arange(80) // 2 % 4, {"one": noisy_logits(labels, 2, 3, 0)})
    found = slices_run(Run(run), SliceOptions(), SILENT)
    assert set(found.looked_at) == {"class"}
    assert any("properties of the images are not looked at" in note for note in found.notes)


def test_the_page_shows_them(planted, monkeypatch, capfd, browser):
    slices_run(Run(planted), SliceOptions(), SILENT)
    monkeypatch.setattr("ensemble.report.page.SECTIONS", tuple(one for one in SECTIONS if one[0] == "slices"))
    status, _, err = ens(monkeypatch, capfd, "report", planted)
    assert status == 0, err
    page = browser.new_page(viewport={"width": 390, "height": 800})
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    page.goto(Run(planted).report_html.as_uri())
    assert page.locator(".map circle").count() == ROWS
    assert page.locator("#slices .card").count() >= 12
    assert not page.locator(".tip").is_visible()
    point = page.locator(".map g.off circle").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "predicted" in page.locator(".tip").inner_text()
    page.locator("button[data-slice='0']").click()
    assert page.locator(".map circle.lit").count() == slices_run(Run(planted), SliceOptions(), SILENT).found[0].rows
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert problems == []
    page.close()


def test_frozen_features_are_computed_once_and_kept_for_ens_unknown_too(started_run, own_started_run):
    run = Run(own_started_run)
    ids = read_rows(run).ids.tolist()
    options = SliceOptions(min_size=3, test=started_run.parent / "test")
    found = slices_run(run, options, SILENT)
    assert found.looked_at["cluster"] >= 1 and found.map.source == "the features of a frozen network"
    kept = load_features(run, ids)
    assert len(kept) == 24 and kept.dtype == np.float32
    code = (
        "import sys; from ensemble.run import Run; from ensemble.events import SILENT\n"
        "from ensemble.slices.command import SliceOptions, slices_run\n"
        f"slices_run(Run({str(own_started_run)!r}), SliceOptions(min_size=3), SILENT)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    run.frozen_features_file.write_bytes(b"damaged")
    assert slices_run(run, options, SILENT).map == found.map
    assert np.array_equal(load_features(run, ids), kept)


def test_test_images_lie_in_the_cluster_of_their_features(own_started_run):
    run = Run(own_started_run)
    config = load_run_config(run.config_toml)
    samples = read_labelled(config)
    ids = samples.ids
    features = run_features(run, config, ids, samples, SILENT)
    again = np.concatenate(list(new_features(run, config, samples.paths, SILENT)))
    assert np.array_equal(features, again)  # by the files in place of the cached pixels
    assert run_features(run, config, np.array([*ids, "another"]), None, SILENT) is None


def test_predictions_of_test_images_tell_their_classes(started_run, own_started_run, monkeypatch, capfd, tmp_path):
    run, images = Run(own_started_run), started_run.parent / "test"
    rules = [Rule("class", "class", name, None, None, f"class {name}") for name in "ab"]
    given = ImageSources(images, "off", None, "mean")
    assert count_test_images(run, rules, given, SILENT)[1] == [None, None]
    status, _, err = ens(monkeypatch, capfd, "tta-predict", run, images, "-o", tmp_path / "s.csv")
    assert status == 0, err
    with (tmp_path / "s.csv").open(newline="") as file:
        predicted = [row[1] for row in csv.reader(file)]
    assert count_test_images(run, rules, given, SILENT)[1] == [predicted.count(name) for name in "ab"]


def test_a_start_that_was_trained_on_the_images_gives_no_features(started_run, own_started_run):
    run = Run(own_started_run)
    trained = Run(started_run).member("net").fold(0).model_file
    lines = run.config_toml.read_text().splitlines()
    lines = [f'weights = "{trained}"' if line.startswith("weights") else line for line in lines]
    run.config_toml.write_text("\n".join(line for line in lines if "checksum" not in line))
    config = load_run_config(run.config_toml)
    samples = read_labelled(config)
    assert run_features(run, config, samples.ids, samples, SILENT) is None
    # All rows of the run count, not only those that are asked about: a start may have seen what is only trained on.
    one = replace(samples, ids=np.array(["another"]), paths=samples.paths[:1], labels=samples.labels[:1])
    assert run_features(run, config, one.ids, one, SILENT) is None
