"""The examples in the docstrings of the public names, and those of the README."""

import doctest
from pathlib import Path

import pytest

import ensemble as ens

README = Path(__file__).parents[2] / "README.md"
WITHOUT = {  # what has no example of its own, since another's shows it
    "DataCheck": "check_data",
    "Events": "Silent",
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
