"""Copies among images (equal files, and the same picture flipped, turned, cropped or encoded anew), and look-alikes.

Three steps, each of which leaves less to the next: the nearest neighbours by a descriptor that no flip or turn changes,
a coarse correlation in all 8 orientations, and the details of the two thumbnails laid upon each other (align.py).
Nothing has the size of all pairs.
"""

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ensemble.data.copies.align import LOOK_ALIKE, Match, compare, turned
from ensemble.data.scan import Scan
from ensemble.data.scan_pieces import SIDE
from ensemble.events import Events
from ensemble.machine import cores
from ensemble.progress import paced

FREQUENCIES = 6  # at most, per image side
# 99% of 240 copies that lost 4 to 9% of each side lie within 0.117, where 0.3% of all other paintings do too; seen from
# the middle 93% of the original, within 0.064, closer than any other.
ZOOMS = (1.0, 0.93)
NEIGHBOURS = 20  # of each image and zoom; larger sets of copies hang together through some of them
# 99% of planted copies of a kind lie within 0.064, where brightness clips within 0.136; so do 2% of other paintings.
RADIUS = 0.14
COARSE = 16  # px
COARSELY_ALIKE = 0.7  # coarse correlation: 99.5% of planted copies have more, 98.5% of other neighbours less than 0.62
SMALLEST = 32  # px of the shorter side: of 1,437 digits of 8 px, 1,416 hung together as copies
FLAT = 2.0  # grey levels of standard deviation: emptier pictures have no copies but exact ones
CHUNK = 4096  # rows, or pairs, at a time
SET = 30  # exact copies of one file beyond which each is paired with the first one only


@dataclass(frozen=True)
class Pairs:
    """P pairs of rows, first < second, sorted. Of more than SET exact copies of one file each is paired with the first
    one only, and near copies with the first SET of them.

    first: int64 (P,), the smaller row.
    second: int64 (P,), the larger row.
    kinds: "exact" (equal bytes), "re-encoded" (the same picture), "hflip", "vflip", "rot90" (counterclockwise),
        "rot180", "rot270", "transpose", "transverse" (what makes the second of the first), "crop" (zoomed, shifted or
        turned a little): these are copies; and "look-alike": perhaps one person, object or scene, or the same picture
        with much drawn over.
    similarity: float32 (P,), 1 for equal pixels.
    """

    first: np.ndarray
    second: np.ndarray
    kinds: tuple[str, ...]
    similarity: np.ndarray

    @property
    def exact(self) -> np.ndarray:
        """Which pairs are of equal bytes, bool (P,)."""
        return np.array([kind == "exact" for kind in self.kinds], dtype=bool)

    @property
    def copies(self) -> np.ndarray:
        """Which pairs are copies, exact or near, and no mere look-alikes, bool (P,)."""
        return np.array([kind != LOOK_ALIKE for kind in self.kinds], dtype=bool)

    def where(self, mask: np.ndarray) -> "Pairs":
        kinds = tuple(kind for kind, kept in zip(self.kinds, mask.tolist(), strict=True) if kept)
        return Pairs(self.first[mask], self.second[mask], kinds, self.similarity[mask])


Found = tuple[str, str, Match]  # the digests of two files, and what the second is of the first


def near_copies(scan: Scan, events: Events) -> Pairs:
    """All pairs. Images that can't be decoded, or are too small to tell a copy from a look-alike, only have exact
    copies."""
    return spread(scan.digests, search(scan, np.arange(len(scan.digests)), events))


def search(scan: Scan, rows: np.ndarray, events: Events) -> list[Found]:
    """Near copies and look-alikes among the different files of these rows, whatever their order. rows: int64 (N,)."""
    digests, first = np.unique(scan.digests[rows], return_index=True)
    alone = rows[first[digests != ""]]
    seen = np.minimum(scan.widths[alone], scan.heights[alone]) >= SMALLEST
    seen &= np.array([scan.errors[row] is None for row in alone.tolist()], dtype=bool)
    return [
        (str(scan.digests[one]), str(scan.digests[other]), match)
        for one, other, match in _search(scan.thumbnails, alone[seen], events)
    ]


