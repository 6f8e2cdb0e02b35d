"""Out-of-fold scores in 16 bits: half the room, and finer than what scores differ by between two folds."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.data.blocks import split_rows
from heads.data.types import Scores

STEPS = 65_535
"""A score is a whole number of steps. The default decoder decides between .1 and .5, where a float16 is coarser."""

BLOCK_ROWS = 128
"""Images whose scores are converted at a time, so that temporary arrays stay small."""


def pack_scores(scores: Scores) -> NDArray[np.uint16]:
    """Scores as whole numbers of steps.

    A score of exactly 0 or 1 says that the head is sure, and calibrations keep it; so only these become 0 or `STEPS`.

    Parameters
    ----------
    scores : ndarray of float32, shape (n_images, n_concepts)
        In [0, 1].

    Examples
    --------
    >>> pack_scores(np.array([[0.0, 1e-9, 0.5, 1.0]], np.float32)).tolist()
    [[0, 1, 32768, 65535]]
    """
    packed = np.empty(scores.shape, np.uint16)
    for rows in split_rows(len(scores), BLOCK_ROWS):
        block = scores[rows]
        steps = block * np.float32(STEPS)
        np.rint(steps, out=steps)
        # Bounds that depend on the score are several times as fast as clipping where it is neither 0 nor 1.
        np.maximum(steps, block > 0, out=steps)
        np.minimum(steps, (block >= 1) + np.float32(STEPS - 1), out=steps)
        packed[rows] = steps
    return packed


def unpack_scores(packed: NDArray[Any]) -> Scores:
    """Scores of whole numbers of steps; packing them again gives the same numbers."""
    scores = np.empty(packed.shape, np.float32)
    for rows in split_rows(len(packed), BLOCK_ROWS):
        np.divide(packed[rows], np.float32(STEPS), out=scores[rows], casting="same_kind")
    return scores


def round_scores(scores: Scores) -> Scores:
    """Scores as they are when they have been saved."""
    return unpack_scores(pack_scores(scores))
