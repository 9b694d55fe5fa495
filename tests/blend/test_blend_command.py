"""`ens blend` beyond the fit: priors, calibration, diversity, what can be left out, members that ens did not train."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from recorder import Recorder
from test_blend_run import CLASSES, make_run, rewrite

from ensemble.blend import (
    BlendOptions,
    ExternalFiles,
    apply_files,
    blend_files,
    blend_run,
    diversity,
    load_blend,
    methods,
    prune,
)
from ensemble.blend.methods import auto
from ensemble.blend.priors import read_priors, row_weights
from ensemble.blend.probabilities import geometric_mean, softmax
from ensemble.blend.recipe import Recipe
from ensemble.cli import ens
from ensemble.errors import UserError
from ensemble.files.atomic import write_text
from ensemble.run import Run
from ensemble.scoring.bootstrap import Gain, Score, bootstrap, scores
from ensemble.scoring.calibration import calibration, ece, reliability
from ensemble.scoring.counts import ClassCounts
from ensemble.scoring.cross_fit import cross_fit
from ensemble.scoring.metrics import METRICS
from ensemble.scoring.outcomes import outcome, value
from ensemble.tables.blend import blend_verdict

IDS = [f"bild ü{i:03}.png" for i in range(90)]
LABELS = np.arange(90) % 3


@pytest.fixture
def run(tmp_path):
    make_run(tmp_path / "run")
    return tmp_path / "run"


def table(path, ids, z, classes=CLASSES, seed=0):
    """Probabilities of logits z (N, C) as a CSV, its rows in another order."""
    frame = pd.DataFrame(softmax(z.astype(np.float64)), columns=list(classes))
    frame.insert(0, "id", ids)
    frame.sample(frac=1, random_state=seed).to_csv(path, index=False)
    return path


def logits(labels, signal=2.0, seed=5):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(len(labels), 3)) + signal * np.eye(3)[labels]


# ---- calibration ---------------------------------------------------------------------------------------------------


def test_brier_and_reliability_by_hand():
    probs = np.array([[0.7, 0.3], [0.2, 0.8], [0.55, 0.45]])
    labels = np.array([0, 0, 1])
    # (.3^2 + .3^2) + (.8^2 + .8^2) + (.55^2 + .55^2), over 3
    assert calibration(labels, outcome(labels, probs)).brier == pytest.approx((0.18 + 1.28 + 0.605) / 3)
    bins = reliability(probs.argmax(axis=1) == labels, probs.max(axis=1), bins=2)
    assert len(bins) == 1
    assert (bins[0].low, bins[0].high, bins[0].rows) == (0.5, 1.0, 3)
    assert bins[0].accuracy == pytest.approx(1 / 3)
    assert bins[0].confidence == pytest.approx(2.05 / 3)
    assert ece(probs.argmax(axis=1) == labels, probs.max(axis=1), bins=2) == pytest.approx(2.05 / 3 - 1 / 3)


def test_a_blend_that_is_too_modest_gets_a_temperature(run):
    for member in "ab":
        for fold in range(3):
            rewrite(run, member, fold, lambda ids, v: (ids, v / 8))
    result = blend_run(Run(run), BlendOptions("mean"))
    before, after = result.calibration["blend before its temperature"], result.calibration["blend"]
    assert result.fitted.chain.temperature.inverse_temperature > 4
    assert after.log_loss < before.log_loss - 0.2
    assert after.ece < before.ece / 2
    assert after.brier < before.brier
    assert sum(own.rows for own in result.reliability["blend"]) == 90
    assert result.blend["accuracy"] == result.mean["accuracy"]


# ---- priors --------------------------------------------------------------------------------------------------------


def test_priors_by_hand():
    # shares .5 .25 .25 in the rows, .2 .4 .4 where it is used: odds against class 0 rise by (.4/.25) / (.2/.5) = 4
    labels = np.array([0, 0, 1, 2] * 20)
    z = np.log(np.array([0.5, 0.3, 0.2], dtype=np.float32)) * np.ones((1, 80, 1), dtype=np.float32)
    rows = np.arange(80)
    priors = np.array([0.2, 0.4, 0.4])
    params = methods.fit(Recipe("stack", "log_loss", priors), z, labels, rows % 5, rows)
    plain = replace(params, prior_shift=None)
    before, after = (methods.apply(own, z[:, :1])[0] for own in (plain, params))
    assert after[1] / after[0] == pytest.approx(4 * before[1] / before[0])
    weights = row_weights(labels, priors)
    assert weights.mean() == pytest.approx(1)
    assert [weights[labels == c].sum() / 80 for c in range(3)] == pytest.approx([0.2, 0.4, 0.4])


def test_with_uniform_priors_accuracy_is_balanced_accuracy(run):
    text = Run(run).folds_csv.read_text(encoding="utf-8").splitlines()
    kept = [line for i, line in enumerate(text) if ",dog," not in line or i % 2]
    write_text(Run(run).folds_csv, "\n".join(kept) + "\n")
    for member in "ab":
        for fold in range(3):
            there = {line.split(",")[0] for line in kept}
            rewrite(
                run,
                member,
                fold,
                lambda ids, v, there=there: ([i for i in ids if i in there], v[:, [i in there for i in ids]]),
            )
    plain, shifted = (
        blend_run(Run(run), BlendOptions("vote")),
        blend_run(Run(run), BlendOptions("vote", priors="uniform", name="shifted")),
    )
    assert plain.mean["accuracy"].value != pytest.approx(plain.mean["balanced_accuracy"].value, abs=1e-4)
    assert shifted.mean["accuracy"].value == pytest.approx(plain.mean["balanced_accuracy"].value)
    assert shifted.mean["balanced_accuracy"].value == pytest.approx(plain.mean["balanced_accuracy"].value)
    bias = load_blend(Run(run), "shifted").chain.prior_shift.prior_bias
    assert bias[1] - bias[0] == pytest.approx(np.log(2))
    assert any("shifted to the given shares" in note for note in shifted.notes)


def test_scores_and_intervals_are_those_to_expect_with_the_given_shares(tmp_path):
    z = make_run(tmp_path / "run").mean(axis=1)
    shares = tmp_path / "shares.csv"
    shares.write_text("class,share\ncat,6\ndog,3\nNA,1\n", encoding="utf-8")
    result = blend_run(Run(tmp_path / "run"), BlendOptions("mean", priors=str(shares)))
    weights = row_weights(LABELS, np.array([0.6, 0.3, 0.1]))
    mean = outcome(LABELS, geometric_mean(z))
    drawn = bootstrap(LABELS, [mean], np.arange(90), 3, weights)
    for metric in ("log_loss", "accuracy", "macro_f1"):
        found = result.mean[metric]
        assert found.value == pytest.approx(value(metric, LABELS, mean, 3, weights))
        own = scores(LABELS, [mean], np.zeros(90), 3, drawn, weights)[0][metric]
        assert (found.low, found.high) == pytest.approx((own.low, own.high))
    # what leaving a member out costs is in the same measure: the other's loss less the blend's
    plain = blend_run(Run(tmp_path / "run"), BlendOptions("mean")).diversity.costs
    for m, member in enumerate("ab"):
        alone = outcome(LABELS, held_out_mean(z[[1 - m]], np.array([0.6, 0.3, 0.1])))
        cost = result.diversity.costs[member].value
        assert cost == pytest.approx(
            value("log_loss", LABELS, alone, 3, weights) - result.blend["log_loss"].value, abs=1e-6
        )
        assert cost != pytest.approx(plain[member].value, abs=1e-3)


def held_out_mean(z, priors):
    """The method mean, cross-fitted over the run's folds."""
    folds, units = np.arange(90) // 2 % 3, np.arange(90)

    def fit_apply(train, test):
        own = methods.fit(Recipe("mean", "log_loss", priors), z[:, train], LABELS[train], folds[train], units[train])
        return methods.apply(own, z[:, test])

    return cross_fit(fit_apply, folds, units)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,share\ncat,1\ndog,2\n", "no share for class 'NA'; every class needs one (0 is allowed)"),
        ("class,share\ncat,1\ndog,2\nNA,1\nnewt,3\n", "class 'newt' is not one of: cat, dog, NA"),
        ("class,share\ncat,1\ndog,2\nNA,1\ncat,3\n", "class 'cat' is there twice"),
        ("class,share\ncat,1\ndog,-2\nNA,1\n", "the share of class 'dog' is '-2'; want a number of 0 or more"),
        ("class,share\ncat,1\ndog,many\nNA,1\n", "the share of class 'dog' is 'many'; want a number of 0 or more"),
        ("class,share\ncat,0\ndog,0\nNA,0\n", "all shares are 0"),
        ("name,share\ncat,1\n", "no column 'class'; class shares have the columns class and share"),
    ],
)
def test_faults_in_a_file_of_priors(tmp_path, text, message):
    path = tmp_path / "shares.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_priors(str(path), CLASSES)
    assert str(caught.value) == f"{path}: {message}"


