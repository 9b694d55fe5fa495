"""What the average of K fold networks gains over one of them. Never imports torch.

An out-of-fold score is of one network for each row, as each row was held out from one fold's. A prediction averages the
K folds' answers, and is usually better: by how much, the K answers to images without a label tell. In place of the
unknown label stands its law given the answers: the power of their mean under which each single network is as calibrated
as its fold's rows have shown it to be. Averages of calibrated answers are not sure enough (Rahaman & Thiery,
"Uncertainty quantification and deep ensembles", NeurIPS 2021), so that the power is above 1. That the disagreement of
networks tells their error without labels is known of deep ensembles (Jiang et al., "Assessing generalization of SGD via
disagreement", ICLR 2022).

`benchmarks/averaging.py` compares what is expected with what labels show.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensemble.blend.saved import Blend
from ensemble.files.reading import Finite
from ensemble.scoring.bootstrap import Score
from ensemble.scoring.row_values import FLOOR
from ensemble.scoring.wilson import Z

FEWEST, MOST = 50, 2_000  # images: of fewer the gain is not known, of more so many are drawn
# Standard deviation of the gain that labels show, around what is expected, as a share of it (benchmarks/averaging.py).
MODEL_ERROR = 0.3


@dataclass(frozen=True)
class AveragingGain:
    """What the average of K answers gains over one of them, expected without labels.

    networks: K.
    images: how many it was computed on.
    accuracy: 0 to 1; log_loss: in nats; positive is better.
    accuracy_error, log_loss_error: their standard errors, with that of the method.
    """

    networks: int
    images: int
    accuracy: float
    log_loss: float
    accuracy_error: float
    log_loss_error: float


@dataclass(frozen=True)
class Averaged:
    """What is to be expected of the average of K networks.

    networks: K.
    images: how many images without a label show how the networks differ.
    scores: metric -> value, low and high, its 95% interval, of accuracy and log_loss.
    out_of_fold: the same of one network for each row.
    """

    networks: int
    images: int
    scores: dict[str, tuple[Finite, Finite, Finite]]
    out_of_fold: dict[str, tuple[Finite, Finite, Finite]]


def averaging_gain(blend: Blend, logits: Sequence[Sequence[np.ndarray]]) -> AveragingGain:
    """Of a blend without stages that is given the logits of each of K sets of networks: of each member float32 (V, N,
    C), in the blend's order."""
    chain = blend.chain
    calibrated = np.stack([blend.apply(of_set) for of_set in logits])
    answers = calibrated
    if chain.metric_bias is not None:  # which moves classes, and takes calibration away
        plain = replace(blend, chain=replace(chain, metric_bias=None))
        calibrated = np.stack([plain.apply(of_set) for of_set in logits])
    return gain_of_answers(
        calibrated, blend.decide(answers.mean(axis=0)), np.stack([blend.decide(each) for each in answers])
    )


def gain_of_answers(answers: np.ndarray, decided: np.ndarray, decided_alone: np.ndarray) -> AveragingGain:
    """answers: probabilities (K, N, C), each calibrated. decided: int64 (N,), by their mean; decided_alone: (K, N)."""
    networks, images, _ = answers.shape
    logs = np.log(np.maximum(answers, FLOOR))
    mean_log = np.log(np.maximum(answers.mean(axis=0), FLOOR))
    law = label_law(answers, logs, mean_log)
    row = np.arange(images)
    accuracy = law[row, decided] - law[row, decided_alone].mean(axis=0)
    log_loss = (law * (mean_log - logs.mean(axis=0))).sum(axis=1)

    def error(values: np.ndarray) -> float:
        return float(np.hypot(values.std(ddof=1) / np.sqrt(images), MODEL_ERROR * values.mean()))

    return AveragingGain(
        networks, images, float(accuracy.mean()), float(log_loss.mean()), error(accuracy), error(log_loss)
    )


def label_law(answers: np.ndarray, logs: np.ndarray, mean_log: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) of the labels given K calibrated answers (K, N, C): their mean to the power under which the
    log loss of a single network is its entropy, which is where no temperature would make it better.

    logs: of the answers. mean_log: of their mean, (N, C).
    """
    of_alone, weighed = logs.mean(axis=0), float((answers * logs).sum(axis=2).mean())

    def surplus(power: float) -> float:
        return float((_to_power(mean_log, power) * of_alone).sum(axis=1).mean()) - weighed

    low, high = -2.0, 3.0  # log of the power; a greater one makes the answers' log loss less, and `surplus` greater
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if surplus(float(np.exp(middle))) < 0 else (low, middle)
    return _to_power(mean_log, float(np.exp((low + high) / 2)))


def _to_power(logs: np.ndarray, power: float) -> np.ndarray:
    out = np.exp(power * (logs - logs.max(axis=1, keepdims=True)))
    return np.asarray(out / out.sum(axis=1, keepdims=True))


def averaged(gain: AveragingGain, out_of_fold: dict[str, Score]) -> Averaged:
    """The scores to expect of the average: the out-of-fold ones and what it gains, in intervals of both errors."""
    accuracy, log_loss = out_of_fold["accuracy"], out_of_fold["log_loss"]
    value, low, high = _moved(accuracy, gain.accuracy, gain.accuracy_error)
    scores = {"accuracy": (min(value, 1.0), min(low, 1.0), min(high, 1.0))}
    value, low, high = _moved(log_loss, -gain.log_loss, gain.log_loss_error)
    scores["log_loss"] = (max(value, 0.0), max(low, 0.0), max(high, 0.0))
    alone = {name: (score.value, score.low, score.high) for name, score in out_of_fold.items() if name in scores}
    return Averaged(gain.networks, gain.images, scores, alone)


def _moved(score: Score, by: float, error: float) -> tuple[float, float, float]:
    """A score and the ends of its interval, moved by what has a standard error of its own."""
    value, more = score.value + by, Z * error
    below, above = np.hypot(score.value - score.low, more), np.hypot(score.high - score.value, more)
    return value, float(value - below), float(value + above)


def in_words(found: Averaged) -> str:
    """One line, with both scores."""

    def shown(scores: dict[str, tuple[float, float, float]]) -> str:
        percent = "{:.2f} % [{:.2f}, {:.2f}]".format(*(100 * number for number in scores["accuracy"]))
        return percent + ", log loss {:.4f} [{:.4f}, {:.4f}]".format(*scores["log_loss"])

    return (
        f"out of fold, where one network answers for each row: accuracy {shown(found.out_of_fold)}; to be expected of "
        f"the average of {found.networks}, as here: {shown(found.scores)} (from how these differ on "
        f"{found.images} images)"
    )
