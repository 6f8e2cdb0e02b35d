"""A run as one Keras model, from images to scores, for use without this project."""

import glob
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.feature_parts import FeatureParts
from cache.lock import locked
from cache.support.errors import ParameterError, RunError, StoreError
from cache.support.files import digest_file, making, name_temporary, sync, write_text
from cache.support.reporting import report, warn
from heads.data.maps import Maps
from heads.networks.backend import import_keras
from heads.networks.layers import HEAD
from heads.networks.stored import StoredNetwork, load_model
from heads.runs.files import MEMBERS, RunFiles, damaged, writing
from heads.runs.folder import EXPORTED, is_up_to_date, read_metrics
from heads.runs.leftovers import remove_leftovers
from heads.runs.predictor import StoredRun
from heads.runs.run import load_decoder

FORMAT = 1
"""Version of the description beside a model. Raise it when its contents change."""

CHECKED_IMAGES = 64
"""Stored images whose scores by the model are compared with those by the run."""

TOLERANCE = 1e-4
"""A larger difference of two scores is not due to rounding."""


def export_run(
    run: str | os.PathLike[str],
    store: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a run as one Keras model, and a description beside it.

    The model takes uint8 images, shape (n_images, size, size, 3), and gives scores, shape (n_images, n_concepts). It
    is made of Keras' own layers, so a user needs nothing but ``keras.saving.load_model``. The description has the
    name of the model with ``.json`` at the end. It explains how to prepare images, which concept each column is, and
    how the run decodes scores.

    Parameters
    ----------
    run : path
        The folder of a finished run.
    store : path, optional
        A store of the features that the run was trained on; that store itself if not given.
    out : path, optional
        The file to write; ``model.keras`` in the folder of the run if not given.

    Returns
    -------
    Path
        The model.

    Raises
    ------
    RunError
        The run is missing or damaged, or it is an ensemble; or another process is writing it.
    StoreError
        The store or the network beside it is missing, damaged or of other features.
    UserError
        The head has no form as a Keras model.
    """
    folder = Path(run)
    path = Path(out) if out else folder / EXPORTED
    if path.suffix != ".keras":
        raise ParameterError(f"{path}: expected a name that ends in .keras, as Keras requires")
    stored = _open(folder, store)
    front = StoredNetwork.find(stored.store)
    description, record = _describe(stored, front), path.with_name(path.name + ".json")
    if is_up_to_date(record, description):
        remove_leftovers(folder if path.parent.resolve() == folder.resolve() else path)
        report(f"{path}: up to date ({_describe_size(path)})")
        return path
    model = _join(front, stored)
    is_inside = path.parent.resolve() == folder.resolve()
    with locked(folder if is_inside else path, RunError), writing(path), _replacing(path, record) as new:
        if read_metrics(folder)["requests"] != stored.metrics["requests"]:
            raise RunError(f"{folder}: another run has taken its place meanwhile; run the same command again")
        differences = _save(model, new / path.name, stored)
        largest = float(differences.max(initial=0))
        checks = {"sha256": digest_file(new / path.name).hex(), "checked": len(differences), "difference": largest}
        write_text(new / record.name, json.dumps(description | checks, indent=1))
    _warn_of_differences(stored, front, differences)
    scores = f"{len(description['concepts']):,} scores of an image of {description['size']} px"
    checked = f"within {largest:.0e} of the run's on {len(differences):,} stored images"
    report(f"{path}: {scores}, {checked}; {_describe_size(path)}; {record.name} lists the concepts")
    return path


@contextmanager
def _replacing(path: Path, record: Path) -> Iterator[Path]:
    """Yield a new folder for a model and its description, and move both to their places at the end of the block.

    Keras wants a name that ends in .keras, so the folder has the temporary name. The caller holds the lock, so what a
    killed process has left is removed.
    """
    for name in (path, record):
        if name.is_dir():
            raise ParameterError(f"{name}: is a folder, expected a file to write; give another path")
    with making(path.parent):
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
        new = name_temporary(path)
        new.mkdir()
        try:
            yield new
            # The description goes first and comes last, so that it never describes another model.
            record.unlink(missing_ok=True)
            for each in (path, record):
                os.replace(new / each.name, each)
                sync(path.parent)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _open(folder: Path, store: str | os.PathLike[str] | None) -> StoredRun:
    """Open the run with a store."""
    metrics = read_metrics(folder)
    if "members" in metrics:
        raise RunError(f"{folder}: an ensemble, expected one run; export those in {folder / MEMBERS}, each by itself")
    stored = StoredRun(folder, store) if store else StoredRun.reopen(folder)
    if stored.store.provenance.joined:
        raise StoreError(f"{stored.store.path}: is joined of several stores, whose networks take images of their own "
                         "sizes, expected one network; export a run on one of these stores")  # fmt: skip
    return stored


def _describe(stored: StoredRun, front: StoredNetwork) -> dict[str, Any]:
    """What a user of the model needs to know, and what decides the model."""
    decoder, vocabulary, fallback = load_decoder(RunFiles.open(stored.folder))
    provenance, metrics = stored.store.provenance, stored.metrics
    return {
        "format": FORMAT,
        "images": "uint8, RGB, shape (n_images, size, size, 3): the whole picture resized to a square, bilinear and "
        "antialiased, as keras.utils.load_img(interpolation='bilinear') does",
        "size": provenance.size,
        "concepts": vocabulary,
        "decoder": {"name": metrics["decoder"]["name"], "state": decoder.get_state()},
        "usual": fallback,
        "head": metrics["head"],
        "params": metrics["params"],
        "provenance": json.loads(provenance.to_json()),
        "run": metrics["requests"]["whole"],
        "front": front.digest,
    }


def _join(front: StoredNetwork, stored: StoredRun) -> Any:
    """Join front and head to one Keras model."""
    frozen, head = front.load(), stored.run.head.to_keras()
    parts = next(iter(stored.store.splits.values())).parts
    features = _select_parts(frozen.output, parts, stored.run.pooling)
    if features.shape != head.input_shape:
        found = f"its head takes {head.input_shape[1:]}, the store gives {features.shape[1:]}"
        raise damaged(stored.folder, found)
    return import_keras().Model(frozen.input, head(features), name="image_to_scores")


def _save(model: Any, path: Path, stored: StoredRun) -> NDArray[np.float32]:
    """Save a model, and check what was saved: the largest difference of each checked image."""
    model.save(path)
    sync(path)
    return _compare(load_model(path).get_layer(HEAD), stored)


def _select_parts(features: Any, parts: FeatureParts, wanted: str) -> Any:
    """Features of some parts; of all if none is named."""
    if not wanted or parts.split(wanted) == [*parts.names]:
        return features
    columns = parts.find_columns(wanted)
    return features[:, columns] if isinstance(columns, slice) else import_keras().ops.take(features, columns, axis=1)


def _compare(head: Any, stored: StoredRun) -> NDArray[np.float32]:
    """The largest difference between the scores of a Keras head and of the run, for each of some stored images."""
    for name in sorted(stored.store.splits, reverse=True):  # valid before train, which the head has learnt from
        rows = np.flatnonzero(stored.split(name).readable)[:CHECKED_IMAGES]
        if len(rows):
            X = stored.features(name)[rows]
            features = X.read() if isinstance(X, Maps) else X
            scores = np.asarray(head(np.float32(features), training=False))
            differences: NDArray[np.float32] = np.abs(scores - stored.run.score(X)).max(axis=1)
            return differences
    return np.zeros(0, np.float32)


def _warn_of_differences(stored: StoredRun, front: StoredNetwork, differences: NDArray[np.float32]) -> None:
    n_far = int((~(differences <= TOLERANCE)).sum())
    if n_far:
        warn(f"scores of {n_far:,} of {len(differences):,} images differ by more than {TOLERANCE:g} from the run's; "
             "with knn, training images at equal distance may be the reason; with another head, do not use the "
             "model")  # fmt: skip
    facts = stored.store.provenance
    types = [facts.precision if front.rounds else "float32", facts.dtype]
    rounded = " and ".join(kind for kind in dict.fromkeys(types) if kind != "float32")
    if rounded:
        warn(
            f"the store's features went through {rounded}, the model's do not: scores of an image may differ from the "
            "run's by hundredths; where that matters, make the store with PRECISION=float32 DTYPE=float32"
        )


def _describe_size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:,.1f} MB"
