"""Consistency: concepts that exclude each other, such as two modalities, are not named together."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.base import clone

from eval.f1 import image_f1
from heads.data.folds import count_folds, split_folds
from heads.decoders.base import Counts, Decoder, Groups
from heads.decoders.calibration import Scores

LEAST_EXPECTED = 10.0
"""Images that would show both concepts of a pair, were they independent: fewer than that say nothing."""

MOST_SHOWN = 0.05
"""The most that do, as a part of these; not none, because labels err."""

Pairs = NDArray[np.int64]


class Exclusive(Decoder):
    """A decoder of whose concepts the less probable ones go that exclude a more probable one.

    Which pairs exclude each other is learnt from the labels: those that hardly any image shows together, though many
    would if the two were independent. Naming both may still pay, where either is likely: so the pairs are kept only if
    mean F1 on held-out folds gains, by more than its standard error; the decoder is left as it is otherwise.

    Parameters
    ----------
    decoder : Decoder

    Attributes
    ----------
    pairs_ : ndarray of int, shape (n_pairs, 2)
        Columns; none if nothing is gained.
    n_found_ : int
        Pairs that were learnt.
    gain_ : float
        What they add to mean F1 on held-out folds.
    """

    tuned = True

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder.may_be_empty)
        self.decoder = decoder

    def fit(self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts = None, groups: Groups = None) -> Self:
        """Fit the decoder, learn the pairs, and see on folds whether they help."""
        self.decoder.fit(scores, Y, n_true, groups)
        self.pairs_, self.gain_ = find_pairs(Y), 0.0
        self.n_found_ = len(self.pairs_)
        gains = np.zeros(1)
        if self.n_found_ and count_folds(len(scores), groups) > 1:
            gains = self._cross_validate(scores, Y, n_true, groups)
        self.gain_ = float(gains.mean())
        if self.gain_ <= gains.std() / np.sqrt(len(gains)):
            self.pairs_ = self.pairs_[:0]
        return self

    def _cross_validate(
        self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts, groups: Groups
    ) -> NDArray[np.float64]:
        """What the pairs add to the F1 of each image, where pairs and decoder are learnt from the other folds."""
        gains = np.empty(len(scores))
        for rest, held in split_folds(len(scores), groups):
            true, kept_together = (None if each is None else each[rest] for each in (n_true, groups))
            named = clone(self.decoder).fit(scores[rest], Y[rest], true, kept_together).predict(scores[held])
            fewer = take_out(named, scores[held], find_pairs(Y[rest]))
            truth = Y[held], None if n_true is None else n_true[held]
            gains[held] = image_f1(truth[0], fewer, truth[1]) - image_f1(truth[0], named, truth[1])
        return gains

    def predict(self, scores: Scores) -> scipy.sparse.csr_matrix:
        """Indicator of the concepts that each image is given, shape (n_images, n_concepts)."""
        return take_out(self.decoder.predict(scores), scores, self.pairs_)

    def _choose(self, scores: Scores) -> NDArray[np.bool_]:
        return np.asarray(self.predict(scores).toarray(), dtype=bool)

    def report(self) -> dict[str, Any]:
        """Whether the pairs are kept, and what they gain."""
        exclusive = {"pairs": self.n_found_, "gain": self.gain_, "kept": bool(len(self.pairs_))}
        return self.decoder.report() | {"exclusive": exclusive}

    def get_state(self) -> dict[str, Any]:
        """What was fitted."""
        learnt = {"pairs": self.pairs_.tolist(), "n_found": self.n_found_, "gain": self.gain_}
        return {"exclusive": learnt, "decoder": self.decoder.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Take it back."""
        learnt = state["exclusive"]
        self.pairs_ = np.array(learnt["pairs"], dtype=np.int64).reshape(-1, 2)
        self.n_found_, self.gain_ = int(learnt["n_found"]), float(learnt["gain"])
        self.decoder.set_state(state["decoder"])
        return self


def find_pairs(Y: scipy.sparse.csr_matrix) -> Pairs:
    """Pairs of concepts that hardly any image shows together, though many would by chance, shape (n_pairs, 2).

    Examples
    --------
    >>> Y = scipy.sparse.csr_matrix([[1, 0, 1]] * 30 + [[0, 1, 1]] * 30)
    >>> find_pairs(Y).tolist()
    [[0, 1]]
    """
    n_images = Y.shape[0]
    counts = np.asarray(Y.sum(axis=0, dtype=np.float64)).ravel()
    # A concept that shares LEAST_EXPECTED with the most frequent one at best need not be looked at.
    frequent = np.flatnonzero(counts * counts.max(initial=0) >= LEAST_EXPECTED * n_images)
    part = scipy.sparse.csc_matrix(Y, dtype=np.float64)[:, frequent]
    together = (part.T @ part).toarray()
    expected = np.outer(counts[frequent], counts[frequent]) / max(1, n_images)
    apart = (expected >= LEAST_EXPECTED) & (together <= MOST_SHOWN * expected)
    return frequent[np.argwhere(np.triu(apart, 1))].reshape(-1, 2)


def take_out(named: scipy.sparse.csr_matrix, scores: Scores, pairs: Pairs) -> scipy.sparse.csr_matrix:
    """Let each image keep, from its most probable concept down, what no kept one excludes."""
    if not len(pairs):
        return named
    left, right = pairs.T
    n_concepts = named.shape[1]
    excludes = scipy.sparse.csr_matrix((np.ones(len(pairs), np.int32), (left, right)), shape=(n_concepts, n_concepts))
    excludes = excludes + excludes.T
    clashes = (named.astype(np.int32) @ excludes).multiply(named).tocsr()
    gone: list[tuple[Any, Any]] = []
    for row in np.flatnonzero(np.diff(clashes.indptr)):
        columns = clashes.indices[clashes.indptr[row] : clashes.indptr[row + 1]]
        falling = columns[np.argsort(-scores[row, columns], kind="stable")]
        clash = excludes[falling][:, falling].toarray() > 0
        kept: list[int] = []
        for place in range(len(falling)):
            if clash[place, kept].any():
                gone.append((row, falling[place]))
            else:
                kept.append(place)
    rows, columns = np.array(gone, dtype=np.int64).reshape(-1, 2).T
    fewer = named - scipy.sparse.csr_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=named.shape)
    fewer.eliminate_zeros()
    return fewer
