"""Held-out scores of the members of an ensemble: of images that each member did not learn from."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.lock import locked
from cache.support.errors import DataError, RunError
from heads.data.folds import check_folds
from heads.data.split import LabelledSplit
from heads.data.store import LabelledStore
from heads.data.types import Groups, Scores
from heads.data.vocabulary import indicator
from heads.ensembles.ensemble import Ensemble, align_rows
from heads.evaluation.out_of_fold import score_out_of_fold
from heads.runs.builder import prepare_head
from heads.runs.files import VALID_SCORES
from heads.runs.predictor import StoredRun
from heads.runs.progress import watching
from heads.runs.request import FOLDS, TRAIN, RunRequest
from heads.runs.saved_scores import load_scores, save_scores


@dataclass(frozen=True)
class HeldOut:
    """The scores of each member for images that it did not learn from, and the labels of these images.

    Parameters
    ----------
    parts : sequence of ndarray of float32, each of shape (n_images, n_concepts)
        One per member, in the columns of the ensemble.
    Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
    n_true : ndarray of int, shape (n_images,)
        How many concepts each image has, those without a column included.
    groups : ndarray, shape (n_images,), or None
        Images of a group stay together where these images are divided into folds.
    """

    parts: Sequence[Scores]
    Y: scipy.sparse.csr_matrix
    n_true: NDArray[np.int64]
    groups: Groups

    @classmethod
    def find(cls, ensemble: Ensemble, data: Sequence[LabelledStore], tune: str, nested: bool = False) -> "HeldOut":
        """Find the scores of the images that every store can read; fit members on folds if they are not saved.

        What is refused is refused before the first member is fitted, whose scores are saved in its folder.

        Parameters
        ----------
        ensemble : Ensemble
        data : sequence of LabelledStore
            What each member was made from.
        tune : str
            ``folds`` for out-of-fold scores of train, or ``valid``.
        nested : bool
            Whether these images will be divided into folds.

        Raises
        ------
        DataError
            A store has no split 'valid', or there are too few images that every store can read.
        RunError
            A member has learnt from valid, and its earlier scores are gone; or another process writes a member.
        StoreError
            The network of a member that is to be fitted is missing.
        """
        splits = [_find_split(each, tune) for each in data]
        known = [split.readable_ids for split in splits]
        in_all = set(known[0]).intersection(*known[1:])
        rows = [row for row, id in enumerate(splits[0].ids) if id in in_all]
        if not rows:
            raise DataError(f"no image of {tune} can be read in every store; expected some to tune on")
        ids, concepts = [splits[0].ids[row] for row in rows], [splits[0].concepts[row] for row in rows]
        groups = _select_groups(splits[0], ids)
        if nested:
            check_folds(len(ids), groups)
        parts = []
        with _preparing_fits(ensemble.members, data) if tune == FOLDS else nullcontext():
            for member, labelled, split, own in zip(ensemble.members, data, splits, known, strict=True):
                scores = _score_folds(member, labelled) if tune == FOLDS else score_unseen(member, split)
                parts.append(ensemble.widen(member, align_rows(ids, own, scores)))
        n_true = np.array([len(each) for each in concepts], dtype=np.int64)
        return cls(parts, indicator(concepts, ensemble.vocabulary), n_true, groups)

    def select(self, rows: NDArray[np.int64]) -> "HeldOut":
        """Scores and labels of some of the images."""
        groups = None if self.groups is None else self.groups[rows]
        return HeldOut([part[rows] for part in self.parts], self.Y[rows], self.n_true[rows], groups)


def score_unseen(member: StoredRun, valid: LabelledSplit) -> Scores:
    """Scores of the images of valid that can be read, by the head of a run before it had learnt from them.

    Raises
    ------
    RunError
        The head has learnt from valid, and its earlier scores are gone.
    """
    scores = find_unseen(member, valid)
    return member.run.score(valid.X) if scores is None else scores


def score_valid(ensemble: Ensemble, data: Sequence[LabelledStore], ids: Sequence[str]) -> list[Scores]:
    """Each member's scores of images of valid, by its head before it had learnt from them.

    Parameters
    ----------
    ensemble : Ensemble
    data : sequence of LabelledStore
        What each member was made from.
    ids : sequence of str

    Returns
    -------
    list of ndarray of float32, each of shape (n_ids, n_concepts)
        In the columns of the ensemble; NaN where a member's store cannot read an image.

    Raises
    ------
    RunError
        A member has learnt from valid, and its earlier scores are gone.
    """
    parts = []
    for member, labelled in zip(ensemble.members, data, strict=True):
        valid = labelled.valid
        if valid is None:
            parts.append(np.full((len(ids), len(ensemble.vocabulary)), np.nan, np.float32))
            continue
        scores = align_rows(ids, valid.readable_ids, score_unseen(member, valid))
        parts.append(ensemble.widen(member, scores))
    return parts


def find_unseen(member: StoredRun, valid: LabelledSplit) -> Scores | None:
    """The saved scores of valid of a run that has learnt from it; None if it has not, so that its head can score it.

    Raises
    ------
    RunError
        It has learnt from valid, and the scores are gone.
    """
    if member.metrics["train"]["splits"] == TRAIN:
        return None
    scores = load_scores(member.folder, (int(valid.readable.sum()), len(member.run.vocabulary)), VALID_SCORES)
    if scores is None:
        raise RunError(
            f"{member.folder}: has learnt from valid, and the scores that it gave before are gone; make it again"
        )
    return scores


@contextmanager
def _preparing_fits(members: Sequence[StoredRun], data: Sequence[LabelledStore]) -> Iterator[None]:
    """Check and lock all members that have to be fitted on folds, so that none is refused after another was fitted."""
    with ExitStack() as locks:
        held: set[Path] = set()
        for member, labelled in zip(members, data, strict=True):
            folder, train = member.folder.resolve(), labelled.train
            if folder in held or _load_folds(member, labelled) is not None:
                continue
            check_folds(len(train.X), train.groups)
            prepare_head(member.run.head, labelled.store)
            locks.enter_context(locked(member.folder, RunError))
            held.add(folder)
        yield


def _is_of(member: StoredRun, data: LabelledStore) -> bool:
    """Whether a member was made with the labels and groups that the data folder has now."""
    request = RunRequest.read(member.folder)
    return request.digest(member.run.head.get_params(), data)["head"] == member.metrics["requests"]["head"]


def _load_folds(member: StoredRun, data: LabelledStore) -> Scores | None:
    """The saved out-of-fold scores of train, if images were divided into folds then as they would be now."""
    shape = int(data.train.tuning.readable.sum()), len(member.run.vocabulary)
    scores = load_scores(member.folder, shape)
    return scores if scores is not None and _is_of(member, data) else None


def _score_folds(member: StoredRun, data: LabelledStore) -> Scores:
    """A member's out-of-fold scores of train. They cost several fits, so they are saved in the member's folder."""
    train = data.train
    scores = _load_folds(member, data)
    if scores is None:
        # The labels may have concepts that the member does not know.
        Y = indicator(train.readable_concepts, member.run.vocabulary)
        with watching(member.run.head) as progress:
            scores = score_out_of_fold(member.run.head, train.X, Y, train.groups, progress, train.tuning_rows)
        # Those of other labels or groups are not the member's: its decoder would be tuned on them again.
        if _is_of(member, data):
            save_scores(scores, member.folder)
    return scores


def _find_split(data: LabelledStore, tune: str) -> LabelledSplit:
    split = data.train.tuning if tune == FOLDS else data.valid
    if split is None:
        raise DataError(f"{data.store.path}: has no split 'valid' to tune on; use TUNE=folds")
    return split


def _select_groups(split: LabelledSplit, ids: Sequence[str]) -> Groups:
    """The groups of some readable images of a split."""
    if split.groups is None:
        return None
    group_of = dict(zip(split.readable_ids, split.groups, strict=True))
    return np.array([group_of[id] for id in ids])
