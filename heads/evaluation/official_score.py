"""The official scores of a run on valid: those that the evaluator gives the file that the run writes."""

from collections.abc import Mapping
from typing import Any

from cache.support.errors import UserError
from cache.support.reporting import warn
from eval.bootstrap import find_interval
from eval.editions import LATEST, Edition, find_edition
from eval.evaluator_files import ConceptSets, is_skipped
from eval.f1 import ImageF1, mean_f1, primary_f1, secondary_f1
from heads.data.split import LabelledSplit


def score_valid(valid: LabelledSplit, predicted: list[list[str]], tuned: bool) -> dict[str, Any] | None:
    """Score concept sets by the rules of the latest edition.

    Parameters
    ----------
    valid : LabelledSplit
    predicted : list of list of str
        The concepts of each image.
    tuned : bool
        Whether the decoder was tuned on these images.

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
    primary, secondary = primary_f1(truth, given), _secondary(valid, counted, given, edition)
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


def describe(metrics: Mapping[str, Any]) -> str:
    """A run's result in a few words, with what must be said beside it."""
    decoder, valid = metrics["decoder"], metrics["valid"]
    how = f"{metrics['head']}, {decoder['name']}"
    if decoder["tuned_on"]:
        of_folds = decoder["tuned_on"] == "folds"
        how += " tuned on folds of train" if of_folds else " tuned on valid, so its valid score is optimistic"
    how += _describe_report(decoder.get("report", {})) + _describe_nested(metrics.get("nested"))
    if valid is None:
        return f"{how}; no image of valid to score on"
    primary, secondary = with_interval(valid, "primary"), ""
    if valid["secondary"] is not None:
        secondary = f", secondary {with_interval(valid, 'secondary')}"
    joined = ", before valid joined train" if metrics["train"]["splits"] != "train" else ""
    frozen = "; frozen random network" if metrics["store"]["weights"].startswith("random:") else ""
    return f"{how}; valid primary F1 {primary}{secondary} on {valid['n_images']:,} images{joined}{frozen}"


def _describe_report(report: Mapping[str, Any]) -> str:
    """What a decoder that was cross-validated gained on held-out folds."""
    told = ""
    if report.get("held_out_f1") is not None:
        told += f", a gain of {report['gain']:.4f} on held-out folds over one threshold"
    return told


def _describe_nested(nested: Mapping[str, Any] | None) -> str:
    if nested is None:
        return ""
    return f"; nested primary F1 {with_interval(nested, 'primary')} by folds of {nested['on']}"


def with_interval(valid: Mapping[str, Any], score: str) -> str:
    """A score with its 95% interval."""
    low, high = valid[f"{score}_interval"]
    return f"{valid[score]:.4f} [{low:.4f}, {high:.4f}]"


def _secondary(valid: LabelledSplit, counted: list[str], given: ConceptSets, edition: Edition) -> ImageF1 | None:
    if valid.manual is None:
        return None
    try:
        named = [id for id in counted if id in valid.manual]
        return secondary_f1(_official_sets(named, valid.manual), given, edition)
    except UserError as error:
        warn(f"no secondary score: {error}")
        return None


def _official_sets(ids: list[str], concepts: Any) -> ConceptSets:
    """As the evaluator reads rows: an empty cell is the empty concept."""
    return {id: frozenset(concepts[id]) or frozenset({""}) for id in ids}
