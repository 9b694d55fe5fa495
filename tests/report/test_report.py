"""The report of whole runs: what stands on the page, for every kind of run there is."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from recorder import Recorder
from report_runs import noisy_logits, write_run

from ensemble.blend import BlendOptions, ExternalFiles, blend_run, members_table
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.files.reading import read_json
from ensemble.report import read_run, write_report
from ensemble.report.classes import confused_pairs
from ensemble.report.page import SECTIONS, render
from ensemble.run import Run
from ensemble.tables.layout import gain_cell, score_cell

INLINE = {"a", "b", "code", "i", "label", "s", "span", "wbr"}
VOID = {"meta", "link", "br", "input", "img", "hr", "path", "use", "rect", "wbr"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects ids, links and the text of each section."""

    def __init__(self, html):
        super().__init__()
        self.open, self.ids, self.links, self.tags = [], [], [], []
        self.section, self.texts, self.skip = "", {}, 0
        self.feed(html)
        self.close()
        assert self.open == [], "tags are left open"

    def handle_starttag(self, tag, attrs):
        own = dict(attrs)
        self.tags.append(tag)
        if "id" in own:
            self.ids.append(own["id"])
        self.links += [value for key, value in attrs if key in ("href", "src", "action", "srcset", "data", "poster")]
        if tag == "section":
            self.section = own["id"]
        self.texts[self.section] = self.texts.get(self.section, "") + " " * (tag not in INLINE)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self.open.pop() == tag
        if tag == "section":
            self.section = ""

    def handle_data(self, data):
        self.texts[self.section] = self.texts.get(self.section, "") + data

    def text(self, section):
        return " ".join(self.texts[section].split())


def report(run):
    """The parsed page of the sections that read no image files, checked to be one file that asks for nothing."""
    html = render(read_run(Run(run), SILENT), SILENT)
    page = Page(html)
    assert len(html.encode()) < 10e6
    assert len(page.ids) == len(set(page.ids)), "an id is there twice"
    assert not re.search(r"https?:", html)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    return page


@pytest.fixture(autouse=True)
def only_the_sections_of_this_file(monkeypatch):
    """The sections on images need image files; they have tests of their own."""
    own = tuple(one for one in SECTIONS if one[0] not in ("images", "examples", "data"))
    monkeypatch.setattr("ensemble.report.page.SECTIONS", own)


def two_members(run, rows=60, classes=("고양이", "<b>dog</b>", "a & b"), **more):
    labels = np.arange(rows) % len(classes)
    folds = np.arange(rows) // len(classes) % 3
    members = {"one": noisy_logits(labels, len(classes), 2, 1), "two": noisy_logits(labels, len(classes), 1.5, 2)}
    return write_run(run, classes, labels, folds, members, **more)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, blended_run):
    """Two tiny networks that were really trained, under a name that has to be escaped."""
    folder = tmp_path_factory.mktemp("trained")
    for name, colour in (("<b>붉은</b>".replace("/", "∕"), (220, 30, 30)), ("blue & co", (30, 30, 220))):
        (folder / "train" / name).mkdir(parents=True)
        for number in range(12):
            noise = np.random.default_rng(number).integers(-30, 30, (32, 32, 3))
            Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(
                folder / "train" / name / f"{number}.png"
            )
    return blended_run(folder)


def joined(cell):
    """What `ens blend` prints in a cell, as the page's text has it."""
    return " ".join(cell.split())


def test_numbers_are_those_that_the_commands_print(trained):
    page = report(trained)
    result = blend_run(Run(trained), BlendOptions("mean"), events=SILENT)
    text = page.text("members")
    for row in members_table(Run(trained)):
        for metric in ("accuracy", "macro_f1", "log_loss"):
            assert joined(score_cell(metric, row.scores[metric])) in text
    for metric in ("accuracy", "macro_f1", "log_loss"):
        assert joined(score_cell(metric, result.blend[metric])) in text
        assert joined(score_cell(metric, result.mean[metric])) in text
    for metric in ("accuracy", "log_loss"):
        gain = next(own for own in result.gains if own.metric == metric and own.against == result.best[metric])
        assert gain_cell(gain) in text
        none_differs = gain.value == 0 and gain.p_better == 0.5
        shown = "there is no difference in accuracy" if none_differs else gain_cell(gain)
        assert shown in page.text("verdict")
    for cost in result.diversity.costs.values():
        assert gain_cell(cost) in text
    own = result.blend["accuracy"]
    ends = f"[{100 * own.low:.2f}, {100 * own.high:.2f}]"
    lead = f"The best blend, mean, predicts {100 * own.value:.2f} % {ends} of 24 images"
    assert lead in page.text("verdict")
    assert f"{100 * result.calibration['blend'].ece:.2f} % (15 bins)" in page.text("classes")