def test_priors_from_counts(tmp_path):
    path = tmp_path / "shares.csv"
    path.write_text("share,class\n30,NA\n10,cat\n0,dog\n", encoding="utf-8")
    assert read_priors(str(path), CLASSES).tolist() == [0.25, 0, 0.75]
    assert read_priors("uniform", CLASSES) == pytest.approx([1 / 3] * 3)


# ---- diversity and pruning -----------------------------------------------------------------------------------------


def test_disagreement_and_error_correlation_by_hand():
    labels = np.array([0, 0, 1, 1])
    predicted = np.array([[0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 1]])  # wrong: the last; two rows; none
    assert diversity.disagreement(predicted).tolist() == [[0, 0.25, 0.25], [0.25, 0, 0.5], [0.25, 0.5, 0]]
    found = diversity.error_correlation(predicted, labels)
    # errors 0001 and 0101: covariance 1/4 - 1/8 = 1/8 over sqrt(3/16 * 1/4)
    assert found[0, 1] == pytest.approx(0.125 / np.sqrt(3 / 64))
    assert np.isnan(found[0, 2]) and found[0, 0] == pytest.approx(1)


def test_a_member_that_only_adds_noise_costs_nothing_and_is_pruned(tmp_path):
    run = tmp_path / "run"
    make_run(run, rows=300, members=("a", "b", "noise"))
    for fold in range(3):
        rewrite(run, "noise", fold, lambda ids, v: (ids, np.random.default_rng(1).normal(size=v.shape).astype("f4")))
    result = blend_run(Run(run), BlendOptions("vote", prune=True))
    costs = result.diversity.costs
    assert costs["noise"].value == pytest.approx(0, abs=2e-3)
    assert costs["a"].value > 0.02 and costs["b"].value > 0.02
    assert "noise" in result.unused and load_blend(Run(run), "vote").members == ("a", "b")
    assert "noise" not in result.pruned.members and set(result.pruned.members) == {"a", "b"}
    assert result.pruned.cost <= result.pruned.error
    assert result.pruned.passes[0] == 6 and result.pruned.passes[1] in (2, 4)


