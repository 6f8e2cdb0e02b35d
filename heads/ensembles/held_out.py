"""An ensemble in the making: weights and decoder are fitted on held-out scores, and valid is scored."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.base import clone

from cache.support.errors import UserError
from cache.support.versions import installed_versions
from eval.f1 import ImageF1, image_f1
from heads.data.folds import VALID_SCORES, load_scores, save_scores, score_out_of_fold, split_folds
from heads.data.split import LabelledSplit, indicator
from heads.data.store import LabelledStore
from heads.data.types import Groups, Scores
from heads.decoders.base import Decoder
from heads.ensembles.blend import fit_stack, fit_weights
from heads.ensembles.ensemble import MIXED, Ensemble, align_rows
from heads.evaluation.cross_validation import summarise
from heads.evaluation.official_score import score_valid
from heads.runs.builder import VERSIONS
from heads.runs.predictor import StoredRun
from heads.runs.progress import watching
from heads.runs.request import FOLDS, TRAIN, VALID_SPLIT
from heads.runs.run import FORMAT, name_columns

ENSEMBLE = "ensemble"

FITTED = {"weighted": fit_weights, "stack": fit_stack}
"""Ways to mix that have numbers to fit."""


@dataclass(frozen=True)
class HeldOut:
    """Each member's scores of images that it did not learn from, and what those images show.

    Parameters
    ----------
    parts : sequence of ndarray of float32, shape (n_images, n_concepts)
    Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
    n_true : ndarray of int, shape (n_images,)
    groups : ndarray or None
        What stays together where these images are split.
    """

    parts: Sequence[Scores]
    Y: scipy.sparse.csr_matrix
    n_true: NDArray[np.int64]
    groups: Groups

    def take(self, rows: NDArray[np.int64]) -> "HeldOut":
        """Those of some images."""
        groups = None if self.groups is None else self.groups[rows]
        return HeldOut([part[rows] for part in self.parts], self.Y[rows], self.n_true[rows], groups)


@dataclass(frozen=True)
class Making:
    """An ensemble in the making.

    Parameters
    ----------
    members : list of StoredRun
    labels : list of LabelledStore
        What each was made from.
    how : str
        One of `heads.ensembles.ensemble.HOWS`.
    decoder : Decoder
    decoder_text : str
    tune : str
        ``folds`` or ``valid``: what weights and decoder are fitted on.
    nested : bool
        Whether an estimate by cross-validation is made too.
    """

    members: list[StoredRun]
    labels: list[LabelledStore]
    how: str
    decoder: Decoder
    decoder_text: str
    tune: str
    nested: bool

    def fit(self) -> tuple[Ensemble, dict[str, Any] | None]:
        """Fit weights and decoder, as far as they need it; gives the estimate too, if one is asked for."""
        vocabulary = sorted({concept for member in self.members for concept in member.run.vocabulary})
        ensemble = Ensemble(self.members, self.how, [], self.decoder, vocabulary, self.members[0].run.usual)
        if not self._is_tuned and not self.nested:
            nothing = scipy.sparse.csr_matrix((0, len(vocabulary)), dtype=np.int8)
            self.decoder.fit(np.empty(nothing.shape, np.float32), nothing)
            return ensemble, None
        held_out = self._hold_out(ensemble)
        nested = summarise(self._estimate(ensemble, held_out), self._tuned_split) if self.nested else None
        return self._fit(ensemble, held_out), nested

    @property
    def _is_tuned(self) -> bool:
        return self.how in FITTED or (self.how in MIXED and self.decoder.tuned)

    @property
    def _tuned_split(self) -> str:
        return TRAIN if self.tune == FOLDS else VALID_SPLIT

    def _fit(self, ensemble: Ensemble, held_out: HeldOut) -> Ensemble:
        if self.how in FITTED:
            numbers = [float(each) for each in FITTED[self.how](held_out.parts, held_out.Y)]
            ensemble = replace(ensemble, numbers=numbers)
        ensemble.decoder.fit(ensemble.combine(held_out.parts), held_out.Y, held_out.n_true, held_out.groups)
        return ensemble

    def _estimate(self, ensemble: Ensemble, held_out: HeldOut) -> ImageF1:
        """F1 of each image, where weights and decoder are fitted on the other folds; the members stay as they are."""
        f1 = np.empty(len(held_out.n_true))
        for rest, held in split_folds(len(f1), held_out.groups):
            fitted = self._fit(replace(ensemble, decoder=clone(self.decoder)), held_out.take(rest))
            unseen = held_out.take(held)
            named = fitted.decode(fitted.combine(unseen.parts), unseen.parts)
            f1[held] = image_f1(unseen.Y, named, unseen.n_true)
        return f1

    def _hold_out(self, ensemble: Ensemble) -> HeldOut:
        """Scores of the images that every store can read."""
        splits = [self._find_split(label) for label in self.labels]
        readable = [set(split.readable_ids) for split in splits]
        rows = [row for row, id in enumerate(splits[0].ids) if all(id in each for each in readable)]
        if not rows:
            raise UserError(f"no image of {self.tune} can be read in every store; expected some to tune on")
        ids, concepts = [splits[0].ids[row] for row in rows], [splits[0].concepts[row] for row in rows]
        parts = []
        for member, label, split in zip(self.members, self.labels, splits, strict=True):
            scores = self._score_folds(member, label) if self.tune == FOLDS else score_unseen(member, split)
            parts.append(ensemble.widen(member, align_rows(ids, split.ids, split.readable, scores)))
        n_true = np.array([len(each) for each in concepts], dtype=np.int64)
        return HeldOut(parts, indicator(concepts, ensemble.vocabulary), n_true, self._find_groups(ids))

    def _find_split(self, label: LabelledStore) -> LabelledSplit:
        split = label.train if self.tune == FOLDS else label.valid
        if split is None:
            raise UserError(f"{label.store.path}: has no split 'valid' to tune on; use TUNE=folds")
        return split

    def _find_groups(self, ids: Sequence[str]) -> Groups:
        first = self.labels[0]
        groups = first.groups if self.tune == FOLDS else first.valid_groups
        if groups is None:
            return None
        group_of = dict(zip(self._find_split(first).readable_ids, groups, strict=True))
        return np.array([group_of[id] for id in ids])

    def _score_folds(self, member: StoredRun, label: LabelledStore) -> Scores:
        """A member's out-of-fold scores of train; kept with it, as they cost several fits."""
        X, _ = label.learn_from(label.train)
        # The labels may have changed since, and name concepts that the member does not know.
        Y = indicator(label.train.readable_concepts, member.run.vocabulary)
        scores: Scores | None = load_scores(member.folder, Y.shape)
        if scores is None:
            label.serve(member.run.head)
            with watching(member.run.head):
                scores = score_out_of_fold(member.run.head, X, Y, label.groups)
            save_scores(scores, member.folder)
        return scores

    def assess(self, ensemble: Ensemble, nested: dict[str, Any] | None) -> tuple[dict[str, Any], list[list[str]]]:
        """Score valid as a run does; gives the metrics and each image's concepts."""
        valid, first = self.labels[0].valid, self.members[0].metrics
        predicted: list[list[str]] = []
        official = None
        tuned_on = self.tune if self._is_tuned else None
        if valid:
            places = dict(zip(*ensemble.images(VALID_SPLIT), strict=True))
            valid = replace(valid, readable=np.array([places[id] for id in valid.ids], dtype=bool))
            parts = self._score_valid(ensemble, valid.readable_ids)
            named = ensemble.decode(ensemble.combine(parts), parts)
            predicted = name_columns(named, ensemble.vocabulary, valid.readable, ensemble.usual)
            decoders = [] if self.how in MIXED else [each.metrics["decoder"]["tuned_on"] for each in self.members]
            official = score_valid(valid, predicted, VALID_SPLIT in [tuned_on, *decoders])
        weights = [each.metrics["store"]["weights"] for each in self.members]
        name = self.decoder_text if self.how in MIXED else "each run's own"
        report = self.decoder.report() if self.how in MIXED else {}
        metrics = {
            "format": FORMAT,
            "head": f"{ENSEMBLE} by {self.how}",
            "params": {"how": self.how, "numbers": list(ensemble.numbers)},
            "pooling": "",
            "decoder": {"name": name, "tuned_on": tuned_on, "report": report},
            "valid": official,
            "nested": nested,
            "train": first["train"] | {"splits": self._learnt_from()},
            "store": {"weights": next((each for each in weights if not each.startswith("random:")), weights[0])},
            "versions": installed_versions(*VERSIONS),
            "seconds": {},
        }
        return metrics, predicted

    def _learnt_from(self) -> str:
        """``train``, or what the first member says that learnt from more."""
        splits = [str(each.metrics["train"]["splits"]) for each in self.members]
        return next((each for each in splits if each != TRAIN), TRAIN)

    def _score_valid(self, ensemble: Ensemble, ids: Sequence[str]) -> list[Scores]:
        """Each member's scores of valid, in the ensemble's columns; NaN where its store cannot read an image."""
        parts = []
        for member, label in zip(self.members, self.labels, strict=True):
            if label.valid is None:
                parts.append(np.full((len(ids), len(ensemble.vocabulary)), np.nan, np.float32))
                continue
            scores = align_rows(ids, label.valid.ids, label.valid.readable, score_unseen(member, label.valid))
            parts.append(ensemble.widen(member, scores))
        return parts


def score_unseen(member: StoredRun, valid: LabelledSplit) -> Scores:
    """A run's scores of the images of valid that can be read, by the head that had not yet learnt from them.

    Raises
    ------
    UserError
        The head has learnt from valid, and its earlier scores are gone.
    """
    if member.metrics["train"]["splits"] == TRAIN:
        return member.run.score(valid.X, valid.readable)
    kept = load_scores(member.folder, (int(valid.readable.sum()), len(member.run.vocabulary)), VALID_SCORES)
    if kept is None:
        raise UserError(
            f"{member.folder}: has learnt from valid, and the scores that it gave before are gone; make it again"
        )
    return kept
