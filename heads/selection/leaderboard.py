"""Which head and decoder the data support: every pair on one store, in one table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.support.reporting import report
from eval.bootstrap import compare_scores, find_interval
from eval.editions import MAX_CONCEPTS
from eval.f1 import ImageF1, image_f1, mean_f1
from heads.data.folds import score_out_of_fold
from heads.data.split import indicator
from heads.data.store import LabelledStore
from heads.data.types import Scores
from heads.decoders.base import Decoder
from heads.estimators.base import Head
from heads.evaluation.cross_validation import estimate_decoder
from heads.evaluation.official_score import score_valid, with_interval
from heads.registry import HEADS, make_decoder, make_head
from heads.runs.progress import Clock, watching
from heads.runs.run import name_columns, usual_set

TRIED = ("fixed:0.3", "fixed:0.5", "top-k", "global", "per-concept", "expected-f1", "temperature+expected-f1",
         "platt+expected-f1")  # fmt: skip
"""Decoders that are tried if none is named."""

PAPER = ("dense", "fixed:0.5")
"""The paper's Model2, which every pair is compared with if it is in the table."""

OFFICIAL = ("primary", "primary_interval", "secondary", "secondary_interval")
Row = dict[str, Any]


def choose(
    store_path: Path,
    data: Path,
    names: Sequence[str] | None = None,
    decoders: Sequence[str] = TRIED,
    pooling: str = "",
) -> list[Row]:
    """Fit every head once, and decode its scores in every way.

    What chooses is folds of train: decoders are tuned on out-of-fold scores, and scored on folds of these that they
    were not tuned on. Valid decides nothing, so its scores are no more optimistic than those of one run.

    Parameters
    ----------
    store_path, data : Path
    names, decoders : sequence of str
        Heads, with their default parameters, and decoders, as runs name them. Heads are all that learn from what the
        store holds, if they are not named.
    pooling : str
        Which of a store's several poolings; all if empty.

    Returns
    -------
    list of dict
        A row for each pair: its F1 on folds of train, the official scores on valid, each with its interval, and
        seconds. Where F1 on folds is greatest, ``chosen`` is true.

    Raises
    ------
    UserError
        A name is unknown, or the store or the labels are at fault.
    """
    tried = [(name, make_head(name), [make_decoder(text) for text in decoders]) for name in names or HEADS]
    source = LabelledStore.load(store_path, data, pooling)
    if not names:
        tried = [each for each in tried if each[1].takes_maps == source.store.has_maps]
    for _, head, _ in tried:
        source.serve(head)
    report(_line("head", "decoder", "F1 on folds of train", "valid primary F1", "secondary F1", "seconds"))
    table: list[Row] = []
    f1: dict[tuple[str, str], ImageF1] = {}
    for name, head, made in tried:
        with watching(head):
            for text, row, of_images in _Scored.of(head, source).decode(decoders, made):
                table.append({"head": name, "decoder": text} | row)
                f1[name, text] = of_images
                report(_tell(table[-1]))
    best = max(table, key=lambda row: row["folds"])
    for row in table:
        row["chosen"] = row is best
    report(f"folds of train choose {best['head']}, {best['decoder']}")
    if PAPER in f1 and len(f1[PAPER]):
        apart = compare_scores(f1[best["head"], best["decoder"]], f1[PAPER])
        best["over_paper"] = {"difference": apart.mean, "interval": [apart.low, apart.high], "p_value": apart.p_value}
        report(f"  on valid {apart.mean:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}] to {', '.join(PAPER)}")
    return table


@dataclass(frozen=True)
class _Scored:
    """A head's scores of train, out of fold, and of valid; with what they took."""

    source: LabelledStore
    train: Scores
    valid: Scores
    clock: Clock

    @classmethod
    def of(cls, head: Head, source: LabelledStore) -> "_Scored":
        """Fit a head on train and on folds of it."""
        clock = Clock()
        X, Y = source.learn_from(source.train)
        with clock("fit"):
            head.fit(X, Y)
        with clock("folds"):
            train = score_out_of_fold(head, X, Y, source.groups)
        valid = np.empty((0, Y.shape[1]), np.float32)
        if source.valid and source.valid.readable.any():
            valid = head.predict_proba(source.learn_from(source.valid)[0])
        return cls(source, train, valid, clock)

    def decode(self, texts: Sequence[str], decoders: Sequence[Decoder]) -> Iterator[tuple[str, Row, ImageF1]]:
        """Scores of each decoder, with the F1 of each image of valid that can be read."""
        source, valid = self.source, self.source.valid
        Y = source.learn_from(source.train)[1]
        usual = usual_set(Y, source.vocabulary, MAX_CONCEPTS)
        concepts = valid.readable_concepts if valid else []
        truth, n_true = indicator(concepts, source.vocabulary), np.array([len(each) for each in concepts], np.int64)
        for text, decoder in zip(texts, decoders, strict=True):
            with self.clock("decode"):
                named = decoder.fit(self.train, Y, None, source.groups).predict(self.valid)
            folds = estimate_decoder(decoder, self.train, Y, None, source.groups)
            row: Row = {"folds": mean_f1(folds), "folds_interval": list(find_interval(folds))}
            row |= {"report": decoder.report(), "seconds": dict(self.clock.seconds)}
            row |= dict.fromkeys(OFFICIAL)
            if valid:
                sets = name_columns(named, source.vocabulary, valid.readable, usual)
                official = score_valid(valid, sets, False) or {}
                row |= {key: official.get(key) for key in OFFICIAL}
            yield text, row, image_f1(truth, named, n_true)


def _tell(row: Row) -> str:
    scores = ["-" if row[key] is None else with_interval(row, key) for key in ("folds", "primary", "secondary")]
    seconds = " ".join(f"{stage} {value:.1f}" for stage, value in row["seconds"].items())
    return _line(row["head"], row["decoder"], scores[0], scores[1], scores[2], seconds)


def _line(head: str, decoder: str, folds: str, primary: str, secondary: str, seconds: str) -> str:
    return f"{head:<9} {decoder:<27} {folds:<24} {primary:<24} {secondary:<24} {seconds}"
