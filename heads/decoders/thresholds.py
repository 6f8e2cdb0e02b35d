"""Decoders with thresholds: one that was asked for, one that is tuned, or one a concept."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.utils import check_scalar

from cache.support.errors import ParameterError
from heads.data.folds import count_folds, split_folds
from heads.data.types import Counts, Groups, Scores
from heads.decoders.base import Decoder
from heads.decoders.threshold_search import Candidates
from heads.decoders.top_k import rank

STRENGTHS = (0.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, np.inf)
"""How many images the global threshold counts for against a concept's own."""

MOST_PASSES = 6
"""Rounds over all concepts; two or three settle nearly all."""

LEAST_PART = 0.2
"""The least threshold of a concept, as a part of the global one: what scores less is not looked at."""


class Threshold(Decoder):
    """Names each concept whose score is at least the threshold.

    Attributes
    ----------
    threshold_ : float or ndarray of float32, shape (n_concepts,)
    """

    threshold_: Any

    def _choose(self, scores: Scores) -> NDArray[np.bool_]:
        named: NDArray[np.bool_] = scores >= self.threshold_
        return named

    def get_state(self) -> dict[str, Any]:
        """What was fitted."""
        return {"threshold": np.asarray(self.threshold_).tolist()}

    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Take it back."""
        threshold = np.array(state["threshold"], dtype=np.float64)
        if threshold.ndim > 1 or np.isnan(threshold).any():
            raise ValueError(f"a threshold of shape {threshold.shape}")
        self.threshold_ = threshold if threshold.ndim else float(threshold)
        return self


class FixedThreshold(Threshold):
    """The threshold that was asked for; 0.3 and 0.5 are the paper's.

    Parameters
    ----------
    threshold : float
    may_be_empty : bool
        Whether an image may be given no concept.
    """

    def __init__(self, threshold: float = 0.3, may_be_empty: bool = False) -> None:
        self.threshold = threshold
        self.may_be_empty = may_be_empty

    @classmethod
    def parse(cls, value: str) -> dict[str, Any]:
        """Read a threshold.

        >>> FixedThreshold.parse("0.3")
        {'threshold': 0.3}
        """
        try:
            threshold = float(value)
        except ValueError:
            threshold = -1.0
        if not 0 <= threshold <= 1:
            raise ParameterError("expected a threshold from 0 to 1, such as fixed:0.3")
        return {"threshold": threshold}

    def fit(self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts = None, groups: Groups = None) -> Self:
        """Take the threshold as it is."""
        check_scalar(self.threshold, "threshold", (int, float), min_val=0, max_val=1)
        self.threshold_ = float(self.threshold)
        return self


class GlobalThreshold(Threshold):
    """The one threshold of greatest mean F1 an image, out of all that tell two scores apart.

    Parameters
    ----------
    may_be_empty : bool
        Whether an image may be given no concept.

    Examples
    --------
    >>> scores = np.array([[0.9, 0.4, 0.1], [0.2, 0.7, 0.6]], np.float32)
    >>> Y = scipy.sparse.csr_matrix([[1, 1, 0], [0, 1, 1]])
    >>> decoder = GlobalThreshold().fit(scores, Y)
    >>> decoder.predict(scores).toarray().tolist()
    [[1, 1, 0], [0, 1, 1]]
    """

    tuned = True

    def fit(self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts = None, groups: Groups = None) -> Self:
        """Sweep the threshold down over every distinct score."""
        self.threshold_ = sweep(*rank(scores, Y, n_true), self.may_be_empty)
        return self


def sweep(ranked: Scores, hits: NDArray[np.bool_], true: NDArray[np.int64], may_be_empty: bool) -> float:
    """The one threshold of greatest mean F1; the first three are what `heads.decoders.top_k.rank` gives."""
    f1 = 2 * hits.cumsum(axis=1) / (np.arange(1, hits.shape[1] + 1) + true[:, None])
    # What lowering the threshold past a score adds to its image's F1; the first concept may be named anyway.
    gains = np.diff(f1, axis=1, prepend=0 if may_be_empty else f1[:, :1])
    by_score = np.argsort(-ranked, axis=None, kind="stable")
    swept, total = ranked.ravel()[by_score], gains.ravel()[by_score].cumsum()
    last = np.append(np.flatnonzero(np.diff(swept)), len(swept) - 1)  # equal scores pass together
    best = last[total[last].argmax()]
    following = swept[best + 1] if best + 1 < len(swept) else 0.0
    # In the middle of the gap: the score itself would be missed by a rounding error.
    return float((np.float64(swept[best]) + np.float64(following)) / 2)


class ConceptThresholds(Threshold):
    """One threshold a concept, by coordinate ascent on the mean F1 an image.

    Each concept's threshold in turn is set to the best, the others held; a concept with few images is drawn towards the
    global threshold. How strongly, cross-validation over the images decides, so that no more is gained than holds on
    images that were held out. The ascent is that of the winner of 2025 (AUEB NLP Group, ImageCLEFmedical Caption).

    Parameters
    ----------
    may_be_empty : bool
        Whether an image may be given no concept.

    Attributes
    ----------
    threshold_ : ndarray of float64, shape (n_concepts,)
    strength_ : float
        How many images the global threshold counted for.
    held_out_f1_ : float or None
        Mean F1 on held-out folds at that strength.
    gain_ : float
        By how much that is above one threshold for all, on the same folds.
    """

    tuned = True

    def fit(self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts = None, groups: Groups = None) -> Self:
        """Climb on all images and on folds of them, and choose the strength on what was held out."""
        ranked, hits, true = rank(scores, Y, n_true)
        start = sweep(ranked, hits, true, self.may_be_empty)
        counts = np.asarray(Y.sum(axis=0)).ravel()
        self.threshold_, self.strength_, self.held_out_f1_, self.gain_ = np.full(Y.shape[1], start), np.inf, None, 0.0
        if count_folds(len(scores), groups) < 2:
            return self
        all_images = Candidates.of(scores, Y, n_true, LEAST_PART * start, self.may_be_empty)
        reached = np.zeros(len(STRENGTHS))
        for rest, held in split_folds(len(scores), groups):
            # Nothing of what is held out may show, so the global threshold is found anew too.
            common = sweep(ranked[rest], hits[rest], true[rest], self.may_be_empty)
            own, seen = climb(all_images.take(rest), common), np.asarray(Y[rest].sum(axis=0)).ravel()
            shrunk = [shrink(own, common, seen, strength) for strength in STRENGTHS]
            reached += [all_images.take(held).f1(thresholds).sum() for thresholds in shrunk]
        reached /= len(scores)
        best = len(STRENGTHS) - 1 - int(reached[::-1].argmax())  # the strongest of equals
        self.strength_, self.held_out_f1_ = STRENGTHS[best], float(reached[best])
        self.gain_ = float(reached[best] - reached[-1])
        if np.isfinite(self.strength_):
            self.threshold_ = shrink(climb(all_images, start), start, counts, self.strength_)
        return self

    def report(self) -> dict[str, Any]:
        """What is gained on held-out folds."""
        strength = self.strength_ if np.isfinite(self.strength_) else None
        return {"held_out_f1": self.held_out_f1_, "gain": self.gain_, "strength": strength}

    def get_state(self) -> dict[str, Any]:
        """What was fitted."""
        return super().get_state() | {"report": self.report()}

    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Take it back."""
        super().set_state(state)
        report = state["report"]
        self.held_out_f1_, self.gain_ = report["held_out_f1"], float(report["gain"])
        self.strength_ = np.inf if report["strength"] is None else float(report["strength"])
        return self


def climb(images: Candidates, start: float) -> NDArray[np.float64]:
    """Thresholds that no change of a single one betters, from the same one for all."""
    thresholds = np.full(images.n_concepts, start)
    state = images.state(thresholds)
    for _ in range(MOST_PASSES):
        changed = [images.improve(concept, thresholds, state) for concept in images.order]
        if not any(changed):
            break
    return thresholds


def shrink(own: NDArray[np.float64], start: float, counts: NDArray[Any], strength: float) -> NDArray[np.float64]:
    """Draw thresholds towards the global one, those of rare concepts the most."""
    if np.isinf(strength):
        return np.full_like(own, start)
    part = counts / np.maximum(counts + strength, 1e-9)
    shrunk: NDArray[np.float64] = start + part * (own - start)
    return shrunk
