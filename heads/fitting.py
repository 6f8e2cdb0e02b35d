"""Fit a head on a store, score it on valid as the organisers would, keep it as a run."""

import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import UserError
from cache.files import write_text
from cache.store import FeatureStore
from eval.editions import LATEST, find_edition
from eval.official import primary_score, secondary_score
from eval.submission import render_submission, write_submission
from heads.base import make_head, positive_rate
from heads.dataset import LabelledSplit, find_vocabulary, indicator, load_labelled
from heads.decoders import make_decoder
from heads.run import METRICS, Run, digest_request, read_metrics

RUN_FORMAT = 1
"""Version of a run's files and of what a head makes of its parameters: raise it when results change."""

VALID_SUBMISSION = "submission_valid.csv"
VERSIONS = ("h5py", "keras", "numpy", "pandas", "scikit-learn", "scipy", "tensorflow", "tensorflow-cpu")


def fit_run(
    name: str,
    store_path: Path,
    data: Path,
    out: Path,
    params: Mapping[str, Any],
    decoder_text: str,
    *,
    say: Callable[[str], None] = print,
    warn: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train a head and keep it with its scores.

    Parameters
    ----------
    name : str
        A head of the registry.
    store_path, data : Path
        The store, and the data folder with the labels.
    out : Path
        The run's folder. A finished run of the same request is left as it is.
    params : mapping
        Parameters of the head.
    decoder_text : str
        Such as ``fixed:0.3`` or ``global``.
    say, warn : callable
        Told what was done, and what is odd, a line each.

    Returns
    -------
    dict
        The run's metrics, as in ``metrics.json``.

    Raises
    ------
    UserError
        The request, the store or the labels are at fault.
    """
    clock = Clock()
    head, decoder = make_head(name, params), make_decoder(decoder_text)
    with clock("load"):
        store = FeatureStore(store_path)
        train = load_labelled(store, data, "train", warn)
        valid = load_labelled(store, data, "valid", warn) if "valid" in store.splits else None
    if valid is None and decoder.tuned:
        raise UserError(f"{store_path}: decoder '{decoder_text}' is tuned on valid, a split it lacks; use fixed:0.3")
    request = digest_request(
        {
            "format": RUN_FORMAT,
            "head": name,
            "params": head.get_params(),
            "decoder": decoder_text,
            "store": store.content,
            "labels": train.files | (valid.files if valid else {}),
        }
    )
    earlier = _finished(out)
    if earlier and earlier["request"] == request:
        say(f"{out}: up to date ({describe(earlier)})")
        return earlier
    if earlier:
        say(f"{out}: replaces an earlier run ({describe(earlier)})")

    run = _fit(Run(head, name, decoder, decoder_text, [], []), train, clock)
    with clock("valid"):
        scores, predicted = _score_valid(run, valid)
    run.save(out)
    if valid:
        # 2024's format is the one that every tool of the field reads.
        plain = find_edition(2024)
        write_submission(out / VALID_SUBMISSION, render_submission(valid.ids, predicted, plain), plain)
    metrics = {
        "head": name,
        "params": head.get_params(),
        "decoder": {"name": decoder_text, "threshold": decoder.threshold_, "tuned_on_valid": decoder.tuned},
        "valid": scores,
        "train": _describe_train(run, train, valid),
        "store": _describe_store(store),
        "versions": _versions(),
        "seconds": clock.seconds,
        "request": request,
    }
    write_text(out / METRICS, json.dumps(metrics, indent=1))
    _tell(out, metrics, say, warn)
    return metrics


def describe(metrics: Mapping[str, Any]) -> str:
    """A run's result in a few words, with what must be said beside it."""
    decoder, valid = metrics["decoder"], metrics["valid"]
    how = f"{metrics['head']}, {decoder['name']}"
    if decoder["tuned_on_valid"]:
        how += f" at {decoder['threshold']:.3f} tuned on valid, so its valid score is optimistic"
    if valid is None:
        return f"{how}; no valid split to score on"
    secondary = f", secondary {valid['secondary']:.4f}" if valid["secondary"] is not None else ""
    frozen = "; frozen random network" if metrics["store"]["weights"].startswith("random:") else ""
    return f"{how}; valid primary F1 {valid['primary']:.4f}{secondary} on {valid['n_images']:,} images{frozen}"


class Clock:
    """Seconds of each stage, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Measure a stage."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 3)


def _fit(run: Run, train: LabelledSplit, clock: Clock) -> Run:
    """Fit the head of an empty run on the training images that can be read."""
    concepts = [each for each, readable in zip(train.concepts, train.readable, strict=True) if readable]
    vocabulary = find_vocabulary(concepts)
    if not vocabulary:
        raise UserError("no training image that can be read has a concept; check the images and train_concepts.csv")
    Y = indicator(concepts, vocabulary)
    with clock("fit"):
        run.head.fit(train.X if train.readable.all() else train.X[train.readable], Y)
    return replace(run, vocabulary=vocabulary, frequency=positive_rate(Y).tolist())


def _score_valid(run: Run, valid: LabelledSplit | None) -> tuple[dict[str, Any] | None, list[list[str]]]:
    """Fit the decoder and score; gives the scores and each image's concepts."""
    if valid is None:
        run.decoder.fit(np.empty((0, len(run.vocabulary)), np.float32), indicator([], run.vocabulary))
        return None, []
    scores = run.score(valid.X, valid.readable)
    run.decoder.fit(scores, indicator(valid.concepts, run.vocabulary))
    predicted = run.name_concepts(run.decoder.predict(scores))
    edition = find_edition(LATEST)
    truth = dict(zip(valid.ids, map(_official_set, valid.concepts), strict=True))
    given = dict(zip(valid.ids, map(_official_set, predicted), strict=True))
    secondary = None
    if valid.manual is not None:
        manual = {id: _official_set(valid.manual.get(id, ())) for id in valid.ids}
        secondary = secondary_score(manual, given, edition)
    return {
        "primary": primary_score(truth, given),
        "secondary": secondary,
        "n_images": len(valid.ids),
        "n_unreadable": int((~valid.readable).sum()),
        "edition": edition.year,
        "note": "the decoder was tuned on these images: optimistic" if run.decoder.tuned else None,
    }, predicted


def _official_set(concepts: Any) -> frozenset[str]:
    """As the evaluator reads a row: an empty cell is the empty concept."""
    return frozenset(concepts) or frozenset({""})


def _describe_train(run: Run, train: LabelledSplit, valid: LabelledSplit | None) -> dict[str, int]:
    unseen = {concept for each in (valid.concepts if valid else []) for concept in each} - set(run.vocabulary)
    return {
        "n_images": int(train.readable.sum()),
        "n_unreadable": int((~train.readable).sum()),
        "n_concepts": len(run.vocabulary),
        "valid_concepts_unseen": len(unseen),
    }


def _describe_store(store: FeatureStore) -> dict[str, Any]:
    return {
        "fingerprint": store.fingerprint,
        "content": store.content,
        "weights": store.record["weights_source"],
        "provenance": json.loads(store.provenance.to_json()),
    }


def _tell(out: Path, metrics: Mapping[str, Any], say: Callable[[str], None], warn: Callable[[str], None]) -> None:
    train, seconds = metrics["train"], metrics["seconds"]["fit"]
    if train["n_unreadable"]:
        warn(f"{train['n_unreadable']:,} training images cannot be read and were left out")
    if train["valid_concepts_unseen"]:
        warn(f"{train['valid_concepts_unseen']:,} concepts of valid are never in train; they count as missed")
    learnt = f"{train['n_concepts']:,} concepts from {train['n_images']:,} images in {seconds:.1f} s"
    say(f"{out}: {learnt} ({describe(metrics)})")


def _finished(out: Path) -> dict[str, Any] | None:
    try:
        return read_metrics(out)
    except UserError:
        return None


def _versions() -> dict[str, str]:
    found = {
        each.metadata["Name"].lower().replace("_", "-"): each.version for each in importlib.metadata.distributions()
    }
    return {"python": platform.python_version()} | {name: found[name] for name in VERSIONS if name in found}
