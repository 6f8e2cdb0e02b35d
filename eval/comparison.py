"""Whether two runs or submissions differ, said with an interval and a p-value."""

from dataclasses import dataclass
from typing import Any

from eval.bootstrap import N_RESAMPLES, Difference, compare_scores, find_interval
from eval.editions import Edition
from eval.f1 import ImageF1, mean_f1
from eval.scored_file import Scored


@dataclass(frozen=True)
class Compared:
    """Two submissions under one score.

    Parameters
    ----------
    name : str
        The score's name.
    scores : pair of float
    intervals : pair of (low, high)
    difference : Difference
        The first less the second.
    """

    name: str
    scores: tuple[float, float]
    intervals: tuple[tuple[float, float], tuple[float, float]]
    difference: Difference

    def verdict(self, first: str, second: str) -> str:
        """In words, whether they differ."""
        if self.difference == Difference(0.0, 0.0, 0.0, 1.0):
            return f"{self.name}: no difference, every image scores the same"
        if not self.difference.is_sure:
            return f"{self.name}: no sure difference between {first} and {second}; it may be chance"
        better, other = (first, second) if self.difference.mean > 0 else (second, first)
        return f"{self.name}: they differ, {better} is better than {other}"

    def to_json(self, first: str, second: str) -> dict[str, Any]:
        """The same for programs."""
        return {
            "scores": list(self.scores),
            "intervals": [list(ends) for ends in self.intervals],
            "difference": self.difference.mean,
            "interval": [self.difference.low, self.difference.high],
            "p_value": self.difference.p_value,
            "differ": self.difference.is_sure,
            "verdict": self.verdict(first, second),
        }


def compare_scored(first: Scored, second: Scored, edition: Edition, n_resamples: int = N_RESAMPLES) -> list[Compared]:
    """Compare two submissions that were scored on the same truth.

    Parameters
    ----------
    first, second : Scored
    edition : Edition
    n_resamples : int

    Returns
    -------
    list of Compared
        Of the primary score, and of the secondary where there is one.
    """
    compared = [_compare("primary F1", first.primary_f1, second.primary_f1, n_resamples)]
    if first.secondary_f1 is not None and second.secondary_f1 is not None and edition.allowed is not None:
        compared.append(_compare("secondary F1", first.secondary_f1, second.secondary_f1, n_resamples))
    return compared


def _compare(name: str, first: ImageF1, second: ImageF1, n_resamples: int) -> Compared:
    return Compared(
        name,
        (mean_f1(first), mean_f1(second)),
        (find_interval(first, n_resamples), find_interval(second, n_resamples)),
        compare_scores(first, second, n_resamples),
    )