def test_the_least_missed_member_is_tried_first(tmp_path, monkeypatch):
    run = tmp_path / "run"
    make_run(run, members=("a", "b", "c"))
    for fold in range(3):
        rewrite(
            run, "b", fold, lambda ids, v: (ids, v + 2 * np.random.default_rng(1).normal(size=v.shape).astype("f4"))
        )
    tried, held_out = [], prune.held_out

    def recorded(trial, *others):
        tried.append(trial.members)
        return held_out(trial, *others)

    monkeypatch.setattr(prune, "held_out", recorded)
    costs = blend_run(Run(run), BlendOptions("mean", prune=True)).diversity.costs
    assert min(costs, key=lambda member: costs[member].value) == "b"
    assert tried[0] == ("a", "c")


def test_a_view_that_hurts_has_no_part_in_the_blend(tmp_path):
    """hflip of a makes noise: the saved blend asks prediction for a's identity alone."""
    run = tmp_path / "run"
    make_run(run, rows=300)

    def spoil(ids, values):
        values[1] = 3 * np.random.default_rng(len(ids)).normal(size=values[1].shape)
        return ids, values

    for fold in range(3):
        rewrite(run, "a", fold, spoil)
    result = blend_run(Run(run), BlendOptions("pool", prune=True))
    saved = load_blend(Run(run), "pool")
    assert saved.views == (("identity",), ("identity", "hflip"))
    assert saved.view_weights[0] == (1.0,) and sum(saved.view_weights[1]) == pytest.approx(1)
    assert result.unused == ("hflip of a",)
    assert result.view_weights["a"] == {"identity": 1.0, "hflip": 0.0}
    assert result.blend["log_loss"].value < result.mean["log_loss"].value - 0.1
    values = [np.zeros((1, 4, 3), dtype=np.float32), np.zeros((2, 4, 3), dtype=np.float32)]
    assert saved.apply(values).shape == (4, 3)


