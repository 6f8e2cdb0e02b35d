"""Identical and nearly identical images, those that stand in two splits first.

Identical images have the same bytes. Nearly identical ones have embeddings of a high cosine; which pairs these are
depends on the network: one that was not trained gives all images nearly the same direction.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.rows import OK, block_rows
from cache.store import FeatureStore

TILE_ROWS = 2048
"""Rows that are compared with as many others at a time: 16 MiB of cosines."""

MAX_PAIRS = 10_000
"""Most near pairs that are kept: who has more wants a higher cosine, not a longer list."""


@dataclass(frozen=True)
class Identical:
    """Images with the same bytes, as ``split/id``; a leak if they are in more than one split."""

    leak: bool
    images: list[str]


@dataclass(frozen=True, order=True)
class Near:
    """Two nearly identical images, as ``split/id``; a leak if they are in different splits."""

    leak: bool
    cosine: float
    images: tuple[str, str]


@dataclass(frozen=True)
class Duplicates:
    """What was found: leaks first, then the most alike.

    Parameters
    ----------
    identical : list of Identical
    near : list of Near
        At most `MAX_PAIRS`.
    n_near, n_near_leaks : int
        How many near pairs there are in all, and between splits.
    """

    identical: list[Identical]
    near: list[Near]
    n_near: int
    n_near_leaks: int


def find_duplicates(store: FeatureStore, cosine: float, progress: Callable[[int], None]) -> Duplicates:
    """Find identical and nearly identical images of a store.

    Memory is that of the embeddings once, and of two tiles of cosines.

    Parameters
    ----------
    store : FeatureStore
    cosine : float
        Least cosine of two embeddings that counts as nearly identical.
    progress : callable
        Told how many rows have been compared with all others.
    """
    images: dict[bytes, list[str]] = defaultdict(list)
    embeddings: dict[bytes, tuple[str, int]] = {}
    for name, split in store.splits.items():
        for row, digest in enumerate(split.rows.digests):
            key = digest.tobytes()
            if any(key):
                images[key].append(f"{name}/{split.ids[row]}")
                if split.rows.status[row] == OK:
                    embeddings.setdefault(key, (name, row))
    groups = [Identical(_is_leak(each), each) for each in images.values() if len(each) > 1]
    names = [images[key] for key in embeddings]
    near, n_near, n_leaks = _compare(_directions(store, list(embeddings.values())), names, cosine, progress)
    return Duplicates(sorted(groups, key=lambda each: (not each.leak, each.images)), near, n_near, n_leaks)


def _is_leak(images: list[str]) -> bool:
    return len({image.partition("/")[0] for image in images}) > 1


def _directions(store: FeatureStore, places: list[tuple[str, int]]) -> NDArray[np.float32]:
    """Embeddings of length 1, shape (n_images, n_features), maps averaged; rows stand in the store's order."""
    n_features = next(iter(store.splits.values())).embeddings.shape[-1]
    directions = np.empty((len(places), n_features), np.float32)
    start = 0
    for name, split in store.splits.items():
        rows = np.array([row for split_name, row in places if split_name == name], dtype=np.int64)
        step = block_rows(split.embeddings)
        for first in range(0, len(rows), step):
            # In float64: the squares of a random network's features can be too small for float32.
            block = split.embeddings[rows[first : first + step]].astype(np.float64)
            block = block.mean(axis=(1, 2)) if store.has_maps else block
            length = np.linalg.norm(block, axis=1, keepdims=True)
            directions[start : start + len(block)] = block / np.where(length > 0, length, 1)
            start += len(block)
    return directions


def _compare(
    directions: NDArray[np.float32], names: list[list[str]], cosine: float, progress: Callable[[int], None]
) -> tuple[list[Near], int, int]:
    """Compare every row with those after it; returns the best pairs and how many there are."""
    splits = np.unique([sorted({name.partition("/")[0] for name in each})[0] for each in names], return_inverse=True)[1]
    several = np.array([_is_leak(each) for each in names], dtype=bool)
    best: list[Near] = []
    n_near = n_leaks = 0
    for top in range(0, len(directions), TILE_ROWS):
        for left in range(top, len(directions), TILE_ROWS):
            cosines = directions[top : top + TILE_ROWS] @ directions[left : left + TILE_ROWS].T
            close = cosines >= cosine
            if top == left:
                close = np.triu(close, k=1)
            if not close.any():
                continue
            above, beside = slice(top, top + len(close)), slice(left, left + close.shape[1])
            leak = (splits[above, None] != splits[beside]) | several[above, None] | several[beside]
            leak &= close
            n_near, n_leaks = n_near + int(close.sum()), n_leaks + int(leak.sum())
            for is_leak, wanted in ((True, leak), (False, close & ~leak)):
                least = best[0] if len(best) == MAX_PAIRS else Near(False, -2.0, ("", ""))
                if (is_leak, 2.0) > (least.leak, least.cosine):
                    floor = least.cosine - 1e-6 if is_leak == least.leak else -2.0
                    for i, j, value in _greatest(cosines, wanted & (cosines >= floor)):
                        entry = Near(is_leak, round(value, 6), _choose(names[top + i], names[left + j]))
                        (heapq.heappush if len(best) < MAX_PAIRS else heapq.heappushpop)(best, entry)
        progress(min(top + TILE_ROWS, len(directions)))
    return sorted(best, reverse=True), n_near, n_leaks


def _greatest(cosines: NDArray[np.float32], wanted: NDArray[np.bool_]) -> list[tuple[int, int, float]]:
    """The places and values of the greatest wanted cosines, at most `MAX_PAIRS`."""
    places = np.flatnonzero(wanted)
    values = cosines.ravel()[places]
    if len(places) > MAX_PAIRS:
        chosen = np.argpartition(-values, MAX_PAIRS - 1)[:MAX_PAIRS]
        places, values = places[chosen], values[chosen]
    rows, columns = np.unravel_index(places, cosines.shape)
    return list(zip(rows.tolist(), columns.tolist(), values.tolist(), strict=True))


def _choose(a: list[str], b: list[str]) -> tuple[str, str]:
    """A name of each image, from different splits if there are such."""
    pairs = [(one, other) for one in a for other in b]
    return next((pair for pair in pairs if _is_leak(list(pair))), pairs[0])