def test_equal_runs_give_equal_bytes(trained, tmp_path):
    said = []
    first = write_report(Run(trained), tmp_path / "a.html", Recorder(said))
    second = write_report(Run(trained), tmp_path / "b.html", Recorder(said))
    assert first.read_bytes() == second.read_bytes()
    assert said[0].startswith(f"wrote {tmp_path / 'a.html'} (0.")


def test_it_stands_in_the_run_unless_told_otherwise(trained):
    assert write_report(Run(trained), None, SILENT) == trained / "report.html"


def test_curves_are_those_of_the_logs(trained):
    page = report(trained)
    assert page.tags.count("svg") >= 3  # two members and the reliability
    assert " s per epoch" in page.text("curves")


def test_names_are_escaped_and_shown(tmp_path):
    run = two_members(tmp_path / "run<i>")
    html = render(read_run(Run(run), SILENT), SILENT)
    assert "<b>dog</b>" not in html and "&lt;b&gt;dog&lt;/b&gt;" in html
    assert "run<i>" not in html and "<title>run&lt;i&gt;" in html
    page = report(run)
    assert "고양이" in page.text("classes") and "a & b" in page.text("classes")


def test_a_names_quotes_cannot_leave_an_attribute(tmp_path):
    names = ('"><script>alert(1)</script>', "' onload='x")
    page = report(two_members(tmp_path / "run", classes=names))
    assert page.tags.count("script") == 1


def test_without_a_blend_the_plain_mean_stands_in_and_says_how_to_get_one(tmp_path):
    run = two_members(tmp_path / "run")
    results = read_run(Run(run), SILENT)
    assert not results.saved and results.best.name == "plain mean"
    assert results.basis == "the plain mean of the members, out of fold"
    page = report(run)
    assert "The plain mean of 2 members predicts" in page.text("verdict")
    assert f"A blend may do better: ens blend {run}" in page.text("verdict")
    assert f"No blend is saved yet. Make one with: ens blend {run}" in page.text("members")


def test_the_best_blend_has_the_least_log_loss_and_says_of_how_many(tmp_path):
    run = two_members(tmp_path / "run")
    for method in ("mean", "vote", "stack"):
        blend_run(Run(run), BlendOptions(method), events=SILENT)
    results = read_run(Run(run), SILENT)
    losses = [own.blend["log_loss"].value for own in results.blends]
    assert losses == sorted(losses) and results.best.name == results.blends[0].name
    assert results.basis == f"blend {results.best.name}, cross-fitted"
    own = -np.log(results.probabilities[np.arange(60), results.oof.rows.labels]).mean()
    assert own == pytest.approx(losses[0], abs=1e-7)  # the probabilities were saved as float32
    assert "is the lowest of 3 blends that were tried" in report(run).text("verdict")


def test_a_blend_for_other_shares_is_shown_and_never_the_best(tmp_path):
    run = two_members(tmp_path / "run")
    blend_run(Run(run), BlendOptions("vote", name="even", priors="uniform"), events=SILENT)
    results = read_run(Run(run), SILENT)
    assert [own.shifted for own in results.blends] == [True] and not results.saved
    blend_run(Run(run), BlendOptions("mean"), events=SILENT)
    results = read_run(Run(run), SILENT)
    assert results.best.name == "mean"
    assert "for other class shares, so not comparable" in report(run).text("members")


def test_a_stale_blend_is_said_and_never_the_best(tmp_path):
    run = two_members(tmp_path / "run")
    blend_run(Run(run), BlendOptions("mean"), events=SILENT)
    labels = np.arange(60) % 3
    other = write_run(
        tmp_path / "other", ("고양이", "<b>dog</b>", "a & b"), labels, np.arange(60) // 3 % 3,
        {"one": noisy_logits(labels, 3, 1, 9)},
    )  # fmt: skip
    for fold in range(3):
        theirs, ours = (Run(folder).member("one").fold(fold) for folder in (other, run))
        theirs.oof_file.replace(ours.oof_file)  # as if the fold was trained again
        theirs.done_json.replace(ours.done_json)
    results = read_run(Run(run), SILENT)
    assert not results.saved and results.blends[0].name in results.stale
    assert "Stale blends, fitted on other logits than the run holds now: mean." in report(run).text("verdict")


