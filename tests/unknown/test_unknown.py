"""`ens unknown` and `ens tta-predict --unknown`, on small runs."""

import json
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from commands import ens

import ensemble
from ensemble.blend import BlendOptions, ExternalFiles, blend_run, load_blend
from ensemble.blend.oof import EXTERNAL_VIEW
from ensemble.errors import Damaged, UserError
from ensemble.events import SILENT
from ensemble.ood.detector import Detector
from ensemble.ood.saved import load_detector, load_features
from ensemble.predictions.certainty import CertaintyRequest
from ensemble.report.unknown import _most_unlike as most_unlike
from ensemble.run import Run
from ensemble.tta.predict import PredictionRequest, tta_predict
from ensemble.tta.unknown import unknown_columns
from ensemble.unknown.command import fit_unknown
from ensemble.unknown.refit import logits_without
from ensemble.unknown.synthetic import COUNT, shuffled, synthetic_images


@pytest.fixture(scope="module")
def fitted(started_run, tmp_path_factory):
    """A copy of `started_run` with a detector of its blend "mean"; its images lie beside the other one."""
    run = Run(shutil.copytree(started_run, tmp_path_factory.mktemp("unknown") / "run"))
    found = fit_unknown(run, None, started_run.parent / "test", SILENT)
    assert found.blend == "mean" and found.path == run.detector_file("mean") and found.rows == 24
    assert found.rate == 0.04  # 24 rows allow no less
    return run


def predicted(run, images, output, rate, **options):
    asked = None if rate is None else CertaintyRequest(unknown=rate)
    return tta_predict(PredictionRequest(run, images, output, certainty=asked, **options), SILENT)


def test_the_detector_has_been_tried_on_planted_and_named_images(fitted):
    saved = load_detector(fitted, "mean", load_blend(fitted, "mean"))
    assert len(saved.trials) == 8
    best = saved.trials[0]
    assert list(best.foreign) == ["noise", "plain colours", "shuffled patches", "mixtures", "yours"]
    assert best.left_out == {} and best.value == max(trial.value for trial in saved.trials)
    assert best.parts == saved.detector.parts
    assert len(saved.detector.row_scores) == 24


def test_features_are_kept_and_computed_once(fitted, monkeypatch):
    ids = pd.read_csv(fitted.folds_csv)["id"].tolist()
    kept = load_features(fitted, ids)
    assert kept.dtype == np.float32 and len(kept) == 24
    assert np.array_equal(load_features(fitted, ids[::-1]), kept[::-1])
    assert load_features(fitted, [*ids, "another"]) is None

    def fail(*_):
        raise AssertionError("features were computed again")

    monkeypatch.setattr("ensemble.unknown.command.run_pixels", fail)
    before = fitted.detector_file("mean").read_bytes()
    fit_unknown(fitted, "mean", None, SILENT)
    again = load_detector(fitted, "mean", load_blend(fitted, "mean"))
    assert "yours" not in again.trials[0].foreign
    fitted.detector_file("mean").write_bytes(before)


def test_files_and_images_in_memory_get_the_same_scores(fitted, started_run, tmp_path):
    images = started_run.parent / "test"
    predicted(fitted, images, tmp_path / "plain.csv", None)
    made = predicted(fitted, images, tmp_path / "s.csv", 0.2)
    assert (tmp_path / "plain.csv").read_bytes() == (tmp_path / "s.csv").read_bytes()
    table = pd.read_csv(made.certainty)
    assert table.columns.tolist() == ["id", "class", "probability", "unknown_score", "unknown"]

    detector = load_detector(fitted, "mean", load_blend(fitted, "mean")).detector
    assert table["unknown"].tolist() == (table["unknown_score"] > detector.threshold(0.2)).astype(int).tolist()
    predictor = ensemble.load(fitted, unknown=0.2)
    found = ensemble.predict(predictor, sorted(images.glob("*.png")))
    assert found.unknown_score == pytest.approx(table["unknown_score"], abs=1e-4)
    assert found.unknown.tolist() == table["unknown"].astype(bool).tolist()
    assert ensemble.predict(ensemble.load(fitted), sorted(images.glob("*.png"))).unknown is None


def test_stored_features_are_read_where_another_prediction_asks(fitted, started_run, tmp_path, monkeypatch):
    images = started_run.parent / "test"
    first = predicted(fitted, images, tmp_path / "a.csv", 0.2).certainty.read_bytes()

    def fail(*_):
        raise AssertionError("a network was loaded")

    monkeypatch.setattr("ensemble.inference.frozen.load_frozen", fail)
    monkeypatch.setattr("ensemble.tta.predictor.load_networks_of", fail)
    assert predicted(fitted, images, tmp_path / "b.csv", 0.2).certainty.read_bytes() == first
    shutil.rmtree(fitted.logits_dir("test"))


