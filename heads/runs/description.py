"""The result of a run in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache.support.reporting import report, warn
from heads.data.official_score import with_interval
from heads.evaluation.cross_validation import EstimateMetrics
from heads.runs.concept_table import CONCEPTS, ConceptTable
from heads.runs.metrics import RunMetrics
from heads.runs.request import FOLDS, TRAIN


def describe(metrics: RunMetrics) -> str:
    """The result of a run in one line, with what a reader must know to judge the scores."""
    decoder, valid = metrics["decoder"], metrics["valid"]
    line = f"{metrics['head']}, {decoder['name']}"
    if decoder["tuned_on"]:
        by_folds = decoder["tuned_on"] == FOLDS
        line += " tuned on folds of train" if by_folds else " tuned on valid, so its valid score is optimistic"
    line += _describe_gain(decoder.get("report", {})) + _describe_nested(metrics.get("nested"))
    if valid is None:
        return f"{line}; no image of valid to score on{_describe_folds(metrics['folds'])}"
    has_secondary = valid["secondary"] is not None and valid["secondary_interval"] is not None
    secondary = f", secondary {with_interval(valid, 'secondary')}" if has_secondary else ""
    both = ", before valid joined train" if metrics["train"]["splits"] != TRAIN else ""
    frozen = "; frozen random network" if metrics["store"]["weights"].startswith("random:") else ""
    primary = with_interval(valid, "primary")
    return f"{line}; valid primary F1 {primary}{secondary} on {valid['n_images']:,} images{both}{frozen}"


def report_run(folder: Path, metrics: RunMetrics, concepts: ConceptTable) -> None:
    """Report the most frequent concepts and what was learnt, and warn about what is odd in it."""
    train, seconds = metrics["train"], metrics["seconds"].get("fit", 0.0)
    if train["n_unreadable"]:
        warn(f"{train['n_unreadable']:,} training images cannot be read and were left out")
    if train["ever_present"]:
        warn(f"{train['ever_present']:,} concepts are in every training image; they are predicted for every image")
    if train["valid_concepts_unseen"]:
        warn(f"{train['valid_concepts_unseen']:,} concepts of valid are never in train; they count as missed")
    learnt = f"{train['n_concepts']:,} concepts from {train['n_images']:,} images in {seconds:.1f} s"
    for line in concepts.describe(folder / CONCEPTS):
        report(line)
    report(f"{folder}: {learnt} ({describe(metrics)})")


def _describe_gain(decoder_report: Mapping[str, Any]) -> str:
    """What the tuning of a decoder gains on folds that were held out."""
    gain = decoder_report.get("gain")
    if decoder_report.get("held_out_f1") is None or not isinstance(gain, float):
        return ""
    return f", a gain of {gain:.4f} on held-out folds over one threshold"


def _describe_folds(folds: EstimateMetrics | None) -> str:
    if folds is None:
        return ""
    return f", primary F1 {with_interval(folds, 'primary')} by folds of {folds['on']}"


def _describe_nested(nested: EstimateMetrics | None) -> str:
    if nested is None:
        return ""
    return f"; nested primary F1 {with_interval(nested, 'primary')} by folds of {nested['on']}"
