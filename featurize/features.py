"""The coordinator: finds what is not embedded yet, hands it out in units, and alone writes.

Rows are keyed by the digest of an image's bytes. What an earlier store or the parts of an interrupted run
already hold is not embedded again, under whatever name the image goes now.
"""

import datetime
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from joblib import cpu_count

from cache.changes import find_changes
from cache.claim import claimed
from cache.command import muted_imports
from cache.errors import UserError, some
from cache.images import Image, Listing, find_images, identify
from cache.pack import pack_store
from cache.parts import Parts, find_root
from cache.rows import Rows
from cache.seen import SeenFiles
from cache.store import FeatureStore
from cache.versions import installed_versions
from featurize.backbone import Front
from featurize.engines import Choice, choose
from featurize.request import Request, refuse_other_features, refuse_other_options
from featurize.work import Work, embed_pending

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

    Killed at any moment, it goes on from its finished units when it is run again.

    Parameters
    ----------
    data : Path
        The data folder; see `cache.images`.
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
        The data, the weights or the request is at fault, the store holds other features or is being written.
    """
    seen = SeenFiles(path)
    images = find_images(data, warn)
    listings = identify(images, seen)
    done = _finished(path, given, rebuild, listings, say)
    if not done:
        with claimed(path):
            seen.save()
            # Another writer may have ended between the look and the claim.
            done = _finished(path, given, rebuild, listings, say)
            if not done:
                done = _update(path, given, rebuild, data, images, listings, workers or cpu_count(), say, warn)
    seen.save()
    return done


def _open(path: Path, rebuild: bool) -> FeatureStore | None:
    """The store as it is, if there is one; a damaged one may be rebuilt."""
    try:
        return FeatureStore(path) if path.exists() else None
    except UserError:
        if rebuild:
            return None
        raise


def _finished(
    path: Path, given: Mapping[str, Any], rebuild: bool, listings: Mapping[str, Listing], say: Callable[[str], None]
) -> FeatureStore | None:
    """The store, if it certainly is what a run would make."""
    store = _open(path, rebuild)
    if store is None or find_root(path).exists():
        return None
    if not rebuild:
        refuse_other_options(store, given)
    if Request.settle(given, store).surely_matches(store) and not find_changes(store, listings):
        say(f"{path}: up to date, nothing to embed ({_describe(store)})")
        return store
    return None


def _update(
    path: Path,
    given: Mapping[str, Any],
    rebuild: bool,
    data: Path,
    images: Mapping[str, list[Image]],
    listings: Mapping[str, Listing],
    workers: int,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> FeatureStore:
    """Embed what is missing and pack; the claim is held."""
    store = _open(path, rebuild)
    request = Request.settle(given, store)
    front = choice = None
    if store and request.surely_matches(store):
        provenance = store.provenance
    else:
        front, choice = _build(request, say)
        provenance = request.to_provenance(front, choice)
        if store and store.provenance != provenance:
            if not rebuild:
                refuse_other_features(store, provenance)
            store = None
    if store and not rebuild:
        _refuse_loss(store, data, listings, warn)
    parts = Parts(path, provenance)

    def sources() -> Iterable[Rows]:
        return chain(store.blocks() if store else (), parts)

    record = request.to_record() | {
        "data": str(data.absolute()),
        "made": datetime.datetime.now().isoformat("T", "seconds"),
        "versions": installed_versions(*VERSIONS),
    }
    pending = _pending(images, listings, sources())
    if pending:
        if front is None or choice is None:
            front, choice = _build(request, say)
            if request.to_provenance(front, choice) != provenance:
                refuse_other_features(FeatureStore(path), request.to_provenance(front, choice))
        embed_pending(pending, listings, Work(front, choice, request, parts, workers), record, say)
    n_features = front.n_features if front else _n_features(sources())
    pack_store(path, provenance, record, listings, sources(), n_features)
    made = FeatureStore(path)
    parts.remove()
    say(f"{path}: {_describe(made)}")
    _tell_unreadable(made, warn)
    return made


def _refuse_loss(store: FeatureStore, data: Path, listings: Mapping[str, Listing], warn: Callable[[str], None]) -> None:
    """Say what leaves the store; refuse where it looks like another folder, or one whose disk is missing."""
    removed = find_changes(store, listings).removed
    if not removed:
        return
    told = f"{len(removed):,} of the store's images are not in {data} ({some(removed)})"
    way_out = "name another STORE, or run with --rebuild (make REBUILD=1) if they are to leave it"
    vanished = sorted(set(store.splits) - set(listings))
    if vanished:
        raise UserError(f"{store.path}: split '{vanished[0]}' has vanished: {told}; {way_out}")
    n_images = sum(len(split.ids) for split in store.splits.values())
    if store.record.get("data") != str(data.absolute()) and len(removed) > n_images / 2:
        raise UserError(f"{store.path}: was made from {store.record.get('data')}, and {told}; {way_out}")
    warn(f"{told} any more, and leave it")


def _n_features(sources: Iterable[Rows]) -> int:
    return next(rows.embeddings.shape[1] for rows in sources)


def _build(request: Request, say: Callable[[str], None]) -> tuple[Front, Choice]:
    with muted_imports():
        import tensorflow  # noqa: F401
    backbone = request.backbone
    choice = choose(request.engine, request.precision)
    front = backbone.build()
    say(
        f"{backbone.name}, weights {backbone.weights}, cut after '{front.layer}', {backbone.pooling} pooling: "
        f"{front.n_features:,} features an image of {backbone.size} px"
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
