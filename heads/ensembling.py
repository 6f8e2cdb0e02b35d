"""Make an ensemble of finished runs: weights and decoder fitted on held-out scores, valid scored, a run kept."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.errors import UserError
from cache.files import write_text
from cache.versions import installed_versions
from eval.editions import find_edition
from eval.submission import render_submission, write_submission
from heads.asked import FOLDS, OPEN, VALID_SPLIT, check_choice
from heads.dataset import LabelledSplit, indicator
from heads.decoders import Decoder, make_decoder
from heads.ensemble import HOWS, MEMBERS, MIXED, Ensemble
from heads.labelled import LabelledStore
from heads.making import VERSIONS, Teller
from heads.mixing import fit_stack, fit_weights
from heads.predictor import StoredRun
from heads.run import (
    ASKED,
    DECODER,
    FORMAT,
    METRICS,
    VALID,
    VOCABULARY,
    finished,
    name_columns,
    prepare_folder,
    read_asked,
    read_metrics,
    save_decoded,
)  # fmt: skip
from heads.saving import ARRAYS, PARAMETERS
from heads.scoring import describe, score_valid
from heads.tuning import load_scores, save_scores, score_out_of_fold
from heads.watching import watching

ENSEMBLE = "ensemble"
COPIED = (ASKED, PARAMETERS, ARRAYS, DECODER, VOCABULARY, METRICS)
"""What is copied of a member; its metrics last, which say that it is whole."""


def make_ensemble(
    folders: Sequence[Path],
    out: Path,
    how: str = "mean",
    given: Mapping[str, Any] | None = None,
    *,
    say: Teller = print,
    warn: Teller = print,
) -> dict[str, Any]:
    """Join runs, which may have different backbones and stores, and keep the result as a run.

    Parameters
    ----------
    folders : sequence of Path
        Finished runs on the same data.
    out : Path
        The folder of the ensemble.
    how : str
        One of `heads.ensemble.HOWS`.
    given : mapping, optional
        ``decoder`` and ``tune``, as in `heads.fitting.fit_run`.
    say, warn : callable
        Told what was done, and what is odd, a line each.

    Returns
    -------
    dict
        The metrics.

    Raises
    ------
    UserError
        A run is missing, the runs are of different data, or the request is at fault.
    """
    options = {key: OPEN[key] if (given or {}).get(key) is None else (given or {})[key] for key in ("decoder", "tune")}
    check_choice("how", how, HOWS)
    check_choice("tune", options["tune"], (FOLDS, VALID_SPLIT))
    decoder = make_decoder(options["decoder"])
    if len(folders) < 2:
        raise UserError(f"{len(folders)} runs given, expected at least two to make an ensemble of")
    members, labels = _open_members(folders, warn)
    request = {
        "format": FORMAT,
        "members": [[member.metrics["requests"]["whole"], member.content] for member in members],
        "how": how,
        **options,
        "labels": [labels[0].train.files, labels[0].valid.files if labels[0].valid else {}],
    }
    requests = {"head": "", "whole": hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()}
    earlier = finished(out)
    if earlier and earlier["requests"] == requests:
        say(f"{out}: up to date ({describe(earlier)})")
        return earlier
    making = Making(members, labels, how, decoder, options["decoder"], options["tune"], warn)
    ensemble = making.fit()
    metrics, predicted = making.assess(ensemble)
    metrics |= {"requests": requests}
    _keep(out, ensemble, members, metrics, making, predicted)
    say(f"{out}: {len(members)} runs ({describe(metrics)})")
    return metrics


def _open_members(folders: Sequence[Path], warn: Teller) -> tuple[list[StoredRun], list[LabelledStore]]:
    """The runs, and what each was made from."""
    members, labels = [], []
    for folder in folders:
        asked = read_asked(folder)
        if "members" in read_metrics(folder) or asked is None:
            raise UserError(f"{folder}: is an ensemble itself; name the runs that it is made of")
        members.append(StoredRun(folder, Path(asked["store"])))
        store, data = members[-1].store.path, Path(asked["data"])
        labels.append(LabelledStore.load(store, data, asked["pooling"], warn, asked["concepts"]))
        if labels[-1].train.files != labels[0].train.files:
            raise UserError(f"{folder} was trained on other labels than {folders[0]}; expected runs on the same data")
    return members, labels


@dataclass(frozen=True)
class Making:
    """An ensemble in the making."""

    members: list[StoredRun]
    labels: list[LabelledStore]
    how: str
    decoder: Decoder
    decoder_text: str
    tune: str
    warn: Teller

    def fit(self) -> Ensemble:
        """Fit weights and decoder, as far as they need it."""
        vocabulary = sorted({concept for member in self.members for concept in member.run.vocabulary})
        ensemble = Ensemble(self.members, self.how, [], self.decoder, vocabulary, self.members[0].run.usual)
        nothing = scipy.sparse.csr_matrix((0, len(vocabulary)), dtype=np.int8)
        if not self._is_tuned:
            self.decoder.fit(np.empty(nothing.shape, np.float32), nothing)
            return ensemble
        parts, Y, n_true = self._held_out(ensemble)
        if self.how in ("weighted", "stack"):
            fitted = (fit_weights if self.how == "weighted" else fit_stack)(parts, Y)
            ensemble = replace(ensemble, numbers=[float(each) for each in fitted])
        self.decoder.fit(ensemble.combine(parts), Y, n_true)
        return ensemble

    @property
    def _is_tuned(self) -> bool:
        return self.how in ("weighted", "stack") or (self.how in MIXED and self.decoder.tuned)

    def _held_out(self, ensemble: Ensemble) -> tuple[list[NDArray[np.float32]], Any, NDArray[np.int64]]:
        """Each member's scores of images that it did not learn from, and the labels of those images."""
        if self.tune == VALID_SPLIT and any(each.metrics["train"]["splits"] != "train" for each in self.members):
            raise UserError("a run has learnt from valid already, which cannot tune an ensemble; use TUNE=folds")
        split = self.labels[0].train if self.tune == FOLDS else self.labels[0].valid
        readable = [set(self._split(label).readable_ids) for label in self.labels]
        rows = [row for row, id in enumerate(split.ids) if all(id in each for each in readable)] if split else []
        if split is None or not rows:
            raise UserError(f"no image of {self.tune} can be read in every store; expected some to tune on")
        ids, concepts = [split.ids[row] for row in rows], [split.concepts[row] for row in rows]
        parts = []
        for member, label in zip(self.members, self.labels, strict=True):
            own = self._split(label)
            scores = self._out_of_fold(member, label) if self.tune == FOLDS else member.run.score(own.X, own.readable)
            places = {id: row for row, id in enumerate(own.readable_ids)}
            parts.append(ensemble.widen(member, scores[[places[id] for id in ids]]))
        n_true = np.array([len(each) for each in concepts], dtype=np.int64)
        return parts, indicator(concepts, ensemble.vocabulary), n_true

    def _split(self, label: LabelledStore) -> LabelledSplit:
        split = label.train if self.tune == FOLDS else label.valid
        if split is None:
            raise UserError(f"{label.store.path}: has no split 'valid' to tune on; use TUNE=folds")
        return split

    def _out_of_fold(self, member: StoredRun, label: LabelledStore) -> NDArray[np.float32]:
        """A member's out-of-fold scores of train; kept with it, as they cost several fits."""
        X, Y = label.learn_from(label.train)
        scores = load_scores(member.folder, Y.shape)
        if scores is None:
            with watching(member.run.head, self.warn):
                scores = score_out_of_fold(member.run.head, X, Y, label.groups)
            save_scores(scores, member.folder)
        return scores

    def assess(self, ensemble: Ensemble) -> tuple[dict[str, Any], list[list[str]]]:
        """Score valid as a run does; gives the metrics and each image's concepts."""
        valid, first = self.labels[0].valid, self.members[0].metrics
        predicted: list[list[str]] = []
        official = None
        tuned_on = self.tune if self._is_tuned else None
        if valid:
            places = dict(zip(*ensemble.images("valid"), strict=True))
            valid = replace(valid, readable=np.array([places[id] for id in valid.ids], dtype=bool))
            parts = ensemble.align(valid.readable_ids, "valid")
            named = ensemble.decode(ensemble.combine(parts), parts)
            predicted = name_columns(named, ensemble.vocabulary, valid.readable, ensemble.usual)
            on_valid = VALID_SPLIT in [tuned_on, *(each.metrics["decoder"]["tuned_on"] for each in self.members)]
            official = score_valid(valid, predicted, on_valid, self.warn)
        names = {"name": self.decoder_text if self.how in MIXED else "each run's own", "tuned_on": tuned_on}
        weights = [each.metrics["store"]["weights"] for each in self.members]
        metrics = {
            "format": FORMAT,
            "head": f"{ENSEMBLE} by {self.how}",
            "params": {"how": self.how, "numbers": list(ensemble.numbers)},
            "pooling": "",
            "decoder": names,
            "valid": official,
            "train": first["train"],
            "store": {"weights": next((each for each in weights if not each.startswith("random:")), weights[0])},
            "versions": installed_versions(*VERSIONS),
            "seconds": {},
        }
        return metrics, predicted


