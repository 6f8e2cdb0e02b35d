"""The coordinator: finds images that are not embedded yet, sends them out in units, and alone writes.

Rows are identified by the digest of an image's bytes. What the store or the parts of an interrupted run already hold is
not embedded again, whatever the image's name is now.
"""

import datetime
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from cache.changes import find_changes, find_missing
from cache.digest_memo import DigestMemo
from cache.images import Image, Listing, find_images, identify, is_dicom
from cache.lock import locked
from cache.parts import Parts
from cache.provenance import Provenance
from cache.store import FeatureStore
from cache.support.errors import NotInstalledError, StoreError, UserError
from cache.support.files import require_room
from cache.support.image_ids import PICTURE_ENDINGS
from cache.support.messages import count, some
from cache.support.reporting import report, warn
from cache.support.versions import installed_versions
from cache.verify import verify_store
from cache.writer import write_store
from featurize.decoding.dicom_file import read_transfer_syntax
from featurize.decoding.packages import PIP_LINE, find_remedy, is_installed, name_syntax
from featurize.engines.registry import choose_engine, list_distributions
from featurize.prepared_network import Network, has_network, prepare_network
from featurize.request import Request, refuse_other_features, refuse_other_options
from featurize.workers import embed_images

LIBRARIES = ("h5py", "keras", "numpy", "pillow", "pydicom")
"""Libraries whose versions a store records, besides those of the engines."""

LARGE_BYTES = 10**9
"""From this size on, the size of a store is reported before it is made."""


def make_features(
    data: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    backbone: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    size: int | None = None,
    layer: str | int | None = None,
    pooling: str | None = None,
    engine: str | None = None,
    precision: str | None = None,
    dtype: str | None = None,
    workers: int | None = None,
    rebuild: bool = False,
) -> FeatureStore:
    """Embed every image of a data folder into a feature store, or bring a store up to date.

    Killed at any moment, the next call continues from the finished units. An option that is None follows the store if
    there is one, and has its default otherwise.

    Parameters
    ----------
    data : str or Path
        The data folder; see `cache.images`.
    store : str or Path
        The store to make or to bring up to date.
    backbone : str, optional
        A Keras application in any case; ``densenet121`` by default.
    weights : str or Path, optional
        ``imagenet`` (the default), ``random:SEED`` or a file; see `featurize.weights.load_weights`.
    size : int, optional
        Side of the square image that the network sees, in pixels; 224 by default.
    layer : str or int, optional
        Name or index of the layer to cut after; the last by default.
    pooling : str, optional
        ``avg`` (the default), ``max`` or ``gem``; several as in ``avg,gem``; ``none`` stores maps.
    engine : str, optional
        One of `featurize.engines.registry.ENGINES`, or ``auto``, the default.
    precision : str, optional
        ``float32``, ``bfloat16``, ``float16``, or ``auto``, the default: the fastest of the machine.
    dtype : str, optional
        How numbers are stored, ``float32`` or ``float16``. The default is float32, and float16 for maps.
    workers : int, optional
        Processes. By default OpenVINO has one per core, and TensorFlow one per GPU, or one. Within
        ``joblib.parallel_config("dask")``, or with another backend, they are those of that cluster, whose workers must
        see the same paths.
    rebuild : bool
        Replace a store that holds other features, and build a network that is missing beside it.

    Returns
    -------
    FeatureStore
        The finished store.

    Raises
    ------
    DataError
        The data folder is at fault.
    ParameterError
        An option has an unknown value, or the weights cannot be found or do not fit.
    StoreError
        The store holds other features, is damaged, or another process writes it.
    NotInstalledError
        The engine, or what reads the DICOM files that are still to be embedded, is not installed.

    Examples
    --------
    >>> store = make_features("my_images", "my_images.h5", weights="imagenet")  # doctest: +SKIP
    >>> store.split("train").embeddings.shape  # doctest: +SKIP
    (70108, 1024)
    """
    given = {
        "backbone": backbone,
        "weights": None if weights is None else os.fspath(weights),
        "size": size,
        "layer": None if layer is None else str(layer),
        "pooling": pooling,
        "engine": engine,
        "precision": precision,
        "dtype": dtype,
    }
    options = {name: value for name, value in given.items() if value is not None}
    path = Path(store)
    update = _Update(path, _Folder.read(Path(data), path), options, workers, rebuild)
    finished = update.find_finished()
    if finished is None:
        with locked(path):
            # Another writer may have ended between the first look and the lock.
            finished = update.find_finished() or update.run()
    return finished


