"""Calibration against numbers computed by hand."""

import numpy as np
import pytest

from ensemble.scoring.calibration import ece


def test_ece():
    # two rows at .9, one right: |.5 - .9|; two at .6, both right: |1 - .6|; each bin holds half of the rows
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    assert ece(probs.argmax(axis=1) == [0, 1, 0, 1], probs.max(axis=1)) == pytest.approx(0.4)


def test_ece_of_sure_and_right_predictions_is_zero():
    assert ece(np.array([True, True]), np.ones(2)) == 0
