"""What the average of K networks gains, without labels."""

import numpy as np
import pytest

from ensemble.blend.averaging import AveragingGain, averaged, averaging_gain, in_words, label_law
from ensemble.blend.methods import Chain, mean
from ensemble.blend.methods.pool import inverse_temperature
from ensemble.blend.probabilities import log_softmax, softmax
from ensemble.blend.saved import Blend
from ensemble.blend.temperature import Temperature
from ensemble.scoring.bootstrap import Score


def blend_at(inverse):
    chain = Chain("mean", mean.Mean(), Temperature(inverse))
    return Blend("mean", "log_loss", ("a",), (("identity",),), ("x", "y", "z"), ((1.0,),), chain)


def noisy_networks(images=6000, networks=5, noise=1.0, seed=0):
    """Labels int64 (N,), and logits float32 (K, N, 3) of networks that err in common and each by itself."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(3, size=images)
    common = 2.0 * np.eye(3)[labels] + draw.standard_normal((images, 3))
    return labels, (common + noise * draw.standard_normal((networks, images, 3))).astype(np.float32)


def test_networks_that_agree_gain_nothing():
    z = np.random.default_rng(0).normal(size=(1, 60, 3)).astype(np.float32)
    found = averaging_gain(blend_at(1.0), [[z], [z], [z]])
    assert (found.networks, found.images) == (3, 60)
    assert (found.accuracy, found.log_loss) == pytest.approx((0, 0), abs=1e-9)


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_what_is_expected_without_labels_is_what_labels_show(noise):
    labels, z = noisy_networks(noise=noise)
    inverse = inverse_temperature(np.concatenate(z), np.tile(labels, len(z)))
    found = averaging_gain(blend_at(inverse), [[of_network[None]] for of_network in z])
    p = softmax(z.astype(np.float64) * inverse)
    hits = (p.mean(axis=0).argmax(axis=1) == labels).mean() - (p.argmax(axis=2) == labels).mean()
    rows = np.arange(len(labels))
    nats = (np.log(p.mean(axis=0)[rows, labels]) - np.log(p[:, rows, labels]).mean(axis=0)).mean()
    assert found.accuracy == pytest.approx(hits, rel=0.2, abs=0.003)
    assert found.log_loss == pytest.approx(nats, rel=0.2)
    assert abs(found.accuracy - hits) < 1.96 * found.accuracy_error
    assert abs(found.log_loss - nats) < 1.96 * found.log_loss_error


def test_under_the_label_law_no_temperature_makes_a_single_network_better():
    _, z = noisy_networks(500)
    logs = log_softmax(z.astype(np.float64))
    law = label_law(np.exp(logs), logs, np.log(np.exp(logs).mean(axis=0)))
    assert law.sum(axis=1) == pytest.approx(np.ones(500))

    def loss(inverse):
        return -(law * log_softmax(inverse * logs)).sum(axis=2).mean()

    assert loss(1.0) < min(loss(0.99), loss(1.01))


def test_the_expected_score_is_moved_by_the_gain_and_its_interval_holds_both_errors():
    scores = {"accuracy": Score(0.90, 0.88, 0.91, ()), "log_loss": Score(0.30, 0.27, 0.34, ())}
    found = averaged(AveragingGain(5, 350, 0.02, 0.05, 0.01, 0.02), scores)
    z = 1.959963985
    value, low, high = found.scores["accuracy"]
    assert value == pytest.approx(0.92)
    assert low == pytest.approx(0.92 - np.hypot(0.02, 0.01 * z))
    assert high == pytest.approx(0.92 + np.hypot(0.01, 0.01 * z))
    assert found.scores["log_loss"][0] == pytest.approx(0.25)
    assert found.scores["log_loss"][1] == pytest.approx(0.25 - np.hypot(0.03, 0.02 * z))
    assert found.out_of_fold["log_loss"] == (0.30, 0.27, 0.34)
    assert in_words(found) == (
        "out of fold, where one network answers for each row: accuracy 90.00 % [88.00, 91.00], log loss 0.3000 "
        "[0.2700, 0.3400]; to be expected of the average of 5, as here: 92.00 % [89.20, 94.20], log loss 0.2500 "
        "[0.2006, 0.3060] (from how these differ on 350 images)"
    )


def test_no_more_than_all_can_be_right():
    scores = {"accuracy": Score(0.99, 0.98, 1.0, ()), "log_loss": Score(0.03, 0.01, 0.08, ())}
    found = averaged(AveragingGain(5, 350, 0.02, 0.05, 0.01, 0.02), scores)
    assert found.scores["accuracy"][::2] == (1, 1) and found.scores["log_loss"][:2] == (0, 0)
