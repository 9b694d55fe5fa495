"""The examples in the docstrings of the public names, and those of the README and the guide."""

import doctest
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_file import content
from PIL import Image
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import StackingClassifier
from sklearn.naive_bayes import GaussianNB

import ensemble as ens

ROOT = Path(__file__).parents[2]
WITHOUT = {  # what has no example of its own, since another's shows it
    "DataCheck": "check_data",
    "Events": "Silent",
    "ExportedModel": "load",
    "FittedBlend": "fit_blend",
    "Prediction": "predict",
    "Predictor": "load",
    "RunBlend": "Run",
    "RunComparison": "compare_runs",
    "RunFailure": "UserError",
    "__version__": "",
}


@pytest.mark.parametrize("name", sorted(set(ens.__all__) - set(WITHOUT)))
def test_every_public_name_has_an_example_that_runs(name, art):
    found = doctest.DocTestFinder(exclude_empty=True).find(getattr(ens, name), name, globs={"ens": ens})
    examples = [test for test in found if test.examples]
    assert examples, f"{name} has no example in its docstring"
    runner = doctest.DocTestRunner(optionflags=doctest.REPORT_ONLY_FIRST_FAILURE)
    for test in examples:
        said = []
        assert runner.run(test, out=said.append).failed == 0, "".join(said)


@pytest.mark.parametrize("page", ["README.md", "docs/pages/guides/python.md"])
def test_the_examples_of_a_page_run(page, art):
    shutil.copytree("runs/art", "runs/other")
    image = Image.open("data/art/train/a/0.png")
    image.save("a.jpg")
    Path("art.onnx").write_bytes(content())
    labels = np.arange(60) % 2
    scores = np.random.default_rng(0).normal(size=(2, 60, 2)) + 2 * np.eye(2)[labels]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    names = {
        "pil_image": image,
        "array": np.array(image),
        "labels": labels,
        "patients": np.arange(60) // 4,
        "StackingClassifier": StackingClassifier,
        "models": [("bayes", GaussianNB()), ("lda", LinearDiscriminantAnalysis())],
        "batch": torch.zeros(4, 3, 8, 8),
    }
    for member, values in zip(("vit", "svm"), probabilities, strict=True):
        names |= {f"{member}_oof": values, f"{member}_test": values[:5]}
    code = re.search(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)[1]
    exec(code, names)
    assert names["blend"].result.groups == 15
    assert (art / "runs/art/report.html").is_file() == ("write_report" in code)
