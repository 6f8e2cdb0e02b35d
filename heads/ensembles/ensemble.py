"""Several runs as one: their scores are mixed, or their concept sets joined; their stores may differ."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.support.errors import UserError
from heads.decoders.base import Decoder
from heads.decoders.ranking import bound_sizes
from heads.ensembles.blend import mix, stack
from heads.runs.predictor import Predictor, StoredRun
from heads.runs.run import MEMBERS, load_decoded, name_columns, read_metrics

HOWS = ("mean", "weighted", "stack", "union", "intersection", "vote")
"""Ways to join runs. The first three mix scores, which a decoder turns into sets; the others join the sets that each
run's own decoder gives."""

MIXED = HOWS[:3]


@dataclass(frozen=True)
class Ensemble:
    """Runs that are scored together.

    Parameters
    ----------
    members : sequence of StoredRun
    how : str
        One of `HOWS`.
    numbers : sequence of float
        Weights, or coefficients of a stack; one a member, and an intercept for a stack. Empty for the others.
    decoder : Decoder
    vocabulary : list of str
        The concepts of all members.
    usual : list of str
        The concepts of an image that no member can read.
    """

    members: Sequence[StoredRun]
    how: str
    numbers: Sequence[float]
    decoder: Decoder
    vocabulary: list[str]
    usual: list[str]

    @classmethod
    def load(cls, folder: Path) -> "Ensemble":
        """Read a finished ensemble; executes nothing of it.

        Raises
        ------
        UserError
            The folder holds none, a damaged one, or a member's store is missing or has changed its features.
        """
        metrics = read_metrics(folder)
        decoder, vocabulary, usual = load_decoded(folder)
        try:
            stores = [(str(each["name"]), Path(each["store"])) for each in metrics["members"]]
            how, numbers = metrics["params"]["how"], [float(each) for each in metrics["params"]["numbers"]]
            if how not in HOWS or any(Path(name).name != name for name, _ in stores):
                raise ValueError("odd members")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{folder}: a damaged ensemble ({error}); make it again") from error
        members = [StoredRun(folder / MEMBERS / name, store) for name, store in stores]
        return cls(members, how, numbers, decoder, vocabulary, usual)

    @property
    def content(self) -> str:
        """Digest of all that the stores hold."""
        return hashlib.sha256(json.dumps([member.content for member in self.members]).encode()).hexdigest()

    def images(self, split: str) -> tuple[list[str], NDArray[np.bool_]]:
        """Ids of a split in any member's store, and whether any member can read each."""
        readable: dict[str, bool] = {}
        for member in self.members:
            for id, can in zip(*member.images(split), strict=True):
                readable[id] = readable.get(id, False) or bool(can)
        return list(readable), np.fromiter(readable.values(), bool)

    def scores(self, split: str) -> NDArray[np.float32]:
        """Mixed scores of the images that any member can read, shape (n_readable, n_concepts).

        An image that a member cannot read is scored by the others.
        """
        return self.combine(self._member_scores(split))

    def combine(self, parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Mix scores of the same images, in the ensemble's columns; NaN where a member gives none."""
        filled = _fill(parts)
        if self.how == "stack":
            return stack(filled, self.numbers)
        return mix(filled, self.numbers if self.how == "weighted" else [1 / len(parts)] * len(parts))

    def decode(self, scores: NDArray[np.float32], parts: Sequence[NDArray[np.float32]]) -> scipy.sparse.csr_matrix:
        """Indicator of the concepts of each image, from mixed scores or from the members' own sets."""
        if self.how in MIXED:
            return self.decoder.predict(scores)
        votes = np.zeros(scores.shape, np.int16)
        n_seen = np.zeros(len(scores), np.int16)
        for member, part in zip(self.members, parts, strict=True):
            seen = ~np.isnan(part[:, 0])
            columns = place_columns(member.run.vocabulary, self.vocabulary)
            votes[seen] += self._widen(member.run.decoder.predict(part[seen][:, columns]), columns)
            n_seen += seen
        needed = {"union": np.ones_like(n_seen), "intersection": n_seen, "vote": n_seen // 2 + 1}[self.how]
        return scipy.sparse.csr_matrix(bound_sizes(votes >= needed[:, None], scores), dtype=np.int8)

    def name(self, split: str) -> list[list[str]]:
        """The sorted concepts of each image of a split."""
        parts = self._member_scores(split)
        return name_columns(self.decode(self.combine(parts), parts), self.vocabulary, self.images(split)[1], self.usual)

    def _member_scores(self, split: str) -> list[NDArray[np.float32]]:
        ids, readable = self.images(split)
        return self.align([id for id, can in zip(ids, readable, strict=True) if can], split)

    def align(self, ids: Sequence[str], split: str) -> list[NDArray[np.float32]]:
        """Each member's scores of some images, in the ensemble's columns; NaN where the member cannot read them."""
        return [
            self.widen(member, align_rows(ids, *member.images(split), member.scores(split))) for member in self.members
        ]

    def widen(self, member: StoredRun, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """A member's scores in the ensemble's columns, 0 for a concept that it does not know."""
        if member.run.vocabulary == self.vocabulary:
            return scores
        wide = np.where(np.isnan(scores[:, :1]), scores[:, :1], np.zeros((1, len(self.vocabulary)), np.float32))
        wide[:, place_columns(member.run.vocabulary, self.vocabulary)] = scores
        return wide

    def _widen(self, named: scipy.sparse.csr_matrix, columns: NDArray[np.int64]) -> NDArray[np.int16]:
        wide = np.zeros((named.shape[0], len(self.vocabulary)), np.int16)
        wide[:, columns] = named.toarray()
        return wide


def open_predictor(folder: Path, store_path: Path | None) -> Predictor:
    """Open a run, which needs a store, or an ensemble, which remembers its stores.

    Raises
    ------
    UserError
        The folder holds neither, or a store is missing.
    """
    if "members" in read_metrics(folder):
        return Ensemble.load(folder)
    if store_path is None:
        raise UserError(f"{folder}: needs the store that it was trained on; name it with --store")
    return StoredRun(folder, store_path)


def place_columns(part: Sequence[str], whole: Sequence[str]) -> NDArray[np.int64]:
    """Where each concept of a vocabulary stands in a larger one.

    >>> place_columns(["C1", "C3"], ["C1", "C2", "C3"]).tolist()
    [0, 2]
    """
    places = {concept: column for column, concept in enumerate(whole)}
    return np.array([places[concept] for concept in part], dtype=np.int64)


def align_rows(
    wanted: Sequence[str], ids: Sequence[str], readable: NDArray[np.bool_], scores: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scores of the wanted images, NaN for those that are missing or cannot be read.

    Parameters
    ----------
    wanted, ids : sequence of str
    readable : ndarray of bool, shape (n_ids,)
    scores : ndarray of float32, shape (n_readable, n_concepts)
    """
    places = {id: row for row, id in enumerate(id for id, can in zip(ids, readable, strict=True) if can)}
    rows = np.array([places.get(id, -1) for id in wanted], dtype=np.int64)
    if np.array_equal(rows, np.arange(len(scores))):
        return scores
    aligned = np.full((len(rows), scores.shape[1]), np.nan, np.float32)
    aligned[rows >= 0] = scores[rows[rows >= 0]]
    return aligned


def _fill(parts: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Put the mean of the other members where one gives no score."""
    missing = [np.isnan(part[:, 0]) for part in parts]
    if not any(each.any() for each in missing):
        return list(parts)
    mean = np.nanmean(np.stack(list(parts)), axis=0)
    return [np.where(gone[:, None], mean, part) for gone, part in zip(missing, parts, strict=True)]
