"""The coordinator: finds images that are not embedded yet, sends them out in units, and alone writes.

Rows are identified by the digest of an image's bytes. What the store or the parts of an interrupted run already hold is
not embedded again, whatever the image's name is now.
"""

import datetime
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
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
from cache.remote_path import AnyPath, to_path
from cache.store import FeatureStore
from cache.support.errors import NotInstalledError, ParameterError, StoreError, UserError
from cache.support.files import require_room
from cache.support.image_ids import PICTURE_ENDINGS
from cache.support.messages import count, some
from cache.support.reporting import DataWarning, report, warn
from cache.support.versions import installed_versions
from cache.verify import verify_store
from cache.writer import write_store
from featurize.backbone import Cut
from featurize.cluster.coordinator import Cluster, connected_cluster
from featurize.decoding.dicom_file import is_dicom as is_dicom_content
from featurize.decoding.dicom_file import read_header, read_transfer_syntax
from featurize.decoding.image import DECODING
from featurize.decoding.packages import PIP_LINE, find_remedy, is_installed, name_syntax
from featurize.engines.base import Engine
from featurize.engines.registry import Choice, choose_engine, list_distributions
from featurize.prepared_network import Network, has_network, preparing_network
from featurize.request import Request, check_options, follow_parts, refuse_other_features, refuse_other_options
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
    scheduler: str | None = None,
    rebuild: bool = False,
) -> FeatureStore:
    """Embed every image of a data folder into a feature store, or bring a store up to date.

    Killed at any moment, the next call continues from the finished units. An option that is None follows the store if
    there is one, and has its default otherwise.

    Parameters
    ----------
    data : str or Path
        The data folder, or its URL such as ``s3://bucket/images``; see `cache.images`.
    store : str or Path
        The store to make or to bring up to date.
    backbone : str, optional
        A Keras application in any case; ``densenet121`` by default.
    weights : str or Path, optional
        ``imagenet`` (the default), ``random:SEED`` or a file; see `featurize.weights.load_weights`.
    size : int, optional
        Side of the square image that the network sees, in pixels; 224 by default.
    layer : str or int, optional
        Name or index of the layer to cut after; the last by default. Several as in ``pool4_pool,relu``: their pooled
        outputs are side by side.
    pooling : str, optional
        ``avg`` (the default), ``max`` or ``gem``; several as in ``avg,gem``; ``none`` stores maps of one layer.
    engine : str, optional
        One of `featurize.engines.registry.ENGINES`, or ``auto``, the default.
    precision : str, optional
        ``float32``, ``bfloat16``, ``float16``, or ``auto``, the default: the fastest of the machine.
    dtype : str, optional
        How numbers are stored, ``float32`` or ``float16``. The default is float32, and float16 for maps.
    workers : int, optional
        Processes. By default OpenVINO has one per core, and TensorFlow one per GPU, or one. On a cluster that runs
        already they are its own.
    scheduler : str, optional
        Embed on a cluster of Dask: the address of its scheduler, such as ``tcp://host:8786``, or ``local`` to start one
        on this machine. Its workers must see the images under the same paths or URLs, and have the same versions.
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
        The engine, or what reads the DICOM files that are still to be embedded, or Dask, is not installed.
    ClusterError
        The cluster cannot be reached, or none of its workers can do the work.

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
    path = Path(store)
    options = follow_parts({name: value for name, value in given.items() if value is not None}, path)
    check_options(options)
    with connected_cluster(scheduler, workers) if scheduler else nullcontext() as cluster:
        update = _Update(path, _Folder.read(to_path(data), path), options, workers, rebuild, cluster)
        finished = update.find_finished()
        if finished is None:
            with locked(path):
                # Another writer may have ended between the first look and the lock.
                finished = update.find_finished() or update.run()
    return finished


@dataclass(frozen=True)
class _Folder:
    """A data folder: its images, and their digests in the order of the store's rows."""

    path: AnyPath
    images: Mapping[str, list[Image]]
    listings: Mapping[str, Listing]

    @classmethod
    def read(cls, path: AnyPath, store: Path) -> "_Folder":
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

    def find_pending(self, known: set[bytes]) -> list[AnyPath]:
        """One path per digest that is not known, in the order of the listing."""
        pending: dict[bytes, AnyPath] = {}
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
    cluster: Cluster | None = None

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
        """Embed what is missing and write the store. The caller holds the lock.

        What is refused is refused before anything is written.
        """
        store = self._open()
        request = Request.resolve(self.options, store, self.rebuild)
        if self._is_damaged(store):
            store = None
        matches = store is not None and request.surely_matches(store)
        known = _read_digests(store) if matches or not self.rebuild else ()
        pending = self.folder.find_pending(set(known))
        _require_codecs(pending, self.folder.path)
        if store and request.decoding != DECODING and any(is_dicom_content(read_header(path)) for path in pending):
            request = replace(request, decoding=DECODING)
            if not self.rebuild:
                refuse_other_features(store, replace(store.provenance, decoding=DECODING), store.weights_origin)
            matches = False
        leaving = self._find_leaving(store) if store and not self.rebuild else ""
        if store and matches and not self._lacks_network():
            work = self._plan(store, store.provenance, _find_shape(store))
            if not work.pending:
                return self._finish(work, request, None, leaving, is_retry)
        choose = self.cluster.choose_engine if self.cluster else choose_engine
        choice = choose(request.engine, request.precision)
        here = replace(self, cluster=None)  # a connection does not travel to the process that builds the network
        check = partial(here._check, request, choice.engine, store is not None)
        with preparing_network(request, choice.engine, self.path, check) as network:
            _report_network(request, network, choice)
            work = self._plan(store, request.to_provenance(network.cut, network.engine), network.cut.shape)
            return self._finish(work, request, network, leaving, is_retry)

    def _check(self, request: Request, engine: Engine, has_store: bool, cut: Cut) -> None:
        """Refuse a network that gives other features than the store holds, or more than the disk can.

        It may run in another process, which opens the store anew.
        """
        store = self._open() if has_store else None
        provenance = request.to_provenance(cut, engine)
        if store and not self.rebuild:
            refuse_other_features(store, provenance, request.weights_origin)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # what is to do is planned again, in the caller's process
            work = self._plan(store, provenance, cut.shape)
        if work.pending:
            require_room(self.path, (len(work.pending) + self.folder.n_images) * work.row_bytes)

    def _plan(self, store: FeatureStore | None, provenance: Provenance, shape: tuple[int, ...]) -> "_Work":
        """What is to do for a store with this provenance; one with another is replaced."""
        same = store if store and store.provenance == provenance else None
        known = {*_read_digests(same), *_to_bytes(Parts(self.path, provenance).digests())}
        return _Work(same, provenance, shape, self.folder.find_pending(known))

    def _finish(
        self, work: "_Work", request: Request, network: Network | None, leaving: str, is_retry: bool
    ) -> FeatureStore:
        """Embed what is missing and write the store."""
        if leaving:
            warn(f"{leaving}; their embeddings leave the store")
        cut = network.cut if network else None
        parts, record = Parts(self.path, work.provenance), self._record(request) | _find_parts(request, cut, work.store)
        if network and work.pending:
            self._embed(work, request, network, parts, record)
        sources = chain(work.store.blocks() if work.store else (), parts)
        try:
            write_store(self.path, work.provenance, record, self.folder.listings, sources, work.shape)
        except UserError:
            if is_retry or not parts.remove_damaged():
                raise
            return self.run(is_retry=True)  # a part had digests that can be read and embeddings that cannot
        made = FeatureStore(self.path)
        parts.remove()
        report(f"{self.path}: {_describe(made)}")
        _warn_of_unreadable(made)
        return made

    def _embed(
        self, work: "_Work", request: Request, network: Network, parts: Parts, record: Mapping[str, Any]
    ) -> None:
        """Embed what is missing into parts."""
        n_images, n_pending = self.folder.n_images, len(work.pending)
        n_bytes = n_images * work.row_bytes
        size = f"; the store will be {n_bytes / 1e9:.1f} GB" if n_bytes > LARGE_BYTES else ""
        report(f"{n_pending:,} images to embed, {n_images - n_pending:,} need not be{size}")
        is_new = not parts.folder.exists()
        try:
            parts.start(record)
            embed_images(work.pending, network, request, parts, self.workers, self.cluster)
        except ParameterError:  # the dtype cannot represent the embeddings, which only embedding can show
            if is_new:
                parts.remove()
            raise

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
        """Whether any byte is wrong: damage must not be copied under a fresh digest.

        Embeddings are checked as they are copied, so that they are read once. Where a damaged store is to be embedded
        anew, they are checked before.
        """
        findings = verify_store(self.path, embeddings=self.rebuild) if store else []
        if store and findings and not self.rebuild:
            raise store.name_damage(f"bytes {findings[0].start:,} to {findings[0].end:,}")
        return bool(findings)

    def _find_leaving(self, store: FeatureStore) -> str:
        """Describe the images that leave the store, if any; refuse where it looks like a mistake."""
        listings = self.folder.listings
        missing = find_missing(store, find_changes(store, listings), listings, self.folder.path)
        if missing.is_suspect:
            way_out = "name another STORE, or run with --rebuild (make REBUILD=1) if they are to leave it"
            raise StoreError(f"{self.path}: {missing.description}; {way_out}")
        return missing.description

    def _record(self, request: Request) -> dict[str, Any]:
        """What is recorded in the store besides the provenance."""
        return request.to_record() | {
            "data": str(self.folder.path.absolute()),
            "made": datetime.datetime.now().isoformat("T", "seconds"),
            "versions": installed_versions(*sorted((*LIBRARIES, *list_distributions()))),
        }


@dataclass(frozen=True)
class _Work:
    """What is to do: the rows that a store has already, and the images to embed."""

    store: FeatureStore | None
    provenance: Provenance
    shape: tuple[int, ...]
    pending: list[AnyPath]

    @property
    def row_bytes(self) -> int:
        """Bytes of what is stored of one image."""
        return math.prod(self.shape) * np.dtype(self.provenance.dtype).itemsize


def _find_parts(request: Request, cut: Cut | None, store: FeatureStore | None) -> dict[str, Any]:
    """What is recorded of the parts of an embedding: by the network that is run, or as a store has it."""
    parts = request.name_parts(cut) if cut else store.record.get("parts") if store else None
    return {"parts": parts} if parts else {}


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


def _require_codecs(pending: list[AnyPath], data: AnyPath) -> None:
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


def _report_network(request: Request, network: Network, choice: Choice) -> None:
    """Report what is run, and why."""
    backbone = request.backbone
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
