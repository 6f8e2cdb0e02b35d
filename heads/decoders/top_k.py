"""The most probable concepts of each image, and the decoder that names as many for every one."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import scipy.sparse
from joblib import cpu_count
from numpy.typing import NDArray

from cache.support.errors import ParameterError
from eval.editions import MAX_CONCEPTS
from heads.data.types import Counts, Groups, Scores
from heads.decoders.base import ROWS, Decoder


class TopK(Decoder):
    """The most probable concepts, as many for every image.

    Parameters
    ----------
    k : int, optional
        How many; the number of greatest mean F1 if not given.
    may_be_empty : bool
        Without effect.

    Attributes
    ----------
    k_ : int
    """

    def __init__(self, k: int | None = None, may_be_empty: bool = False) -> None:
        self.k = k
        self.may_be_empty = may_be_empty

    @classmethod
    def parse(cls, value: str) -> dict[str, Any]:
        """Read a number of concepts.

        >>> TopK.parse("3")
        {'k': 3}
        """
        if not value.isdecimal() or not 1 <= int(value) <= MAX_CONCEPTS:
            raise ParameterError(f"expected a number from 1 to {MAX_CONCEPTS}, such as top-k:3")
        return {"k": int(value)}

    @property
    def tuned(self) -> bool:  # type: ignore[override]
        """Whether `fit` looks at the labels."""
        return self.k is None

    def fit(self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts = None, groups: Groups = None) -> Self:
        """Find the best number."""
        if self.k is not None:
            self.k_ = self.k
            return self
        _, hits, true = rank(scores, Y, n_true)
        f1 = 2 * hits.cumsum(axis=1) / (np.arange(1, hits.shape[1] + 1) + true[:, None])
        self.k_ = int(f1.mean(axis=0).argmax()) + 1
        return self

    def _choose(self, scores: Scores) -> NDArray[np.bool_]:
        named = np.zeros(scores.shape, bool)
        np.put_along_axis(named, most_probable(scores, self.k_), True, axis=1)
        return named

    def get_state(self) -> dict[str, Any]:
        """What was fitted."""
        return {"k": self.k_}

    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Take it back."""
        self.k_ = int(state["k"])
        return self


def most_probable(scores: Scores, most: int) -> NDArray[np.int64]:
    """Columns of the greatest scores of each row, in falling order, shape (n_images, at most `most`).

    Examples
    --------
    >>> most_probable(np.array([[0.1, 0.7, 0.7, 0.3]], np.float32), 3).tolist()
    [[1, 2, 3]]
    """
    if scores.shape[1] <= most:
        order: NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")
        return order
    # Sorted by column before they are sorted by score, so that equal scores keep their order.
    columns = np.sort(np.argpartition(-scores, most - 1, axis=1)[:, :most], axis=1)
    order = np.argsort(-np.take_along_axis(scores, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def rank(
    scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts
) -> tuple[Scores, NDArray[np.bool_], NDArray[np.int64]]:
    """The most probable concepts of each image, as many as the task allows.

    Returns
    -------
    ranked : ndarray of float32, shape (n_images, n_ranked)
        Their scores, falling.
    hits : ndarray of bool, shape (n_images, n_ranked)
        Whether the image shows them.
    true : ndarray of int, shape (n_images,)
        How many concepts each image truly has.
    """
    n_ranked = min(MAX_CONCEPTS, scores.shape[1])
    ranked, hits = np.empty((len(scores), n_ranked), np.float32), np.empty((len(scores), n_ranked), bool)

    def look(start: int) -> None:
        part = slice(start, start + ROWS)
        columns = most_probable(scores[part], n_ranked)
        ranked[part] = np.take_along_axis(scores[part], columns, axis=1)
        hits[part] = np.take_along_axis(np.asarray(Y[part].todense(), dtype=bool), columns, axis=1)

    with ThreadPoolExecutor(cpu_count()) as pool:  # NumPy lets go of Python while it sorts
        list(pool.map(look, range(0, len(scores), ROWS)))
    return ranked, hits, np.diff(Y.indptr).astype(np.int64) if n_true is None else n_true
