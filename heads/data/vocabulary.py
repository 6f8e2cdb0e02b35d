"""Concepts and their columns: vocabularies, indicator matrices, and the way back to sets of concepts."""

import itertools
from collections.abc import Sequence

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

Concepts = tuple[str, ...]
"""The concepts of one image."""


def find_vocabulary(concepts: Sequence[Concepts]) -> list[str]:
    """The sorted concepts of some images: the columns of their indicator matrix and of scores.

    >>> find_vocabulary([("C2", "C1"), ("C2",)])
    ['C1', 'C2']
    """
    return sorted({concept for each in concepts for concept in each})


def indicator(concepts: Sequence[Concepts], vocabulary: Sequence[str]) -> scipy.sparse.csr_matrix:
    """Indicator matrix of the concepts of some images.

    Concepts outside the vocabulary have no column. They still count in the official score.

    Parameters
    ----------
    concepts : sequence of tuple of str, length n_images
    vocabulary : sequence of str, length n_concepts

    Returns
    -------
    sparse matrix of {0, 1}, shape (n_images, n_concepts)

    Examples
    --------
    >>> indicator([("C2", "C9"), ()], ["C1", "C2"]).toarray().tolist()
    [[0, 1], [0, 0]]
    """
    column = {concept: number for number, concept in enumerate(vocabulary)}
    columns = [sorted({column[concept] for concept in each if concept in column}) for each in concepts]
    starts = np.cumsum([0, *map(len, columns)])
    indices = np.fromiter((number for each in columns for number in each), np.int64, starts[-1])
    return scipy.sparse.csr_matrix((np.ones(len(indices), np.int64), indices, starts), (len(columns), len(column)))


def columns_to_concepts(
    predicted: scipy.sparse.csr_matrix, vocabulary: Sequence[str], readable: NDArray[np.bool_], fallback: list[str]
) -> list[list[str]]:
    """The sorted concepts of each image.

    Parameters
    ----------
    predicted : sparse matrix of {0, 1}, shape (n_readable, n_concepts)
        Without stored zeros.
    vocabulary : sequence of str, length n_concepts
        Sorted.
    readable : ndarray of bool, shape (n_images,)
    fallback : list of str
        The concepts of an image that cannot be read.

    Returns
    -------
    list of list of str, length n_images

    Examples
    --------
    >>> predicted = scipy.sparse.csr_matrix([[0, 1], [1, 1]])
    >>> columns_to_concepts(predicted, ["C1", "C2"], np.array([True, False, True]), ["C1"])
    [['C2'], ['C1'], ['C1', 'C2']]
    """
    predicted.sort_indices()
    rows = zip(predicted.indptr[:-1], predicted.indptr[1:], strict=True)
    found = iter([[vocabulary[column] for column in predicted.indices[start:end]] for start, end in rows])
    return [next(found) if is_readable else fallback for is_readable in readable]


def place_columns(part: Sequence[str], whole: Sequence[str]) -> NDArray[np.int64]:
    """The column of each concept of a vocabulary in a larger vocabulary.

    >>> place_columns(["C1", "C3"], ["C1", "C2", "C3"]).tolist()
    [0, 2]
    """
    places = {concept: column for column, concept in enumerate(whole)}
    return np.array([places[concept] for concept in part], dtype=np.int64)


def fallback_set(Y: scipy.sparse.csr_matrix, vocabulary: Sequence[str], max_concepts: int) -> list[str]:
    """The best prediction without looking at the image: the most frequent concepts, as many as score best.

    Parameters
    ----------
    Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
        Labels of the training images. The set has the best mean F1 on them of all sets of most frequent concepts.
    vocabulary : sequence of str, length n_concepts
    max_concepts : int
        The largest size of the set.

    Returns
    -------
    list of str
        Sorted.

    Examples
    --------
    >>> Y = scipy.sparse.csr_matrix([[1, 1, 0], [1, 1, 0], [1, 0, 1]])
    >>> fallback_set(Y, ["C1", "C2", "C3"], 100)
    ['C1', 'C2']
    """
    counts = np.asarray(Y.sum(axis=0)).ravel()
    order = np.argsort(-counts, kind="stable")[:max_concepts]
    columns, n_true = Y[:, order].tocsc(), np.asarray(Y.sum(axis=1), dtype=np.float64).ravel()
    hits, f1 = np.zeros(Y.shape[0]), np.zeros(len(order))
    # One size after the other: all at once take 100 numbers per training image.
    for number, (start, end) in enumerate(itertools.pairwise(columns.indptr)):
        hits[columns.indices[start:end]] += 1
        f1[number] = (2 * hits / (number + 1 + n_true)).mean()
    return sorted(vocabulary[column] for column in order[: int(f1.argmax()) + 1])
