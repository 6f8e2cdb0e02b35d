"""What ``metrics.json`` holds: the result of a run, with everything that it was made from."""

from typing import Any, NotRequired, TypedDict

from heads.data.official_score import ScoreMetrics
from heads.evaluation.cross_validation import EstimateMetrics
from heads.runs.concept_table import BandMetrics


class DecoderMetrics(TypedDict):
    """The decoder and how it was tuned."""

    name: str
    """As requested, such as ``platt+expected-f1``."""
    tuned_on: str | None
    """``folds`` or ``valid``; None if there was nothing to tune."""
    report: dict[str, Any]
    """What the decoder reports, such as its gain on folds that were held out."""


class TrainMetrics(TypedDict):
    """What the head learnt from."""

    splits: str
    """``train`` or ``train+valid``."""
    n_images: int
    n_unreadable: int
    n_concepts: int
    ever_present: int
    """How many concepts are in every training image."""
    valid_concepts_unseen: int
    """How many concepts of valid are in no training image."""


class StoreMetrics(TypedDict):
    """The store that a run was trained on. An ensemble has the weights alone."""

    weights: str
    fingerprint: NotRequired[str]
    content: NotRequired[str]
    provenance: NotRequired[dict[str, Any]]


class MemberMetrics(TypedDict):
    """A member of an ensemble."""

    name: str
    """Of its folder under ``members``."""
    store: str
    run: str


class RequestDigests(TypedDict):
    """Digests of a request and of what it reads."""

    head: str
    """Of what decides the head that learns from train; empty for an ensemble."""
    whole: str
    """Of what decides the result."""


class RunMetrics(TypedDict):
    """The result of a run or of an ensemble."""

    format: int
    head: str
    params: dict[str, Any]
    pooling: str
    decoder: DecoderMetrics
    valid: ScoreMetrics | None
    """None if the evaluator counts no image of valid."""
    folds: EstimateMetrics | None
    """By folds of train: each image is scored by a head, and decoded by a decoder, that were fitted to other folds.
    None if the decoder was not tuned on folds."""
    bands: list[BandMetrics]
    """Frequent, medium and rare concepts, on valid or else on folds of train."""
    nested: EstimateMetrics | None
    """None if it was not requested."""
    train: TrainMetrics
    store: StoreMetrics
    versions: dict[str, str]
    seconds: dict[str, float]
    requests: RequestDigests
    members: NotRequired[list[MemberMetrics]]
    """Of an ensemble alone."""
