"""Whether two runs or submissions differ, with an interval and a p-value."""

from dataclasses import dataclass
from typing import Any

from cache.support.errors import ParameterError
from eval.bootstrap import N_RESAMPLES, Difference, compare_scores, find_interval
from eval.f1 import ImageF1, mean_f1
from eval.scored_file import ScoredFile


@dataclass(frozen=True)
class Comparison:
    """Two submissions under one score.

    Parameters
    ----------
    name : str
        The score's name.
    scores : pair of float
    intervals : pair of (low, high)
    difference : Difference
        The first minus the second.
    """

    name: str
    scores: tuple[float, float]
    intervals: tuple[tuple[float, float], tuple[float, float]]
    difference: Difference

    def verdict(self, first: str, second: str) -> str:
        """Say whether they differ, with these names for the two."""
        if self.difference == Difference(0.0, 0.0, 0.0, 1.0):
            return f"{self.name}: no difference, every image scores the same"
        if not self.difference.is_significant:
            return f"{self.name}: no significant difference between {first} and {second}; it may be chance"
        better, other = (first, second) if self.difference.mean > 0 else (second, first)
        return f"{self.name}: they differ, {better} is better than {other}"

    def to_json(self, first: str, second: str) -> dict[str, Any]:
        """All of it, for programs."""
        return {
            "scores": list(self.scores),
            "intervals": [list(ends) for ends in self.intervals],
            "difference": self.difference.mean,
            "interval": [self.difference.low, self.difference.high],
            "p_value": self.difference.p_value,
            "differ": self.difference.is_significant,
            "verdict": self.verdict(first, second),
        }


def compare_files(first: ScoredFile, second: ScoredFile, n_resamples: int = N_RESAMPLES) -> list[Comparison]:
    """Compare two submissions that were scored on the same truth, by the same rules.

    Parameters
    ----------
    first, second : ScoredFile
    n_resamples : int

    Returns
    -------
    list of Comparison
        Of the primary score, and of the secondary score if both have one.

    Raises
    ------
    ParameterError
        They were scored on other images or by other rules.
    """
    if first.edition != second.edition or first.truth.sets != second.truth.sets:
        raise ParameterError(f"{first} and {second}: expected two files that are scored on the same truth")
    comparisons = [compare_f1("primary F1", first.primary_f1, second.primary_f1, n_resamples)]
    if first.secondary_f1 is not None and second.secondary_f1 is not None and first.edition.allowed is not None:
        comparisons.append(compare_f1("secondary F1", first.secondary_f1, second.secondary_f1, n_resamples))
    return comparisons


def compare_f1(name: str, first: ImageF1, second: ImageF1, n_resamples: int = N_RESAMPLES) -> Comparison:
    """Compare F1 per image of two submissions.

    Parameters
    ----------
    name : str
        The score's name.
    first, second : ndarray of float64, shape (n_images,)
        F1 of the same images in the same order.
    n_resamples : int
    """
    return Comparison(
        name,
        (mean_f1(first), mean_f1(second)),
        (find_interval(first, n_resamples), find_interval(second, n_resamples)),
        compare_scores(first, second, n_resamples),
    )