def test_a_broken_blend_is_said(tmp_path):
    run = two_members(tmp_path / "run")
    blend_run(Run(run), BlendOptions("mean"), events=SILENT)
    Run(run).blend_file("mean").write_bytes(b"x")
    text = report(run).text("verdict")
    assert "What could not be read" in text and "not the file that mean.json was written with" in text


def test_an_external_member_in_the_best_blend(tmp_path):
    """Its predictions are not in the run: rows are those of the best blend that is all of the run's own."""
    run = two_members(tmp_path / "run")
    blend_run(Run(run), BlendOptions("mean"), events=SILENT)
    labels = np.arange(60) % 3
    probs = np.full((60, 3), 0.1)
    probs[np.arange(60), labels] = 0.8
    probs[::9] = [0.3, 0.4, 0.3]
    np.savez(tmp_path / "x.npz", ids=[f"r{row}" for row in range(60)], values=probs)
    external = [ExternalFiles("svm", tmp_path / "x.npz", None)]
    blend_run(Run(run), BlendOptions("mean", name="with-svm", external=external), events=SILENT)
    results = read_run(Run(run), SILENT)
    assert results.best.name == "with-svm" and results.basis == "blend mean, cross-fitted"
    page = report(run)
    assert "with svm, not trained here" in page.text("members")
    assert "given" in page.text("members")
    assert "These are the predictions of blend mean, cross-fitted" in page.text("classes")
    assert "--add svm=OOF,TEST --name with-svm" in page.text("provenance")


def test_an_external_member_without_weight_is_external_all_the_same(tmp_path):
    run = two_members(tmp_path / "run")
    np.savez(tmp_path / "x.npz", ids=[f"r{row}" for row in range(60)], values=np.full((60, 3), 1 / 3))
    external = [ExternalFiles("xgb", tmp_path / "x.npz", None)]
    blend_run(Run(run), BlendOptions("greedy", external=external), events=SILENT)
    assert read_json(Run(run).blend_json("greedy"))["foreign"] == []
    results = read_run(Run(run), SILENT)
    assert results.best.external == ("xgb",) and results.problems == () and results.tempered == {}
    page = report(run)
    assert "part of that may be calibration alone" in page.text("verdict")
    assert f"ens blend {run} --method greedy --add xgb=OOF,TEST" in page.text("provenance")


def test_a_blend_whose_member_is_not_finished_now_is_stale(tmp_path):
    run = two_members(tmp_path / "run")
    blend_run(Run(run), BlendOptions("mean"), events=SILENT)
    Run(run).member("two").fold(1).done_json.unlink()
    results = read_run(Run(run), SILENT)
    assert not results.saved and results.blends[0].name in results.stale and results.oof.members == ("one",)
    assert len(set(results.problems)) == len(results.problems)


def test_a_dead_link_is_no_end(tmp_path):
    run = two_members(tmp_path / "run")
    (run / "gone").symlink_to(tmp_path / "nowhere")
    assert "gone 0 0.00" in report(run).text("provenance")


def test_commands_name_a_run_that_was_moved(tmp_path):
    run = two_members(tmp_path / "run", done={"two": [0]})
    assert "--set" not in report(run).text("provenance")
    moved = run.rename(tmp_path / "my run")
    page = report(moved)
    again = f"ens train-folds '{moved}/config.toml' --set 'run={moved}'"
    assert again in page.text("provenance") and f"To finish them: {again}" in page.text("verdict")
    assert f"ens blend '{moved}'" in page.text("members")


def test_a_single_member(tmp_path):
    labels = np.arange(40) % 2
    run = write_run(
        tmp_path / "run", ("a", "b"), labels, np.arange(40) // 2 % 2, {"only": noisy_logits(labels, 2, 2, 0)}
    )
    page = report(run)
    assert "only predicts" in page.text("verdict") and "With a single member there is nothing to combine" in page.text(
        "verdict"
    )
    assert "How members differ" not in page.text("members")
    assert "only, out of fold" in page.text("classes")
    blend_run(Run(run), BlendOptions("stack"), events=SILENT)
    text = report(run).text("verdict")
    assert "Blend stack, of only alone, predicts" in text and "Compared with the member by itself, only, " in text


