"""A leaderboard of heads and decoders: every pair on one store, in one table."""

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.store import FeatureStore
from cache.support.cluster import ClusterError
from cache.support.reporting import report
from eval.bootstrap import compare_scores, find_interval
from eval.f1 import ImageF1, image_f1, mean_f1
from heads.data.folds import check_folds
from heads.data.official_score import with_interval
from heads.data.split import LabelledSplit
from heads.data.store import LabelledStore
from heads.data.types import Scores
from heads.data.vocabulary import columns_to_concepts
from heads.decoders.base import Decoder
from heads.estimators.base import Head, ProgressCallback
from heads.evaluation.cross_validation import decoder_f1
from heads.evaluation.out_of_fold import CrossFit
from heads.registry import HEADS, make_decoder, make_head
from heads.runs.builder import prepare_head
from heads.runs.progress import Clock, watching
from heads.selection.cluster import call_on_cluster

TRIED = ("fixed:0.3", "fixed:0.5", "top-k", "global", "per-concept", "expected-f1", "temperature+expected-f1",
         "platt+expected-f1")  # fmt: skip
"""The default decoders."""

PAPER = ("dense", "fixed:0.5")
"""The paper's Model2. The chosen pair is compared with it if it is in the table."""

OFFICIAL = ("primary", "primary_interval", "secondary", "secondary_interval")
"""The official scores of a pair on valid."""

Row = dict[str, Any]
"""A pair of head and decoder: its scores and seconds."""


def choose(
    store: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    heads: Sequence[str] | None = None,
    decoders: Sequence[str] | None = None,
    pooling: str = "",
    scheduler: str | None = None,
) -> list[Row]:
    """Fit every head once, and decode its scores with every decoder.

    Folds of train choose: decoders are tuned on out-of-fold scores, and scored on those folds that they were not tuned
    on. Valid decides nothing, so its scores are no more optimistic than those of one run.

    Parameters
    ----------
    store, data : path
        The feature store, and the data folder with the labels.
    heads : sequence of str, optional
        Heads, with their default parameters. All that learn from what the store holds if not given.
    decoders : sequence of str, optional
        Such as ``fixed:0.3``; `TRIED` if not given.
    pooling : str
        Names of parts of the store's features, with commas between them; all parts if empty.
    scheduler : str, optional
        Fit the heads on a cluster of Dask: the address of its scheduler, or ``local``. Its workers must see store and
        labels under the same paths.

    Returns
    -------
    list of dict
        One row per pair: its F1 on folds of train, its official scores on valid, each with its interval, and seconds.
        ``chosen`` is true where F1 on folds is largest.

    Raises
    ------
    ParameterError
        A head or a decoder is unknown.
    StoreError, DataError
        The store or the labels are missing or damaged, or they do not fit.
    """
    candidates = list_candidates(heads, decoders)
    labelled = LabelledStore.load(Path(store), Path(data), pooling)
    check_folds(labelled.train.Y.shape[0], labelled.train.groups)
    if not heads:
        candidates = [each for each in candidates if each.head.takes_maps == labelled.store.has_maps]
    for each in candidates:
        prepare_head(each.head, labelled.store)
    report(_line("head", "decoder", "F1 on folds of train", "valid primary F1", "secondary F1", "seconds"))
    scored: Iterator[tuple[Row, ImageF1]]
    table: list[Row] = []
    f1: dict[tuple[str, str], ImageF1] = {}
    if scheduler:
        place = Path(store).absolute(), Path(data).absolute(), pooling
        scored = _score_on_cluster(scheduler, candidates, labelled.store, place)
    else:
        scored = (pair for each in candidates for pair in _score_pairs(each, labelled))
    for row, f1_per_image in scored:
        f1[row["head"], row["decoder"]] = f1_per_image
        table.append(row)
        report(_describe(row))
    best = max(table, key=lambda row: row["folds"])
    for row in table:
        row["chosen"] = row is best
    report(f"folds of train choose {best['head']}, {best['decoder']}")
    chosen = {"DATA": data, "STORE": store, "HEAD": best["head"], "DECODER": best["decoder"], "POOLING": pooling}
    words = [f"{name}={shlex.quote(os.fspath(value))}" for name, value in chosen.items() if value]
    report(f"to hand in what it predicts: make submit {' '.join(words)}")
    if PAPER in f1 and len(f1[PAPER]):
        apart = compare_scores(f1[best["head"], best["decoder"]], f1[PAPER])
        best["over_paper"] = {"difference": apart.mean, "interval": [apart.low, apart.high], "p_value": apart.p_value}
        report(f"  on valid {apart.mean:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}] to {', '.join(PAPER)}")
    return table


