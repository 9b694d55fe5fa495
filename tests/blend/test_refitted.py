"""The probabilities that a blend's scores are of: read where they were saved for all rows, else fitted again."""

from dataclasses import replace

import numpy as np
import pytest
from test_blend_run import make_run

from ensemble.blend import BlendOptions, blend_run, read_result
from ensemble.blend.described import read_described
from ensemble.blend.held_out import load_held_out, save_held_out
from ensemble.blend.refitted import cross_fitted
from ensemble.conformal.rows import HeldOut
from ensemble.files.sealed import write_json
from ensemble.run import Run


@pytest.fixture
def blended(tmp_path):
    make_run(tmp_path / "run")
    run = Run(tmp_path / "run")
    blend_run(run, BlendOptions("vote"))
    saved = load_held_out(run, "vote", read_described(run, "vote")["held_out"], 3)
    return run, read_result(run, "vote"), saved


def keep(run, rows: HeldOut):
    write_json(run.blend_json("vote"), {**read_described(run, "vote"), "held_out": save_held_out(run, "vote", rows)})


def test_they_are_those_that_were_saved_with_the_blend(blended):
    run, result, saved = blended
    assert np.array_equal(cross_fitted(run, result), saved.probabilities.astype(np.float64))


def test_a_file_of_other_rows_or_another_blend_is_not_taken(blended):
    run, result, saved = blended
    half, other = np.arange(len(saved.labels) // 2), np.roll(saved.probabilities, 1, axis=0)
    some = HeldOut(saved.probabilities[half], saved.labels[half], saved.folds[half], saved.clusters[half])
    for rows in (some, replace(saved, folds=saved.folds[::-1]), replace(saved, probabilities=other)):
        keep(run, rows)
        again = cross_fitted(run, result)  # in float64, so not the rounded ones
        assert again == pytest.approx(saved.probabilities, abs=1e-6)
        assert not np.array_equal(again, again.astype(np.float32))


def test_without_the_file_the_blend_is_fitted_again(blended):
    run, result, saved = blended
    run.held_out_file("vote").unlink()
    assert cross_fitted(run, result) == pytest.approx(saved.probabilities, abs=1e-6)