def test_a_blend_that_is_worse_than_its_one_member_is_said(tmp_path):
    """Calibrated logits, of few rows: what is fitted on other folds can only spoil them."""
    draw = np.random.default_rng(1)
    values = draw.normal(0, 1.5, (24, 2))
    labels = (draw.random(24) < 1 / (1 + np.exp(values[:, 0] - values[:, 1]))).astype(int)
    settings = {"only": {"keep": "best"}}
    run = write_run(tmp_path / "run", ("a", "b"), labels, np.arange(24) % 4, {"only": values}, settings=settings)
    blend_run(Run(run), BlendOptions("stack"), events=SILENT)
    text = report(run).text("verdict")
    assert "Verdict only classifies 70.83 % of 24 images correctly. Accuracy 70.83 %" in text
    assert "only alone is better than the blend of it: only predicts" in text
    assert "Compared with the member by itself, only, " in text
    assert "All these scores are optimistic: only kept the epoch" in text


def test_log_loss_is_compared_at_one_temperature(tmp_path):
    """The same network twice, far too modest: a blend's gain in log loss over it is all temperature."""
    labels = np.arange(60) % 3
    values = noisy_logits(labels, 3, 3, 1) / 10
    run = write_run(tmp_path / "run", ("a", "b", "c"), labels, np.arange(60) // 3 % 3, {"one": values, "two": values})
    for saved in (False, True):
        if saved:
            blend_run(Run(run), BlendOptions("mean"), events=SILENT)
        results = read_run(Run(run), SILENT)
        assert abs(results.tempered["single"].value) < 1e-6 and abs(results.tempered["mean"].value) < 1e-6
        text = report(run).text("verdict")
        assert (
            "Compared with the best single member, one, there is no difference in accuracy. In log loss, there" in text
        )
        assert "In log loss, there is no difference from one at a temperature fitted on the other folds" in text
    assert results.best.gain_over("single", "log_loss").value > 0.3
    assert f"gains {gain_cell(results.best.gain_over('single', 'log_loss'))} over one without a temperature" in text
    assert "much of a gain in log loss over them may be calibration alone" in report(run).text("members")


def test_all_right_is_no_certainty(tmp_path):
    """As `ens blend` has it: of 12 of 12 by Student's 2.201, of 3 groups by 4.303; of each class Wilson's of 6 of 6."""
    labels = np.arange(12) % 2
    values = np.where(np.arange(2) == labels[:, None], 3.0, 0.0)
    page = report(write_run(tmp_path / "run", ("a", "b"), labels, np.arange(12) // 2 % 3, {"one": values}))
    assert "one predicts 100.00 % [71.24, 100.00] of 12 images correctly" in page.text("verdict")
    assert "a 6 6 100.0 [61.0, 100.0] 100.0 [61.0, 100.0] 100.0 –" in page.text("classes")
    groups = [f"g{row // 4}" for row in range(12)]
    page = report(
        write_run(tmp_path / "grouped", ("a", "b"), labels, np.arange(12) // 4, {"one": values}, groups=groups)
    )
    assert "one predicts 100.00 % [13.95, 100.00] of 12 images in 3 groups correctly" in page.text("verdict")
    assert "a 6 6 100.0 [43.9, 100.0] 100.0 [43.9, 100.0] 100.0 –" in page.text("classes")
    sure = np.where(np.arange(2) == np.arange(1000)[:, None] % 2, 3.0, 0.0)
    page = report(
        write_run(tmp_path / "many", ("a", "b"), np.arange(1000) % 2, np.arange(1000) // 2 % 3, {"one": sure})
    )
    assert "recall and its interval 90 95 100 F1" in page.text("classes")


def test_unfinished_folds(tmp_path):
    """One member is whole: it is scored on all rows, the other one on those of its folds."""
    run = two_members(tmp_path / "run", done={"two": [0, 1]})
    results = read_run(Run(run), SILENT)
    assert results.oof.members == ("one",) and len(results.oof.rows.ids) == 60
    page = report(run)
    assert "2/3" in page.text("members") and "3/3" in page.text("members")
    assert (
        f"Not finished: two (2 of 3 folds). They are left out of blends. To finish them: ens train-folds {run}"
        in page.text("verdict")
    )


def test_no_member_is_whole(tmp_path):
    """What is there is scored: on the folds of the member that has the most."""
    run = two_members(tmp_path / "run", done={"one": [0], "two": [0, 2]})
    results = read_run(Run(run), SILENT)
    assert results.oof.members == ("two",) and sorted(set(results.oof.rows.folds.tolist())) == [0, 2]
    assert results.probabilities.shape == (39, 3)
    page = report(run)
    assert "Scores cover 39 of 60 rows" in page.text("verdict")


def test_no_fold_is_done(tmp_path):
    page = report(two_members(tmp_path / "run", done={"one": [], "two": []}))
    assert "No member has finished a fold yet" in page.text("verdict")
    assert "ens train-folds" in page.text("members") and "no member has finished an epoch yet" in page.text("curves")


def test_rows_that_are_never_validated_are_counted(tmp_path):
    labels = np.arange(60) % 2
    folds = np.where(np.arange(60) < 10, -1, np.arange(60) // 2 % 2)
    run = write_run(tmp_path / "run", ("a", "b"), labels, folds, {"one": noisy_logits(labels, 2, 2, 0)})
    page = report(run)
    assert "10 rows are never validated (fold -1)" in page.text("verdict")
    assert "50 images" in page.text("classes")


def test_groups_are_said(tmp_path):
    run = two_members(tmp_path / "run", groups=[f"g{row // 6}" for row in range(60)])
    page = report(run)
    assert "of 60 images in 10 groups correctly" in page.text("verdict")
    assert "95 % intervals: bootstraps over groups; at 0 and 100 %, Wilson’s interval for" in page.text("classes")
    text = page.text("calibration")
    assert "Of one image of each group, 10 in all." in text and "g0 6 " in text
    assert "No group is right more or less often than the confidence says, by more than chance" in text


def test_calibration_by_class_is_shown_beside_chance(tmp_path):
    """One class of which only half of what is surely predicted as it is right."""
    labels, folds = np.repeat([0, 1, 2], [50, 150, 100]), np.arange(300) % 3
    values = 6.0 * np.eye(3)[labels]
    values[50:100] = [6, 0, 0]  # of class 1, surely predicted as 0
    page = report(write_run(tmp_path / "run", ("a", "b", "c"), labels, folds, {"one": values}))
    text = page.text("calibration")
    assert "The probabilities are wrong by class by more than chance" in text
    # of 100 rows at .995 half are right: (.495 squared) x 100 / 300, and of that the root
    assert "a 50 100.0 28.44 " in text and "2 classes stand out." in text


def test_what_deciding_by_cost_saves_is_said(tmp_path):
    run = two_members(tmp_path / "run", classes=("a", "b", "c"))
    (tmp_path / "costs.csv").write_text("true,a,b,c\na,0,1,1\nb,1,0,1\nc,9,9,0\n")
    decision = blend_run(Run(run), BlendOptions("mean", "expected_cost", costs=tmp_path / "costs.csv")).decision
    text = report(run).text("classes")
    saved = f"{decision.saved.value:+.4f}"
    assert f"Expected cost that this saves against the most probable one: {saved} [" in text
    assert f"{100 * decision.changed:.2f} % of the images get another class." in text


def test_only_classes_that_are_confused_are_pairs():
    """Not the mirrored, empty cell of a pair, nor classes that are never confused."""
    matrix = np.array([[5, 2, 0], [1, 6, 0], [4, 0, 9]])
    pairs = confused_pairs(matrix, ("a", "b", "c"))
    assert [(own["names"], own["count"]) for own in pairs] == [(("c", "a"), 4), (("a", "b"), 3)]
    assert [[(way["true"], way["predicted"], way["count"], way["rows"]) for way in own["ways"]] for own in pairs] == [
        [("c", "a", 4, 13)], [("a", "b", 2, 7), ("b", "a", 1, 7)],
    ]  # fmt: skip
    assert len(confused_pairs(matrix, ("a", "b", "c"), most=1)) == 1
    assert confused_pairs(np.diag([3, 4]), ("a", "b")) == []


def test_a_thousand_classes(tmp_path):
    """No matrix, the most confused pairs and the worst classes, in a page of a few MB."""
    classes = tuple(f"class {number}" for number in range(1000))
    labels = np.arange(2000) % 1000
    values = noisy_logits(labels, 1000, 6, 0)
    values[:30, 7] += 20  # the first 30 rows, but r7 and r1007, are predicted class 7
    run = write_run(tmp_path / "run", classes, labels, np.arange(2000) // 1000, {"one": values})
    page = report(run)
    text = page.text("classes")
    assert "A matrix of 1,000 classes is too large to read" in text
    assert "class 0 and class 7, 1 time: 1 of 2 class 0 predicted as class 7 (50.0 %)" in text
    assert "Shown are the 300 classes of the lowest F1; 700 better ones are left out." in text
    assert "The 30 classes of the smallest p are shown; 970 others are left out." in page.text("calibration")


def test_two_classes_and_their_matrix(tmp_path):
    """Four a's, one of them predicted b; four b's, two of them predicted a."""
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    taken = np.array([0, 0, 0, 1, 1, 1, 0, 0])
    values = np.where(np.arange(2) == taken[:, None], 1.0, -1.0)
    run = write_run(tmp_path / "run", ("a", "b"), labels, np.arange(8) % 2, {"one": values})
    text = report(run).text("classes")
    assert "of 8 images, 5 are predicted correctly (62.50 %) and 3 wrongly" in text
    assert "b and a, 3 times: 2 of 4 b predicted as a (50.0 %); 1 of 4 a predicted as b (25.0 %)" in text
    assert "Label a b images a 3 75.0 1 25.0 4 b 2 50.0 2 50.0 4" in text
    # Wilson's interval of 3 in 4, and of 2 in 4
    assert "a 4 5 60.0 [23.1, 88.2] 75.0 [30.1, 95.4]" in text
    assert "b 4 3 66.7 [20.8, 93.9] 50.0 [15.0, 85.0]" in text


def test_optimistic_members_are_marked(tmp_path):
    run = two_members(tmp_path / "run", settings={"two": {"keep": "best"}})
    page = report(run)
    assert "two *" in page.text("members") and "one *" not in page.text("members")
    assert "All these scores are optimistic: two kept the epoch" in page.text("verdict")


def test_probes_have_no_curve(tmp_path):
    line = {"epoch": 1, "loss": 0.7, "lr": 0.1, "seconds": 3.0, "images_per_second": 1249.6}
    lines = {"one": {fold: [line] for fold in range(3)}}
    probe = {"two": {fold: [{"strategy": "probe", "strength": 1.0}] for fold in range(3)}}
    page = report(two_members(tmp_path / "run", logs=lines | probe))
    text = page.text("curves")
    assert "Linear probes, which have no epochs: two." in text and "3 s per epoch, 1,250 images per second" in text
    assert "The held-out images were not evaluated during training" in text


def test_the_epoch_that_was_enough(tmp_path):
    log = [
        {"epoch": e, "loss": 1 / e, "lr": 1e-3 / e, "seconds": 2.0, "held_out_log_loss": held, "held_out_accuracy": 0.5}
        for e, held in ((2, 0.5), (4, 0.4), (6, 0.4))
    ]
    run = two_members(tmp_path / "run", logs={"one": dict.fromkeys(range(3), log), "two": dict.fromkeys(range(3), log)})
    text = report(run).text("curves")
    assert "4 of 6 epochs would have been enough: held-out log loss 0.400 then, 0.400 at the end" in text
    assert "dashed: the epoch that would have been enough" in text


def test_commands_make_the_run_again(tmp_path):
    run = two_members(tmp_path / "my run")
    blend_run(Run(run), BlendOptions("vote", members=["one"], metric="macro_f1", name="mine"), events=SILENT)
    text = report(run).text("provenance")
    assert f"ens blend '{run}' --method vote --metric macro_f1 --members one --name mine" in text
    assert f"ens tta-predict '{run}' IMAGES --blend mine -o submission.csv" in text
    assert "git abc" in text and 'train = "images"' in text


def test_a_config_of_another_time_is_shown_as_it_is(tmp_path):
    run = two_members(tmp_path / "run", config="odd = 1\n")
    results = read_run(Run(run), SILENT)
    assert results.config is None
    page = report(run)
    assert "odd = 1" in page.text("provenance") and "config.toml: run is missing" in page.text("verdict")


def test_it_says_what_is_no_run(tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        write_report(Run(tmp_path), None, SILENT)


def test_it_finds_a_bad_output_before_the_work(tmp_path):
    run = two_members(tmp_path / "run")
    with pytest.raises(UserError, match="is a folder; name a file in it"):
        write_report(Run(run), tmp_path, SILENT)


def test_it_loads_no_torch_before_it_shows_what_training_sees_and_never_timm():
    code = (
        "import sys, ensemble.report.page, ensemble.report.run, ensemble.report.verdict; "
        "before = 'torch' in sys.modules; import ensemble.report.examples; print(before or 'timm' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "False\n"