def test_learned_weights_of_views_are_saved_and_applied(tmp_path):
    run = tmp_path / "run"
    make_run(run, rows=300)

    def blur(ids, values):
        values[1] += 1.5 * np.random.default_rng(len(ids)).normal(size=values[1].shape).astype(np.float32)
        return ids, values

    for fold in range(3):
        rewrite(run, "a", fold, blur)
    result = blend_run(Run(run), BlendOptions("pool"))
    saved, weights = load_blend(Run(run), "pool"), result.view_weights["a"]
    assert weights["identity"] > 0.6 and 0 < weights["hflip"] < 0.4
    assert saved.views == (("identity", "hflip"),) * 2
    assert saved.view_weights[0] == (weights["identity"], weights["hflip"])
    a, b = np.random.default_rng(0).normal(size=(2, 2, 7, 3)).astype(np.float32)
    z = np.stack([weights["identity"] * a[0] + weights["hflip"] * a[1], b.mean(axis=0)])
    assert saved.apply([a, b]) == pytest.approx(methods.apply(saved.chain, z), abs=1e-5)


def test_without_view():
    from ensemble.blend.oof import Oof

    values = (np.zeros((2, 5, 3)), np.ones((2, 5, 3)))
    oof = Oof(None, ("a", "b"), (("identity", "hflip"), ("hflip", "identity")), values, {})
    rest = prune.without_view(oof, "hflip")
    assert rest.views == (("identity",), ("identity",)) and rest.values[1].shape == (1, 5, 3)
    assert prune.without_view(rest, "identity") is None  # no member may be left without a view
    assert prune.without_view(oof, "rot90") is None


# ---- auto ----------------------------------------------------------------------------------------------------------


def test_auto_takes_the_simplest_within_one_standard_error():
    labels = np.random.default_rng(0).integers(2, size=400)
    sure = np.where(np.eye(2)[labels] == 1, 0.9, 0.1)
    poor = np.full((400, 2), 0.5)
    noise = 0.001 * (-1.0) ** np.arange(400)  # worse by far less than it varies
    near = sure + np.stack([noise, -noise], axis=1)
    candidates = {
        name: (lambda train, test, p=p: p[test]) for name, p in {"poor": poor, "near": near, "sure": sure}.items()
    }
    rows = np.arange(400)
    for metric in ("log_loss", "accuracy", "macro_f1"):
        name, scores = auto.choose(candidates, labels, rows % 5, rows, 2, metric)
        assert name == "near"
        assert list(scores) == ["poor", "near", "sure"]
    assert scores["sure"] == 1.0
    # one group: nothing can be compared
    one = np.zeros(400, dtype=np.int64)
    assert auto.choose(candidates, labels, one, one, 2, "log_loss") == ("poor", {})


def test_auto_compares_row_by_row():
    """A candidate that is worse by a little on every row is worse, however much the rows vary among themselves."""
    labels = np.random.default_rng(0).integers(2, size=400)
    right = np.random.default_rng(1).uniform(0.1, 0.9, size=400)

    def candidate(p):
        probs = np.where(np.eye(2)[labels] == 1, p[:, None], 1 - p[:, None])
        return lambda train, test: probs[test]

    rows = np.arange(400)
    candidates = {"worse": candidate(right * np.exp(-0.01)), "better": candidate(right)}
    assert np.std(np.log(right)) / 20 > 0.02
    assert auto.choose(candidates, labels, rows % 5, rows, 2, "log_loss")[0] == "better"


