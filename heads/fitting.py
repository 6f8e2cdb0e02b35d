"""Fit a head on a store, score it on valid as the organisers would, keep it as a run."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import UserError
from cache.files import write_text
from cache.store import FeatureStore
from cache.versions import installed_versions
from eval.editions import MAX_CONCEPTS, find_edition
from eval.submission import render_submission, write_submission
from heads.base import Head, make_head
from heads.dataset import LabelledSplit, find_vocabulary, indicator, load_labelled
from heads.decoders import Decoder, make_decoder
from heads.run import FORMAT, METRICS, VALID, Run, prepare_folder, read_asked, read_metrics, usual_set
from heads.saving import load_head
from heads.scoring import score_valid

DEFAULT_DECODER = "fixed:0.3"
VERSIONS = ("h5py", "keras", "numpy", "pandas", "scikit-learn", "scipy", "tensorflow", "tensorflow-cpu")


@dataclass(frozen=True)
class Asked:
    """What is asked of a run, every option settled."""

    name: str
    params: dict[str, Any]
    decoder: str
    data: str
    store: str

    @classmethod
    def settle(
        cls, name: str, params: Mapping[str, Any] | None, decoder: str | None, data: Path, store: Path, out: Path
    ) -> "Asked":
        """Let what the user left open follow the run that is there, if it is of the same head and data."""
        places = {"data": str(data.absolute()), "store": str(store.absolute())}
        held = read_asked(out) or {}
        follows = held.get("name") == name and held.get("data") == places["data"]
        if params is None:
            params = held["params"] if follows else {}
        if decoder is None:
            decoder = held["decoder"] if follows else DEFAULT_DECODER
        return cls(name, dict(params), decoder, **places)


def fit_run(
    name: str,
    store_path: Path,
    data: Path,
    out: Path,
    params: Mapping[str, Any] | None = None,
    decoder_text: str | None = None,
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
    params : mapping, optional
        Parameters of the head; those of the run that is there if not given.
    decoder_text : str, optional
        Such as ``fixed:0.3`` or ``global``; that of the run that is there if not given.
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
    asked = Asked.settle(name, params, decoder_text, data, store_path, out)
    head, decoder = make_head(name, asked.params), make_decoder(asked.decoder)
    with clock("load"):
        store = FeatureStore(store_path)
        train = load_labelled(store, data, "train", warn)
        valid = load_labelled(store, data, "valid", warn) if "valid" in store.splits else None
    if valid is None and decoder.tuned:
        raise UserError(f"{store_path}: decoder '{asked.decoder}' is tuned on valid, a split it lacks; use fixed:0.3")
    requests = _digest_requests(name, head, decoder, store, train, valid)
    earlier = _finished(out)
    if earlier and earlier["requests"] == requests:
        say(f"{out}: up to date ({describe(earlier)})")
        return earlier
    trained = None
    if earlier:
        same = earlier["requests"]["head"] == requests["head"]
        trained = load_head(out) if same else None
        say(f"{out}: {'decodes anew' if same else 'replaces'} an earlier run ({describe(earlier)})")

    run = _fit(Run(name, trained or head, decoder, asked.decoder, [], []), trained is not None, train, clock)
    with clock("valid"):
        scores, predicted = _score(run, valid, warn)
    prepare_folder(out, {"format": FORMAT} | vars(asked))
    run.save(out)
    if valid:
        # 2024's format is the one that every tool of the field reads.
        plain = find_edition(2024)
        write_submission(out / VALID, render_submission(valid.ids, predicted, plain), plain)
    metrics = {
        "format": FORMAT,
        "head": name,
        "params": head.get_params(),
        "decoder": {"name": asked.decoder, "threshold": decoder.threshold_, "tuned_on_valid": decoder.tuned},
        "valid": scores,
        "train": _describe_train(run, train, valid),
        "store": _describe_store(store),
        "versions": installed_versions(*VERSIONS),
        "seconds": clock.seconds,
        "requests": requests,
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
        return f"{how}; no image of valid to score on"
    primary, secondary = _with_interval(valid, "primary"), ""
    if valid["secondary"] is not None:
        secondary = f", secondary {_with_interval(valid, 'secondary')}"
    frozen = "; frozen random network" if metrics["store"]["weights"].startswith("random:") else ""
    return f"{how}; valid primary F1 {primary}{secondary} on {valid['n_images']:,} images{frozen}"


def _with_interval(valid: Mapping[str, Any], score: str) -> str:
    """A score with its 95% interval, which runs of earlier versions do not have."""
    ends = valid.get(f"{score}_interval")
    return f"{valid[score]:.4f}" + (f" [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else "")


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


def _digest_requests(
    name: str, head: Head, decoder: Decoder, store: FeatureStore, train: LabelledSplit, valid: LabelledSplit | None
) -> dict[str, str]:
    """Digests of what decides the head, and of what decides the whole result."""
    # The number of processes changes no result.
    params = {key: value for key, value in head.get_params().items() if key != "n_jobs"}
    learnt = {"format": FORMAT, "head": name, "params": params, "store": store.content, "labels": train.files}
    decoded = {
        "decoder": type(decoder).__name__,
        "params": decoder.get_params(),
        "labels": valid.files if valid else {},
    }
    texts = {"head": json.dumps(learnt, sort_keys=True), "whole": json.dumps([learnt, decoded], sort_keys=True)}
    return {key: hashlib.sha256(text.encode()).hexdigest() for key, text in texts.items()}


def _fit(run: Run, is_trained: bool, train: LabelledSplit, clock: Clock) -> Run:
    """Fit the head of an empty run on the training images that can be read."""
    concepts = [each for each, readable in zip(train.concepts, train.readable, strict=True) if readable]
    vocabulary = find_vocabulary(concepts)
    if not vocabulary:
        raise UserError("no training image that can be read has a concept; check the images and train_concepts.csv")
    Y = indicator(concepts, vocabulary)
    if not is_trained:
        with clock("fit"):
            run.head.fit(train.X if train.readable.all() else train.X[train.readable], Y)
    return Run(run.name, run.head, run.decoder, run.decoder_text, vocabulary, usual_set(Y, vocabulary, MAX_CONCEPTS))


def _score(
    run: Run, valid: LabelledSplit | None, warn: Callable[[str], None]
) -> tuple[dict[str, Any] | None, list[list[str]]]:
    """Fit the decoder and score; gives the scores and each image's concepts."""
    if valid is None:
        run.decoder.fit(np.empty((0, len(run.vocabulary)), np.float32), indicator([], run.vocabulary))
        return None, []
    scores = run.score(valid.X, valid.readable)
    seen = [each for each, readable in zip(valid.concepts, valid.readable, strict=True) if readable]
    if run.decoder.tuned and not seen:
        raise UserError(f"decoder '{run.decoder_text}' is tuned on valid, whose images cannot be read; use fixed:0.3")
    run.decoder.fit(scores, indicator(seen, run.vocabulary), np.array([len(each) for each in seen], dtype=np.int64))
    predicted = run.name_concepts(scores, valid.readable)
    return score_valid(valid, predicted, run.decoder.tuned, warn), predicted


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
    train, seconds = metrics["train"], metrics["seconds"].get("fit", 0.0)
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
