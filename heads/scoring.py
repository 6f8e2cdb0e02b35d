"""The official scores of a run on valid: those that the evaluator gives the file that the run writes."""

from collections.abc import Callable
from typing import Any

from eval.bootstrap import find_interval
from eval.editions import LATEST, Edition, find_edition
from eval.errors import UserError as FileError
from eval.official import ConceptSets, is_skipped
from eval.scores import ImageF1, mean_f1, primary_f1, secondary_f1
from heads.dataset import LabelledSplit


def score_valid(
    valid: LabelledSplit, predicted: list[list[str]], tuned: bool, warn: Callable[[str], None]
) -> dict[str, Any] | None:
    """Score concept sets by the rules of the latest edition.

    Parameters
    ----------
    valid : LabelledSplit
    predicted : list of list of str
        The concepts of each image.
    tuned : bool
        Whether the decoder was tuned on these images.
    warn : callable
        Told why there is no secondary score, and which images the evaluator passes over.

    Returns
    -------
    dict or None
        None if the evaluator counts none of the images. Beside each score stand the ends of its 95% bootstrap
        interval over images.
    """
    edition = find_edition(LATEST)
    counted = [id for id in valid.ids if not is_skipped(id, edition)]
    if len(counted) < len(valid.ids):
        told = f"{len(valid.ids) - len(counted):,} images of valid have the letters ID in their id"
        warn(f"{told}; the official evaluator takes them for headers and passes them over")
    if not counted:
        return None
    truth = _official_sets(counted, dict(zip(valid.ids, valid.concepts, strict=True)))
    given = _official_sets(counted, dict(zip(valid.ids, predicted, strict=True)))
    primary, secondary = primary_f1(truth, given), _secondary(valid, counted, given, edition, warn)
    return {
        "primary": mean_f1(primary),
        "primary_interval": list(find_interval(primary)),
        "secondary": None if secondary is None else mean_f1(secondary),
        "secondary_interval": None if secondary is None else list(find_interval(secondary)),
        "n_images": len(counted),
        "n_unreadable": int((~valid.readable).sum()),
        "edition": edition.year,
        "note": "the decoder was tuned on these images: optimistic" if tuned else None,
    }


def _secondary(
    valid: LabelledSplit, counted: list[str], given: ConceptSets, edition: Edition, warn: Callable[[str], None]
) -> ImageF1 | None:
    if valid.manual is None:
        return None
    try:
        named = [id for id in counted if id in valid.manual]
        return secondary_f1(_official_sets(named, valid.manual), given, edition)
    except FileError as error:
        warn(f"no secondary score: {error}")
        return None


def _official_sets(ids: list[str], concepts: Any) -> ConceptSets:
    """As the evaluator reads rows: an empty cell is the empty concept."""
    return {id: frozenset(concepts[id]) or frozenset({""}) for id in ids}