def _keep(
    out: Path,
    ensemble: Ensemble,
    members: Sequence[StoredRun],
    metrics: dict[str, Any],
    making: Making,
    predicted: list[list[str]],
) -> None:
    """Write the ensemble's folder, its metrics last."""
    asked = {"format": FORMAT, "name": ENSEMBLE, "how": making.how, "decoder": making.decoder_text, "tune": making.tune}
    prepare_folder(out, asked | {"members": [str(member.folder.absolute()) for member in members]})
    shutil.rmtree(out / MEMBERS, ignore_errors=True)
    kept = []
    for number, member in enumerate(members):
        name = f"{number}-{member.folder.name}"
        (out / MEMBERS / name).mkdir(parents=True)
        for file in COPIED:
            shutil.copyfile(member.folder / file, out / MEMBERS / name / file)
        kept.append({"name": name, "store": str(member.store.path.absolute()), "run": str(member.folder.absolute())})
    save_decoded(out, ensemble.decoder, making.decoder_text, ensemble.vocabulary, ensemble.usual)
    valid = making.labels[0].valid
    if valid:
        plain = find_edition(2024)
        write_submission(out / VALID, render_submission(valid.ids, predicted, plain), plain)
    write_text(out / METRICS, json.dumps(metrics | {"members": kept}, indent=1))
