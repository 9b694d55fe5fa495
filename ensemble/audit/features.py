"""Cheap numbers of an image that need no network: what a classifier that cheats could go by."""

import numpy as np

from ensemble.data.scan import Scan

SIZE, FILE, COLOUR = "size", "file", "colour"
# Each feature's name, its set, and how its values are written.
FEATURES = (
    ("width", SIZE, "{:.0f} px"),
    ("height", SIZE, "{:.0f} px"),
    ("width / height", SIZE, "{:.2f}"),
    ("bytes a pixel", FILE, "{:.2f}"),
    ("format", FILE, ""),
    ("mode", FILE, ""),
    ("EXIF turn", FILE, ""),
    ("red", COLOUR, "{:.2f}"),
    ("green", COLOUR, "{:.2f}"),
    ("blue", COLOUR, "{:.2f}"),
    ("contrast", COLOUR, "{:.2f}"),
    ("sharpness", COLOUR, "{:.3g}"),
)
FOLDS = 5
NAMES = tuple(name for name, _, _ in FEATURES)


def upright(scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    """Widths and heights after EXIF's turn, int64 (N,) each. A TIFF's are so from the start."""
    swapped = (scan.orientations >= 5) & (scan.formats != "TIFF")
    return np.where(swapped, scan.heights, scan.widths), np.where(swapped, scan.widths, scan.heights)


def features(scan: Scan) -> np.ndarray:
    """The numbers of FEATURES for each scanned file, float64 (N, 12); of use where the image was readable."""
    widths, heights = upright(scan)
    width, height = np.maximum(widths, 1).astype(float), np.maximum(heights, 1).astype(float)
    columns = [
        width,
        height,
        width / height,
        scan.bytes / (width * height),
        _numbered(scan.formats),
        _numbered(scan.modes),
        scan.orientations,
        *scan.means.T,
        scan.stds.mean(axis=1),
        scan.sharpness,
    ]
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def columns_of(kind: str) -> list[int]:
    return [number for number, (_, of, _) in enumerate(FEATURES) if of == kind]


def _numbered(names: np.ndarray) -> np.ndarray:
    return np.unique(names, return_inverse=True)[1]


def held_out_shares(values: np.ndarray, labels: np.ndarray, ties: np.ndarray, seed: int = 0) -> np.ndarray:
    """Probabilities of each row from trees that saw neither the row nor any that is tied to it, float (N, C).

    values: float (N, F). labels: int (N,), 0..C-1, each with rows in several sets of ties. ties: int (N,). Extremely
    randomised trees (Geurts et al. 2006): they find a jump at a certain size as well as a slope, in 2 s for 3,000 rows.
    """
    from sklearn.ensemble import ExtraTreesClassifier

    shares = np.zeros((len(labels), int(labels.max()) + 1))
    folds = _folds(labels, ties, seed)
    for fold in range(FOLDS):
        train, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if not len(train) or not len(held_out):
            continue
        trees = ExtraTreesClassifier(
            50, min_samples_leaf=5, max_features=None, class_weight="balanced", random_state=seed
        )
        trees.fit(values[train], labels[train])
        shares[np.ix_(held_out, trees.classes_)] = trees.predict_proba(values[held_out])
    return shares


def _folds(labels: np.ndarray, ties: np.ndarray, seed: int) -> np.ndarray:
    """A fold for each row, int (N,): tied rows share one, and the sets of each class are dealt out in turn.
    (StratifiedGroupKFold also evens out the sizes of sets, but takes as long as the trees: 2.3 s for 5,000 rows.)"""
    _, first, of = np.unique(ties, return_index=True, return_inverse=True)
    order = np.lexsort((np.random.default_rng(seed).random(len(first)), labels[first]))
    folds = np.empty(len(first), dtype=np.int64)
    folds[order] = np.arange(len(first)) % FOLDS
    return np.asarray(folds[of])


def sample(rows: np.ndarray, limit: int, seed: int = 0) -> np.ndarray:
    """At most `limit` of these rows, in their order."""
    if len(rows) <= limit:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))
