"""The coordinator: finds what is not embedded yet, hands it out in units, and alone writes.

Rows are keyed by the digest of an image's bytes. What an earlier store or the parts of an interrupted run
already hold is not embedded again, under whatever name the image goes now.
"""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from cache.changes import find_changes, find_missing
from cache.digest_memo import DigestMemo
from cache.images import DICOM_SUFFIXES, Image, Listing, find_images, identify
from cache.lock import locked
from cache.parts import Parts
from cache.rows import Rows
from cache.store import FeatureStore
from cache.support.errors import UserError
from cache.support.messages import some
from cache.support.reporting import report, warn
from cache.support.versions import installed_versions
from cache.verify import verify_store
from cache.writer import write_store
from featurize.decoding.dicom import EXTRA, is_installed
from featurize.engines.base import choose
from featurize.prepared_network import Network, has_network, prepare_network
from featurize.request import Request, refuse_other_features, refuse_other_options
from featurize.workers import Work, embed_pending

VERSIONS = ("h5py", "keras", "numpy", "openvino", "pillow", "pydicom", "tensorflow", "tensorflow-cpu")


def make_features(
    data: Path,
    path: Path,
    given: Mapping[str, Any],
    *,
    workers: int | None = None,
    rebuild: bool = False,
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
        Processes; one a core if not given. TensorFlow runs in one a GPU, or in one. Within
        ``joblib.parallel_config("dask")``, or with another backend, they are that cluster's, where every worker sees
        the same paths.
    rebuild : bool
        Let a store that holds other features be replaced.

    Returns
    -------
    FeatureStore

    Raises
    ------
    UserError
        The data, the weights or the request is at fault, the store holds other features or is being written.
    """
    seen = DigestMemo(path)
    images = find_images(data)
    _require_dicom(images)
    try:
        listings = identify(images, seen)
    finally:
        seen.save()  # a stop must not cost the reading of a hundred thousand files
    job = _Job(data, path, dict(given), rebuild, workers, images, listings)
    store = job.find_finished()
    if store is None:
        with locked(path):
            # Another writer may have ended between the look and the claim.
            store = job.find_finished() or job.update()
    return store


@dataclass(frozen=True)
class _Job:
    """One call of `make_features`: what was asked, and what is in the data folder."""

    data: Path
    path: Path
    given: dict[str, Any]
    rebuild: bool
    workers: int | None
    images: Mapping[str, list[Image]]
    listings: Mapping[str, Listing]

    def find_finished(self) -> FeatureStore | None:
        """The store, if it certainly is what a run would make."""
        store = self._open()
        if store is None or Parts(self.path, store.provenance).folder.exists() or self._lacks_network():
            return None
        if not self.rebuild:
            refuse_other_options(store, self.given)
        if not Request.settle(self.given, store, self.rebuild).surely_matches(store) or find_changes(
            store, self.listings
        ):
            return None
        report(f"{self.path}: up to date, nothing to embed ({_describe(store)})")
        return store

    def update(self) -> FeatureStore:
        """Embed what is missing and pack; the claim is held."""
        store = self._open()
        request = Request.settle(self.given, store, self.rebuild)
        if self._is_damaged(store):
            store = None
        known = store and request.surely_matches(store) and not self._lacks_network()
        network = None if known else _prepare(request, self.path)
        provenance = (
            request.to_provenance(network.cut, network.choice) if network else store.provenance if store else None
        )
        assert provenance is not None
        if store and store.provenance != provenance:
            if not self.rebuild:
                refuse_other_features(store, provenance)
            store = None
        if store and not self.rebuild:
            self._refuse_loss(store)
        parts = Parts(self.path, provenance)

        def sources() -> Iterable[Rows]:
            return chain(store.blocks() if store else (), parts)

        record = request.to_record() | {
            "data": str(self.data.absolute()),
            "made": datetime.datetime.now().isoformat("T", "seconds"),
            "versions": installed_versions(*VERSIONS),
        }
        pending = _pending(self.images, self.listings, sources())
        if pending:
            network = network or _prepare(request, self.path)
            if store:
                refuse_other_features(store, request.to_provenance(network.cut, network.choice))
            parts.start(record)
            embed_pending(pending, Work(network, request, parts, self.workers), self._count())
        shape = network.cut.shape if network else next(rows.embeddings.shape[1:] for rows in sources())
        write_store(self.path, provenance, record, self.listings, sources(), shape)
        made = FeatureStore(self.path)
        parts.remove()
        report(f"{self.path}: {_describe(made)}")
        _tell_unreadable(made)
        return made

    def _lacks_network(self) -> bool:
        """Whether the network beside the store is to be built again: `heads export` needs it, adding images may not."""
        return self.rebuild and not has_network(self.path)

    def _open(self) -> FeatureStore | None:
        """The store as it is, if there is one; a damaged one may be rebuilt."""
        try:
            return FeatureStore(self.path) if self.path.exists() else None
        except UserError:
            if self.rebuild:
                return None
            raise

    def _is_damaged(self, store: FeatureStore | None) -> bool:
        """Whether any byte is wrong: damage must not be copied under a fresh digest."""
        findings = verify_store(self.path) if store else []
        if findings and not self.rebuild:
            raise UserError(
                f"{self.path}: damaged in {len(findings):,} places (`python -m cache verify` lists them); "
                "run with --rebuild (make REBUILD=1) to embed it anew, or copy a whole one here"
            )
        return bool(findings)

    def _count(self) -> int:
        return sum(len(listing.ids) for listing in self.listings.values())

    def _refuse_loss(self, store: FeatureStore) -> None:
        """Say what leaves the store; refuse where it looks like a mistake."""
        missing = find_missing(store, find_changes(store, self.listings), self.listings, self.data)
        if missing.is_suspect:
            way_out = "name another STORE, or run with --rebuild (make REBUILD=1) if they are to leave it"
            raise UserError(f"{self.path}: {missing.description}; {way_out}")
        if missing.description:
            warn(f"{missing.description}; their embeddings leave the store")


def _require_dicom(images: Mapping[str, list[Image]]) -> None:
    """Refuse DICOM files before anything is made, where nothing can read them."""
    files = [each.path for split in images.values() for each in split if each.path.suffix.lower() in DICOM_SUFFIXES]
    if files and not is_installed():
        raise UserError(f"{len(files):,} images are DICOM files ({files[0]}), which pydicom reads: {EXTRA}")


def _prepare(request: Request, path: Path) -> Network:
    backbone, choice = request.backbone, choose(request.engine, request.precision)
    network = prepare_network(request, choice, path)
    cut = network.cut
    shape = " x ".join(f"{side:,}" for side in cut.shape)
    report(
        f"{backbone.name}, weights {backbone.weights}, cut after '{cut.layer}', {backbone.pooling} pooling: "
        f"{shape} features an image of {backbone.size} px"
    )
    if cut.moved_from:
        report(
            f"paths lead around '{cut.moved_from}': cut at '{cut.layer}', the last layer before it where all paths meet"
        )
    if backbone.weights.startswith("random:"):
        report("note: this network is random, not trained: an honest baseline; WEIGHTS=imagenet or a file does better")
    report(f"engine {choice.engine}, {choice.precision} ({choice.why})")
    return network


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


def _tell_unreadable(store: FeatureStore) -> None:
    for name, split in store.splits.items():
        lines = split.describe_unreadable()
        if lines:
            warn(
                f"{name}: {len(lines):,} images cannot be read; their rows stay, without an embedding ({some(lines)}); "
                f"`python -m cache status {store.path}` lists them"
            )
