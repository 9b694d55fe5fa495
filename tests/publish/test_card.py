"""The model card of a run."""

from dataclasses import replace

import numpy as np
import pytest
from huggingface_hub import ModelCard

from ensemble.blend import read_result
from ensemble.blend.oof import read_rows
from ensemble.data.pixels.preprocess import Decoding
from ensemble.exported.description import Description, ExportedMember, ExportedScore, Parity
from ensemble.publish.card import Published, model_card, share, text
from ensemble.run import Run


@pytest.fixture(scope="module")
def published(noise_run):
    """What a card tells of a run whose rows are all predicted rightly, but for the first."""
    run = Run(noise_run)
    result, rows = read_result(run, "mean"), read_rows(run)
    predicted = rows.labels.copy()
    predicted[0] = 1 - predicted[0]
    scores = {metric: ExportedScore(score.value, score.low, score.high) for metric, score in result.blend.items()}
    description = Description(
        format=1,
        classes=rows.classes,
        inputs={"squares_32": Decoding(32, "bicubic", (200, 100))},
        blend="mean",
        method="mean",
        members={name: ExportedMember(f"test_{name}", 2, ("identity", "hflip")) for name in result.members},
        networks="folds",
        scores=scores,
        scores_of_folds=None,
        rows=len(rows.ids),
        costs=None,
        dtype="float32",
        parity=Parity(24, 1e-7, 0),
        versions={"ens": "0.1.0", "onnx": "1.23"},
        data="abc",
        created="2026-11-30T00:00:00Z",
    )
    weights = {"resnet": ("nothing (from scratch)", "none needed"), "vit": ("a|b.safetensors", None)}
    return Published(
        "noise", "mit", result, rows, predicted, description, weights, None, True, [("train", "ens x")], ("m.onnx", 5)
    )


def test_the_hub_reads_the_metadata(published):
    card = ModelCard(model_card(published))
    accuracy, f1 = card.data.eval_results
    assert (card.data.license, card.data.pipeline_tag, card.data.model_name) == ("mit", "image-classification", "noise")
    assert (accuracy.metric_type, f1.metric_type) == ("accuracy", "f1")
    assert accuracy.metric_value == round(published.result.blend["accuracy"].value, 4)
    assert "## License" not in card.text


def test_scores_by_class_are_those_of_the_rows(published):
    rows = published.rows
    wrong, other = rows.classes[rows.labels[0]], rows.classes[1 - rows.labels[0]]
    lines = {line.split(" | ")[0]: line for line in model_card(published).splitlines()}
    assert lines[f"| {wrong}"].startswith(f"| {wrong} | 12 | 91.7 [")  # 11 of 12
    assert "| 92.3 [" in lines[f"| {other}"]  # a precision of 12 of 13
    assert f"Most often confused: {wrong} and {other} (1)." in model_card(published)


def test_what_lacks_is_said(published):
    networks = replace(
        published.description, scores=None, scores_of_folds=published.description.scores, networks="soup"
    )
    card = model_card(replace(published, description=networks, license=None, predicted=None, groups="person"))
    assert "have no score of their own" in card and "Every score is out of fold" not in card
    assert ModelCard(card).data.eval_results is None
    assert "## License" in card and "chosen one yet" in card
    assert "By class" not in card and "Images of each class: a 12, b 12." in card
    assert "Images of the same `person` as training images" in card
    assert "| vit | `test_vit` | a\\|b.safetensors | not known |" in card
    assert "cut to its middle 200 x 100 px" in card


def test_names_leave_no_markup():
    assert text("<b>a|b</b>\n*x* [y](z)") == "\\<b\\>a\\|b\\</b\\>\\n\\*x\\* \\[y\\](z)".replace("\\n", "\\\\n")
    assert share(0.5, (0.25, 0.75)) == "50.0 [25.0, 75.0]"
    assert share(1.0, (np.nan, np.nan)) == "100.0" and share(np.nan, (np.nan, np.nan)) == "–"
