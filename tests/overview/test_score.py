"""`ens score`: predictions against labels that are known now, beside what was expected."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from report_runs import noisy_logits, write_run

from ensemble.blend import BlendOptions, blend_run, load_blend
from ensemble.cli import ens
from ensemble.data.logits import write_logits
from ensemble.errors import UserError
from ensemble.overview.ledger import record
from ensemble.overview.score import score_file
from ensemble.run import Run
from ensemble.scoring.bootstrap import Score
from ensemble.scoring.expected import Sample, expected_range
from ensemble.scoring.wilson import wilson

CLASSES = ("cat", "dog", "fox")
LABELS = np.arange(120) % 3
IDS = [f"test/{row:03}.png" for row in range(120)]
COSTS = "true,cat,dog,fox\ncat,0,1,1\ndog,1,0,1\nfox,9,9,0\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("score") / "runs" / "pets"
    labels = np.arange(300) % 3
    members = {"one": noisy_logits(labels, 3, 2, 1), "two": noisy_logits(labels, 3, 1.5, 2)}
    write_run(folder, CLASSES, labels, np.arange(300) // 3 % 3, members)
    blend_run(Run(folder), BlendOptions("mean"))
    return Run(folder)


@pytest.fixture(scope="module")
def probabilities(run):
    z = [noisy_logits(LABELS, 3, 2, 3), noisy_logits(LABELS, 3, 1.5, 4)]
    return load_blend(run, "mean").apply([np.asarray(member, dtype=np.float32)[None] for member in z])


def truth(folder, ids=IDS, labels=LABELS, groups=None):
    lines = [f"{name},{CLASSES[label]}" for name, label in zip(ids, labels, strict=True)]
    if groups is not None:
        lines = [f"{line},{group}" for line, group in zip(lines, groups, strict=True)]
    head = "id,label" + ",group" * (groups is not None)
    return written(folder / "truth.csv", [head, *lines])


def written(path, lines) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def table(path, probabilities, ids=IDS, head="id,cat,dog,fox"):
    rows = [
        f"{name}," + ",".join(f"{value:.9f}" for value in row) for name, row in zip(ids, probabilities, strict=True)
    ]
    return written(path, [head, *rows])


def test_what_to_expect_by_hand():
    new = Sample(100)
    assert expected_range("log_loss", Score(0.1, 0.06, 0.2, (0.1,)), Sample(800), new) == (0.0, pytest.approx(0.4))
    assert expected_range("expected_cost", Score(-0.1, -0.2, 0.0, (0.0,)), Sample(300), new)[0] == pytest.approx(-0.3)
    # 1,000 rows of 100 patients, 200 rows of 2: widened by sqrt(1 + 50), or by sqrt(1 + 5) where no groups are known
    loss = Score(1.0, 0.99, 1.01, (1.0,))
    low, high = expected_range("log_loss", loss, Sample(1000, 100), Sample(200, 2))
    assert (1 - low, high - 1) == pytest.approx((0.01 * 51**0.5, 0.01 * 51**0.5))
    assert expected_range("log_loss", loss, Sample(1000, 100), Sample(200))[1] == pytest.approx(1 + 0.01 * 6**0.5)
    assert expected_range("log_loss", loss, Sample(1000), Sample(200, 20))[1] == pytest.approx(1 + 0.01 * 51**0.5)


def accuracy(share, rows):
    return Score(share, *wilson(np.array(share * rows), np.array(rows)).tolist(), (share,))


def test_what_share_to_expect_by_hand():
    # of 98 %, none of 5 wrong in 90.4 % of cases, one in 9.2 %, two in 0.4 %; of 20 more than two wrong in 0.7 %
    known = Sample(1_000_000)
    assert expected_range("accuracy", accuracy(0.98, 1_000_000), known, Sample(5)) == (0.8, 1.0)
    assert expected_range("accuracy", accuracy(0.98, 1_000_000), known, Sample(20)) == (0.9, 1.0)
    # after three right rows of four, the next one is wrong in (1 + 0.5) of (4 + 1) cases
    assert expected_range("accuracy", accuracy(0.75, 4), Sample(4), Sample(1)) == (0.0, 1.0)
    # two patients, each of them all right or all wrong, may both be wrong: 0.2 x 0.2
    assert expected_range("accuracy", accuracy(0.8, 100), Sample(1000, 100), Sample(200, 2)) == (0.0, 1.0)
    assert expected_range("accuracy", accuracy(0.8, 100), Sample(1000), Sample(200, 2)) == (0.0, 1.0)
    # a score without a mistake allows for some
    low, high = expected_range("macro_f1", accuracy(1.0, 100), Sample(100), Sample(100))
    assert 0.93 < low < 0.98 and high == 1.0
    assert expected_range("macro_f1", accuracy(0.98, 1000), Sample(1000), Sample(29)) is None
    assert expected_range("log_loss", Score(0.1, 0.06, 0.2, (0.1,)), Sample(1000), Sample(29)) is None


def test_the_expected_range_of_a_share_holds_so_many_new_shares():
    draw = np.random.default_rng(0)
    for share, rows, new in ((0.98, 1000, 5), (0.98, 300, 40), (0.7, 100, 100)):
        inside = []
        for right in draw.binomial(rows, share, size=200):
            low, high = expected_range("accuracy", accuracy(right / rows, rows), Sample(rows), Sample(new))
            found = draw.binomial(new, share, size=200) / new
            inside.append(((low <= found) & (found <= high)).mean())
        assert np.mean(inside) > 0.94


def test_probabilities_are_joined_by_id_and_set_beside_what_was_expected(run, probabilities, tmp_path):
    order = np.random.default_rng(0).permutation(120)
    short = [IDS[row].removeprefix("test/").removesuffix(".png") for row in order]
    file = table(tmp_path / "out.csv", probabilities[order], short, "image,cat,dog,fox")
    found = score_file(file, truth(tmp_path), run)
    right = probabilities.argmax(axis=1) == LABELS
    assert found.metrics["accuracy"].score.value == pytest.approx(right.mean())
    loss = -np.log(probabilities[np.arange(120), LABELS]).mean()
    assert found.metrics["log_loss"].score.value == pytest.approx(loss, abs=1e-6)
    assert (found.rows, found.rows_before, found.blend, found.groups) == (120, 300, "mean", None)
    scored = found.metrics["accuracy"]
    assert (scored.low, scored.high) == expected_range("accuracy", scored.out_of_fold, Sample(300), Sample(120))
    assert {each.place for each in found.metrics.values()} == {"inside"}


def test_wrong_labels_are_worse_than_expected(run, probabilities, tmp_path):
    file, wrong = table(tmp_path / "out.csv", probabilities), truth(tmp_path, labels=(LABELS + 1) % 3)
    found = score_file(file, wrong, run)
    assert found.metrics["accuracy"].place == "below" and found.metrics["log_loss"].place == "above"
    done = CliRunner().invoke(ens, ["score", str(file), "--truth", str(wrong), "--run", str(run)])
    said = " ".join(done.output.split())
    assert done.exit_code == 0 and "worse than expected in accuracy, macro F1, " in said
    assert "these images or their labels differ from those of the run" in said


def test_few_images_of_one_class_with_folds(run, probabilities, tmp_path):
    """One mistake of five is nothing rare; all five count, whatever fold they were once in."""
    five = np.array([0, 3, 6, 9, 12])
    probabilities = probabilities[five].copy()
    probabilities[:] = [[0.8, 0.1, 0.1]] * 4 + [[0.4, 0.5, 0.1]]
    file = table(tmp_path / "out.csv", probabilities, [IDS[row] for row in five])
    lines = [f"{IDS[row]},cat,{fold}" for row, fold in zip(five, [-1, 0, "", "a", 1], strict=True)]
    found = score_file(file, written(tmp_path / "truth.csv", ["id,label,fold", *lines]), run)
    assert found.rows == 5 and found.metrics["accuracy"].score.value == 0.8
    assert {name: each.place for name, each in found.metrics.items() if each.place} == {"accuracy": "inside"}
    assert found.metrics["log_loss"].out_of_fold is not None and not any("no label" in note for note in found.notes)
    assert any("log loss" in note and "of fewer than 30 images these vary too much" in note for note in found.notes)
    done = CliRunner().invoke(ens, ["score", str(file), "--truth", str(tmp_path / "truth.csv"), "--run", str(run)])
    assert done.exit_code == 0 and "as expected: it lies inside" in " ".join(done.output.split()), done.output
    assert score_file(file, tmp_path / "truth.csv").metrics["accuracy"].score.value == 0.8  # and without a run


def test_groups_of_few_images_are_expected_to_vary_more(run, probabilities, tmp_path):
    file = table(tmp_path / "out.csv", probabilities)
    plain = score_file(file, truth(tmp_path), run).metrics["accuracy"]
    grouped = score_file(file, truth(tmp_path, groups=np.arange(120) // 30), run).metrics["accuracy"]
    assert grouped.low < plain.low - 0.05


def test_it_says_so_where_all_is_as_expected(run, probabilities, tmp_path):
    file = table(tmp_path / "out.csv", probabilities)
    done = CliRunner().invoke(ens, ["score", str(file), "--truth", str(truth(tmp_path)), "--run", str(run)])
    said = " ".join(done.output.split())
    assert done.exit_code == 0, done.output
    assert "as expected: all 4 lie inside what the out-of-fold scores of blend mean (300 rows) promise" in said
    assert all(len(line) <= 120 for line in done.output.splitlines() if "│" in line)


def test_classes_alone_and_no_run(tmp_path):
    answers = LABELS.copy()
    answers[:12] = 0  # of which 4 are cats
    file = written(
        tmp_path / "out.csv", ["id,label", *(f"{name},{CLASSES[a]}" for name, a in zip(IDS, answers, strict=True))]
    )
    found = score_file(file, truth(tmp_path, groups=np.arange(120) // 4))
    assert set(found.metrics) == {"accuracy", "macro_f1", "balanced_accuracy"} and found.groups == 30
    assert found.metrics["accuracy"].score.value == pytest.approx(112 / 120)
    assert found.run is None and {each.place for each in found.metrics.values()} == {""}
    done = CliRunner().invoke(ens, ["score", str(file), "--truth", str(tmp_path / "truth.csv")])
    assert done.exit_code == 0 and "expected" not in done.output


def test_an_answer_that_no_label_of_the_truth_has_is_a_mistake(tmp_path):
    kept = [row for row in range(120) if LABELS[row] < 2]
    answers = ["fox" if row == 0 else CLASSES[LABELS[row]] for row in kept]
    file = written(
        tmp_path / "out.csv", ["id,label", *(f"{IDS[row]},{a}" for row, a in zip(kept, answers, strict=True))]
    )
    found = score_file(file, truth(tmp_path, [IDS[row] for row in kept], LABELS[kept]))
    assert found.metrics["accuracy"].score.value == pytest.approx(79 / 80)


def test_class_numbers(run, tmp_path):
    file = written(tmp_path / "out.csv", ["id,target", *(f"{name},{a}" for name, a in zip(IDS, LABELS, strict=True))])
    assert score_file(file, truth(tmp_path), run).metrics["accuracy"].score.value == 1


def test_what_a_run_keeps_names_its_run_and_blend(run, probabilities, tmp_path):
    blend_run(run, BlendOptions("vote"))
    path = run.predictions_file("test", "mean")
    path.parent.mkdir(exist_ok=True)
    logs = np.log(probabilities)[None].astype(np.float32)
    write_logits(path, [*IDS, "other.png"], ("blend",), CLASSES, (1, 121, 3),
                 [np.concatenate([logs[0], logs[0, :1]])], {"blend": "mean", "images": "test"})  # fmt: skip
    found = score_file(path, truth(tmp_path))
    assert (found.run, found.blend) == (run.path, "mean")
    assert any(
        "test-mean.safetensors: 1 prediction has no label in truth.csv, not scored" in note for note in found.notes
    )
    assert found.metrics["accuracy"].score.value == pytest.approx((probabilities.argmax(axis=1) == LABELS).mean())


def test_the_blend_that_wrote_a_submission_is_found_in_the_ledger(run, probabilities, tmp_path):
    blend_run(run, BlendOptions("vote"))
    file = table(tmp_path / "out.csv", probabilities)
    with pytest.raises(
        UserError, match=r"not a submission that .* has written; name its blend with --blend: mean, vote"
    ):
        score_file(file, truth(tmp_path), run)
    assert score_file(file, truth(tmp_path), run, "mean").blend == "mean"
    record(run.submissions_csv, file, {"blend": "vote"}, {})
    assert score_file(file, truth(tmp_path), run).blend == "vote"


def test_a_blend_with_costs_decides_by_them(run, probabilities, tmp_path):
    costs = written(tmp_path / "costs.csv", COSTS.splitlines())
    blend_run(run, BlendOptions("mean", "expected_cost", costs=costs))
    file = table(tmp_path / "out.csv", probabilities)
    found = score_file(file, truth(tmp_path), run, "mean-expected_cost")
    matrix = np.array([[0, 1, 1], [1, 0, 1], [9, 9, 0]])
    decided = (probabilities @ matrix).argmin(axis=1)
    assert found.metrics["expected_cost"].score.value == pytest.approx(matrix[LABELS, decided].mean())
    assert found.metrics["accuracy"].score.value == pytest.approx((decided == LABELS).mean())
    answers = written(
        tmp_path / "answers.csv", ["id,label", *map(",".join, zip(IDS, np.take(CLASSES, decided), strict=True))]
    )
    again = score_file(answers, truth(tmp_path), run, "mean-expected_cost")  # classes alone: as they were decided
    assert again.metrics["expected_cost"].score.value == found.metrics["expected_cost"].score.value
    assert "log_loss" not in again.metrics and again.metrics["expected_cost"].out_of_fold is not None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ["id,label", "test/000.png,cat"],
            r"no prediction for an id of the truth: 'test/001.png' is not there; .*119 of",
        ),
        (["id,label", *(["test/000.png,cat"] * 2)], "id 'test/000.png' is there twice"),
        (
            ["id,cat,dog,fox", *(f"{name},0.9,0.9,0.1" for name in IDS)],
            "of 'test/000.png' are 0.9, 0.9, 0.1; want a row",
        ),
        (["id,cat,dog,fox", *(f"{name},0.9,,0.1" for name in IDS)], "'test/000.png' has '' in 'dog'; want a number"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path, lines, said):
    file = written(tmp_path / "out.csv", lines)
    with pytest.raises(UserError, match=said) as caught:
        score_file(file, truth(tmp_path))
    assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)


def test_a_label_that_is_no_class_of_the_run(run, probabilities, tmp_path):
    labels = written(
        tmp_path / "truth.csv", ["id,label", *(f"{name},{'cow' if not n else 'cat'}" for n, name in enumerate(IDS))]
    )
    file = table(tmp_path / "out.csv", probabilities)
    with pytest.raises(UserError, match=r"the label 'cow' of 'test/000.png' is none of: cat, dog, fox"):
        score_file(file, labels, run)
    with pytest.raises(UserError, match="--blend mean: name its run with --run"):
        score_file(file, labels, blend="mean")