def test_auto_takes_the_simplest_of_equal_candidates():
    """Two searches for one temperature end a few billionths apart on every row, so that the standard error is 0 too."""
    labels = np.arange(100) % 2
    p = np.where(np.eye(2)[labels] == 1, 0.8, 0.2)
    closer = p + 1e-8 * (2 * np.eye(2)[labels] - 1)
    candidates = {"mean": lambda train, test: p[test], "vote": lambda train, test: closer[test]}
    rows = np.arange(100)
    chosen, scores = auto.choose(candidates, labels, rows % 5, rows, 2, "log_loss")
    assert chosen == "mean" and 0 < scores["mean"] - scores["vote"] < 1e-7


def test_auto_of_one_member_is_its_mean(run):
    result = blend_run(Run(run), BlendOptions("auto", members=["a"], name="one"))
    assert load_blend(Run(run), "one").chain.method == "mean"
    assert result.notes[0] == "auto took mean, the simplest: there is nothing to choose between"
    assert result.blend["log_loss"].value == pytest.approx(
        blend_run(Run(run), BlendOptions("mean", members=["a"], name="same")).blend["log_loss"].value
    )


def test_auto_says_what_it_chose_and_is_applied_as_that(run):
    result = blend_run(Run(run), BlendOptions("auto"))
    saved = load_blend(Run(run), "auto")
    chosen = saved.chain.method
    assert chosen in methods.candidates()
    assert list(saved.chain.choice.tried) == list(methods.candidates())
    assert result.notes[0].startswith(
        f"auto took {chosen}, the simplest within one standard error of the best by log_loss"
    )


def test_counts_of_a_metric():
    right, predicted, true = np.array([1.0, 2.0, 0.0]), np.array([2.0, 3.0, 0.0]), np.array([1.0, 4.0, 0.0])
    counts = ClassCounts(right, predicted, true, np.zeros(()))
    assert METRICS["accuracy"].score(counts) == pytest.approx(3 / 5)
    assert METRICS["balanced_accuracy"].score(counts) == pytest.approx((1 + 0.5) / 2)
    assert METRICS["macro_f1"].score(counts) == pytest.approx((2 / 3 + 4 / 7) / 2)


# ---- external members -----------------------------------------------------------------------------------------------


def test_an_external_member_joins_a_run_by_id(run, tmp_path):
    z = logits(LABELS, seed=7)
    oof = table(tmp_path / "xgb.csv", IDS, z)
    test = table(tmp_path / "test.csv", ["x.png", "y.png"], z[:2])
    recorder = Recorder()
    result = blend_run(Run(run), BlendOptions("pool", external=[ExternalFiles("xgb", oof, test)]), events=recorder)
    assert len(recorder.messages) == 2 and all(
        line.endswith(", rows sum to 1) were read as probabilities") for line in recorder.messages
    )
    assert list(result.members) == ["a", "b", "xgb"]
    assert result.members["xgb"]["accuracy"].value == pytest.approx((z.argmax(axis=1) == LABELS).mean())
    saved = load_blend(Run(run), "pool")
    assert saved.external == ("xgb",) and saved.views[-1] == ("given",) and saved.all_views == ("identity", "hflip")
    from ensemble.data.logits import load_logits

    kept = load_logits(Run(run).external_file("pool", "xgb"))
    assert softmax(kept.align(np.array(["x.png"])).values[0]) == pytest.approx(softmax(z[:1]), abs=1e-5)


def test_rows_that_an_external_member_lacks_are_left_out_for_all_and_said(run, tmp_path):
    oof = table(tmp_path / "knn.csv", IDS[:80], logits(LABELS[:80]))
    recorder = Recorder()
    result = blend_run(Run(run), BlendOptions("vote", external=[ExternalFiles("knn", oof)]), events=recorder)
    assert result.rows == 80
    assert recorder.messages[1] == (
        "warning: knn: has no prediction for 10 of the 90 rows (first: id 'bild ü080.png'); they are left out for all "
        "members"
    )
    if "knn" in result.fitted.external:
        assert (
            recorder.messages[-1]
            == "warning: knn has no test predictions; to predict, fit again with --add knn=OOF,TEST"
        )


