"""A run as one Keras model, image in, scores out, for use where this project is not."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.support.errors import UserError
from cache.support.files import digest_file, replacing, write_text
from cache.support.reporting import report, warn
from heads.data.maps import Maps
from heads.networks.backend import import_keras
from heads.networks.layers import HEAD
from heads.networks.stored import KeptNetwork, load_model
from heads.runs.predictor import StoredRun
from heads.runs.run import EXPORTED, MEMBERS, load_decoded, read_asked, read_metrics

FORMAT = 1
"""Version of the description beside a model: raise it when what is written changes."""

CHECKED_IMAGES = 64
"""Images of the store whose scores are compared with the run's."""

CLOSE = 1e-4
"""Difference of scores above which rounding is no longer the reason."""


def export_run(
    folder: Path,
    store_path: Path | None = None,
    out: Path | None = None,
) -> Path:
    """Write a run as one Keras model, and a description of it beside.

    The model takes uint8 images, shape (n_images, size, size, 3), and gives scores, shape (n_images, n_concepts). It is
    made of Keras' own layers, so that ``keras.saving.load_model`` is all that a user needs. The description, under
    its name and ``.json``, says how images are made ready, which concept each column is, and how the run decodes.

    Parameters
    ----------
    folder : Path
        A finished run.
    store_path : Path, optional
        A store of the features that it was trained on; the one that it was trained on if not given.
    out : Path, optional
        The file to write; ``model.keras`` in the run's folder if not given.

    Returns
    -------
    Path
        The model.

    Raises
    ------
    UserError
        The run, the store or the network beside it is at fault, or the head has no form as a Keras model.
    """
    path = out or folder / EXPORTED
    if path.suffix != ".keras":
        raise UserError(f"{path}: expected a name that ends in .keras, which Keras looks at")
    stored = _open(folder, store_path)
    front = KeptNetwork.find(stored.store)
    description, beside = _describe(stored, front), path.with_name(path.name + ".json")
    if _up_to_date(path, beside, description):
        report(f"{path}: up to date ({_say_size(path)})")
        return path
    beside.unlink(missing_ok=True)  # it comes back last, so that it never describes another model
    worst = _write(path, front, stored)
    made = {"sha256": digest_file(path).hex(), "checked": len(worst), "difference": float(worst.max(initial=0))}
    write_text(beside, json.dumps(description | made, indent=1))
    _warn_of_differences(stored, worst)
    scores = f"{len(description['concepts']):,} scores of an image of {description['size']} px"
    checked = f"within {made['difference']:.0e} of the run's on {len(worst):,} stored images"
    report(f"{path}: {scores}, {checked}; {_say_size(path)}; {beside.name} names the concepts")
    return path


def _open(folder: Path, store_path: Path | None) -> StoredRun:
    """The run with its store."""
    metrics = read_metrics(folder)
    if "members" in metrics:
        raise UserError(f"{folder}: an ensemble, expected one run; export those in {folder / MEMBERS}, each by itself")
    trained_on = (read_asked(folder) or {}).get("store")
    if store_path is None and not trained_on:
        raise UserError(f"{folder}: does not say which store it was trained on; name it with --store")
    return StoredRun(folder, store_path or Path(str(trained_on)))


def _describe(stored: StoredRun, front: KeptNetwork) -> dict[str, Any]:
    """What a user of the model needs to know, and what decides the model."""
    decoder, vocabulary, usual = load_decoded(stored.folder)
    provenance, metrics = stored.store.provenance, stored.metrics
    return {
        "format": FORMAT,
        "images": "uint8, RGB, shape (n_images, size, size, 3): the whole picture resized to a square, bilinear and "
        "antialiased, as keras.utils.load_img(interpolation='bilinear') does",
        "size": provenance.size,
        "concepts": vocabulary,
        "decoder": {"name": metrics["decoder"]["name"], "state": decoder.get_state()},
        "usual": usual,
        "head": metrics["head"],
        "params": metrics["params"],
        "provenance": asdict(provenance),
        "run": metrics["requests"]["whole"],
        "front": front.digest,
    }


def _up_to_date(path: Path, beside: Path, description: dict[str, Any]) -> bool:
    try:
        kept = json.loads(beside.read_text(encoding="utf-8"))
        same = {key: kept[key] for key in description} == json.loads(json.dumps(description))
        return same and digest_file(path).hex() == kept["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(path: Path, front: KeptNetwork, stored: StoredRun) -> NDArray[np.float32]:
    """Join front and head, save them, and look at what was saved: the largest difference of each checked image."""
    frozen, head = front.load(), stored.run.head.to_keras()
    features = _take_pooling(frozen.output, stored.store.provenance.pooling.split(","), stored.run.pooling)
    if features.shape != head.input_shape:
        found = f"its head takes {head.input_shape[1:]}, the store gives {features.shape[1:]}"
        raise UserError(f"{stored.folder}: a damaged run ({found}); train it again with `make head`")
    model = import_keras().Model(frozen.input, head(features), name="image_to_scores")
    with replacing(path) as temporary:
        named = temporary.with_suffix(".keras")  # Keras looks at the ending
        try:
            model.save(named)
            worst = _compare(load_model(named).get_layer(HEAD), stored)
            named.rename(temporary)
        finally:
            named.unlink(missing_ok=True)
    return worst


def _take_pooling(features: Any, held: list[str], pooling: str) -> Any:
    """Features of one of several poolings, which stand side by side, each as wide as the others."""
    if len(held) == 1 or pooling not in held:
        return features
    width = features.shape[-1] // len(held)
    start = held.index(pooling) * width
    return features[:, start : start + width]


def _compare(head: Any, stored: StoredRun) -> NDArray[np.float32]:
    """The largest difference between the scores of a Keras head and the run's, for some images of the store."""
    for name in sorted(stored.store.splits, reverse=True):  # valid before train, whose images the head has seen
        rows = np.flatnonzero(stored.split(name).readable)[:CHECKED_IMAGES]
        if len(rows):
            X = stored.features(name)[rows]
            features = X.read() if isinstance(X, Maps) else X
            scores = np.asarray(head(np.float32(features), training=False))
            worst: NDArray[np.float32] = np.abs(scores - stored.run.score(X, np.ones(len(X), bool))).max(axis=1)
            return worst
    return np.zeros(0, np.float32)


def _warn_of_differences(stored: StoredRun, worst: NDArray[np.float32]) -> None:
    n_far = int((~(worst <= CLOSE)).sum())
    if n_far:
        warn(f"scores of {n_far:,} of {len(worst):,} images differ by more than {CLOSE:g} from the run's; training "
             "images that are equally near may do that to knn, and nothing should to another head")  # fmt: skip
    facts = stored.store.provenance
    # TensorFlow's lower precision is in the layers themselves, OpenVINO's is its own doing.
    rounded = [facts.precision if facts.engine == "openvino" else "float32", facts.dtype]
    told = " and ".join(kind for kind in dict.fromkeys(rounded) if kind != "float32")
    if told:
        warn(
            f"the store's features went through {told}, the model's do not: scores of an image may differ from the "
            "run's by hundredths; where that matters, make the store with PRECISION=float32 DTYPE=float32"
        )


def _say_size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:,.1f} MB"
