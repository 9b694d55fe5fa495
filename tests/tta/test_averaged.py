"""What a prediction says of the networks that it averages."""

import numpy as np
import pytest
from safetensors import safe_open

from ensemble.blend import load_blend, read_result
from ensemble.blend.averaging import averaged, averaging_gain
from ensemble.events import SILENT
from ensemble.run import Run
from ensemble.tta import averaged as module
from ensemble.tta.predict import tta_predict
from ensemble.tta.prepare import PredictionRequest


def stored(run):
    """(member, view) -> float32 (K, n, C), as the run keeps them."""
    found = {}
    for path in run.logits_dir("test").glob("*.safetensors"):
        with safe_open(str(path), "np") as file:
            for digest, name in file.metadata().items():
                if digest != "checksum":
                    found[tuple(name.split())] = file.get_tensor(digest)
    return found


def test_a_prediction_tells_what_its_average_is_expected_to_score(own_started_run, started_run, tmp_path, monkeypatch):
    run = Run(own_started_run)
    request = PredictionRequest(run, started_run.parent / "test", tmp_path / "out.csv")
    assert tta_predict(request, SILENT).expected is None  # five images tell too little
    monkeypatch.setattr(module, "FEWEST", 5)
    (tmp_path / "out.csv").unlink()
    found = tta_predict(request, SILENT).expected
    assert (found.networks, found.images) == (3, 5)
    logits, blend, scores = stored(run), load_blend(run, "mean"), read_result(run, "mean").blend
    sets = [
        [np.stack([logits[name, view][fold] for view in views]) for name, views in blend.trained.items()]
        for fold in range(3)
    ]
    assert found.scores["log_loss"] == pytest.approx(averaged(averaging_gain(blend, sets), scores).scores["log_loss"])
    assert found.out_of_fold["accuracy"] == (scores["accuracy"].value, scores["accuracy"].low, scores["accuracy"].high)


def test_without_stored_logits_nothing_is_expected(own_started_run, started_run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FEWEST", 5)
    images = started_run.parent / "test"
    request = PredictionRequest(Run(own_started_run), images, tmp_path / "out.csv", stored_bytes=0)
    assert tta_predict(request, SILENT).expected is None