def spread(digests: np.ndarray, near: Iterable[Found]) -> Pairs:
    """All pairs of rows, exact copies too. digests: str (N,), of the rows, "" where a file can't be read."""
    sets: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(digests.tolist()):
        if digest:
            sets[digest].append(row)
    found: dict[tuple[int, int], Match] = {}
    for rows in sets.values():
        found.update(((i, j), Match("exact", 1.0)) for i, j in _within(rows))
    for one, other, match in near:
        for i in sets[one][:SET]:
            for j in sets[other][:SET]:
                found[min(i, j), max(i, j)] = match if i < j else _seen_from_the_other(match)
    order = sorted(found)
    pairs = np.array(order, dtype=np.int64).reshape(-1, 2)
    return Pairs(
        first=pairs[:, 0].copy(),
        second=pairs[:, 1].copy(),
        kinds=tuple(found[pair].kind for pair in order),
        similarity=np.array([found[pair].similarity for pair in order], dtype=np.float32),
    )


def joined_rows(pairs: Pairs, rows: int) -> np.ndarray:
    """The smallest row of each connected set of pairs, int64 (rows,): a row's own number if it is alone."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs.first), dtype=np.int8), (pairs.first, pairs.second)), shape=(rows, rows))
    _, component = connected_components(links, directed=False)
    _, smallest = np.unique(component, return_index=True)
    joined: np.ndarray = smallest[component].astype(np.int64)
    return joined


def _within(rows: list[int]) -> Iterable[tuple[int, int]]:
    if len(rows) > SET:
        return [(rows[0], row) for row in rows[1:]]
    return [(i, j) for at, i in enumerate(rows) for j in rows[at + 1 :]]


def _seen_from_the_other(match: Match) -> Match:
    return Match({"rot90": "rot270", "rot270": "rot90"}.get(match.kind, match.kind), match.similarity)


def _search(thumbnails: np.ndarray, rows: np.ndarray, events: Events) -> list[tuple[int, int, Match]]:
    """Near copies and look-alikes among these rows of `thumbnails`, all of different files."""
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    textured = [chunk[thumbnails[chunk].reshape(len(chunk), -1).std(axis=1) >= FLAT] for chunk in chunks]
    rows = np.concatenate(textured) if textured else rows
    if len(rows) < 2:
        return []
    pairs, zooms = _neighbours(thumbnails, rows, events)
    found: list[tuple[int, int, Match]] = []
    advance = paced(events, "comparing images that look alike", 0, len(pairs), unit="pairs")
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(pairs), CHUNK):
            of_pairs, at = rows[pairs[start : start + CHUNK]], zooms[start : start + CHUNK]
            alike, orientations = _alike(thumbnails, of_pairs, at)

            def match(
                pair: int, of_pairs: np.ndarray = of_pairs, at: np.ndarray = at, orientations: np.ndarray = orientations
            ) -> tuple[int, int, Match | None]:
                one, other = of_pairs[pair]
                turn = int(orientations[pair])
                return int(one), int(other), compare(thumbnails[one], thumbnails[other], turn, ZOOMS[at[pair]])

            for one, other, result in pool.map(match, np.flatnonzero(alike).tolist()):
                if result is not None:
                    found.append((one, other, result))
            advance(len(of_pairs))
    return found


def _neighbours(thumbnails: np.ndarray, rows: np.ndarray, events: Events) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of positions in `rows` whose descriptors are close, int64 (P, 2), each once, and the zoom of the first
    one at which they are closest, int64 (P,)."""
    from sklearn.neighbors import NearestNeighbors

    count = len(rows)
    advance = paced(events, "looking for images that look alike", 0, count)
    share_of_work = 1 / (1 + len(ZOOMS))
    described = []
    for start in range(0, count, CHUNK):
        chunk = rows[start : start + CHUNK]
        described.append(descriptors(thumbnails[chunk], 1.0))
        advance(len(chunk) * share_of_work)
    plain = np.concatenate(described)
    index = NearestNeighbors(n_neighbors=min(NEIGHBOURS + 1, count), algorithm="brute").fit(plain)
    parts = []
    for zoom, share in enumerate(ZOOMS):
        for start in range(0, count, CHUNK):
            chunk = rows[start : start + CHUNK]
            asked = plain[start : start + CHUNK] if share == 1.0 else descriptors(thumbnails[chunk], share)
            far, near = index.kneighbors(asked)
            at, column = np.nonzero(far <= RADIUS)
            one, other = at + start, near[at, column]
            apart = one != other
            values = (one, other, np.full(len(at), zoom), far[at, column])
            parts.append(np.stack([np.asarray(value, dtype=np.float64)[apart] for value in values], axis=1))
            advance(len(chunk) * share_of_work)
    every = np.concatenate(parts)
    low, high = every[:, :2].min(axis=1), every[:, :2].max(axis=1)
    every = every[np.lexsort((every[:, 0], every[:, 2], every[:, 3], high, low))]
    low, high = every[:, :2].min(axis=1), every[:, :2].max(axis=1)
    new = np.ones(len(every), dtype=bool)
    new[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    every = every[new]
    return every[:, :2].astype(np.int64), every[:, 2].astype(np.int64)


def descriptors(thumbnails: np.ndarray, zoom: float) -> np.ndarray:
    """Amounts of the low frequencies, float32 (N, D) of length 1, the same for all 8 flips and turns of an image and
    whatever its brightness and contrast. thumbnails: uint8 (N, 64, 64). zoom: 0.95 looks at the middle 95% only.

    Two windows before the Fourier transform make them forgive a shift, where those of a cosine transform don't: of
    cropped copies 1% had 6% of all other paintings closer to them without, 0.3% with.
    """
    side = 32
    small = _shrunk(thumbnails, side, zoom)
    at = np.sin(np.pi * (np.arange(side) + 0.5) / side).astype(np.float32)
    parts = []
    for edge in (at, at**2):
        window = edge[:, None] * edge[None]
        mean = (small * window).sum(axis=(1, 2), keepdims=True) / window.sum()
        amount = np.abs(np.fft.fft2((small - mean) * window))
        places = [(a, b) for a in range(FREQUENCIES + 1) for b in range(a, FREQUENCIES + 1)
                  if 0 < a * a + b * b <= FREQUENCIES**2]  # fmt: skip
        values = np.stack(
            [amount[:, a, b] + amount[:, -a, b] + amount[:, b, a] + amount[:, -b, a] for a, b in places], axis=1
        )
        values /= np.maximum(values.sum(axis=1, keepdims=True), 1e-6)
        parts.append(np.sqrt(values / 2))
    joined: np.ndarray = np.concatenate(parts, axis=1).astype(np.float32)
    return joined


def _shrunk(thumbnails: np.ndarray, side: int, zoom: float) -> np.ndarray:
    """The middle of thumbnails averaged to float32 (N, side, side)."""
    ends = np.linspace((1 - zoom) / 2 * SIDE, (1 + zoom) / 2 * SIDE, side + 1)
    pixel = np.arange(SIDE)
    share = np.clip(np.minimum(ends[1:, None], pixel + 1) - np.maximum(ends[:-1, None], pixel), 0, None)
    share = (share / share.sum(axis=1, keepdims=True)).astype(np.float32)
    small: np.ndarray = share @ thumbnails.astype(np.float32) @ share.T
    return small


def _alike(thumbnails: np.ndarray, pairs: np.ndarray, zooms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs of rows look alike in some orientation, bool (P,), and the orientation of the first one, (P,)."""
    one = np.empty((len(pairs), COARSE, COARSE), dtype=np.float32)
    for zoom, share in enumerate(ZOOMS):
        one[zooms == zoom] = _shrunk(thumbnails[pairs[zooms == zoom, 0]], COARSE, share)
    flat = _normal(_shrunk(thumbnails[pairs[:, 1]], COARSE, 1.0))
    one = _normal(one).reshape(one.shape)
    likeness = np.stack([np.einsum("nd,nd->n", turned(one, turn).reshape(len(pairs), -1), flat) for turn in range(8)])
    return likeness.max(axis=0) >= COARSELY_ALIKE, likeness.argmax(axis=0)


def _normal(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    normal: np.ndarray = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return normal