@dataclass(frozen=True)
class _Folder:
    """A data folder: its images, and their digests in the order of the store's rows."""

    path: Path
    images: Mapping[str, list[Image]]
    listings: Mapping[str, Listing]

    @classmethod
    def read(cls, path: Path, store: Path) -> "_Folder":
        """Find and digest every image; digests of unchanged files are remembered beside the store."""
        images, memo = find_images(path), DigestMemo(store)
        _require_dicom(images)
        try:
            return cls(path, images, identify(images, memo))
        finally:
            memo.save()  # a stop must not cost the reading of a hundred thousand files

    @property
    def n_images(self) -> int:
        return sum(len(listing.ids) for listing in self.listings.values())

    def find_pending(self, known: set[bytes]) -> list[Path]:
        """One path per digest that is not known, in the order of the listing."""
        pending: dict[bytes, Path] = {}
        for split, listing in self.listings.items():
            for image, digest in zip(self.images[split], listing.digests, strict=True):
                if digest is not None and digest not in known:
                    pending.setdefault(digest, image.path)
        return list(pending.values())


@dataclass(frozen=True)
class _Update:
    """One call of `make_features`."""

    path: Path
    folder: _Folder
    options: dict[str, Any]
    workers: int | None
    rebuild: bool

    def find_finished(self) -> FeatureStore | None:
        """The store, if it certainly is what a run would make."""
        store = self._open()
        if store is None or Parts(self.path, store.provenance).folder.exists() or self._lacks_network():
            return None
        if not self.rebuild:
            refuse_other_options(store, self.options)
        request = Request.resolve(self.options, store, self.rebuild)
        if not request.surely_matches(store) or find_changes(store, self.folder.listings):
            return None
        report(f"{self.path}: up to date, nothing to embed ({_describe(store)})")
        return store

    def run(self, is_retry: bool = False) -> FeatureStore:
        """Embed what is missing and write the store. The caller holds the lock."""
        store = self._open()
        request = Request.resolve(self.options, store, self.rebuild)
        if self._is_damaged(store):
            store = None
        matches = store is not None and request.surely_matches(store)
        known = _read_digests(store) if matches or not self.rebuild else ()
        _require_codecs(self.folder.find_pending(set(known)), self.folder.path)
        network = None
        if store and matches and not self._lacks_network():
            provenance, shape = store.provenance, _find_shape(store)
        else:
            network = _prepare(request, self.path)
            provenance, shape = request.to_provenance(network.cut, network.engine), network.cut.shape
        if store and not self.rebuild:
            refuse_other_features(store, provenance)
            self._refuse_loss(store)
        if store and store.provenance != provenance:
            store = None
        parts, record = Parts(self.path, provenance), self._record(request)
        pending = self.folder.find_pending({*_read_digests(store), *_to_bytes(parts.digests())})
        if pending:
            network = network or _prepare(request, self.path)
            if store:
                refuse_other_features(store, request.to_provenance(network.cut, network.engine))
            self._check_room(pending, provenance, shape)
            parts.start(record)
            embed_images(pending, network, request, parts, self.workers)
        sources = chain(store.blocks() if store else (), parts)
        try:
            write_store(self.path, provenance, record, self.folder.listings, sources, shape)
        except UserError:
            if is_retry or not parts.remove_damaged():
                raise
            return self.run(is_retry=True)  # a part had digests that can be read and embeddings that cannot
        made = FeatureStore(self.path)
        parts.remove()
        report(f"{self.path}: {_describe(made)}")
        _warn_of_unreadable(made)
        return made

    def _lacks_network(self) -> bool:
        """Whether to build the network beside the store again: `heads export` needs it, adding images may not."""
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
            raise StoreError(
                f"{self.path}: damaged in {len(findings):,} places (`python -m cache verify` lists them); "
                "run with --rebuild (make REBUILD=1) to embed it anew, or copy a whole one here"
            )
        return bool(findings)

    def _refuse_loss(self, store: FeatureStore) -> None:
        """Warn of images that leave the store; refuse where it looks like a mistake."""
        listings = self.folder.listings
        missing = find_missing(store, find_changes(store, listings), listings, self.folder.path)
        if missing.is_suspect:
            way_out = "name another STORE, or run with --rebuild (make REBUILD=1) if they are to leave it"
            raise StoreError(f"{self.path}: {missing.description}; {way_out}")
        if missing.description:
            warn(f"{missing.description}; their embeddings leave the store")

    def _check_room(self, pending: list[Path], provenance: Provenance, shape: tuple[int, ...]) -> None:
        """Report how much there is to do, and refuse what the disk cannot hold."""
        row_bytes, n_images = math.prod(shape) * np.dtype(provenance.dtype).itemsize, self.folder.n_images
        require_room(self.path, (len(pending) + n_images) * row_bytes)
        n_bytes = n_images * row_bytes
        size = f"; the store will be {n_bytes / 1e9:.1f} GB" if n_bytes > LARGE_BYTES else ""
        report(f"{len(pending):,} images to embed, {n_images - len(pending):,} need not be{size}")

    def _record(self, request: Request) -> dict[str, Any]:
        """What is recorded in the store besides the provenance."""
        return request.to_record() | {
            "data": str(self.folder.path.absolute()),
            "made": datetime.datetime.now().isoformat("T", "seconds"),
            "versions": installed_versions(*sorted((*LIBRARIES, *list_distributions()))),
        }


