"""The official scores: for each image that counts its F1, and their mean.

From concept sets as files give them, or from indicator arrays; both end in the same few counts an image.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.support.errors import UserError
from cache.support.messages import quote
from eval.editions import Edition
from eval.evaluator_files import ConceptSets

ImageF1 = NDArray[np.float64]
"""F1 of each image that a score counts, shape (n_images,); the score is their mean."""


def mean_f1(f1: ImageF1) -> float:
    """The mean over images, exact to the last bit in whatever order they stand."""
    return math.fsum(f1) / len(f1)


def primary_f1(truth: ConceptSets, predicted: ConceptSets) -> ImageF1:
    """F1 of each image of the truth, in its order, as the primary score of every edition counts it.

    Parameters
    ----------
    truth, predicted : ConceptSets
        Of the same images. The empty string is a concept; a set without it may be empty.
    """
    return _set_f1((concepts, predicted[id]) for id, concepts in truth.items())


def secondary_f1(manual: ConceptSets, predicted: ConceptSets, edition: Edition) -> ImageF1:
    """F1 of each image that the secondary score counts, in the manual truth's order.

    Both sides are cut to the edition's allow-list. An image whose cut truth is empty is left out; one that only the
    manual truth has stays, as 0.

    Raises
    ------
    UserError
        The manual truth lacks a predicted image, or no image is left to score.
    """
    allowed = edition.allowed
    if allowed is None:
        return np.zeros(len(predicted))
    lacking = next((id for id in predicted if id not in manual), None)
    if lacking is not None:
        raise UserError(
            f"image {quote(lacking)} is not in the manual truth; add its row, as for every image of the truth"
        )
    nothing: frozenset[str] = frozenset()
    f1 = _set_f1(
        (concepts & allowed, predicted.get(id, nothing) & allowed)
        for id, concepts in manual.items()
        if id not in predicted or not allowed.isdisjoint(concepts)
    )
    if not len(f1):
        raise UserError(
            f"no image of the manual truth has a concept that the secondary score of {edition.year} counts; "
            "name the manual truth, with modalities and regions in it"
        )
    return f1


def image_f1(Y_true: Any, Y_pred: Any, n_true: NDArray[np.integer[Any]] | None = None) -> ImageF1:
    """F1 of each image, from indicators, as the evaluator gives it for the file they would be written to.

    Parameters
    ----------
    Y_true, Y_pred : sparse matrix or array of {0, 1}, shape (n_images, n_concepts)
        True and predicted concepts. Sparse matrices and arrays of bool are the fastest.
    n_true : array of int, shape (n_images,), optional
        How many concepts each image truly has, where some of them have no column: those count as missed.

    Returns
    -------
    ndarray of float64, shape (n_images,)
        An image with no concept on either side scores 1, as an empty cell does.

    Raises
    ------
    ValueError
        The shapes differ.

    Examples
    --------
    >>> image_f1([[1, 1, 0], [0, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 0], [1, 0, 0]])
    array([0.66666667, 1.        , 0.        ])
    """
    true, predicted = _sparse(Y_true), _sparse(Y_pred)
    if true.shape != predicted.shape:
        raise ValueError(f"Y_true has shape {true.shape} and Y_pred {predicted.shape}, expected the same")
    hits = np.asarray(true.multiply(predicted).sum(axis=1, dtype=np.int64)).ravel()
    counts = np.diff(true.indptr) if n_true is None else np.asarray(n_true)
    if counts.shape != hits.shape:
        raise ValueError(f"n_true has shape {counts.shape}, expected {hits.shape}")
    return _count_f1(hits, counts.astype(np.int64) + np.diff(predicted.indptr), both_empty=1.0)


def _set_f1(pairs: Iterable[tuple[frozenset[str], frozenset[str]]]) -> ImageF1:
    counts = [(len(truth & predicted), len(truth) + len(predicted)) for truth, predicted in pairs]
    hits, sizes = np.array(counts, dtype=np.int64).reshape(-1, 2).T
    return _count_f1(hits, sizes, both_empty=0.0)


def _count_f1(hits: NDArray[np.int64], sizes: NDArray[np.int64], both_empty: float) -> ImageF1:
    """2 |G ∩ P| / (|G| + |P|)."""
    return np.divide(2 * hits, sizes, out=np.full(len(hits), both_empty), where=sizes > 0)


def _sparse(Y: Any) -> scipy.sparse.csr_matrix:
    """Indicators as a CSR matrix of ones, without copying one that is so already."""
    if not scipy.sparse.issparse(Y):
        Y = np.atleast_2d(Y)
        # Three times as fast as SciPy's own conversion, where most are zero; NumPy is fast at truth values alone.
        flat = np.flatnonzero(Y if Y.dtype == bool else Y != 0)
        rows, columns = np.divmod(flat, max(Y.shape[1], 1))
        starts = np.searchsorted(rows, np.arange(len(Y) + 1))
        return scipy.sparse.csr_matrix((np.ones(len(flat), np.int8), columns, starts), shape=Y.shape)
    matrix = scipy.sparse.csr_matrix(Y)
    if not (matrix.has_canonical_format and (matrix.data == 1).all()):
        matrix = matrix.copy()
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        matrix.data = np.ones_like(matrix.data)
    return matrix
