"""`ens publish`: the folder."""

import json

import pytest
from commands import ens
from huggingface_hub import ModelCard

import ensemble as ens_api
from ensemble.blend import read_result
from ensemble.run import Run

pytest.importorskip("onnxruntime")


def test_the_folder_holds_a_model_that_predicts_and_its_card(noise_run, tmp_path, monkeypatch, capfd):
    folder = tmp_path / "shop" / "noise"
    words = ("publish", noise_run, "--license", "mit", "-o", folder, "--json")
    status, output, error = ens(monkeypatch, capfd, *words)
    assert status == 0, error
    assert json.loads(output)["result"] == {"folder": str(folder), "model": str(folder / "model.onnx")}
    assert sorted(path.name for path in folder.iterdir()) == [".gitattributes", "README.md", "model.onnx"]
    card = ModelCard.load(folder / "README.md")
    accuracy = read_result(Run(noise_run), "mean").blend["accuracy"].value
    assert card.data.eval_results[0].metric_value == round(accuracy, 4) and card.data.license == "mit"
    assert "| resnet | `test_resnet` | nothing (from scratch) | none needed |" in card.text
    assert f"ens train-folds {noise_run}/config.toml" in card.text and "--blend mean -o" in card.text
    image = sorted((noise_run.parent / "train" / "a").iterdir())[0]
    of_file = ens_api.predict(ens_api.load(folder / "model.onnx"), image).probabilities
    assert of_file == pytest.approx(ens_api.predict(noise_run, image).probabilities, abs=1e-5)

    status, _, error = ens(monkeypatch, capfd, *words)
    assert status == 2
    assert error == f"ens: {folder}: exists already; choose another folder with -o, or delete it\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--license", "My Own"), "--license My Own: want an identifier of the Hub, such as apache-2.0 or cc-by-4.0"),
        (("--blend", "none"), "no blend 'none'; there are: mean"),
        (("--networks", "soup"), "has no soup of its fold networks"),
    ],
)
def test_what_is_wrong_leaves_no_folder(noise_run, tmp_path, monkeypatch, capfd, words, line):
    status, _, error = ens(monkeypatch, capfd, "publish", noise_run, "-o", tmp_path / "noise", *words)
    assert status == 2 and line in error
    assert list(tmp_path.iterdir()) == []
