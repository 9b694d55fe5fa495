"""What the report says to check: each with a planted case, and silence on a sound run."""

import numpy as np
import pytest
from PIL import Image
from report_runs import noisy_logits, write_run

from ensemble.blend import BlendOptions, blend_run
from ensemble.data.logits import Logits
from ensemble.events import SILENT
from ensemble.files.sealed import write_json
from ensemble.report import read_run
from ensemble.report.audited import not_checked
from ensemble.report.checks import check
from ensemble.report.statistics import fold_test, near_chance, smoothing_floor, some, tails
from ensemble.run import Run

ROWS, CLASSES = 600, ("a", "b", "c")
LABELS = np.arange(ROWS) % 3
FOLDS = np.arange(ROWS) // 3 % 4


def made(tmp_path, members=None, labels=LABELS, folds=FOLDS, **more):
    members = members or {"one": noisy_logits(labels, 3, 2, 1), "two": noisy_logits(labels, 3, 2, 2)}
    return write_run(tmp_path / "run", CLASSES, labels, folds, members, **more)


def found(run):
    return check(read_run(Run(run), SILENT))


def right_in(shares, seed=0):
    """Logits whose accuracy in each fold is about that of `shares`."""
    draw = np.random.default_rng(seed)
    taken = np.where(draw.random(ROWS) < np.asarray(shares)[FOLDS], LABELS, (LABELS + 1) % 3)
    return np.where(np.arange(3) == taken[:, None], 2.0, 0.0) + draw.normal(0, 0.1, (ROWS, 3))


def curve(training, held_out):
    """A log of as many epochs as there are losses."""
    return [
        {"epoch": e, "loss": t, "lr": 1e-3, "seconds": 1.0, "held_out_log_loss": h, "held_out_accuracy": 0.8}
        for e, (t, h) in enumerate(zip(training, held_out, strict=True), 1)
    ]


def test_a_sound_run_has_no_warnings(tmp_path):
    log = curve([1.0, 0.6, 0.5], [0.9, 0.6, 0.6])
    run = made(tmp_path, logs={name: dict.fromkeys(range(4), log) for name in ("one", "two")})
    assert found(run) == []