def _read_digests(store: FeatureStore | None) -> Iterator[bytes]:
    """Digests of the images in a store. Embeddings, which may be many gigabytes, are not read for it."""
    return _to_bytes(split.rows.digests for split in (store.splits.values() if store else ()))


def _to_bytes(arrays: Iterable[Any]) -> Iterator[bytes]:
    """The rows of several arrays as bytes."""
    return (digest.tobytes() for array in arrays for digest in array)


def _find_shape(store: FeatureStore) -> tuple[int, ...]:
    """Shape of what the store holds of one image."""
    return next(iter(store.splits.values())).embeddings.shape[1:]


def _require_dicom(images: Mapping[str, list[Image]]) -> None:
    """Refuse DICOM files before anything is made, where nothing can read them."""
    paths = [] if is_installed() else [image.path for split in images.values() for image in split]
    files = [path for path in paths if is_dicom(path)]
    if files:
        raise NotInstalledError(f"{count(len(files), 'DICOM image')} ({files[0]}), which pydicom reads: {PIP_LINE}")


def _require_codecs(pending: list[Path], data: Path) -> None:
    """Refuse DICOM files before anything is built, where a package that unpacks their pixels is missing."""
    files = [path for path in pending if path.suffix.lower() not in PICTURE_ENDINGS] if is_installed() else []
    syntaxes = {path: read_transfer_syntax(path) for path in files}
    remedies = {syntax: find_remedy(syntax) for syntax in set(syntaxes.values())}
    lacking = {path: syntax for path, syntax in syntaxes.items() if remedies[syntax]}
    if lacking:
        path, syntax = next(iter(lacking.items()))
        raise NotInstalledError(
            f"{count(len(lacking), 'DICOM image')} that no installed package unpacks, such as {path} "
            f"({name_syntax(syntax)}): {remedies[syntax]}; or move the files out of {data}"
        )


def _prepare(request: Request, path: Path) -> Network:
    """Choose the engine, find or build the network, and report both."""
    backbone, choice = request.backbone, choose_engine(request.engine, request.precision)
    network = prepare_network(request, choice.engine, path)
    cut, engine = network.cut, network.engine
    shape = " x ".join(f"{side:,}" for side in cut.shape)
    report(
        f"{backbone.name}, weights {backbone.weights}, cut after '{cut.layer}', {backbone.pooling} pooling: "
        f"{shape} features per image of {backbone.size} px"
    )
    if cut.moved_from:
        report(f"other paths pass by '{cut.moved_from}': cut at '{cut.layer}', the last layer before it where all meet")
    if backbone.weights.startswith("random:"):
        report("note: this network is random, not trained, a baseline; WEIGHTS=imagenet or a file scores higher")
    report(f"engine {engine.name}, {engine.precision} ({choice.why})")
    return network


def _describe(store: FeatureStore) -> str:
    counts = ", ".join(f"{len(split.ids):,} {name}" for name, split in store.splits.items())
    unreadable = sum(int((~split.readable).sum()) for split in store.splits.values())
    return f"{counts}{f', {unreadable:,} unreadable' if unreadable else ''}; fingerprint {store.fingerprint[:16]}"


def _warn_of_unreadable(store: FeatureStore) -> None:
    for name, split in store.splits.items():
        lines = split.describe_unreadable()
        if lines:
            warn(
                f"{name}: {len(lines):,} images cannot be read; they keep their rows, without an embedding "
                f"({some(lines)}); `python -m cache status {store.path}` lists them"
            )
