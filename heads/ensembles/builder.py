"""Make an ensemble of finished runs: weights and decoder fitted on held-out scores, valid scored, a run kept."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.support.errors import UserError
from cache.support.files import write_text
from cache.support.reporting import report
from eval.editions import find_edition
from eval.run_folder import VALID, VOCABULARY
from eval.submission import render_submission, write_submission
from heads.data.store import LabelledStore
from heads.ensembles.ensemble import HOWS, MIXED, Ensemble
from heads.ensembles.held_out import ENSEMBLE, Making
from heads.estimators.storage import ARRAYS, PARAMETERS
from heads.evaluation.official_score import describe
from heads.registry import make_decoder
from heads.runs.predictor import StoredRun
from heads.runs.request import CHOICES, OPEN, check_choice
from heads.runs.run import (
    ASKED,
    DECODER,
    FORMAT,
    MEMBERS,
    METRICS,
    finished,
    prepare_folder,
    read_asked,
    read_metrics,
    save_decoded,
)  # fmt: skip

UNUSED = "fixed:0.5"
"""Stands in the place of the decoder where sets are joined."""

COPIED = (ASKED, PARAMETERS, ARRAYS, DECODER, VOCABULARY, METRICS)
"""What is copied of a member; its metrics last, which say that it is whole."""


def make_ensemble(
    folders: Sequence[Path],
    out: Path,
    how: str = "mean",
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Join runs, which may have different backbones and stores, and keep the result as a run.

    Parameters
    ----------
    folders : sequence of Path
        Finished runs on the same data.
    out : Path
        The folder of the ensemble.
    how : str
        One of `heads.ensembles.ensemble.HOWS`.
    given : mapping, optional
        ``decoder``, ``tune`` and ``nested``, as in `heads.runs.fit.fit_run`. Where sets are joined there is no decoder.

    Returns
    -------
    dict
        The metrics.

    Raises
    ------
    UserError
        A run is missing, the runs are of different data, or the request is at fault.
    """
    check_choice("how", how, HOWS)
    options = _settle(how, given or {})
    decoder = make_decoder(options["decoder"])
    if len(folders) < 2:
        raise UserError(f"{len(folders)} runs given, expected at least two to make an ensemble of")
    members, labels = _open_members(folders)
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
        report(f"{out}: up to date ({describe(earlier)})")
        return earlier
    making = Making(members, labels, how, decoder, options["decoder"], options["tune"], options["nested"])
    ensemble, nested = making.fit()
    metrics, predicted = making.assess(ensemble, nested)
    metrics |= {"requests": requests}
    _keep(out, ensemble, members, metrics, making, predicted)
    report(f"{out}: {len(members)} runs ({describe(metrics)})")
    return metrics


def _settle(how: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options, those left open as they usually are."""
    if how not in MIXED and given.get("decoder") is not None:
        raise UserError(
            f"how is '{how}', which joins the sets that each run's own decoder gives, found decoder "
            f"'{given['decoder']}'; leave it out, or mix scores: {', '.join(MIXED)}"
        )
    if how not in MIXED and given.get("nested"):
        raise UserError(f"how is '{how}', which fits nothing that could be cross-validated; leave --nested out")
    usual = OPEN if how in MIXED else OPEN | {"decoder": UNUSED}
    options = {key: usual[key] if given.get(key) is None else given[key] for key in ("decoder", "tune", "nested")}
    check_choice("tune", options["tune"], CHOICES["tune"])
    return options


def _open_members(folders: Sequence[Path]) -> tuple[list[StoredRun], list[LabelledStore]]:
    """The runs, and what each was made from."""
    members, labels = [], []
    for folder in folders:
        asked = read_asked(folder)
        if "members" in read_metrics(folder) or asked is None:
            raise UserError(f"{folder}: is an ensemble itself; name the runs that it is made of")
        members.append(StoredRun(folder, Path(asked["store"])))
        store, data = members[-1].store.path, Path(asked["data"])
        labels.append(LabelledStore.load(store, data, asked["pooling"], asked["concepts"]))
        if labels[-1].train.files != labels[0].train.files:
            raise UserError(f"{folder} was trained on other labels than {folders[0]}; expected runs on the same data")
    return members, labels


def _keep(
    out: Path,
    ensemble: Ensemble,
    members: Sequence[StoredRun],
    metrics: dict[str, Any],
    making: Making,
    predicted: list[list[str]],
) -> None:
    """Write the ensemble's folder, its metrics last."""
    asked = {"format": FORMAT, "name": ENSEMBLE, "how": making.how, "decoder": making.decoder_text, "tune": making.tune,
             "nested": making.nested}  # fmt: skip
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
