"""Clusters of features, and a map of them in two dimensions. Never imports torch."""

from dataclasses import dataclass

import numpy as np

from ensemble.slices.rules import Candidate, Rule

DIMENSIONS = 50  # principal components that are kept
ROWS_EACH = 50  # of a cluster, in the mean
MOST_CLUSTERS = 50
MOST_POINTS = 2000  # of a map


@dataclass(frozen=True)
class Space:
    """Where features are compared: centred, scaled to length 1, on their first d principal components.

    mean: float64 (D,), of the features.
    axes: float64 (d, D), the components.
    """

    mean: np.ndarray
    axes: np.ndarray

    def points(self, features: np.ndarray) -> np.ndarray:
        """Where features, float (N, D), lie: float64 (N, d)."""
        return np.asarray(_unit(features - self.mean) @ self.axes.T)


@dataclass(frozen=True)
class Clusters:
    """The k clusters of N rows.

    of_row: int64 (N,), the number of each row's cluster.
    centres: float64 (k, d).
    """

    of_row: np.ndarray
    centres: np.ndarray

    def nearest(self, points: np.ndarray) -> np.ndarray:
        """The cluster of each point (n, d), int64 (n,)."""
        distances = (self.centres**2).sum(axis=1) - 2 * points @ self.centres.T  # but for the points' own lengths
        return np.asarray(distances.argmin(axis=1))


def space_of(features: np.ndarray) -> Space:
    """The space of these features, float (N, D)."""
    from sklearn.decomposition import PCA

    mean = features.mean(axis=0, dtype=np.float64)
    count = min(DIMENSIONS, len(features) - 1, features.shape[1])
    fitted = PCA(count, random_state=0).fit(_unit(features - mean))
    return Space(mean, fitted.components_)


def find_clusters(points: np.ndarray) -> Clusters:
    """Clusters of points, float (N, d), by k-means."""
    from sklearn.cluster import KMeans

    count = min(MOST_CLUSTERS, max(2, len(points) // ROWS_EACH))
    fitted = KMeans(count, n_init=3, random_state=0).fit(points)
    return Clusters(fitted.labels_.astype(np.int64), fitted.cluster_centers_)


def cluster_slices(clusters: Clusters, labels: np.ndarray, classes: tuple[str, ...], min_size: int) -> list[Candidate]:
    """The clusters of at least `min_size` rows, each named by the class that most of its rows have."""
    found = []
    for number in range(len(clusters.centres)):
        rows = np.flatnonzero(clusters.of_row == number)
        if min_size <= len(rows) <= len(labels) - min_size:
            counts = np.bincount(labels[rows], minlength=len(classes))
            share = f"{100 * counts.max() / len(rows):.0f} % {classes[int(counts.argmax())]}"
            found.append(
                Candidate(Rule("cluster", "cluster", str(number), None, None, f"cluster {number} ({share})"), rows)
            )
    return found


def shown_rows(wrong: np.ndarray) -> np.ndarray:
    """The numbers of the rows that the map shows, int64 (n,), ascending: all, or the wrong ones as far as there is
    room, and a random sample of the others.

    wrong: bool (N,), whether the row is predicted wrongly.
    """
    draw = np.random.default_rng(0)
    order = np.lexsort((draw.random(len(wrong)), ~wrong))
    return np.sort(order[:MOST_POINTS])


def flat_map(points: np.ndarray) -> np.ndarray:
    """Where points, float (n, d), lie in the plane: float64 (n, 2), each coordinate from 0 to 1, by t-SNE (van der
    Maaten and Hinton, JMLR 2008)."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(points) - 1) / 3)
    flat = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(np.asarray(points, np.float32))
    low, high = flat.min(axis=0), flat.max(axis=0)
    return np.asarray((flat - low) / np.maximum(high - low, 1e-12), dtype=np.float64)


def _unit(values: np.ndarray) -> np.ndarray:
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))
