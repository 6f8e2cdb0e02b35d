"""Several runs as one: their scores are mixed, or their concept sets are joined. Their stores may differ."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.store import FeatureStore, Split
from cache.support.errors import ParameterError, RunError
from cache.support.json_file import DamagedFileError, check_type
from cache.support.messages import describe_error
from heads.data.types import Scores
from heads.data.vocabulary import columns_to_concepts, place_columns
from heads.decoders.ranking import bound_sizes
from heads.runs.files import RunFiles, damaged
from heads.runs.folder import METRICS, read_metrics
from heads.runs.metrics import RunMetrics
from heads.runs.predictor import Predictor, Scored, StoredRun
from heads.runs.run import load_decoder

if TYPE_CHECKING:
    from heads.decoders.base import Decoder

METHODS = ("mean", "weighted", "stack", "union", "intersection", "vote")
"""Ways to join runs. The first three mix scores, and a decoder turns the mixed scores into sets. The others join the
sets that each run's own decoder predicts."""

MIXING = METHODS[:3]


class MixedParams(TypedDict):
    """The parameters of an ensemble in ``metrics.json``."""

    how: str
    numbers: list[float]


def _check_numbers(params: MixedParams, n_members: int) -> None:
    """Check that a method has the numbers that it needs."""
    needed = {"weighted": n_members, "stack": n_members + 1}.get(params["how"], 0)
    if params["how"] not in METHODS or not n_members:
        raise DamagedFileError(f"{n_members:,} members, joined by {params['how']!r}")
    if len(params["numbers"]) != needed or not np.isfinite(params["numbers"]).all():
        raise DamagedFileError(f"{len(params['numbers']):,} numbers of {n_members:,} members")