def test_external_members_alone_make_a_submission_with_no_run(tmp_path):
    pd.DataFrame({"id": IDS, "label": [CLASSES[c] for c in LABELS]}).to_csv(tmp_path / "labels.csv", index=False)
    new = np.arange(12) % 3
    names = [f"new{i}" for i in range(12)]
    adds = []
    for seed, name in enumerate(("svm", "forest")):
        oof = table(tmp_path / f"{name}.csv", IDS, logits(LABELS, seed=seed))
        test = table(tmp_path / f"{name}_test.csv", names, logits(new, 6.0, seed=9 + seed), seed=3 + seed)
        adds += ["--add", f"{name}={oof},{test}"]
    sample = tmp_path / "sample.csv"
    pd.DataFrame({"file": names[::-1], "answer": "cat"}).to_csv(sample, index=False)
    output = tmp_path / "out.csv"
    call = ["blend", "--labels", str(tmp_path / "labels.csv"), *adds, "--method", "vote"]
    done = CliRunner().invoke(ens, [*call, "--apply", str(output), "--sample-submission", str(sample)])
    assert done.exit_code == 0, done.output + str(done.exception)
    made = pd.read_csv(output, keep_default_na=False)
    assert list(made.columns) == ["file", "answer"]
    assert made["file"].tolist() == names[::-1]
    assert made["answer"].tolist() == [CLASSES[c] for c in new[::-1]]
    assert f"wrote {output} (12 rows of class names as in the training labels; " in done.output
    assert not (tmp_path / "blends").exists()

    external = [
        ExternalFiles(name, tmp_path / f"{name}.csv", tmp_path / f"{name}_test.csv") for name in ("svm", "forest")
    ]
    result = blend_files(tmp_path / "labels.csv", BlendOptions("vote", external=external))
    assert result.folds == 5 and np.isfinite(result.blend["accuracy"].std)
    ids, probs = apply_files(result)
    assert set(ids) == set(names) and probs.sum(axis=1) == pytest.approx(1)
    with pytest.raises(UserError, match=r"svm_test\.csv: svm: no row for id 'stranger'"):
        apply_files(result, ["stranger"])


def test_costs_decide_what_is_written(tmp_path):
    """To miss the last class costs 1,000, so that it is answered unless it is all but excluded."""
    pd.DataFrame({"id": IDS, "label": [CLASSES[c] for c in LABELS]}).to_csv(tmp_path / "labels.csv", index=False)
    oof = table(tmp_path / "svm.csv", IDS, logits(LABELS))
    names = [f"new{i}" for i in range(12)]
    test = table(tmp_path / "test.csv", names, logits(np.arange(12) % 3))
    costs = tmp_path / "costs.csv"
    rows = zip(CLASSES, ("0,1,1", "1,0,1", "1000,1000,0"), strict=True)
    costs.write_text("\n".join([f"true,{','.join(CLASSES)}", *(f"{name},{row}" for name, row in rows)]))
    call = ["blend", "--labels", str(tmp_path / "labels.csv"), "--add", f"svm={oof},{test}", "--method", "mean"]
    call += ["--apply", str(tmp_path / "out.csv")]
    plain = CliRunner().invoke(ens, call)
    assert plain.exit_code == 0, plain.output
    before = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)["label"]
    priced = CliRunner().invoke(ens, [*call, "--metric", "expected_cost", "--costs", str(costs)])
    assert priced.exit_code == 0, priced.output
    after = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)["label"]
    assert (after == CLASSES[2]).sum() > (before == CLASSES[2]).sum()
    assert "each answer is the class of the least expected cost" in priced.output and "expected cost" in priced.output
    assert "each answer is" not in plain.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["RUN", "--metric", "expected_cost"],
            "metric 'expected_cost' needs to know what mistakes cost: --costs FILE",
        ),
        (["RUN", "--costs", "c.csv"], "--costs c.csv goes with --metric expected_cost, not log_loss"),
        ([], "name either a RUN, or --labels with --add; see: ens blend --help"),
        (["RUN", "--labels", "x.csv"], "name either a RUN, or --labels with --add; see: ens blend --help"),
        (
            ["RUN", "--add", "xgb"],
            "--add xgb: want NAME=OOF or NAME=OOF,TEST, as in --add xgb=oof_xgb.csv,test_xgb.csv",
        ),
        (
            ["RUN", "--apply", "x.csv"],
            "--apply goes with --labels; the images of a run are predicted by: ens tta-predict RUN",
        ),
        (
            ["RUN", "--sample-submission", "x.csv"],
            "--sample-submission goes with --labels; the images of a run are predicted by: ens tta-predict RUN",
        ),
        (
            ["--labels", "x.csv", "--add", "a=b.csv,c.csv", "--sample-submission", "x.csv"],
            "--sample-submission goes with --apply, which names the CSV to write",
        ),
        *(
            (
                ["--labels", "x.csv", "--add", "a=b.csv", option, "text"],
                f"{option} goes with a RUN; with --labels every --add is a member, and no blend is saved",
            )
            for option in ("--name", "--members", "--views")
        ),
        (
            ["--labels", "x.csv", "--add", "a=b.csv", "--apply", "y.csv"],
            "--apply needs test predictions of every member: --add a=OOF,TEST",
        ),
    ],
)
def test_arguments_that_do_not_go_together(arguments, message):
    done = CliRunner().invoke(ens, ["blend", *arguments])
    assert isinstance(done.exception, UserError)
    assert str(done.exception) == message


