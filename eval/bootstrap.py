"""How certain a score is: bootstrap over images (Efron and Tibshirani, 1993).

A resample draws as many images as there are, with replacement. Images with the same F1 are interchangeable, so only
the number of draws of each distinct F1 matters. These numbers follow a multinomial distribution over the few values
that occur. This is exact, and a hundred times less to draw.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.support.errors import ParameterError
from eval.f1 import ImageF1, mean_f1

N_RESAMPLES = 2000
LEVEL = 0.95
"""Share of the resamples' means that lie within the interval."""

BLOCK = 2**22
"""Numbers that are drawn at a time: 32 MB."""


@dataclass(frozen=True)
class Difference:
    """How much better one run is than another on the same images.

    Parameters
    ----------
    mean : float
        Score of the first minus score of the second.
    low, high : float
        Ends of its interval.
    p_value : float
        Two-sided. If the two results of each image are swapped by chance, the difference is at least as large in this
        share of cases.
    """

    mean: float
    low: float
    high: float
    p_value: float

    @property
    def is_significant(self) -> bool:
        """Whether both the interval and the p-value say that the runs differ."""
        return (self.low > 0 or self.high < 0) and self.p_value < 1 - LEVEL


def find_interval(f1: ImageF1, n_resamples: int = N_RESAMPLES, random_state: int = 0) -> tuple[float, float]:
    """Compute the 95% percentile interval of a score.

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

    Raises
    ------
    ParameterError
        `n_resamples` is below 1.

    Examples
    --------
    >>> find_interval(np.array([0.5, 0.5]))
    (0.5, 0.5)
    >>> low, high = find_interval(np.array([0.2, 0.4, 0.9, 1.0]))
    >>> low < 0.625 < high
    True
    """
    distinct, counts = np.unique(f1, return_counts=True)
    random = np.random.default_rng(random_state)
    shares = counts / len(f1)
    means = [
        random.multinomial(len(f1), shares, size=size) @ distinct / len(f1)
        for size in _block_sizes(n_resamples, len(distinct))
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def compare_scores(
    first: ImageF1, second: ImageF1, n_resamples: int = N_RESAMPLES, random_state: int = 0
) -> Difference:
    """Compare two runs, image by image.

    The interval is that of the paired bootstrap: both runs are scored on the same resamples. The p-value is that of
    the paired randomisation test (Fisher, 1935; Noreen, 1989), which is valid for few images too.

    Parameters
    ----------
    first, second : ndarray of float64, shape (n_images,)
        F1 of the same images in the same order.
    n_resamples : int
    random_state : int
        The same number gives the same result.

    Returns
    -------
    Difference

    Raises
    ------
    ValueError
        The shapes differ.
    ParameterError
        `n_resamples` is below 1.

    Examples
    --------
    One image proves nothing.

    >>> compare_scores(np.array([0.5]), np.array([0.0]))
    Difference(mean=0.5, low=0.5, high=0.5, p_value=1.0)
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(f"first has shape {np.shape(first)} and second {np.shape(second)}, expected the same")
    differences = first - second
    low, high = find_interval(differences, n_resamples, random_state)
    p_value = _randomisation_test(differences, n_resamples, random_state)
    return Difference(mean_f1(first) - mean_f1(second), low, high, p_value)


def _randomisation_test(differences: NDArray[np.float64], n_resamples: int, random_state: int) -> float:
    """Share of resamples whose sum is at least as far from 0, if the sign of each difference is drawn by chance."""
    sizes, counts = np.unique(np.abs(differences), return_counts=True)
    random = np.random.default_rng(random_state)
    sums = [
        (2 * random.binomial(counts, 0.5, size=(size, len(sizes))) - counts) @ sizes
        for size in _block_sizes(n_resamples, len(sizes))
    ]
    # Sums of the same numbers in another order differ in their last bits.
    observed = abs(differences.sum()) - 1e-9
    # The observed sum counts as one of the draws, so no p-value is 0 (Davison and Hinkley, 1997).
    return float((np.count_nonzero(np.abs(np.concatenate(sums)) >= observed) + 1) / (n_resamples + 1))


def _block_sizes(n_resamples: int, width: int) -> list[int]:
    """Sizes of blocks of resamples, so that memory does not grow with their number."""
    if n_resamples < 1:
        raise ParameterError(f"n_resamples = {n_resamples}, expected at least 1")
    step = max(1, BLOCK // width)
    return [min(step, n_resamples - start) for start in range(0, n_resamples, step)]