@dataclass(frozen=True)
class Ensemble:
    """Runs that predict together.

    Parameters
    ----------
    members : sequence of StoredRun
    method : str
        One of `METHODS`.
    numbers : sequence of float
        For ``weighted`` the weight of each member, for ``stack`` the coefficient of each member and the intercept.
        Empty for the other methods.
    decoder : Decoder
        Fitted; without effect if sets are joined.
    vocabulary : list of str, length n_concepts
        The concepts of all members, sorted.
    fallback : list of str
        The concepts of an image that no member can read.
    """

    members: Sequence[StoredRun]
    method: str
    numbers: Sequence[float]
    decoder: "Decoder"
    vocabulary: list[str] = field(repr=False)
    fallback: list[str] = field(repr=False)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Ensemble":
        """Read a finished ensemble. Nothing of its files is executed.

        Raises
        ------
        RunError
            The folder holds no finished ensemble, or a damaged one.
        StoreError
            The store of a member is missing, damaged or of other features.
        """
        folder = Path(folder)
        files = RunFiles.open(folder)
        metrics = files.read_json(METRICS, RunMetrics)
        decoder, vocabulary, fallback = load_decoder(files)
        try:
            mixed = check_type(metrics["params"], MixedParams)
            members = metrics.get("members", [])
            stores = [(files.open_member(each["name"]), Path(each["store"])) for each in members]
            _check_numbers(mixed, len(stores))
        except (DamagedFileError, OSError) as error:
            raise RunError(f"{folder}: a damaged ensemble ({describe_error(error)}); make it again") from error
        opened = [StoredRun(member, store) for member, store in stores]
        return cls(opened, mixed["how"], mixed["numbers"], decoder, vocabulary, fallback)

    @property
    def stores(self) -> list[FeatureStore]:
        """The stores of the members, each once."""
        return list({member.store.path: member.store for member in self.members}.values())

    @property
    def data_folders(self) -> list[Path]:
        """The folders with the labels that the members were trained on, each once."""
        return list(dict.fromkeys(folder for member in self.members for folder in member.data_folders))

    @property
    def content(self) -> str:
        """Digest of everything in the stores."""
        return hashlib.sha256(json.dumps([member.content for member in self.members]).encode()).hexdigest()

    def images(self, split: str) -> tuple[list[str], NDArray[np.bool_]]:
        """Ids of a split in the store of any member, and whether any member can read each image."""
        readable: dict[str, bool] = {}
        for member in self.members:
            for id, can_read in zip(*member.images(split), strict=True):
                readable[id] = readable.get(id, False) or bool(can_read)
        return list(readable), np.fromiter(readable.values(), bool)

    def scores(self, split: str) -> Scores:
        """Mixed scores of the images that any member can read, shape (n_readable, n_concepts).

        The others score an image that a member cannot read.
        """
        return self.combine(self._member_scores(split))

    def combine(self, parts: Sequence[Scores]) -> Scores:
        """Mix the members' scores of the same images, in the columns of the ensemble.

        Parameters
        ----------
        parts : sequence of ndarray of float32, each of shape (n_images, n_concepts)
            NaN in the rows that a member cannot read.

        Returns
        -------
        ndarray of float32, shape (n_images, n_concepts)
        """
        from heads.ensembles.blend import mix, stack

        filled = _fill(parts)
        if self.method == "stack":
            return stack(filled, self.numbers)
        return mix(filled, self.numbers if self.method == "weighted" else [1 / len(parts)] * len(parts))

    def decode(self, scores: Scores, parts: Sequence[Scores]) -> scipy.sparse.csr_matrix:
        """Predicted concepts of each image, from mixed scores or from the members' own sets.

        Parameters
        ----------
        scores : ndarray of float32, shape (n_images, n_concepts)
            Those of `combine`.
        parts : sequence of ndarray of float32, each of shape (n_images, n_concepts)
            The scores that were mixed.

        Returns
        -------
        sparse matrix of {0, 1}, shape (n_images, n_concepts)
        """
        if self.method in MIXING:
            return self.decoder.predict(scores)
        votes = np.zeros(scores.shape, np.int16)
        n_voters = np.zeros(len(scores), np.int16)
        for member, part in zip(self.members, parts, strict=True):
            readable = ~np.isnan(part[:, 0])
            columns = self._place(member)
            votes[readable] += self._widen_sets(member.run.decoder.predict(part[readable][:, columns]), columns)
            n_voters += readable
        needed = {"union": np.ones_like(n_voters), "intersection": n_voters, "vote": n_voters // 2 + 1}[self.method]
        return scipy.sparse.csr_matrix(bound_sizes(votes >= needed[:, None], scores), dtype=np.int8)

    def predict(self, split: str) -> list[list[str]]:
        """The sorted concepts of each image of a split."""
        parts = self._member_scores(split)
        predicted = self.decode(self.combine(parts), parts)
        return columns_to_concepts(predicted, self.vocabulary, self.images(split)[1], self.fallback)

    def predict_rows(self, rows: Mapping[Path, Split]) -> Scored:
        """Predict images from their features of each member's store, in the store or not."""
        readable = np.any([rows[member.store.path].readable for member in self.members], axis=0)
        parts = [self._widen_rows(member, rows[member.store.path], readable) for member in self.members]
        scores = self.combine(parts)
        concepts = columns_to_concepts(self.decode(scores, parts), self.vocabulary, readable, self.fallback)
        probabilities = self.decoder.calibrate(scores) if self.method in MIXING else scores
        return Scored.from_readable(readable, probabilities, concepts)

    def check_unchanged(self) -> None:
        """Check that no member's store was changed in place since it was opened."""
        for member in self.members:
            member.check_unchanged()

    def _member_scores(self, split: str) -> list[Scores]:
        """Each member's scores of the images that any member can read; NaN for those that it cannot read."""
        ids, readable = self.images(split)
        wanted = _list_readable(ids, readable)
        return [
            self.widen(member, align_rows(wanted, _list_readable(*member.images(split)), member.scores(split)))
            for member in self.members
        ]

    def _widen_rows(self, member: StoredRun, rows: Split, wanted: NDArray[np.bool_]) -> Scores:
        """A member's scores of the wanted images; NaN for those that it cannot read."""
        aligned = np.full((len(rows.ids), len(member.run.vocabulary)), np.nan, np.float32)
        aligned[rows.readable] = member.score_rows(rows)
        return self.widen(member, aligned[wanted])

    def widen(self, member: StoredRun, scores: Scores) -> Scores:
        """A member's scores in the columns of the ensemble; 0 for a concept that the member does not know."""
        if member.run.vocabulary == self.vocabulary:
            return scores
        wide = np.where(np.isnan(scores[:, :1]), scores[:, :1], np.zeros((1, len(self.vocabulary)), np.float32))
        wide[:, self._place(member)] = scores
        return wide

    def _place(self, member: StoredRun) -> NDArray[np.int64]:
        """The columns of a member in those of the ensemble."""
        if not set(member.run.vocabulary) <= set(self.vocabulary):
            raise damaged(member.folder, "a concept that the ensemble does not have")
        return place_columns(member.run.vocabulary, self.vocabulary)

    def _widen_sets(self, predicted: scipy.sparse.csr_matrix, columns: NDArray[np.int64]) -> NDArray[np.int16]:
        wide = np.zeros((predicted.shape[0], len(self.vocabulary)), np.int16)
        wide[:, columns] = predicted.toarray()
        return wide


def open_predictor(folder: Path, store: Path | None) -> Predictor:
    """Open a run, which needs a store, or an ensemble, which remembers its stores.

    Raises
    ------
    RunError
        The folder holds no finished run.
    ParameterError
        The run needs a store.
    StoreError
        A store is missing, damaged or of other features.
    """
    if "members" in read_metrics(folder):
        return Ensemble.load(folder)
    if store is None:
        raise ParameterError(f"{folder}: needs the store that it was trained on; name it with --store")
    return StoredRun(folder, store)


def reopen_predictor(folder: Path) -> Predictor:
    """Open a run or an ensemble with the stores that it was trained on.

    Raises
    ------
    RunError
        The folder holds no finished run, or does not say which store it was trained on.
    StoreError
        A store is missing, damaged or of other features.
    """
    return Ensemble.load(folder) if "members" in read_metrics(folder) else StoredRun.reopen(folder)


def align_rows(wanted: Sequence[str], ids: Sequence[str], scores: Scores) -> Scores:
    """Scores of the wanted images, NaN for those that have none.

    Parameters
    ----------
    wanted : sequence of str, length n_wanted
    ids : sequence of str, length n_images
        Whose scores there are.
    scores : ndarray of float32, shape (n_images, n_concepts)

    Returns
    -------
    ndarray of float32, shape (n_wanted, n_concepts)

    Examples
    --------
    >>> scores = np.array([[0.1], [0.3]], np.float32)
    >>> align_rows(["c", "b"], ["a", "c"], scores).tolist()
    [[0.30000001192092896], [nan]]
    """
    places = {id: row for row, id in enumerate(ids)}
    rows = np.array([places.get(id, -1) for id in wanted], dtype=np.int64)
    if np.array_equal(rows, np.arange(len(scores))):
        return scores
    aligned = np.full((len(rows), scores.shape[1]), np.nan, np.float32)
    aligned[rows >= 0] = scores[rows[rows >= 0]]
    return aligned


def _list_readable(ids: Sequence[str], readable: NDArray[np.bool_]) -> list[str]:
    return [id for id, can_read in zip(ids, readable, strict=True) if can_read]


def _fill(parts: Sequence[Scores]) -> list[Scores]:
    """Replace the missing scores of a member by the mean of the others."""
    missing = [np.isnan(part[:, 0]) for part in parts]
    if not any(each.any() for each in missing):
        return list(parts)
    mean = np.nanmean(np.stack(list(parts)), axis=0)
    return [np.where(gone[:, None], mean, part) for gone, part in zip(missing, parts, strict=True)]