@pytest.fixture
def no_fit(monkeypatch):
    """Nothing may be fitted: what is wrong with the input is to be found before."""

    def fit_oof(*_):
        pytest.fail("fitted before all that was named had been read")

    monkeypatch.setattr("ensemble.blend.fit.fit_oof", fit_oof)


def test_a_bad_test_file_is_found_before_the_fit(run, tmp_path, no_fit):
    oof = table(tmp_path / "xgb.csv", IDS, logits(LABELS))
    test = tmp_path / "test.csv"
    test.write_text("id,cat,dog,NA\nx.png,1,0,0\ny.png,oops,0,1\n", encoding="utf-8")
    external = [ExternalFiles("xgb", oof, test)]
    message = f"{test}: id 'y.png', column 'cat': 'oops' is not a number"
    with pytest.raises(UserError) as caught:
        blend_run(Run(run), BlendOptions("stack", external=external))
    assert str(caught.value) == message
    assert not Run(run).blend_json("stack").parent.exists()
    pd.DataFrame({"id": IDS, "label": [CLASSES[c] for c in LABELS]}).to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(UserError) as caught:
        blend_files(tmp_path / "labels.csv", BlendOptions("stack", external=external))
    assert str(caught.value) == message


def test_a_test_file_that_lacks_rows_of_the_sample_is_found_before_the_fit(tmp_path, no_fit):
    pd.DataFrame({"id": IDS, "label": [CLASSES[c] for c in LABELS]}).to_csv(tmp_path / "labels.csv", index=False)
    oof = table(tmp_path / "xgb.csv", IDS, logits(LABELS))
    test = table(tmp_path / "test.csv", ["x", "y"], logits(LABELS[:2]))
    sample = tmp_path / "sample.csv"
    sample.write_text("id,label\nz.png,cat\ny,cat\n", encoding="utf-8")
    output = tmp_path / "out.csv"
    call = ["blend", "--labels", str(tmp_path / "labels.csv"), "--add", f"xgb={oof},{test}", "--apply", str(output)]
    done = CliRunner().invoke(ens, [*call, "--sample-submission", str(sample)])
    assert isinstance(done.exception, UserError)
    assert str(done.exception) == (
        f"{sample}: id 'z.png' is not there (1 of 2 ids have no image of their own; the images are named like 'y')"
    )
    assert not output.exists()


def test_what_the_numbers_are_can_be_said(tmp_path):
    """Scores that are neither logits by their signs nor percentages by their sums."""
    pd.DataFrame({"id": IDS, "label": [CLASSES[c] for c in LABELS]}).to_csv(tmp_path / "labels.csv", index=False)
    scores = pd.DataFrame(1 + 9 * np.eye(len(CLASSES))[LABELS] + np.arange(len(IDS))[:, None] % 5, columns=CLASSES)
    scores.insert(0, "id", IDS)
    scores.to_csv(tmp_path / "svm.csv", index=False)
    call = [
        "blend",
        "--labels",
        str(tmp_path / "labels.csv"),
        "--add",
        f"svm={tmp_path / 'svm.csv'}",
        "--method",
        "mean",
    ]
    done = CliRunner().invoke(ens, call)
    assert isinstance(done.exception, UserError) and "say which with --read-as svm=KIND" in str(done.exception)
    done = CliRunner().invoke(ens, [*call, "--read-as", "svm=logits"])
    assert done.exit_code == 0 and "were read as logits, as you asked" in done.output
    for text in ("svm=odds", "knn=logits"):
        done = CliRunner().invoke(ens, [*call, "--read-as", text])
        kinds = "probabilities, percentages, log-probabilities, logits"
        assert str(done.exception) == f"--read-as {text}: want the NAME of an --add, and one of: {kinds}"


