"""How near the average of networks is to their ensemble: no label is needed."""

from dataclasses import dataclass

import numpy as np

from ensemble.blend.probabilities import log_softmax


@dataclass(frozen=True)
class Closeness:
    """The average of K networks beside the ensemble of the same networks (the mean of their probabilities) on N images.

    images: N
    agreement: share of the images for which the average predicts the ensemble's class
    networks_agreement: the same of a single one of the networks, their mean
    divergence: Kullback-Leibler divergence of the average from the ensemble, nats, mean over the images
    networks_divergence: the same of a single one of the networks, their mean
    """

    images: int
    agreement: float
    networks_agreement: float
    divergence: float
    networks_divergence: float

    @property
    def barrier(self) -> float:
        """The loss of the average minus the mean loss of the networks (Frankle et al., Linear mode connectivity and
        the lottery ticket hypothesis, ICML 2020), nats, where the ensemble's probabilities are the labels: their
        entropy, the difference between cross entropy and divergence, cancels."""
        return self.divergence - self.networks_divergence


def closeness(networks: np.ndarray, average: np.ndarray) -> Closeness:
    """Of the logits of K networks, float32 (K, N, C), and of their average, float32 (N, C)."""
    log_probs = log_softmax(np.concatenate([networks, average[None]]).astype(np.float64))
    ensemble = np.exp(log_probs[:-1]).mean(axis=0)
    entropy = (ensemble * np.log(np.maximum(ensemble, np.finfo(np.float64).tiny))).sum(axis=1)
    divergences = (entropy - (ensemble * log_probs).sum(axis=2)).mean(axis=1)
    agreements = (log_probs.argmax(axis=2) == ensemble.argmax(axis=1)).mean(axis=1)
    return Closeness(
        images=networks.shape[1],
        agreement=float(agreements[-1]),
        networks_agreement=float(agreements[:-1].mean()),
        divergence=float(divergences[-1]),
        networks_divergence=float(divergences[:-1].mean()),
    )
