"""The official scores of predicted concepts: those that the evaluator gives to the file with these concepts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypedDict

import msgspec

from cache.support.errors import UserError
from cache.support.reporting import warn
from eval.bootstrap import find_interval
from eval.editions import LATEST, Edition, find_edition
from eval.evaluator_files import ConceptSets, is_skipped
from eval.f1 import ImageF1, mean_f1, primary_f1, secondary_f1

Interval = tuple[float, float]

Bounds = Annotated[list[float], msgspec.Meta(min_length=2, max_length=2)]
"""An interval as JSON has it."""


class ScoreMetrics(TypedDict):
    """The official scores as ``metrics.json`` has them."""

    primary: float
    primary_interval: Bounds
    secondary: float | None
    secondary_interval: Bounds | None
    n_images: int
    n_unreadable: int
    edition: int
    note: str | None
    """Why the scores are optimistic, if they are."""


@dataclass(frozen=True, eq=False)
class OfficialF1:
    """F1 of each image that the official scores count.

    Parameters
    ----------
    ids : list of str, length n_images
        The images that the primary score counts.
    primary : ndarray of float64, shape (n_images,)
    secondary : ndarray of float64, shape (n_counted,), or None
        Of the images that the secondary score counts. None without manual annotations.
    """

    ids: list[str]
    primary: ImageF1
    secondary: ImageF1 | None


@dataclass(frozen=True)
class OfficialScore:
    """Primary and secondary score, each with its 95% bootstrap interval over images.

    Parameters
    ----------
    primary : float
    primary_interval : tuple of float
    secondary : float or None
        None without manual annotations.
    secondary_interval : tuple of float, or None
    n_images : int
        The images that the primary score counts.
    n_unreadable : int
        The images that cannot be read, and so were given the fallback set.
    edition : int
        The year of the rules.
    """

    primary: float
    primary_interval: Interval
    secondary: float | None
    secondary_interval: Interval | None
    n_images: int
    n_unreadable: int
    edition: int

    def __str__(self) -> str:
        scores = asdict(self)
        secondary = "" if self.secondary is None else f", secondary F1 {with_interval(scores, 'secondary')}"
        return f"primary F1 {with_interval(scores, 'primary')}{secondary} on {self.n_images:,} images"

    def to_metrics(self, tuned_here: bool) -> ScoreMetrics:
        """The scores as ``metrics.json`` has them.

        Parameters
        ----------
        tuned_here : bool
            Whether the decoder was tuned on these images.
        """
        return {
            "primary": self.primary,
            "primary_interval": list(self.primary_interval),
            "secondary": self.secondary,
            "secondary_interval": None if self.secondary_interval is None else list(self.secondary_interval),
            "n_images": self.n_images,
            "n_unreadable": self.n_unreadable,
            "edition": self.edition,
            "note": "the decoder was tuned on these images: optimistic" if tuned_here else None,
        }


def score_concepts(
    truth: Mapping[str, Sequence[str]],
    manual: Mapping[str, Sequence[str]] | None,
    predicted: Mapping[str, Sequence[str]],
    n_unreadable: int,
    split: str,
) -> OfficialScore | None:
    """Score the concepts of each image by the rules of the latest edition.

    Parameters
    ----------
    truth, predicted : mapping of str to sequence of str
        The concepts of the same images, by id.
    manual : mapping of str to sequence of str, optional
        The manual annotations that the secondary score uses. It is None where they do not fit, with a warning.
    n_unreadable : int
    split : str
        The name of the split in warnings.

    Returns
    -------
    OfficialScore or None
        None if the evaluator counts none of the images.
    """
    f1 = score_images(truth, manual, predicted, split)
    if f1 is None:
        return None
    return OfficialScore(
        primary=mean_f1(f1.primary),
        primary_interval=find_interval(f1.primary),
        secondary=None if f1.secondary is None else mean_f1(f1.secondary),
        secondary_interval=None if f1.secondary is None else find_interval(f1.secondary),
        n_images=len(f1.primary),
        n_unreadable=n_unreadable,
        edition=LATEST,
    )


def score_images(
    truth: Mapping[str, Sequence[str]],
    manual: Mapping[str, Sequence[str]] | None,
    predicted: Mapping[str, Sequence[str]],
    split: str,
) -> OfficialF1 | None:
    """F1 of each image by the rules of the latest edition; `score_concepts` gives the means."""
    edition = find_edition(LATEST)
    counted = [id for id in truth if not is_skipped(id, edition)]
    if len(counted) < len(truth):
        warn(f"{len(truth) - len(counted):,} images of {split} have the letters ID in their id; the official evaluator "
             "takes such rows for headers and does not count them")  # fmt: skip
    if not counted:
        return None
    sets = _official_sets(counted, predicted)
    secondary = None if manual is None else _secondary(manual, counted, sets, edition)
    return OfficialF1(counted, primary_f1(_official_sets(counted, truth), sets), secondary)


def with_interval(scores: Mapping[str, Any], score: str) -> str:
    """A score with its 95% interval.

    >>> with_interval({"primary": 0.5, "primary_interval": [0.45, 0.55]}, "primary")
    '0.5000 [0.4500, 0.5500]'
    """
    low, high = scores[f"{score}_interval"]
    return f"{scores[score]:.4f} [{low:.4f}, {high:.4f}]"


def _secondary(
    manual: Mapping[str, Sequence[str]], counted: list[str], predicted: ConceptSets, edition: Edition
) -> ImageF1 | None:
    try:
        return secondary_f1(_official_sets([id for id in counted if id in manual], manual), predicted, edition)
    except UserError as error:
        warn(f"no secondary score: {error}")
        return None


def _official_sets(ids: list[str], concepts: Mapping[str, Sequence[str]]) -> ConceptSets:
    """Concept sets as the evaluator reads them: an empty cell is the empty concept."""
    return {id: frozenset(concepts[id]) or frozenset({""}) for id in ids}