def test_a_member_without_test_predictions_can_not_be_applied(tmp_path):
    pd.DataFrame({"id": IDS, "label": [CLASSES[c] for c in LABELS]}).to_csv(tmp_path / "labels.csv", index=False)
    oof = table(tmp_path / "xgb.csv", IDS, logits(LABELS))
    result = blend_files(tmp_path / "labels.csv", BlendOptions("mean", external=[ExternalFiles("xgb", oof)]))
    with pytest.raises(UserError) as caught:
        apply_files(result)
    assert str(caught.value) == "xgb has no test predictions; name them with --add xgb=OOF,TEST"


def test_two_members_of_one_name(run, tmp_path):
    oof = table(tmp_path / "a.csv", IDS, logits(LABELS))
    with pytest.raises(UserError, match="two members are named 'a'; give each its own name: NAME=OOF,TEST"):
        blend_run(Run(run), BlendOptions("vote", external=[ExternalFiles("a", oof)]))
    pd.DataFrame({"id": IDS, "label": [CLASSES[c] for c in LABELS]}).to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(UserError, match="no members to blend; name their files with --add NAME=OOF,TEST"):
        blend_files(tmp_path / "labels.csv", BlendOptions("vote", external=[]))


def test_labels_of_one_class_are_no_labels_to_blend_by(tmp_path):
    path = tmp_path / "labels.csv"
    pd.DataFrame({"id": IDS, "label": "cat"}).to_csv(path, index=False)
    oof = table(tmp_path / "xgb.csv", IDS, logits(LABELS))
    with pytest.raises(UserError) as caught:
        blend_files(path, BlendOptions("mean", external=[ExternalFiles("xgb", oof)]))
    assert str(caught.value) == f"{path}: only one class, 'cat'; a classifier needs two or more"


@pytest.mark.parametrize(
    ("value", "low", "high", "told"),
    [
        (0.0141, 0.0059, 0.0223, ": 1.41 points [0.59, 2.23] more than the best single member, b"),
        (-0.0141, -0.0223, -0.0059, ": 1.41 points [0.59, 2.23] less than the best single member, b"),
        (
            0.001,
            -0.002,
            0.004,
            "; no difference from the best single member, b, can be told (+0.10 points [-0.20, +0.40])",
        ),
    ],
)
def test_the_verdict_on_a_blend(run, value, low, high, told):
    result = blend_run(Run(run), BlendOptions("mean"))
    score = Score(0.9723, 0.964, 0.98, (0.97, 0.98))
    result = replace(
        result, rows=1698, blend={**result.blend, "accuracy": score}, best={**result.best, "accuracy": "b"},
        gains=(Gain("b", "accuracy", value, low, high, 0.9),),
    )  # fmt: skip
    right = "mean predicts 97.23 % [96.40, 98.00] of 1,698 rows right, none of which it was fitted on"
    assert blend_verdict(result) == right + told


def test_what_the_command_prints_fits_and_says_it_all(run):
    command = ["blend", str(run), "--method", "vote", "--prune", "--metric", "balanced_accuracy"]
    short = CliRunner().invoke(ens, command)
    assert "calibration, cross-fitted" not in short.output
    done = CliRunner().invoke(ens, [*command, "--details"])
    assert done.exit_code == 0, done.output + str(done.exception)
    assert done.output.endswith(
        f"next: ens tta-predict {run} IMAGES --blend vote-balanced_accuracy -o submission.csv\n"
    )
    for text in (
        "calibration, cross-fitted",
        "reliability: rows, their mean confidence % and accuracy %",
        "above the diagonal: % of rows on which two members disagree",
        "what leaving a member out costs, balanced accuracy %",
        "weights certified within",
        "the blend's own temperature",
        "--prune: ",
        "vote-balanced_accuracy predicts ",
        "saved ",
    ):
        assert text in done.output
