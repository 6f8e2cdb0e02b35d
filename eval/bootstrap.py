"""How sure a score is: bootstrap over images (Efron and Tibshirani, 1993).

Images with the same F1 are interchangeable, so to draw as many images as there are, with replacement, is one
multinomial draw over the few values of F1 that occur: exact, and a hundred times less to draw.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.f1 import ImageF1, mean_f1

N_RESAMPLES = 2000
LEVEL = 0.95
"""Share of resamples that an interval holds."""

BLOCK = 2**22
"""Counts drawn at a time: 32 MB."""


@dataclass(frozen=True)
class Difference:
    """How much better one run is than another on the same images.

    Parameters
    ----------
    mean : float
        Score of the first less that of the second.
    low, high : float
        Ends of its interval.
    p_value : float
        Two-sided; how often as large a difference comes about where each image's two results are swapped by chance.
    """

    mean: float
    low: float
    high: float
    p_value: float

    @property
    def is_sure(self) -> bool:
        """Whether interval and p-value both say that the runs differ."""
        return (self.low > 0 or self.high < 0) and self.p_value < 1 - LEVEL


def find_interval(f1: ImageF1, n_resamples: int = N_RESAMPLES, random_state: int = 0) -> tuple[float, float]:
    """The percentile interval of a score.

    Parameters
    ----------
    f1 : ndarray of float64, shape (n_images,)
        F1 of each image that the score counts.
    n_resamples : int
    random_state : int
        The same number gives the same interval.

    Returns
    -------
    low, high : float
        `LEVEL` of the resamples' means lie between them.

    Examples
    --------
    >>> find_interval(np.array([0.5, 0.5]))
    (0.5, 0.5)
    """
    distinct, counts = np.unique(f1, return_counts=True)
    random = np.random.default_rng(random_state)
    shares = counts / len(f1)
    means = [
        random.multinomial(len(f1), shares, size=size) @ distinct / len(f1)
        for size in _blocks(n_resamples, len(distinct))
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def compare_scores(
    first: ImageF1, second: ImageF1, n_resamples: int = N_RESAMPLES, random_state: int = 0
) -> Difference:
    """Compare two runs, image by image.

    The interval is the paired bootstrap's: both are scored on the same resamples. The p-value is the paired
    randomisation test's (Fisher, 1935; Noreen, 1989), which holds for few images too.

    Parameters
    ----------
    first, second : ndarray of float64, shape (n_images,)
        F1 of the same images in the same order.
    n_resamples, random_state : int

    Examples
    --------
    >>> compare_scores(np.array([0.5]), np.array([0.0])).p_value
    1.0
    """
    differences = first - second
    low, high = find_interval(differences, n_resamples, random_state)
    p_value = _swap(differences, n_resamples, random_state)
    return Difference(mean_f1(first) - mean_f1(second), low, high, p_value)


def _swap(differences: NDArray[np.float64], n_resamples: int, random_state: int) -> float:
    """Share of resamples with a sum at least as far from 0, where the sign of each difference is drawn."""
    sizes, counts = np.unique(np.abs(differences), return_counts=True)
    random = np.random.default_rng(random_state)
    sums = [
        (2 * random.binomial(counts, 0.5, size=(size, len(sizes))) - counts) @ sizes
        for size in _blocks(n_resamples, len(sizes))
    ]
    # Sums of the same numbers in another order differ in their last bits.
    observed = abs(differences.sum()) - 1e-9
    # What was observed is one of the draws, so no p-value is 0 (Davison and Hinkley, 1997).
    return float((np.count_nonzero(np.abs(np.concatenate(sums)) >= observed) + 1) / (n_resamples + 1))


def _blocks(n_resamples: int, width: int) -> list[int]:
    """Sizes of blocks of resamples, so that memory stays flat."""
    step = max(1, BLOCK // width)
    return [min(step, n_resamples - start) for start in range(0, n_resamples, step)]