def test_one_row_in_a_thousand_takes_a_thousand_rows(fitted, started_run, tmp_path):
    for rate, line in (
        (0, r"--unknown 0: must be between 0 and 1, such as 0.01"),
        (1, r"--unknown 1: must be between 0 and 1"),
        (0.001, r"--unknown 0.001: so low a rate takes at least 999 out-of-fold rows, and there are 24; ask for 0.04"),
    ):
        with pytest.raises(UserError, match=line):
            predicted(fitted, started_run.parent / "test", tmp_path / "s.csv", rate)


def test_damage_and_other_members_are_named(fitted, own_started_run, tmp_path):
    blend = load_blend(fitted, "mean")
    with pytest.raises(UserError, match=r"blend 'mean' has no detector of unknown images; make it with: ens unknown "):
        load_detector(Run(own_started_run), "mean", blend)
    copy = Run(shutil.copytree(fitted.path, tmp_path / "copy"))
    blend_run(copy, BlendOptions("mean", members=["net"], name="alone"))
    shutil.copy(copy.detector_file("mean"), copy.detector_file("alone"))
    with pytest.raises(UserError, match=r"was fitted on other members than blend 'alone' holds now; make it again"):
        load_detector(copy, "alone", load_blend(copy, "alone"))
    data = bytearray(copy.detector_file("mean").read_bytes())
    data[-1] ^= 1
    copy.detector_file("mean").write_bytes(data)
    with pytest.raises(
        Damaged, match=r"lost: what tells unknown images; delete it, and make it again with: ens unknown"
    ):
        load_detector(copy, "mean", blend)


def test_blends_that_can_have_none(fitted, started_run, tmp_path):
    ids = pd.read_csv(fitted.folds_csv)["id"]
    for name in ("oof", "test"):
        rows = ids if name == "oof" else [f"test{index}.png" for index in range(5)]
        pd.DataFrame({"id": rows, "a": 0.4, "b": 0.6}).to_csv(tmp_path / f"{name}.csv", index=False)
    files = ExternalFiles("other", tmp_path / "oof.csv", tmp_path / "test.csv")
    copy = Run(shutil.copytree(fitted.path, tmp_path / "copy"))
    blend_run(copy, BlendOptions("mean", external=[files], name="both"))
    fit_unknown(copy, "both", None, SILENT)  # its other members tell
    made = predicted(copy, started_run.parent / "test", tmp_path / "s.csv", 0.2, blend_name="both")
    assert pd.read_csv(made.certainty)["unknown_score"].notna().all()
    asked = CertaintyRequest(unknown=0.2)
    for name, blend, networks, line in (
        ("mean", load_blend(copy, "mean"), "soup", "--networks soup have no out-of-fold rows to set the threshold by"),
        (
            "both",
            replace(load_blend(copy, "both"), members=("other",), views=(EXTERNAL_VIEW,)),
            "folds",
            "no member that",
        ),
    ):
        with pytest.raises(UserError, match=line):
            unknown_columns(copy, name, blend, networks, asked)


def test_a_run_from_scratch_has_scores_of_its_logits(noise_run, monkeypatch, capfd, tmp_path):
    status, out, err = ens(monkeypatch, capfd, "unknown", noise_run, "--json")
    document = json.loads(out)
    assert status == 0 and "there are no frozen features" in " ".join(document["said"])
    parts = [trial["parts"] for trial in document["result"]["trials"]]
    assert len(parts) == 4 and not any("feature neighbours" in each for each in parts)
    assert "telling unknown images from 24 out-of-fold rows of blend 'mean'" in err
    made = predicted(Run(noise_run), noise_run.parent / "train", tmp_path / "s.csv", 0.1)
    assert len(pd.read_csv(made.certainty)) == 24
    status, out, _ = ens(
        monkeypatch,
        capfd,
        "tta-predict",
        noise_run,
        noise_run.parent / "train" / "a" / "0.png",
        "--unknown",
        0.1,
        "--json",
    )
    assert status == 0 and isinstance(json.loads(out)["result"]["unknown"][0], bool)
    status, out, _ = ens(monkeypatch, capfd, "verify", noise_run, "--json")
    assert status == 0


def test_the_report_shows_scores_and_the_most_unlike_test_images(fitted, started_run, tmp_path, monkeypatch, capfd):
    copy = Run(shutil.copytree(fitted.path, tmp_path / "copy"))
    output = tmp_path / "s.csv"
    for words in (
        ["tta-predict", copy.path, started_run.parent / "test", "--unknown", 0.2, "-o", output],
        ["report", copy.path],
    ):
        assert ens(monkeypatch, capfd, *words)[0] == 0
    page = copy.report_html.read_text()
    section = page[page.index('id="unknown"') : page.index('id="images"')]
    assert "compared with 24 training images" in section and section.count('class="card"') == 5
    first = pd.read_csv(tmp_path / "s.certainty.csv").sort_values("unknown_score", ascending=False).iloc[0]
    assert f"{first.unknown_score:.2f}" in section[section.index('class="card"') :][:20_000]


