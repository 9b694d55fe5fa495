"""The risk-coverage curve with its area, and from which confidence on images are answered."""

import numpy as np
import pytest

from ensemble.conformal.selective import abstention, least_rate, risk_coverage


def test_the_curve_by_hand():
    # Risks of the most confident 1, 2, 3, 4 rows: 0, 1/2, 1/3, 1/2; their mean is 1/3. If the wrong ones came last: 0,
    # 0, 1/3, 1/2.
    found = risk_coverage(np.array([0.9, 0.5, 0.8, 0.7]), np.array([False, True, True, False]), np.arange(4))
    assert (found.area, found.best) == (pytest.approx(1 / 3), pytest.approx(5 / 24))
    assert dict(zip(found.shares, found.risks, strict=True))[1.0] == 0.5
    assert dict(zip(found.shares, found.risks, strict=True))[0.5] == 0.5
    assert found.low <= found.area <= found.high


def test_equally_confident_rows_are_answered_together():
    for wrong in ([True, False, False, False], [False, False, False, True]):
        found = risk_coverage(np.full(4, 0.5), np.array(wrong), np.arange(4))
        assert found.area == 0.25 and set(found.risks) == {0.25}


def test_the_interval_is_that_of_a_bootstrap():
    draw = np.random.default_rng(0)
    confidence = draw.uniform(0.3, 1, 800)
    wrong = draw.uniform(size=800) > confidence
    found = risk_coverage(confidence, wrong, np.arange(800))
    resampled = [
        risk_coverage(confidence[rows], wrong[rows], np.arange(800)).area
        for rows in (draw.integers(800, size=800) for _ in range(400))
    ]
    assert found.high - found.low == pytest.approx(3.92 * np.std(resampled), rel=0.15)
    twice = risk_coverage(np.tile(confidence, 2), np.tile(wrong, 2), np.tile(np.arange(800), 2))
    assert twice.high - twice.low == pytest.approx(found.high - found.low, rel=1e-3)


def test_the_threshold_keeps_the_error_rate_with_certainty():
    draw = np.random.default_rng(0)
    exceeded, answered = 0, []
    for _ in range(60):
        confidence = draw.uniform(0.5, 1, 2000)
        found = abstention(confidence, draw.uniform(size=2000) > confidence, np.arange(2000), 0.15)
        assert found is not None and found.error < 0.15
        answered.append(found.answered)
        exceeded += (1 - found.threshold) / 2 > 0.15  # the true error rate of what is answered
    assert exceeded <= 6 and 0.4 < np.mean(answered) < 0.6  # 0.6 of them have the rate


def test_too_few_rows_show_nothing():
    sure = np.linspace(0.9, 1, 100)
    right = np.zeros(100, dtype=bool)
    assert least_rate(100) == pytest.approx(1 - (0.1 / 3) ** (1 / 75))  # three quarters of them come first
    for rows in (24, 100, 400):
        sorted_rows = np.linspace(0.9, 1, rows), np.zeros(rows, dtype=bool), np.arange(rows)
        assert abstention(*sorted_rows, 0.999 * least_rate(rows)) is None
        assert abstention(*sorted_rows, 1.001 * least_rate(rows)).answered == 1.0
    assert abstention(sure, right, np.arange(100), 0.03) is None
    found = abstention(sure, right, np.arange(100), 0.05)
    assert (found.threshold, found.answered, found.error) == (0.9, 1.0, 0.0)
    # Ten groups of ten rows are ten trials.
    assert abstention(sure, right, np.arange(100) // 10, 0.05) is None
    assert abstention(sure, right, np.arange(100) // 10, 0.4).answered == 1.0