@dataclass(frozen=True)
class Candidate:
    """A head and the decoders that are tried with it; none of them is fitted."""

    name: str
    head: Head
    decoders: dict[str, Decoder]


def list_candidates(heads: Sequence[str] | None = None, decoders: Sequence[str] | None = None) -> list[Candidate]:
    """Make the heads and decoders of a leaderboard.

    Parameters
    ----------
    heads, decoders : sequence of str, optional
        As in `choose`; all heads, also those that do not learn from what the store holds, if not given.

    Raises
    ------
    ParameterError
        A head or a decoder is unknown.
    """
    texts = decoders or TRIED
    return [Candidate(name, make_head(name), {text: make_decoder(text) for text in texts}) for name in heads or HEADS]


def _score_pairs(candidate: Candidate, data: LabelledStore) -> Iterator[tuple[Row, ImageF1]]:
    """Fit a head, and score it with each decoder."""
    with watching(candidate.head) as progress:
        scored = _ScoredHead.fit(candidate.head, data, progress)
        for text, decoder in candidate.decoders.items():
            row, f1 = scored.decode(decoder)
            yield {"head": candidate.name, "decoder": text} | row, f1


def _score_on_cluster(
    scheduler: str, candidates: Sequence[Candidate], store: FeatureStore, place: tuple[Path, Path, str]
) -> Iterator[tuple[Row, ImageF1]]:
    """Do the same on a cluster, one head per task."""
    calls = [(each.name, list(each.decoders), *place) for each in candidates]
    for content, pairs in call_on_cluster(scheduler, score_candidate, calls):
        if content != store.content:
            raise ClusterError(f"a worker sees another store at {place[0]}; give a path that is the same everywhere")
        yield from pairs


def score_candidate(
    name: str, decoders: Sequence[str], store: Path, data: Path, pooling: str
) -> tuple[str, list[tuple[Row, ImageF1]]]:
    """On a worker of a cluster: open the store and score a head; returns the digest of the store's content, too."""
    labelled = LabelledStore.load(store, data, pooling)
    (candidate,) = list_candidates([name], decoders)
    prepare_head(candidate.head, labelled.store)
    return labelled.store.content, list(_score_pairs(candidate, labelled))


@dataclass(frozen=True)
class _ScoredHead:
    """The scores of a head: of train, out of fold, and of valid; with the seconds that they took."""

    train: LabelledSplit
    valid: LabelledSplit | None
    train_scores: Scores
    valid_scores: Scores
    clock: Clock

    @classmethod
    def fit(cls, head: Head, data: LabelledStore, progress: ProgressCallback) -> "_ScoredHead":
        """Fit a head on train and on folds of it."""
        train, valid, clock = data.train, data.valid, Clock()
        with clock("fit"):
            crossed = CrossFit(head, train.X, train.Y, train.groups, progress)
        with clock("folds"):
            train_scores = crossed.score_folds(train.tuning_rows)
        valid_scores = np.empty((0, len(train.vocabulary)), np.float32)
        if valid and valid.readable.any():
            valid_scores = crossed.head.predict_proba(valid.X)
        return cls(train, valid, train_scores, valid_scores, clock)

    def decode(self, decoder: Decoder) -> tuple[Row, ImageF1]:
        """The scores of a decoder, and the F1 of each image of valid that can be read."""
        tuning, valid = self.train.tuning, self.valid
        with self.clock("decode"):
            decoder.fit(self.train_scores, tuning.Y, None, tuning.groups)
            predicted = decoder.predict(self.valid_scores)
        folds = decoder_f1(decoder, self.train_scores, tuning.Y, None, tuning.groups)
        row: Row = {"folds": mean_f1(folds), "folds_interval": list(find_interval(folds))}
        row |= {"report": decoder.report(), "seconds": dict(self.clock.seconds)}
        row |= dict.fromkeys(OFFICIAL)
        if valid is None:
            return row, np.empty(0)
        concepts = columns_to_concepts(predicted, valid.vocabulary, valid.readable, valid.fallback)
        score = valid.score_concepts(concepts)
        official = dict(score.to_metrics(tuned_here=False)) if score else {}
        row |= {key: official.get(key) for key in OFFICIAL}
        return row, image_f1(valid.Y, predicted, valid.n_true)


def _describe(row: Row) -> str:
    scores = ["-" if row[key] is None else with_interval(row, key) for key in ("folds", "primary", "secondary")]
    seconds = " ".join(f"{stage} {value:.1f}" for stage, value in row["seconds"].items())
    return _line(row["head"], row["decoder"], scores[0], scores[1], scores[2], seconds)


def _line(head: str, decoder: str, folds: str, primary: str, secondary: str, seconds: str) -> str:
    return f"{head:<9} {decoder:<27} {folds:<24} {primary:<24} {secondary:<24} {seconds}"