def test_the_test_of_folds_alarms_as_often_as_it_says():
    """Of 1,000 sound runs in groups of three rows, 1 in 20 has a p-value below 0.05."""
    draw = np.random.default_rng(0)
    units = np.arange(ROWS) // 3
    right = np.repeat(draw.random((1000, ROWS // 3)) < 0.8, 3, axis=1)
    below = np.mean([fold_test(own, FOLDS, units)[0] < 0.05 for own in right])
    assert 0.03 < below < 0.07


def test_what_was_not_checked_is_said(tmp_path):
    run = made(tmp_path)
    lines = not_checked(read_run(Run(run), SILENT))
    assert lines[0].endswith(f"(to check them: ens check {run / 'config.toml'} --test TEST)") and len(lines) == 2


def test_almost_perfect(tmp_path):
    run = made(tmp_path, {"one": noisy_logits(LABELS, 3, 40, 1), "two": noisy_logits(LABELS, 3, 2, 2)})
    what = [own for own in found(run) if own.what.startswith("Almost perfect")]
    assert what[0].level == "warning" and "one (100.00 %, log loss 0.0000)" in what[0].what
    assert "two (" not in what[0].what and f"ens check {run / 'config.toml'}" in what[0].why


def test_folds_that_differ(tmp_path):
    run = made(tmp_path, {"one": right_in([0.9, 0.9, 0.9, 0.6])})
    spread, far = found(run)
    assert spread.what.startswith("Folds differ by more than chance explains: one (") and "data.group" in spread.why
    assert far.what.startswith("Outlying folds: fold 3 of one (") and "standard errors below the others" in far.what
    assert {spread.level, far.level} == {"warning"}


def test_the_test_of_folds_is_the_chi_square_of_homogeneity():
    """30 of 40 and 20 of 40 right: chi-square 5.3333 with one degree of freedom, p = 0.0209; z = its root."""
    right = np.r_[np.arange(40) < 30, np.arange(40) < 20]
    p, z, numbers = fold_test(right, np.repeat([3, 5], 40), np.arange(80))
    assert p == pytest.approx(0.020921, abs=1e-6)
    assert z == pytest.approx([5.333333**0.5, -(5.333333**0.5)], abs=1e-6)
    assert numbers.tolist() == [3, 5]


def test_rows_of_a_group_are_not_independent_for_it():
    """Each row four times: the same shares, a quarter of the evidence."""
    right = np.repeat(np.r_[np.arange(40) < 30, np.arange(40) < 20], 4)
    folds = np.repeat([0, 1], 160)
    alone = fold_test(right, folds, np.arange(320))[0]
    grouped = fold_test(right, folds, np.repeat(np.arange(80), 4))[0]
    assert grouped == pytest.approx(0.020921, abs=1e-6) and alone < 1e-4


def test_always_right_or_one_fold_varies_in_nothing():
    assert fold_test(np.ones(10, bool), np.arange(10) % 2, np.arange(10))[0] == 1.0
    assert fold_test(np.arange(10) < 5, np.zeros(10, int), np.arange(10))[0] == 1.0


def test_single_folds_have_the_exact_p_value():
    """Two errors in all, both in one fold of ten of forty rows: 2 x (10 x 9) / (40 x 39) = 0.1154; of a normal tail
    0.0120."""
    right, folds = np.arange(40) >= 2, np.arange(40) // 10
    z = fold_test(right, folds, np.arange(40))[1]
    assert tails(right, folds, z, False) == pytest.approx([0.115385, 1, 1, 1], abs=1e-6)
    assert tails(right, folds, z, True)[0] == pytest.approx(0.0120, abs=1e-4)


def test_a_member_with_one_answer(tmp_path):
    values = np.zeros((ROWS, 3))
    values[:, 1] = 1
    run = made(tmp_path, {"one": noisy_logits(LABELS, 3, 2, 1), "stuck": values})
    assert "stuck predicts 'b' for every image." in [own.what for own in found(run)]


def test_a_member_that_learned_nothing(tmp_path):
    run = made(tmp_path, {"one": noisy_logits(LABELS, 3, 2, 1), "lost": noisy_logits((LABELS + 1) % 3, 3, 1, 3)})
    what = next(own.what for own in found(run) if own.what.startswith("lost has an accuracy of "))
    assert what.endswith("is no better than chance.") and "always predicting the commonest class has 33.3 %." in what


def test_a_member_that_is_trained_for_rare_classes_is_not_accused(tmp_path):
    """Of 540, 30 and 30 images it finds 80 % of each class: worse than to say "a" always, and far from chance."""
    labels = np.r_[np.zeros(540, int), np.ones(30, int), np.full(30, 2)]
    taken = np.where(np.arange(ROWS) % 5 == 0, (labels + 1) % 3, labels)
    values = np.where(np.arange(3) == taken[:, None], 2.0, 0.0)
    results = made(tmp_path, {"one": values}, labels, np.arange(ROWS) % 4)
    assert [own.what for own in found(results)] == []


def test_near_chance():
    """Two classes of 50: the standard error of the balanced accuracy is 0.05, so that 0.6 is chance and 0.62 is not."""
    labels = np.arange(100) // 50
    for hits, near in ((60, True), (62, False)):
        balanced, chance = near_chance(np.where(np.arange(100) % 50 < hits / 2, labels, 1 - labels), labels)
        assert (balanced <= 0.6) == chance == near


def test_a_class_that_is_never_found(tmp_path):
    values = noisy_logits(LABELS, 3, 2, 1)
    values[:, 2] = -9
    run = made(tmp_path, {"one": values})
    assert "Never predicted correctly: c (200 images)." in [own.what for own in found(run)]


def test_a_class_without_validated_rows(tmp_path):
    labels = np.arange(ROWS) % 2
    run = made(tmp_path, {"one": noisy_logits(labels, 3, 2, 1)}, labels)
    assert [(own.level, own.what) for own in found(run)] == [("note", "Classes without a validated image: c.")]


def test_optimistic(tmp_path):
    own = found(made(tmp_path, settings={"two": {"keep": "best"}}))[0]
    assert (own.level, own.what) == ("warning", "Optimistic: two.")


def test_known_by_heart(tmp_path):
    run = made(tmp_path, logs={"one": dict.fromkeys(range(4), curve([0.5, 0.01], [0.5, 0.5]))})
    what = found(run)[0].what
    assert what.startswith("Overfitting: one (training loss 0.010 above its minimum")


def test_label_smoothing_keeps_the_training_loss_up(tmp_path):
    """Three classes, smoothing 0.3: the target is 0.8, 0.1, 0.1, whose entropy is 0.6390."""
    assert smoothing_floor(0.3, 3) == pytest.approx(-0.8 * np.log(0.8) - 0.2 * np.log(0.1))
    assert smoothing_floor(0.0, 3) == 0
    logs = {"one": dict.fromkeys(range(4), curve([0.9, 0.645], [0.5, 0.5]))}
    run = made(tmp_path, logs=logs, settings={"one": {"label_smoothing": 0.3}})
    assert found(run)[0].what.startswith("Overfitting: one (training loss 0.006")


def test_held_out_loss_that_rises(tmp_path):
    logs = {"one": {k: curve([0.9, 0.5, 0.4], [0.6, 0.4, 0.5 + k / 100]) for k in range(4)}}
    assert "Held-out loss rises towards the end: one (0.400 after 2 epochs, 0.515 after 3)." in [
        own.what for own in found(made(tmp_path, logs=logs))
    ]


def test_held_out_loss_that_rises_by_a_trifle(tmp_path):
    logs = {"one": {k: curve([0.9, 0.5, 0.4], [0.6, 0.400, 0.410 + k / 1000]) for k in range(4)}}
    assert found(made(tmp_path, logs=logs)) == []


def test_still_learning(tmp_path):
    logs = {"one": dict.fromkeys(range(4), curve([0.9, 0.8, 0.7], [0.9, 0.8, 0.7]))}
    assert [own.what for own in found(made(tmp_path, logs=logs))] == ["Still improving at the end of training: one."]


def test_a_loss_that_is_no_number(tmp_path):
    logs = {"one": {2: curve([0.9, float("nan")], [0.9, 0.8])}}
    own = found(made(tmp_path, logs=logs))[0]
    assert (own.level, own.what) == ("warning", "Losses that are not numbers: one.")


def predict(run, shares, blend="mean", rows=300):
    labels = np.random.default_rng(0).choice(3, rows, p=shares)
    values = np.log(np.where(np.arange(3) == labels[:, None], 0.8, 0.1)).astype(np.float32)
    logits = Logits(np.array([f"t{row}" for row in range(rows)]), ("blended",), CLASSES, values[None])
    logits.save(Run(run).predictions_file("test", blend))


def test_predictions_in_other_shares(tmp_path):
    run = made(tmp_path)
    predict(run, [0.7, 0.15, 0.15])
    own = found(run)[0]
    assert own.level == "warning" and own.what.startswith(
        "Predictions test-mean (300 images) have other class shares than the out-of-fold predictions: a has 62.7 %, out"
    )
    assert "ens blend --priors" in own.why


def test_predictions_in_the_same_shares(tmp_path):
    run = made(tmp_path)
    predict(run, [0.34, 0.33, 0.33])
    assert found(run) == []
    assert len(not_checked(read_run(Run(run), SILENT))) == 1


@pytest.mark.parametrize(("shares", "rows"), [([0.43, 0.29, 0.28], 20_000), ([0.8, 0.1, 0.1], 6)])
def test_predictions_that_are_a_little_or_by_chance_in_other_shares(tmp_path, shares, rows):
    """Of many images 8 points are no chance, but no harm; of six images everything is chance."""
    run = made(tmp_path)
    predict(run, shares, rows=rows)
    assert found(run) == []


def test_predictions_of_a_blend_with_costs_are_compared_by_their_most_probable_classes(tmp_path):
    run = made(tmp_path)
    (tmp_path / "costs.csv").write_text("true,a,b,c\na,0,1,1\nb,1,0,1\nc,900,900,0\n")  # most are decided for c
    options = BlendOptions("mean", "expected_cost", costs=tmp_path / "costs.csv")
    blend_run(Run(run), options, events=SILENT)
    assert (read_run(Run(run), SILENT).predicted == 2).mean() > 0.5
    predict(run, [0.34, 0.33, 0.33], blend="mean-expected_cost")
    assert not [issue for issue in found(run) if "class shares" in issue.what]


def test_predictions_of_a_blend_that_is_meant_for_other_shares(tmp_path):
    run = made(tmp_path)
    blend_run(Run(run), BlendOptions("vote", name="even", priors="uniform"), events=SILENT)
    predict(run, [0.7, 0.15, 0.15], "even")
    assert found(run) == []


def test_what_the_audit_found(tmp_path):
    run = made(tmp_path)
    findings = [
        {"kind": "unreadable", "level": "error", "count": 1, "what": "unreadable image", "advice": "remove it"},
        {
            "kind": "shift",
            "level": "warning",
            "side": "test",
            "count": 5,
            "what": "images differ",
            "advice": "look",
        },
        {
            "kind": "exact-copies",
            "level": "warning",
            "side": "train",
            "count": 3,
            "what": "copies",
            "advice": "drop them",
        },
        {"kind": "tiny", "level": "warning", "count": 1234, "what": "tiny images", "advice": "drop them"},
        {"kind": "grey", "level": "note", "count": 2, "what": "grey images", "advice": "nothing"},
    ]
    write_json(run / "audit.json", {"format": 1, "test": "t", "findings": findings})
    assert [(own.level, own.what, own.why) for own in found(run)] == [
        ("warning", "From ens check: 1 unreadable image.", "Remove it."),
        ("warning", "From ens check: test: 5 images differ.", "Look."),
        ("note", "From ens check: 3 copies.", "Drop them."),
        ("note", "From ens check: 1,234 tiny images.", "Drop them."),
    ]
    assert not any("ens check" in line for line in not_checked(read_run(Run(run), SILENT)))


def test_an_audit_without_test_images_checked_no_leaks(tmp_path):
    run = made(tmp_path)
    write_json(run / "audit.json", {"format": 1, "test": None, "findings": []})
    assert not_checked(read_run(Run(run), SILENT))[0] == (
        "leaks to the test images and shift, since ens check was not given them "
        f"(to check them: ens check {run / 'config.toml'} --test TEST)"
    )


def test_an_audit_counts_for_the_images_that_it_looked_at(tmp_path, monkeypatch):
    run, elsewhere = made(tmp_path), tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    write_json(Run(run).provenance_json, {"facts": {"data fingerprint": "f"}, "made with": {}})

    def read(own, earlier):
        for folder, value in ((run, own), (elsewhere, earlier)):
            write_json(folder / "audit.json", {"test": folder.name, "findings": [], "fingerprint": value})
        results = read_run(Run(run), SILENT)
        return results.audit and results.audit["test"], results.problems

    other = (f"{run / 'audit.json'}: is of other images or labels than the run's; check them again",)
    assert read("f", "f") == ("run", ()) and read(None, "f") == ("run", ())
    assert read("g", "f") == ("elsewhere", other) and read("g", "g") == (None, other)
    (run / "audit.json").unlink()
    assert read_run(Run(run), SILENT).audit is None


def test_labels_that_were_corrected(tmp_path):
    run = made(tmp_path)
    results = {"facts": {"relabel": {"labels changed": 12, "rows dropped": 3}}, "made with": {}}
    write_json(Run(run).provenance_json, results)
    own = found(run)[0]
    assert own.what == "Labels were corrected by a file (labels changed: 12, rows dropped: 3)."
    assert "makes out-of-fold scores optimistic" in own.why


def test_long_lists_are_cut():
    assert some(list("abcdef")) == "a, b, c, d, e, f"
    assert some(list("abcdefgh")) == "a, b, c, d, e, f and 2 more"


def test_groups_of_file_names_that_the_run_does_not_use(tmp_path):
    """12 places of 5 images each, whose large shapes they share."""
    labels, folds = np.arange(60) % 3, np.arange(60) // 15
    for row in range(60):
        place = np.random.default_rng(row // 5).integers(0, 200, (6, 6)).repeat(10, axis=0).repeat(10, axis=1)
        detail = np.random.default_rng(1000 + row).integers(0, 200, (60, 60))
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray((0.5 * place + 0.5 * detail).astype(np.uint8)).save(
            tmp_path / "images" / f"p{row // 5}_{row}.png"
        )
    table = "".join(f"images/p{row // 5}_{row}.png,{CLASSES[labels[row]]},r{row}\n" for row in range(60))
    (tmp_path / "t.csv").write_text(f"path,label,id\n{table}")
    members = {"one": noisy_logits(labels, 3, 2, 1), "two": noisy_logits(labels, 3, 2, 2)}
    backbones = "".join(f'[[backbone]]\nname = "{name}"\ntimm = "test_resnet"\n' for name in members)
    for name, group, told in (("a", "", True), ("b", 'group = "from file names"\n', False)):
        run = tmp_path / name
        config = f'run = "{run}"\n[data]\ntrain = "{tmp_path / "t.csv"}"\nid = "id"\n{group}{backbones}'
        write_run(run, CLASSES, labels, folds, members, config=config)
        lines = [
            own.what for own in found(run) if own.what.startswith("File names fall into 12 groups of about 5 images")
        ]
        assert len(lines) == told
