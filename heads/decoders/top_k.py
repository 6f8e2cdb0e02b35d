"""The decoder that predicts the same number of concepts for every image."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.support.errors import ParameterError
from cache.support.json_file import DamagedFileError, check_type
from eval.editions import MAX_CONCEPTS
from heads.data.types import Counts, Groups, Scores
from heads.decoders.base import Decoder
from heads.decoders.ranking import mark, most_probable, rank


class TopK(Decoder):
    """Predicts the `k` most probable concepts of every image.

    If `k` is not given, `fit` tries every number up to the task's limit. It takes the one with the greatest mean F1
    per image: with h(k) hits among an image's first k concepts and n true concepts, F1 is 2 h(k) / (k + n).

    Parameters
    ----------
    k : int, optional
        How many, from 1 to 100.
    may_be_empty : bool
        Has no effect.

    Attributes
    ----------
    k_ : int

    Examples
    --------
    >>> scores = np.array([[0.9, 0.4, 0.1], [0.2, 0.7, 0.6]], np.float32)
    >>> Y = scipy.sparse.csr_matrix([[1, 1, 0], [0, 1, 1]])
    >>> TopK().fit(scores, Y).predict(scores).toarray().tolist()
    [[1, 1, 0], [0, 1, 1]]
    """

    def __init__(self, k: int | None = None, may_be_empty: bool = False) -> None:
        super().__init__(may_be_empty)
        self.k = k

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
    def tuned(self) -> bool:
        """Whether `fit` learns from the labels."""
        return self.k is None

    def check_params(self) -> None:
        """Raise a ParameterError if `k` is not a whole number from 1 to 100."""
        super().check_params()
        if self.k is not None and not _is_size(self.k):
            raise ParameterError(f"k = {self.k!r}, expected a whole number from 1 to {MAX_CONCEPTS}, or None")

    def _fit(self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts, groups: Groups) -> None:
        if self.k is not None:
            self.k_ = int(self.k)
            return
        _, hits, true = rank(scores, Y, n_true)
        f1 = 2 * hits.cumsum(axis=1) / (np.arange(1, hits.shape[1] + 1) + true[:, None])
        self.k_ = int(f1.mean(axis=0).argmax()) + 1

    def _select(self, scores: Scores) -> NDArray[np.bool_]:
        return mark(most_probable(scores, self.k_), scores.shape[1])

    def get_state(self) -> dict[str, Any]:
        """The number."""
        return {"k": self.k_}

    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Restore what `get_state` returned."""
        k = check_type(state.get("k"), int)
        if not _is_size(k):
            raise DamagedFileError(f"k = {k}, expected a number from 1 to {MAX_CONCEPTS}")
        self.k_ = k
        return self


def _is_size(k: Any) -> bool:
    return isinstance(k, Integral) and not isinstance(k, bool) and 1 <= int(k) <= MAX_CONCEPTS
