"""Find identical and nearly identical images, those in two splits first.

Identical images have the same bytes. Nearly identical ones have embeddings with a high cosine. Which pairs these are
depends on the network: one that is not trained gives all images nearly the same direction, so there are none of it.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.rows import OK, row_blocks, row_slices
from cache.store import FeatureStore
from cache.support.errors import ParameterError

TILE_ROWS = 2048
"""Rows that are compared with as many others at a time: 16 MiB of cosines."""

MAX_PAIRS = 10_000
"""Most near pairs that are returned. Who finds more needs a higher cosine, not a longer list."""


UNTRAINED = (
    "nearly identical images are not listed: the network is random, not trained, so all images have nearly the same "
    "embedding; make a store with trained WEIGHTS to find them"
)
"""Why there are no near pairs of a random network."""


@dataclass(frozen=True)
class IdenticalImages:
    """Images with the same bytes, as ``split/id``; a leak if they are in more than one split."""

    leak: bool
    images: list[str]


@dataclass(frozen=True, order=True)
class NearPair:
    """Two nearly identical images, as ``split/id``; a leak if they are in different splits."""

    leak: bool
    cosine: float
    images: tuple[str, str]


@dataclass(frozen=True, repr=False)
class Duplicates:
    """What `find_duplicates` found.

    Parameters
    ----------
    identical : list of IdenticalImages
        Leaks first.
    near : list of NearPair
        Leaks first, then by falling cosine; at most `MAX_PAIRS`.
    n_near, n_near_leaks : int
        Number of all near pairs, and of those between splits.
    withheld : str
        Why near pairs were not looked for; empty if they were.
    """

    identical: list[IdenticalImages]
    near: list[NearPair]
    n_near: int
    n_near_leaks: int
    withheld: str = ""

    def __repr__(self) -> str:
        return (
            f"Duplicates({len(self.identical):,} groups of identical images, {self.n_near:,} near pairs, "
            f"{self.n_near_leaks:,} of them between splits)"
        )


def find_duplicates(
    store: FeatureStore, cosine: float = 0.995, progress: Callable[[int], None] | None = None
) -> Duplicates:
    """Find identical and nearly identical images of a store.

    All pairs of images are compared, so the time grows with the square of their number. Memory holds the embeddings
    once, in float32, and two tiles of cosines. In a store of a random network, only identical images are found.

    Parameters
    ----------
    store : FeatureStore
    cosine : float
        Smallest cosine of two embeddings that count as nearly identical; above 0, at most 1.
    progress : callable, optional
        Called with the number of rows that have been compared with all others.

    Returns
    -------
    Duplicates

    Raises
    ------
    ParameterError
        The cosine is not above 0 and at most 1.
    """
    if not 0 < cosine <= 1:
        raise ParameterError(f"cosine {cosine:g}: expected a number above 0, at most 1")
    images = _group_images(store)
    embeddings: dict[bytes, tuple[str, int]] = {}
    for name, split in store.splits.items():
        for row in np.flatnonzero(split.rows.status == OK):
            key = split.rows.digests[row].tobytes()
            if key in images:
                embeddings.setdefault(key, (name, int(row)))
    groups = group_identical(images)
    if store.record["weights_source"].startswith("random:"):
        return Duplicates(groups, [], 0, 0, UNTRAINED)
    names = [images[key] for key in embeddings]
    directions = _directions(store, list(embeddings.values()))
    near, n_near, n_leaks = _compare(directions, names, cosine, progress or (lambda n_rows: None))
    return Duplicates(groups, near, n_near, n_leaks)


def find_identical(store: FeatureStore) -> list[IdenticalImages]:
    """Find images with the same bytes, those in several splits first. No embedding is read, so it takes a moment.

    Parameters
    ----------
    store : FeatureStore
    """
    return group_identical(_group_images(store))


def _group_images(store: FeatureStore) -> dict[bytes, list[str]]:
    """The images of each digest, as ``split/id``. Those that could not be read at all have none."""
    images: dict[bytes, list[str]] = defaultdict(list)
    for name, split in store.splits.items():
        for id, digest in zip(split.ids, split.rows.digests, strict=True):
            if digest.any():
                images[digest.tobytes()].append(f"{name}/{id}")
    return images


def group_identical(images: Mapping[bytes, list[str]]) -> list[IdenticalImages]:
    """Group images with the same bytes, leaks first.

    Parameters
    ----------
    images : mapping of bytes to list of str
        The images with each digest, as ``split/id``.

    Examples
    --------
    >>> group_identical({b"1": ["train/a", "train/b"], b"2": ["train/c"], b"3": ["test/d", "train/e"]})[0]
    IdenticalImages(leak=True, images=['test/d', 'train/e'])
    """
    groups = [IdenticalImages(_is_leak(each), each) for each in images.values() if len(each) > 1]
    return sorted(groups, key=lambda each: (not each.leak, each.images))


def _is_leak(images: list[str]) -> bool:
    return len({image.partition("/")[0] for image in images}) > 1


def _directions(store: FeatureStore, places: list[tuple[str, int]]) -> NDArray[np.float32]:
    """Embeddings of length 1, shape (n_images, n_features), maps averaged; the rows are in the store's order."""
    n_features = next(iter(store.splits.values())).embeddings.shape[-1]
    directions = np.empty((len(places), n_features), np.float32)
    start = 0
    for name, split in store.splits.items():
        rows = np.array([row for split_name, row in places if split_name == name], dtype=np.int64)
        for part in row_blocks(split.embeddings, len(rows)):
            # In float64: the squares of a random network's features can be too small for float32.
            block = split.embeddings[rows[part]].astype(np.float64)
            block = block.mean(axis=(1, 2)) if store.has_maps else block
            length = np.linalg.norm(block, axis=1, keepdims=True)
            directions[start : start + len(block)] = block / np.where(length > 0, length, 1)
            start += len(block)
    return directions


