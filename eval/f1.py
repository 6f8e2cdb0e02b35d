"""The official scores: the F1 of each image that counts, and their mean.

They are computed from concept sets, as files give them, or from indicator arrays. For G true and P predicted concepts
of an image, F1 = 2 |G ∩ P| / (|G| + |P|).
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.support.errors import DataError
from cache.support.messages import quote
from eval.editions import LATEST, Edition, find_edition
from eval.evaluator_files import ConceptSets

ImageF1 = NDArray[np.float64]
"""F1 per image, shape (n_images,), of the images that a score counts. The score is their mean."""


def mean_f1(f1: ImageF1) -> float:
    """Compute a score: the mean of F1 over images.

    The sum is exact (`math.fsum`), so the mean does not depend on the order of the images.

    Parameters
    ----------
    f1 : ndarray of float64, shape (n_images,)
        At least one image.

    Examples
    --------
    >>> mean_f1(np.array([0.5, 1.0]))
    0.75
    """
    return math.fsum(f1) / len(f1)


def primary_f1(truth: ConceptSets, predicted: ConceptSets) -> ImageF1:
    """F1 per image of the truth, in its order, as the primary score of every edition counts it.

    Parameters
    ----------
    truth, predicted : mapping of str to frozenset of str
        Concepts of each image id. Every image of the truth must have a prediction, if only an empty one. The empty
        string counts as a concept, as it does for the evaluator.

    Returns
    -------
    ndarray of float64, shape (n_images,)

    Examples
    --------
    >>> truth = {"a1": frozenset({"C1", "C2"}), "a2": frozenset({"C3"})}
    >>> predicted = {"a1": frozenset({"C1"}), "a2": frozenset({"C3"})}
    >>> primary_f1(truth, predicted)
    array([0.66666667, 1.        ])
    """
    return _set_f1((concepts, predicted[id]) for id, concepts in truth.items())


def secondary_f1(manual: ConceptSets, predicted: ConceptSets, edition: int | Edition = LATEST) -> ImageF1:
    """F1 per image that the secondary score counts, in the order of the manual truth.

    Both sides are limited to the concepts that the edition allows: modalities and body regions. An image whose limited
    truth is empty is left out. An image without a prediction scores 0.

    Parameters
    ----------
    manual, predicted : mapping of str to frozenset of str
        Concepts of each image id.
    edition : int or Edition
        A year, or its rules.

    Returns
    -------
    ndarray of float64, shape (n_counted,)
        Zeros for 2022, which has no secondary score.

    Raises
    ------
    DataError
        The manual truth lacks a predicted image, or no image is left to score.
    ParameterError
        There was no such edition.

    Examples
    --------
    >>> manual = {"a1": frozenset({"C0040405", "C1"}), "a2": frozenset({"C2"})}
    >>> predicted = {"a1": frozenset({"C0040405", "C9"}), "a2": frozenset({"C0040405"})}
    >>> secondary_f1(manual, predicted)
    array([1.])
    """
    edition = find_edition(edition)
    allowed = edition.allowed
    if allowed is None:
        return np.zeros(len(predicted))
    lacking = next((id for id in predicted if id not in manual), None)
    if lacking is not None:
        raise DataError(
            f"image {quote(lacking)} is not in the manual truth, expected every image of the truth; add its row"
        )
    nothing: frozenset[str] = frozenset()
    f1 = _set_f1(
        (concepts & allowed, predicted.get(id, nothing) & allowed)
        for id, concepts in manual.items()
        if id not in predicted or not allowed.isdisjoint(concepts)
    )
    if not len(f1):
        raise DataError(
            f"no image of the manual truth has a concept that the secondary score of {edition.year} counts; "
            "give the manual truth, which has modalities and regions"
        )
    return f1


def image_f1(Y_true: Any, Y_pred: Any, n_true: NDArray[np.integer[Any]] | None = None) -> ImageF1:
    """F1 per image from indicators. It equals the evaluator's for the file that they would be written to.

    Parameters
    ----------
    Y_true, Y_pred : sparse matrix or array of {0, 1}, shape (n_images, n_concepts)
        True and predicted concepts. Sparse matrices and arrays of bool are the fastest.
    n_true : array of int, shape (n_images,), optional
        How many concepts each image truly has. Give it if some true concepts have no column: they count as missed.

    Returns
    -------
    ndarray of float64, shape (n_images,)
        An image with no true and no predicted concept scores 1, as an empty cell does.

    Raises
    ------
    ValueError
        The shapes differ.

    Examples
    --------
    >>> image_f1([[1, 1, 0], [0, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 0], [1, 0, 0]])
    array([0.66666667, 1.        , 0.        ])
    """
    true, predicted = _to_sparse(Y_true), _to_sparse(Y_pred)
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
    """2 |G ∩ P| / (|G| + |P|), and `both_empty` where G and P are empty."""
    f1: ImageF1 = np.divide(2 * hits, sizes, out=np.full(len(hits), both_empty), where=sizes > 0)
    return f1


def _to_sparse(Y: Any) -> scipy.sparse.csr_matrix:
    """Indicators as a CSR matrix of ones. A matrix that is one already is not copied."""
    if not scipy.sparse.issparse(Y):
        Y = np.atleast_2d(Y)
        # Three times as fast as SciPy's own conversion if most entries are 0; NumPy is fast for bool alone.
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