def test_the_report_shows_no_scores_of_another_prediction(fitted, tmp_path):
    """Of a submission that another blend has overwritten, or that was written again without a table beside it; of a
    detector before this one."""
    copy = Run(shutil.copytree(fitted.path, tmp_path / "copy"))
    submission, certainty = tmp_path / "s.csv", tmp_path / "s.certainty.csv"
    submission.write_text("id,label\n")
    certainty.write_text("id,class,probability,unknown_score,unknown\nx.png,a,0.9,2.5,1\n")
    ledger = "written,file,run,blend\n2026-11-20T10:00:00+00:00,{0},r,mean\n2026-11-21T10:00:00+00:00,{0},r,{1}\n"
    copy.submissions_csv.write_text(ledger.format(submission, "mean"))
    results = SimpleNamespace(run=copy)
    assert most_unlike(results, "mean")[1].tolist() == [2.5]
    fitted_at = copy.detector_file("mean").stat().st_mtime
    os.utime(copy.detector_file("mean"), (certainty.stat().st_mtime + 10,) * 2)
    assert most_unlike(results, "mean")[1].size == 0
    os.utime(copy.detector_file("mean"), (fitted_at,) * 2)
    copy.submissions_csv.write_text(ledger.format(submission, "pool"))
    assert most_unlike(results, "mean")[1].size == 0 and most_unlike(results, "pool")[1].tolist() == [2.5]
    os.utime(submission, (certainty.stat().st_mtime + 10,) * 2)
    assert most_unlike(results, "pool")[1].size == 0


def test_the_rate_is_said_as_it_was_asked_for(monkeypatch, fitted):
    monkeypatch.setattr(Detector, "threshold", lambda self, rate: 1.0)
    asked = CertaintyRequest(unknown=0.0005)
    [columns] = unknown_columns(fitted, "mean", load_blend(fitted, "mean"), "folds", asked)
    assert "as 0.05% of images like the training rows have by chance" in columns.notes[0]


def test_synthetic_images():
    squares = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3), dtype=np.uint8)
    found = synthetic_images(squares, [0, 0, 1, 1])
    assert {kind: len(images) for kind, images in found.items()} == dict.fromkeys(found, COUNT)
    assert all(np.ptp(np.asarray(image).reshape(-1, 3), axis=0).max() == 0 for image in found["plain colours"])
    patches = shuffled(squares[0].astype(float), 3, np.random.default_rng(1))
    assert np.sort(patches.reshape(-1)).tolist() == np.sort(squares[0].reshape(-1)).tolist()
    assert not np.array_equal(patches, squares[0])
    assert {patches[:8, :8].tobytes()} <= {
        squares[0].astype(float)[row : row + 8, column : column + 8].tobytes()
        for row in (0, 8, 16)
        for column in (0, 8, 16)
    }


def test_classifiers_without_a_class_never_see_their_fold():
    rng = np.random.default_rng(0)
    labels, folds = np.arange(120) % 3, np.arange(120) // 3 % 4
    features = (3 * np.eye(3)[labels] + rng.normal(size=(120, 3))).astype(np.float32)
    rows = labels != 2
    logits = logits_without(features, rows, labels[rows], folds, torch.device("cpu"))
    assert logits.shape == (120, 2)
    assert (logits[rows].argmax(axis=1) == labels[rows]).mean() > 0.9
    shuffled_fold = labels.copy()
    shuffled_fold[folds == 0] = 1 - shuffled_fold[folds == 0]  # the labels of a fold don't change its own logits
    again = logits_without(features, rows, shuffled_fold[rows], folds, torch.device("cpu"))
    assert np.array_equal(again[folds == 0], logits[folds == 0]) and not np.array_equal(again, logits)


def test_a_server_says_what_python_says(fitted, started_run):
    from serve_model import form, post, service_of

    from ensemble.serve.app import make_app
    from ensemble.serve.model import load_model

    files = sorted((started_run.parent / "test").glob("*.png"))
    expected = ensemble.predict(ensemble.load(fitted, unknown=0.3), files)
    service = service_of(load_model(fitted.path, None, None, 1, certainty=CertaintyRequest(unknown=0.3)))
    try:
        status, answer = post(make_app(service), *form(*[(file.name, file.read_bytes()) for file in files]))
    finally:
        service.close()
    assert status == 200
    assert [image["unknown"] for image in answer["images"]] == expected.unknown.tolist()
    assert [image["unknown_score"] for image in answer["images"]] == pytest.approx(expected.unknown_score, rel=1e-4)
