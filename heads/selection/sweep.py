"""Sweep a head's parameters: a table of scores with seconds, the best run kept, every trial done once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sklearn.model_selection import ParameterGrid

from cache.support.errors import UserError
from cache.support.files import write_text
from cache.support.reporting import report
from eval.bootstrap import find_interval
from eval.f1 import mean_f1
from heads.data.folds import score_out_of_fold
from heads.data.store import LabelledStore
from heads.estimators.base import Head, Trial
from heads.evaluation.cross_validation import estimate_decoder
from heads.registry import make_decoder, make_head
from heads.runs.builder import Maker
from heads.runs.fit import fit_run
from heads.runs.progress import Clock, watching
from heads.runs.request import FOLDS, VALID_SPLIT, Asked
from heads.runs.run import FORMAT, finished

TRIALS = "sweep.json"
"""Every finished trial of a run's folder, by the digest of its request."""

Row = dict[str, Any]


def sweep_runs(
    name: str,
    store_path: Path,
    data: Path,
    out: Path,
    grid: Mapping[str, Sequence[Any]],
    given: Mapping[str, Any] | None = None,
    by: str = VALID_SPLIT,
) -> list[Row]:
    """Fit a head with every combination of some parameters, and keep the best run.

    Parameters
    ----------
    name, store_path, data, out, given
        As in `heads.runs.fit.fit_run`.
    grid : mapping of str to sequence
        The values of each parameter.
    by : str
        What decides: the primary F1 on ``valid``, or that of out-of-fold scores of train, ``folds``.

    Returns
    -------
    list of dict
        A row for each trial, the best first: its parameters, scores and seconds.

    Raises
    ------
    UserError
        The request, the store or the labels are at fault.
    """
    asked = Asked.settle(name, data, store_path, out, given or {})
    sweep = Sweep(asked, LabelledStore.load(store_path, data, asked.pooling, asked.concepts), out, by)
    trials: list[Trial] = list(ParameterGrid({key: list(values) for key, values in grid.items()}))
    keys = [sweep.digest(trial) for trial in trials]  # every trial is checked before one is fitted
    rows = sweep.read()
    pending = [trial for trial, key in zip(trials, keys, strict=True) if key not in rows]
    if len(pending) < len(trials):
        report(f"{out}: {len(trials) - len(pending):,} of {len(trials):,} trials are done already")
    for row in sweep.run(pending, keys, rows):
        report(tell_row(row, by))
    best = max(keys, key=lambda key: rows[key][by])
    held = finished(out)
    if held is None or held["requests"]["whole"] != best:
        params = asked.params | rows[best]["params"]
        fit_run(name, store_path, data, out, {**(given or {}), "params": params})
    table = sorted((rows[key] for key in keys), key=lambda row: -row[by])
    chosen = "valid, so the best one's score there is optimistic" if by == VALID_SPLIT else "folds of train"
    if asked.tune == VALID_SPLIT and make_decoder(asked.decoder).tuned:
        chosen += "; decoders were tuned on valid, so every score there is optimistic"
    report(f"{out}: the best of {len(table):,} trials, chosen on {chosen}:")
    for row in table:
        report("  " + tell_row(row, by))
    return table


@dataclass(frozen=True)
class Sweep:
    """Trials of one head on one labelled store."""

    asked: Asked
    source: LabelledStore
    out: Path
    by: str

    def digest(self, trial: Trial) -> str:
        """What a trial is known by.

        Raises
        ------
        UserError
            A parameter is unknown or out of range, or there is nothing to choose by.
        """
        if self.by not in (VALID_SPLIT, FOLDS):
            raise UserError(f"by is '{self.by}', expected {VALID_SPLIT} or {FOLDS}")
        if self.by == VALID_SPLIT and self.source.valid is None:
            raise UserError(f"{self.asked.store}: has no split 'valid' to choose by; choose by folds (BY=folds)")
        asked = self._ask(trial)
        head, decoder = make_head(asked.name, asked.params), make_decoder(asked.decoder)
        return asked.digests(head, decoder, self.source)["whole"]

    def _ask(self, trial: Trial) -> Asked:
        return replace(self.asked, params=self.asked.params | dict(trial))

    def read(self) -> dict[str, Row]:
        """The finished trials."""
        try:
            kept = json.loads((self.out / TRIALS).read_text(encoding="utf-8"))
            rows: dict[str, Row] = kept["trials"] if kept["format"] == FORMAT else {}
            return {key: row for key, row in rows.items() if self.by in row}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def run(self, pending: Sequence[Trial], keys: Sequence[str], rows: dict[str, Row]) -> Any:
        """Do the trials that are not done; yields the row of each, which is kept first."""
        base = make_head(self.asked.name, self.asked.params)
        self.source.serve(base)
        fitted = base.fit_each(*self.source.learn_from(self.source.train), pending)
        for _ in pending:
            clock = Clock()
            with clock("fit"), watching(base):
                trial, head = next(fitted)
            row, made = self._assess(trial, head, clock)
            best = max((rows[key][self.by] for key in keys if key in rows), default=-1.0)
            if row[self.by] > best:
                made.keep(self.out, self._ask(trial))
            rows[self.digest(trial)] = row
            write_text(self.out / TRIALS, json.dumps({"format": FORMAT, "trials": rows}, indent=1))
            yield row

    def _assess(self, trial: Trial, head: Head, clock: Clock) -> tuple[Row, Any]:
        asked = self._ask(trial)
        decoder = make_decoder(asked.decoder)
        requests = asked.digests(head, decoder, self.source)
        scores, row = None, {"params": dict(trial), "seconds": clock.seconds["fit"]}
        X, Y = self.source.learn_from(self.source.train)
        if self.by == FOLDS:
            with clock("folds"), watching(head):
                scores = score_out_of_fold(head, X, Y, self.source.groups)
        made = Maker(asked, self.source, clock).assess(head, decoder, requests, scores)
        if scores is not None:
            f1 = estimate_decoder(decoder, scores, Y, groups=self.source.groups)
            row |= {FOLDS: mean_f1(f1), f"{FOLDS}_interval": list(find_interval(f1))}
        if made.metrics["valid"]:
            for key, score in ((VALID_SPLIT, "primary"), ("secondary", "secondary")):
                row |= {f"{key}{end}": made.metrics["valid"][f"{score}{end}"] for end in ("", "_interval")}
        return row, made


def tell_row(row: Row, by: str) -> str:
    """A trial in one line."""
    params = " ".join(f"{key}={json.dumps(value)}" for key, value in row["params"].items())
    scores = {FOLDS: "out-of-fold F1", VALID_SPLIT: "valid primary F1", "secondary": "secondary"}
    told = [f"{scores[key]} {_with_interval(row, key)}" for key in (by, *scores) if row.get(key) is not None]
    return f"{params}: {', '.join(dict.fromkeys(told))}, fitted in {row['seconds']:.1f} s"


def _with_interval(row: Row, key: str) -> str:
    """A score with its 95% interval, which a sweep of an earlier version did not keep."""
    ends = row.get(f"{key}_interval")
    return f"{row[key]:.4f}" + (f" [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else "")
