"""Decoders: from scores to concept sets. Separate from the head, and fitted on scores the head did not train on."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from cache.support.errors import UserError
from eval.editions import MAX_CONCEPTS
from heads import CALIBRATIONS, DECODERS
from heads.decoders.calibration import Calibration, Scores

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
    return resolve_name("heads.decoders.exclusive:Exclusive")(made) if EXCLUSIVE in options else made


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
