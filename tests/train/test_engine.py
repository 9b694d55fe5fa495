"""Another engine than torch in a fold's evaluation: what is offered to it, and what it leaves."""

import numpy as np
import pytest
import torch

from ensemble.backbones import timm_model
from ensemble.config import Config, Data, Tta
from ensemble.data.pixels.decode import Pixels
from ensemble.data.pixels.preprocess import Preprocess
from ensemble.errors import UserError
from ensemble.inference import choose_format, compiled
from ensemble.inference.eval_model import prepared
from ensemble.inference.formats import formats
from ensemble.inference.predict import Group, forward_views
from ensemble.train import prepare
from ensemble.train.evaluate import Evaluation, final_logits
from ensemble.train.prepare import allowed_formats, unused_engine
from ensemble.train.rows import Rows, TrainingData

CPU = torch.device("cpu")
PREPROCESS = Preprocess(32, 36, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))


def rows_of(*counts):
    """Rows of folds with so many rows each."""
    folds = np.repeat(np.arange(len(counts), dtype=np.int8), counts)
    ids = np.array([f"{row}.png" for row in range(len(folds))])
    return Rows(ids, (), np.arange(len(folds)) % 2, folds, ("a", "b"))


def config(**tta):
    backbones = [{"name": "net", "timm": "test_resnet"}]
    return Config(run="run", data=Data(train="images"), tta=Tta(**tta), backbone=backbones)


def test_which_formats_are_offered(monkeypatch):
    for module in (compiled, prepare):
        monkeypatch.setattr(module, "installed", lambda: ("openvino", "onnxruntime"))
    plain, enough = formats(CPU), rows_of(300, 299)
    assert allowed_formats(config(), rows_of(299, 299), CPU) == plain  # too few to check another engine on
    assert allowed_formats(config(engine="torch"), enough, CPU) == plain
    found = allowed_formats(config(), enough, CPU)
    assert found[: len(plain)] == plain and {"openvino float32", "onnxruntime float32"} <= set(found)
    assert allowed_formats(config(engine="onnxruntime"), enough, CPU) == [*plain, "onnxruntime float32"]
    only = allowed_formats(config(dtype="float32"), enough, CPU)
    assert only == ["float32", "openvino float32", "onnxruntime float32"]
    assert allowed_formats(config(), enough, torch.device("mps")) == formats(torch.device("mps"))


def test_an_engine_that_is_asked_for_has_to_be_installed(monkeypatch):
    monkeypatch.setattr(prepare, "installed", lambda: ())
    line = r"tta.engine = 'openvino': it is not installed: pip install \"ens-vision\[export\]\" openvino"
    with pytest.raises(UserError, match=line):
        allowed_formats(config(engine="openvino"), rows_of(300), CPU)


def test_an_engine_that_is_asked_for_and_not_used_is_named():
    asked = config(engine="onnxruntime")
    line = unused_engine(asked, "net", {"float32": 100.0, "openvino float32": 200.0})
    assert line is not None and line.startswith("net: torch evaluates it, not tta.engine = 'onnxruntime', which needs")
    assert unused_engine(asked, "net", {"float32": 100.0, "onnxruntime float32": 90.0}) is None
    assert unused_engine(config(), "net", {"float32": 100.0}) is None


@pytest.mark.skipif("onnxruntime" not in compiled.installed(), reason="onnxruntime is not installed")
def test_the_out_of_fold_logits_are_the_engine_s(tmp_path, monkeypatch):
    monkeypatch.setenv("ENS_CACHE", str(tmp_path))
    monkeypatch.setattr(choose_format, "LEAST_ROWS", 20)
    flat = np.random.default_rng(0).integers(0, 256, 40 * 36 * 36 * 3, dtype=np.uint8)
    starts = np.arange(40) * 36 * 36 * 3
    pixels = Pixels((flat,), np.zeros(40, np.int32), starts, np.tile([36, 36], (40, 1)))
    data = TrainingData(rows_of(20, 20), pixels, {PREPROCESS.decoding: pixels})
    evaluation = Evaluation(PREPROCESS, ("identity", "hflip"), 64, CPU)
    torch.manual_seed(0)
    model = timm_model.create("test_resnet", 2, 32)
    held_out = data.rows.held_out_rows(0)
    speeds = {"onnxruntime float32": 200.0, "float32": 100.0}
    inference, values = final_logits(model, data, held_out, evaluation, speeds)
    assert (inference.format, inference.changed) == ("onnxruntime float32", 0.0) and 0 < inference.settle < 1e-4
    squares = data.squares(PREPROCESS, evaluation.views, held_out)
    again = forward_views(Group(PREPROCESS, evaluation.views, (prepared(model, inference, 32, CPU),)), squares, 16, CPU)
    assert np.array_equal(again[0][0], values)  # as prediction gives them
