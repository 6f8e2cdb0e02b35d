"""Decoders: from scores to concept sets. Separate from the head, and fitted on scores the head did not train on."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from cache.errors import UserError
from eval.editions import MAX_CONCEPTS
from heads import CALIBRATIONS, DECODERS
from heads.calibration import Calibration, Scores

Counts = NDArray[np.int64] | None
Groups = NDArray[Any] | None

ROWS = 2048
"""Images that are decoded at a time: what is sorted stays small."""

EMPTY = "empty"
"""What lets a decoder name no concept at all: ``global,empty``."""

EXCLUSIVE = "exclusive"
"""What keeps it from naming concepts together that exclude each other: ``global,exclusive``."""


class Decoder(BaseEstimator, ABC):
    """Base of all decoders: at least one concept an image, at most as many as the task allows.

    An image without concepts scores 0, so where nothing would be named the most probable concept is. Where more than
    100 would be, the most probable 100 are.

    Parameters
    ----------
    may_be_empty : bool
        Whether an image may be given no concept.
    """

    tuned = False
    """Whether `fit` looks at the labels."""

    def __init__(self, may_be_empty: bool = False) -> None:
        self.may_be_empty = may_be_empty

    @abstractmethod
    def fit(self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts = None, groups: Groups = None) -> Self:
        """Fit to scores and labels.

        Parameters
        ----------
        scores : ndarray of float32, shape (n_images, n_concepts)
            Of images that the head did not learn from.
        Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
        n_true : ndarray of int, shape (n_images,), optional
            How many concepts each image truly has, those without a column included: the official score counts
            them. The row sums of Y if not given.
        groups : ndarray, shape (n_images,), optional
            What a decoder that is cross-validated holds out together.
        """

    def predict(self, scores: Scores) -> scipy.sparse.csr_matrix:
        """Indicator of the concepts that each image is given, shape (n_images, n_concepts)."""
        parts = [self._name(scores[start : start + ROWS]) for start in range(0, len(scores), ROWS)]
        return (
            scipy.sparse.vstack(parts, format="csr") if parts else scipy.sparse.csr_matrix(scores.shape, dtype=np.int8)
        )

    def _name(self, scores: Scores) -> scipy.sparse.csr_matrix:
        named = self._choose(scores)
        if not self.may_be_empty:
            none = np.flatnonzero(~named.any(axis=1))
            named[none, scores[none].argmax(axis=1)] = True
        for row in np.flatnonzero(named.sum(axis=1) > MAX_CONCEPTS):
            columns = np.flatnonzero(named[row])
            named[row, columns[np.argsort(-scores[row, columns], kind="stable")[MAX_CONCEPTS:]]] = False
        return scipy.sparse.csr_matrix(named, dtype=np.int8)

    @abstractmethod
    def _choose(self, scores: Scores) -> NDArray[np.bool_]:
        """Which concepts are named, before none and too many are seen to."""

    def report(self) -> dict[str, Any]:
        """What `fit` has to tell, as JSON holds it: what was gained on images that were held out."""
        return {}

    @abstractmethod
    def get_state(self) -> dict[str, Any]:
        """What was fitted, as JSON holds it."""

    @abstractmethod
    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Take back what `get_state` gave; what is missing or odd is a KeyError, TypeError or ValueError."""


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
    for start in range(0, len(scores), ROWS):
        part = slice(start, start + ROWS)
        columns = most_probable(scores[part], n_ranked)
        ranked[part] = np.take_along_axis(scores[part], columns, axis=1)
        hits[part] = np.take_along_axis(np.asarray(Y[part].todense(), dtype=bool), columns, axis=1)
    return ranked, hits, np.diff(Y.indptr).astype(np.int64) if n_true is None else n_true


class Calibrated(Decoder):
    """A decoder of calibrated scores; both are fitted to the same scores.

    Parameters
    ----------
    calibration : Calibration
    decoder : Decoder
    """

    tuned = True

    def __init__(self, calibration: Calibration, decoder: Decoder) -> None:
        super().__init__(decoder.may_be_empty)
        self.calibration = calibration
        self.decoder = decoder

    def fit(self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts = None, groups: Groups = None) -> Self:
        """Fit the calibration, then the decoder to what it makes of the scores."""
        self.decoder.fit(self.calibration.fit(scores, Y).transform(scores), Y, n_true, groups)
        return self

    def predict(self, scores: Scores) -> scipy.sparse.csr_matrix:
        """Indicator of the concepts that each image is given, shape (n_images, n_concepts)."""
        return self.decoder.predict(self.calibration.transform(scores))

    def _choose(self, scores: Scores) -> NDArray[np.bool_]:
        return self.decoder._choose(self.calibration.transform(scores))

    def report(self) -> dict[str, Any]:
        """What the decoder tells."""
        return self.decoder.report()

    def get_state(self) -> dict[str, Any]:
        """What was fitted."""
        return {"calibration": self.calibration.get_state(), "decoder": self.decoder.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Take it back."""
        self.calibration.set_state(state["calibration"])
        self.decoder.set_state(state["decoder"])
        return self


def make_decoder(text: str) -> Decoder:
    """Make a decoder from ``NAME`` or ``NAME:VALUE``, with ``,empty`` or ``,exclusive``; before it ``CALIBRATION+``.

    Such as ``fixed:0.3`` or ``platt+expected-f1,exclusive``.

    Raises
    ------
    UserError
        A name is unknown (the known ones are listed), or a value is not for it.
    """
    before, plus, rest = text.rpartition("+")
    if plus:
        if before not in CALIBRATIONS:
            raise UserError(
                f"no calibration '{before}'; there are {', '.join(CALIBRATIONS)}, such as platt+expected-f1"
            )
        return Calibrated(resolve_name(CALIBRATIONS[before])(), make_decoder(rest))
    asked, *options = text.split(",")
    name, colon, value = asked.partition(":")
    if name not in DECODERS:
        raise UserError(f"no decoder '{name}'; there are {', '.join(DECODERS)}, such as fixed:0.3")
    if len(set(options) & {EMPTY, EXCLUSIVE}) < len(options):
        raise UserError(f"decoder '{text}': expected nothing, '{EMPTY}' or '{EXCLUSIVE}' after the comma, each once, "
                        f"such as {name},{EMPTY}")  # fmt: skip
    params: dict[str, Any] = {"may_be_empty": True} if EMPTY in options else {}
    if colon:
        params |= _parse_value(text, name, value)
    kind: Any = resolve_name(DECODERS[name])
    made: Decoder = kind(**params)
    return resolve_name("heads.exclusions:Exclusive")(made) if EXCLUSIVE in options else made


def _parse_value(text: str, name: str, value: str) -> dict[str, Any]:
    if name == "fixed":
        try:
            threshold = float(value)
        except ValueError:
            threshold = -1.0
        if not 0 <= threshold <= 1:
            raise UserError(f"decoder '{text}': expected a threshold from 0 to 1, such as fixed:0.3")
        return {"threshold": threshold}
    if name == "top-k":
        if not value.isdecimal() or not 1 <= int(value) <= MAX_CONCEPTS:
            raise UserError(f"decoder '{text}': expected a number from 1 to {MAX_CONCEPTS}, such as top-k:3")
        return {"k": int(value)}
    raise UserError(f"decoder '{name}' takes no value, found '{value}'")
