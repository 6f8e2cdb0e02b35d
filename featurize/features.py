"""The coordinator: finds what is not embedded yet, hands it out in units, and alone writes.

Rows are keyed by the digest of an image's bytes. What an earlier store or the parts of an interrupted run
already hold is not embedded again, under whatever name the image goes now.
"""

import datetime
import importlib.metadata
import json
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, cpu_count, delayed

from cache.command import muted_imports
from cache.errors import some
from cache.pack import Listing, pack_store
from cache.parts import Parts
from cache.rows import Rows
from cache.store import FeatureStore
from featurize.backbone import Front
from featurize.engines import Choice, TensorFlowEngine, choose, prepare
from featurize.images import Image, find_images, identify
from featurize.progress import Progress
from featurize.request import Request, refuse_other_features
from featurize.units import UNIT_IMAGES, embed_unit

VERSIONS = ("h5py", "keras", "numpy", "openvino", "pillow", "tensorflow", "tensorflow-cpu")


def make_features(
    data: Path,
    path: Path,
    given: Mapping[str, Any],
    *,
    workers: int | None = None,
    rebuild: bool = False,
    say: Callable[[str], None] = print,
    warn: Callable[[str], None] = print,
) -> FeatureStore:
    """Bring a store up to date with a data folder.

    Parameters
    ----------
    data : Path
        The data folder; see `featurize.images`.
    path : Path
        The store to make or to bring up to date.
    given : mapping
        Which features: the options that were given, under the names in `featurize.request.DEFAULTS`.
    workers : int, optional
        Processes; one a core if not given. TensorFlow always runs in one.
    rebuild : bool
        Let a store that holds other features be replaced.
    say, warn : callable
        Told what was done, and what is odd, a line each.

    Returns
    -------
    FeatureStore

    Raises
    ------
    UserError
        The data, the weights or the request is at fault, or the store holds other features.
    """
    images = find_images(data, warn)
    listings = identify(images)
    store = FeatureStore(path) if path.exists() and not rebuild else None
    request = Request.settle(given, store)
    if store and request.surely_matches(store) and _same_rows(store, listings):
        say(f"{path}: up to date, nothing to embed ({_describe(store)})")
        return store

    record = request.to_record() | {"versions": _versions(), "made": datetime.datetime.now().isoformat("T", "seconds")}
    front, choice = _build(request, say)
    provenance = request.to_provenance(front, choice)
    if store:
        refuse_other_features(store, provenance)
    parts = Parts(path, provenance.fingerprint)
    earlier = store.blocks() if store else ()
    pending = _pending(images, listings, chain(earlier, parts))
    if pending:
        seconds = _embed(pending, front, choice, request.backbone.size, parts, workers or cpu_count())
        say(f"{path}: {len(pending):,} images embedded in {seconds:.0f} s ({len(pending) / seconds:.0f} images/s)")
    earlier = store.blocks() if store else ()
    pack_store(path, provenance, record, listings, chain(earlier, parts), front.model.output_shape[-1])
    parts.remove()
    made = FeatureStore(path)
    say(f"{path}: {_describe(made)}")
    _tell_unreadable(made, warn)
    return made


def _build(request: Request, say: Callable[[str], None]) -> tuple[Front, Choice]:
    with muted_imports():
        import tensorflow  # noqa: F401
    backbone = request.backbone
    choice = choose(request.engine, request.precision)
    front = backbone.build()
    say(
        f"{backbone.name}, weights {backbone.weights}, cut after '{front.layer}', {backbone.pooling} pooling: "
        f"{front.model.output_shape[-1]:,} features an image of {backbone.size} px"
    )
    if backbone.weights.startswith("random:"):
        say("note: this network is random, not trained: an honest baseline; WEIGHTS=imagenet or a file does better")
    say(f"engine {choice.engine}, {choice.precision} ({choice.why})")
    return front, choice


def _pending(images: Mapping[str, list[Image]], listings: Mapping[str, Listing], sources: Iterable[Rows]) -> list[Path]:
    """One path for each digest that no source holds, in the order of the listing."""
    known = {digest.tobytes() for rows in sources for digest in rows.digests}
    pending: dict[bytes, Path] = {}
    for split, listing in listings.items():
        for image, digest in zip(images[split], listing.digests, strict=True):
            if digest is not None and digest not in known:
                pending.setdefault(digest, image.path)
    return list(pending.values())


def _embed(pending: list[Path], front: Front, choice: Choice, size: int, parts: Parts, workers: int) -> float:
    """Embed the pending images and write each unit as it comes back; returns seconds."""
    engine = prepare(choice, front.model, parts.folder)
    units = [pending[start : start + UNIT_IMAGES] for start in range(0, len(pending), UNIT_IMAGES)]
    processes = 1 if isinstance(engine, TensorFlowEngine) else min(workers, len(units))
    pool = Parallel(n_jobs=processes, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
    task = delayed(embed_unit)
    progress = Progress(len(pending), "embedding")
    for rows in pool(task(engine, unit, size, front.model.output_shape[-1]) for unit in units):
        parts.add(rows)
        progress.add(len(rows.digests))
    return progress.close()


def _same_rows(store: FeatureStore, listings: Mapping[str, Listing]) -> bool:
    if set(store.splits) != set(listings):
        return False
    for split, listing in listings.items():
        held = store.splits[split]
        if held.ids.tolist() != listing.ids or not np.array_equal(held.rows.digests, listing.digest_array()):
            return False
    return True


def _describe(store: FeatureStore) -> str:
    counts = ", ".join(f"{len(split.ids):,} {name}" for name, split in store.splits.items())
    unreadable = sum(int((~split.readable).sum()) for split in store.splits.values())
    return f"{counts}{f', {unreadable:,} unreadable' if unreadable else ''}; fingerprint {store.fingerprint[:16]}"


def _tell_unreadable(store: FeatureStore, warn: Callable[[str], None]) -> None:
    for name, split in store.splits.items():
        lines = split.unreadable()
        if lines:
            warn(
                f"{name}: {len(lines):,} images cannot be read; their rows stay, without an embedding ({some(lines)}); "
                f"`python -m cache status {store.path}` lists them"
            )


def _versions() -> dict[str, Any]:
    found = {
        each.metadata["Name"].lower().replace("_", "-"): each.version for each in importlib.metadata.distributions()
    }
    return json.loads(json.dumps({name: found[name] for name in VERSIONS if name in found}))
