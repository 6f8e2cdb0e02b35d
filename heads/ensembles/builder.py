"""Make an ensemble of finished runs: fit weights and decoder to held-out scores, score valid, save it as a run."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse
from sklearn.base import clone

from cache.lock import locked
from cache.support.errors import DataError, ParameterError, RunError
from cache.support.files import sync
from cache.support.reporting import report
from cache.support.versions import installed_versions
from eval.concept_names import find_names
from eval.f1 import ImageF1, image_f1
from heads.data.folds import split_folds
from heads.data.official_score import ScoreMetrics
from heads.data.store import LabelledStore, load_each
from heads.data.vocabulary import columns_to_concepts
from heads.decoders.base import Decoder
from heads.ensembles.blend import fit_stack, fit_weights
from heads.ensembles.ensemble import MIXING, Ensemble
from heads.ensembles.held_out import HeldOut, find_unseen, score_valid
from heads.ensembles.request import ENSEMBLE, EnsembleRequest
from heads.evaluation.cross_validation import EstimateMetrics, summarise
from heads.runs.builder import PACKAGES, save_result
from heads.runs.card import ModelCard
from heads.runs.command_line import repeat_ensemble
from heads.runs.concept_table import CONCEPTS, ConceptTable
from heads.runs.description import describe
from heads.runs.files import DIGESTS, FORMAT, MEMBERS, RunFiles, damaged
from heads.runs.folder import check_folder, find_whole, read_metrics, replacing_results
from heads.runs.leftovers import remove_leftovers
from heads.runs.metrics import MemberMetrics, RequestDigests, RunMetrics
from heads.runs.predictor import StoredRun
from heads.runs.request import FOLDS, TRAIN, VALID_SPLIT, RunRequest
from heads.runs.run import save_decoder

FITTED = {"weighted": fit_weights, "stack": fit_stack}
"""The methods with numbers to fit."""


def make_ensemble(
    runs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    method: str = "mean",
    *,
    decoder: str | None = None,
    tune: str | None = None,
    nested: bool | None = None,
) -> RunMetrics:
    """Join runs, which may have different backbones and stores, and save the result as a run.

    Parameters
    ----------
    runs : sequence of path
        Folders of at least two finished runs on the same data.
    out : path
        The folder of the ensemble. A finished ensemble of the same request is left as it is.
    method : str
        ``mean``, ``weighted`` or ``stack`` of scores; ``union``, ``intersection`` or ``vote`` of sets.
    decoder, tune, nested : optional
        As in `heads.fit_run`, with their defaults if they are None. If sets are joined there is no decoder.

    Returns
    -------
    dict
        The metrics, as in ``metrics.json``.

    Raises
    ------
    ParameterError
        An option has a value that it cannot have, or there are fewer than two runs.
    RunError
        A run is missing, damaged or an ensemble itself, or another process is writing one of the folders.
    DataError
        The runs are of different data.
    """
    out, folders = Path(out), [Path(run) for run in runs]
    request = EnsembleRequest.resolve(method, decoder, tune, nested)
    if len(folders) < 2:
        raise ParameterError(f"{len(folders)} runs given, expected at least two to make an ensemble of")
    if any(folder.resolve() == out.resolve() for folder in folders):
        raise ParameterError(f"{out}: is one of the runs to join, which it would replace; name another RUN (--out)")
    members, data = _open_members(folders)
    digests = request.digest(members, data)
    for folder in folders:
        remove_leftovers(folder)
    earlier = find_whole(out)
    if earlier and earlier["requests"] == digests:
        remove_leftovers(out)
        report(f"{out}: up to date ({describe(earlier)})")
        return earlier
    with locked(out, RunError):
        check_folder(out)
        builder = EnsembleBuilder(request, members, data)
        builder.check()
        built = builder.build(digests)
        for labelled in data:
            labelled.store.check_unchanged()
        built.save(out, request, data[0])
    for line in built.concepts.describe(out / CONCEPTS):
        report(line)
    report(f"{out}: {len(members)} runs ({describe(built.metrics)})")
    return built.metrics


def _open_members(folders: Sequence[Path]) -> tuple[list[StoredRun], list[LabelledStore]]:
    """The runs, and what each was made from."""
    members, requests = [], []
    for folder in folders:
        if "members" in read_metrics(folder):
            raise RunError(f"{folder}: is an ensemble itself; name the runs that it is made of")
        request = RunRequest.read(folder)
        members.append(StoredRun(folder, request.store))
        requests.append(request)
    data = load_each((each.store, each.data, each.pooling, each.concepts) for each in requests)
    for folder, labelled in zip(folders, data, strict=True):
        if labelled.train.files != data[0].train.files:
            raise DataError(f"{folder} was trained on other labels than {folders[0]}; expected runs on the same data")
    return members, data


@dataclass(frozen=True)
class BuiltEnsemble:
    """An ensemble before it is saved.

    Parameters
    ----------
    ensemble : Ensemble
    metrics : dict
    valid_ids : list of str
    predicted : list of list of str
        The concepts of each image of valid.
    concepts : ConceptTable
    """

    ensemble: Ensemble
    metrics: RunMetrics
    valid_ids: list[str]
    predicted: list[list[str]]
    concepts: ConceptTable

    def save(self, out: Path, request: EnsembleRequest, data: LabelledStore) -> None:
        """Write the folder of the ensemble, in place of an earlier run; `data` is what its first member learnt from."""
        ensemble = self.ensemble
        runs = [str(member.folder.absolute()) for member in ensemble.members]
        stored = {"name": ENSEMBLE} | request.to_json() | {"members": runs}
        folder_of_data = Path(RunRequest.read(ensemble.members[0].folder).data)
        card = ModelCard(self.metrics, data, folder_of_data, [repeat_ensemble(stored, out)])
        with replacing_results(out, stored) as folder:
            for member, copied in zip(ensemble.members, self.metrics["members"], strict=True):
                _copy_run(member.folder, folder / MEMBERS / copied["name"])
            save_decoder(folder, ensemble.decoder, request.decoder, ensemble.vocabulary, ensemble.fallback)
            save_result(folder, self.metrics, self.valid_ids, self.predicted, self.concepts, card)


@dataclass(frozen=True)
class EnsembleBuilder:
    """Makes an ensemble of runs.

    Parameters
    ----------
    request : EnsembleRequest
    members : sequence of StoredRun
    data : sequence of LabelledStore
        What each member was made from.
    """

    request: EnsembleRequest
    members: Sequence[StoredRun]
    data: Sequence[LabelledStore]

    def check(self) -> None:
        """Check that every member can score valid, before one is fitted on folds and these scores are saved.

        Raises
        ------
        RunError
            A member has learnt from valid, and its earlier scores are gone.
        """
        for member, data in zip(self.members, self.data, strict=True):
            if self.data[0].valid and data.valid:
                find_unseen(member, data.valid)

    def build(self, digests: RequestDigests) -> BuiltEnsemble:
        """Fit weights and decoder as far as the method needs them, and score valid as a run does.

        Parameters
        ----------
        digests : dict
            Those of `EnsembleRequest.digest`.
        """
        ensemble, estimate = self._fit_and_estimate(self.request.make_decoder())
        predicted, official = self._score(ensemble)
        valid = self.data[0].valid
        names = find_names(RunRequest.read(self.members[0].folder).data)
        n_train = self.data[0].train.count_concepts()
        concepts = ConceptTable.from_predictions(
            valid.concepts if valid else [], predicted, names, n_train, VALID_SPLIT
        )
        weights = [member.metrics["store"]["weights"] for member in self.members]
        is_mixing = self.request.method in MIXING
        metrics: RunMetrics = {
            "format": FORMAT,
            "head": f"{ENSEMBLE} by {self.request.method}",
            "params": {"how": self.request.method, "numbers": list(ensemble.numbers)},
            "pooling": "",
            "decoder": {
                "name": self.request.decoder if is_mixing else "each run's own",
                "tuned_on": self._tuned_on(ensemble.decoder),
                "report": ensemble.decoder.report() if is_mixing else {},
            },
            "valid": official,
            "folds": estimate if estimate and estimate["on"] == TRAIN else None,
            "bands": concepts.count_bands(),
            "nested": estimate if self.request.nested else None,
            "train": self.members[0].metrics["train"] | {"splits": self._learnt_from()},
            "store": {"weights": next((each for each in weights if not each.startswith("random:")), weights[0])},
            "versions": installed_versions(*PACKAGES),
            "seconds": {},
            "requests": digests,
            "members": [_describe_member(number, member) for number, member in enumerate(self.members)],
        }
        return BuiltEnsemble(ensemble, metrics, valid.ids if valid else [], predicted, concepts)

    def _fit_and_estimate(self, decoder: Decoder) -> tuple[Ensemble, EstimateMetrics | None]:
        vocabulary = sorted({concept for member in self.members for concept in member.run.vocabulary})
        fallback = self.members[0].run.fallback
        ensemble = Ensemble(self.members, self.request.method, [], decoder, vocabulary, fallback)
        if self._tuned_on(decoder) is None and not self.request.nested:
            nothing = scipy.sparse.csr_matrix((0, len(vocabulary)), dtype=np.int8)
            decoder.fit(np.empty(nothing.shape, np.float32), nothing)
            return ensemble, None
        split = TRAIN if self.request.tune == FOLDS else VALID_SPLIT
        estimates = self.request.nested or split == TRAIN
        held_out = HeldOut.find(ensemble, self.data, self.request.tune, estimates)
        estimate = summarise(_cross_validated_f1(ensemble, held_out), split) if estimates else None
        return _fit(ensemble, held_out), estimate

    def _tuned_on(self, decoder: Decoder) -> str | None:
        """What something was fitted to: ``folds`` or ``valid``; None if there is nothing to fit."""
        method = self.request.method
        return self.request.tune if method in FITTED or (method in MIXING and decoder.tuned) else None

    def _score(self, ensemble: Ensemble) -> tuple[list[list[str]], ScoreMetrics | None]:
        """The concepts of each image of valid, and their official scores."""
        valid = self.data[0].valid
        if valid is None:
            return [], None
        readable = dict(zip(*ensemble.images(VALID_SPLIT), strict=True))
        valid = replace(valid, readable=np.array([readable[id] for id in valid.ids], dtype=bool))
        parts = score_valid(ensemble, self.data, valid.readable_ids)
        indicators = ensemble.decode(ensemble.combine(parts), parts)
        predicted = columns_to_concepts(indicators, ensemble.vocabulary, valid.readable, ensemble.fallback)
        tuned_on = {self._tuned_on(ensemble.decoder)}
        if self.request.method not in MIXING:
            tuned_on |= {member.metrics["decoder"]["tuned_on"] for member in self.members}
        score = valid.score_concepts(predicted)
        return predicted, score.to_metrics(tuned_here=VALID_SPLIT in tuned_on) if score else None

    def _learnt_from(self) -> str:
        """``train``, or what the first member learnt from that learnt from more."""
        splits = [member.metrics["train"]["splits"] for member in self.members]
        return next((each for each in splits if each != TRAIN), TRAIN)


def _copy_run(folder: Path, copy: Path) -> None:
    """Copy the files that a run consists of, its digests last."""
    copy.mkdir(parents=True)
    for name in (*RunFiles.open(folder).digests, DIGESTS):
        shutil.copyfile(folder / name, copy / name)
        sync(copy / name)
    if not RunFiles.open(copy).is_whole():
        raise damaged(folder, "a file is not what was written, or has just been replaced")


def _describe_member(number: int, member: StoredRun) -> MemberMetrics:
    name = f"{number}-{member.folder.name}"
    return {"name": name, "store": str(member.store.path.absolute()), "run": str(member.folder.absolute())}


def _fit(ensemble: Ensemble, held_out: HeldOut) -> Ensemble:
    """Fit the numbers of the method, and the decoder, to held-out scores."""
    if ensemble.method in FITTED:
        numbers = [float(each) for each in FITTED[ensemble.method](held_out.parts, held_out.Y)]
        ensemble = replace(ensemble, numbers=numbers)
    ensemble.decoder.fit(ensemble.combine(held_out.parts), held_out.Y, held_out.n_true, held_out.groups)
    return ensemble


def _cross_validated_f1(ensemble: Ensemble, held_out: HeldOut) -> ImageF1:
    """F1 per image: numbers and decoder are fitted to the other folds. The members stay as they are."""
    f1 = np.empty(len(held_out.n_true))
    for rest, held in split_folds(len(f1), held_out.groups):
        fitted = _fit(replace(ensemble, decoder=clone(ensemble.decoder)), held_out.select(rest))
        unseen = held_out.select(held)
        predicted = fitted.decode(fitted.combine(unseen.parts), unseen.parts)
        f1[held] = image_f1(unseen.Y, predicted, unseen.n_true)
    return f1