def _compare(
    directions: NDArray[np.float32], names: list[list[str]], cosine: float, progress: Callable[[int], None]
) -> tuple[list[NearPair], int, int]:
    """Compare every row with those after it; returns the best pairs, the number of pairs, and of leaks among them.

    Tiles of cosines are computed one after the other. `best` is a heap with the worst of the best pairs on top.
    """
    splits = np.unique([sorted({name.partition("/")[0] for name in each})[0] for each in names], return_inverse=True)[1]
    several = np.array([_is_leak(each) for each in names], dtype=bool)
    best: list[NearPair] = []
    n_near = n_leaks = 0
    for rows in row_slices(len(directions), TILE_ROWS):
        for columns in row_slices(len(directions), TILE_ROWS):
            if columns.start < rows.start:
                continue  # the same pairs as those of the tile opposite
            cosines = directions[rows] @ directions[columns].T
            close = cosines >= cosine
            if rows == columns:
                close = np.triu(close, k=1)
            if not close.any():
                continue
            leak = (splits[rows, None] != splits[columns]) | several[rows, None] | several[columns]
            leak &= close
            n_near, n_leaks = n_near + int(close.sum()), n_leaks + int(leak.sum())
            for is_leak, candidates in ((True, leak), (False, close & ~leak)):
                worst = best[0] if len(best) == MAX_PAIRS else NearPair(False, -2.0, ("", ""))
                if (is_leak, 2.0) > (worst.leak, worst.cosine):
                    floor = worst.cosine - 1e-6 if is_leak == worst.leak else -2.0
                    for i, j, value in _greatest(cosines, candidates & (cosines >= floor)):
                        images = _choose_names(names[rows.start + i], names[columns.start + j])
                        pair = NearPair(is_leak, round(value, 6), images)
                        (heapq.heappush if len(best) < MAX_PAIRS else heapq.heappushpop)(best, pair)
        progress(rows.stop)
    return sorted(best, reverse=True), n_near, n_leaks


# The greatest of a whole tile, not of each row as `heads` needs it; and `cache` may not import `heads`.
def _greatest(cosines: NDArray[np.float32], candidates: NDArray[np.bool_]) -> list[tuple[int, int, float]]:
    """Rows, columns and values of the greatest candidates, at most `MAX_PAIRS`."""
    places = np.flatnonzero(candidates)
    values = cosines.ravel()[places]
    if len(places) > MAX_PAIRS:
        chosen = np.argpartition(-values, MAX_PAIRS - 1)[:MAX_PAIRS]
        places, values = places[chosen], values[chosen]
    rows, columns = np.unravel_index(places, cosines.shape)
    return list(zip(rows.tolist(), columns.tolist(), values.tolist(), strict=True))


def _choose_names(a: list[str], b: list[str]) -> tuple[str, str]:
    """A name of each image, from different splits if possible."""
    pairs = [(one, other) for one in a for other in b]
    return next((pair for pair in pairs if _is_leak(list(pair))), pairs[0])
