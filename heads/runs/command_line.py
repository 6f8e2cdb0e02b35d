"""The command lines that repeat a run, with every option written out."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.provenance import N_DIGITS, OF_FILE
from cache.support.messages import one_line
from heads.runs.metrics import RunMetrics
from heads.runs.request import RunRequest

FACTS = ("backbone", "layer", "pooling", "size", "engine", "precision", "dtype")
"""The facts of a store that are options of ``python -m featurize``."""


def repeat_run(request: RunRequest, out: Path) -> str:
    """The command that makes a run again.

    Parameters
    ----------
    request : RunRequest
    out : Path
        The folder of the run.

    Examples
    --------
    >>> request = RunRequest("knn", "/my data", "/s.h5", {"k": 5}, [], "top-k:3", "", "train", "folds", False)
    >>> print(repeat_run(request, Path("/runs/knn")).replace(" --decoder", "\\n--decoder"))
    python -m heads fit knn --store /s.h5 --data '/my data' --out /runs/knn
    --decoder top-k:3 --tune folds --train train --set k=5
    """
    words = ["heads", "fit", request.name, "--store", request.store, "--data", request.data,
             "--out", str(out.absolute()), "--decoder", request.decoder, "--tune", request.tune,
             "--train", request.train]  # fmt: skip
    words += ["--nested"] if request.nested else []
    words += ["--pooling", request.pooling] if request.pooling else []
    words += ["--concepts", *request.concepts] if request.concepts else []
    settings = [f"{key}={_write_value(value)}" for key, value in request.params.items()]
    return _join(words + (["--set", *settings] if settings else []))


def repeat_ensemble(request: Mapping[str, Any], out: Path) -> str:
    """The command that makes an ensemble again.

    Parameters
    ----------
    request : mapping
        What ``run.json`` holds.
    out : Path
        The folder of the ensemble.
    """
    words = ["heads", "ensemble", *request["members"], "--how", request["how"], "--out", str(out.absolute())]
    # Where sets are joined there is no decoder to name.
    words += ["--decoder", request["decoder"]] if request["how"] in ("mean", "weighted", "stack") else []
    return _join([*words, "--tune", request["tune"], *(["--nested"] if request["nested"] else [])])


def repeat_store(metrics: RunMetrics, request: RunRequest, weights: str = "") -> str:
    """The command that makes the store of a run again.

    Parameters
    ----------
    metrics : dict
        Those of the run.
    request : RunRequest
    weights : str
        The weights as the user named them, which the store knows. Without it, a file of weights is called ``FILE-`` and
        the first digits of its SHA-256.
    """
    facts, source = metrics["store"].get("provenance", {}), metrics["store"]["weights"]
    if not weights:
        weights = f"FILE-{source.removeprefix(OF_FILE)[:N_DIGITS]}" if source.startswith(OF_FILE) else source
    words = ["featurize", request.data, "--store", request.store, "--weights", weights]
    for name in FACTS:
        if name in facts:
            words += [f"--{name}", str(facts[name])]
    return _join(words)


def _join(words: Sequence[str]) -> str:
    """One line for the shell. What cannot be printed is escaped, so that no name of a file forges another line."""
    return one_line(f"python -m {shlex.join(words)}")


def _write_value(value: Any) -> str:
    """A value as `heads.settings.parse_settings` reads it back: text as it is, unless it would be read as JSON.

    >>> _write_value([64, 32]), _write_value("focal"), _write_value("1"), _write_value(None)
    ('[64, 32]', 'focal', '"1"', 'null')
    """
    return (
        value if isinstance(value, str) and re.fullmatch("(?!true$|false$|null$)[a-z_]+", value) else json.dumps(value)
    )
