"""Embed any images as those of a store were: with its decoder, its network, its engine and its precision."""

import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from cache.images import Image, Listing, identify
from cache.rows import OK, UNREADABLE, Embeddings, Rows, join_rows
from cache.store import FeatureStore, Split
from cache.support.errors import StoreError, UserError
from cache.support.json_file import check_type
from featurize.decoding.dicom_file import is_dicom, read_header
from featurize.decoding.image import DECODING, DECODING_BEFORE_DICOM, RESIZING, Unreadable, decode
from featurize.engines.registry import choose_engine
from featurize.pooling import spread_pooling
from featurize.prepared_network import Network, open_network
from featurize.workers import embed_units

FEW_IMAGES = 64
"""So many images are embedded in this process: starting others would take longer."""

BLOCK_UNITS = 4
"""Units of work per process in a block of images."""

BLOCK_BYTES = 64 * 2**20
"""Most bytes of the embeddings of a block."""

MAX_PLACES = 140
"""Most rows and columns of the places of several layers or networks: of four that is a quarter of a gigabyte."""

CHANGED = "changed or vanished while it was read"
OTHER_DICOM = "a DICOM file, which this version reads in another way than the store's; make it again with REBUILD=1"
"""Reasons of images that are not embedded."""


class Embedder:
    """Embeds any images as those of a store were.

    An image whose bytes are in the store takes its embedding from there, which costs nothing.

    Methods may be called from several threads. `embed` and `find_maps` then run one after another, in a thread of their
    own, which opens the network once.

    Parameters
    ----------
    store : path-like or FeatureStore
        A store with the network that made it beside it.

    Raises
    ------
    StoreError
        The store or its network is missing or damaged, or its images were decoded by another version.
    ParameterError
        The engine of the store does not compute in its precision on this machine.
    NotInstalledError
        The engine of the store is not installed.

    Examples
    --------
    >>> embedder = Embedder("data/my_images.densenet121.h5")  # doctest: +SKIP
    >>> embedder.embed([b"no image"]).rows.reasons  # doctest: +SKIP
    ['not an image of a known format']
    """

    def __init__(self, store: str | os.PathLike[str] | FeatureStore) -> None:
        self.store = store if isinstance(store, FeatureStore) else FeatureStore(store)
        facts = self.store.provenance
        if facts.decoding not in (DECODING, DECODING_BEFORE_DICOM) or facts.resizing != RESIZING:
            raise StoreError(
                f"{self.store.path}: its images were decoded by another version ({facts.decoding}; {facts.resizing}), "
                f"expected {DECODING}; {RESIZING}: make it again with `make features REBUILD=1`"
            )
        self._engine = choose_engine(facts.engine, facts.precision).engine
        self._network = open_network(self.store, self._engine)
        self._shape = next(iter(self.store.splits.values())).embeddings.shape[1:]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")

    def __repr__(self) -> str:
        return f"<Embedder of '{self.store.path}': {self._engine.name}, {self._engine.precision}>"

    @property
    def network(self) -> Network:
        """The network, with its engine."""
        return self._network

    @property
    def block_images(self) -> int:
        """How many images to embed at a time, so that memory does not grow with their number."""
        n_bytes = int(np.prod(self._shape)) * np.dtype(self.store.provenance.dtype).itemsize
        images = BLOCK_UNITS * self._engine.count_processes() * self._engine.unit_images
        return max(1, min(images, BLOCK_BYTES // n_bytes))

    def embed(self, contents: Sequence[bytes], ids: Sequence[str] | None = None) -> Split:
        """Embed images that are in memory.

        Parameters
        ----------
        contents : sequence of bytes, length n_images
            The content of each file.
        ids : sequence of str, length n_images, optional
            Their numbers if not given.

        Returns
        -------
        Split
            One row per image, as in the store: its digest, its embedding, or the reason why it has none.
        """
        digests = [hashlib.sha256(data).digest() for data in contents]
        missing = {digest: data for digest, data in zip(digests, contents, strict=True) if digest not in self._known}
        reasons: dict[bytes, str] = {}
        pixels: dict[bytes, NDArray[np.uint8]] = {}
        for digest, data in missing.items():
            if self._refuses(data):
                reasons[digest] = OTHER_DICOM
                continue
            try:
                pixels[digest] = decode(data, self.store.provenance.size)
            except Unreadable as error:
                reasons[digest] = str(error)
        new: dict[bytes, Embeddings] = {}
        if pixels:
            made = self._thread.submit(self._network.embed, np.stack(list(pixels.values()))).result()
            rows = Rows(np.empty((0, 32), np.uint8), np.full(len(made), OK, np.uint8), [""] * len(made), made)
            new = dict(zip(pixels, rows.astype(self.store.provenance.dtype).embeddings, strict=True))
        names = [str(number) for number in range(len(digests))] if ids is None else list(ids)
        return self._join(Listing(names, list(digests), [""] * len(digests)), new, reasons)

    def embed_files(
        self, paths: Sequence[Path], workers: int | None = None, progress: Callable[[int], object] | None = None
    ) -> Split:
        """Embed image files. Of many, embed `block_images` at a time.

        Parameters
        ----------
        paths : sequence of Path
        workers : int, optional
            Processes; few images need none, otherwise the engine decides.
        progress : callable, optional
            Called with how many images were embedded since the last call.

        Returns
        -------
        Split
            One row per file, in the order of the paths, which are the ids. What cannot be read has a reason, also a
            file that has vanished.

        Raises
        ------
        DataError
            A file cannot be read, which is the machine's fault.
        UserError
            A process was ended from outside.
        """
        listing = identify({"": [Image(str(path), path) for path in paths]})[""]
        reasons: dict[bytes, str] = {}
        pending: dict[bytes, Path] = {}
        for path, digest in zip(paths, listing.digests, strict=True):
            if digest is not None and digest not in self._known:
                if self._refuses(read_header(path)):
                    reasons[digest] = OTHER_DICOM
                else:
                    pending.setdefault(digest, path)
        report = progress or (lambda n_images: None)
        report(len(paths) - len(pending))
        reasons |= dict.fromkeys(pending, CHANGED)
        new: dict[bytes, Embeddings] = {}
        for rows in self._embed_units(list(pending.values()), workers):
            for row, digest in enumerate(map(bytes, rows.digests)):
                reasons[digest] = rows.reasons[row]
                new[digest] = rows.embeddings[row]
            report(len(rows.digests))
        return self._join(listing, new, {digest: reason for digest, reason in reasons.items() if reason})

    def _embed_units(self, paths: list[Path], workers: int | None) -> Iterator[Rows]:
        if paths:
            facts, few = self.store.provenance, 1 if len(paths) <= FEW_IMAGES else workers
            with closing(embed_units(paths, self._network, facts.size, facts.dtype, few)) as units:
                yield from (unit.rows for unit in units)

    def find_maps(self, contents: Sequence[bytes]) -> list[NDArray[np.float32]]:
        """The maps of images before pooling.

        Parameters
        ----------
        contents : sequence of bytes, length n_images
            The content of each file, which can be read.

        Returns
        -------
        list of ndarray of float32, shape (n_images, height, width, n_features)
            One per layer of the store.

        Raises
        ------
        Unreadable
            An image cannot be read.
        """
        pixels = np.stack([decode(data, self.store.provenance.size) for data in contents])
        return self._thread.submit(self._network.find_maps, pixels).result()

    def find_places(self, contents: Sequence[bytes], parts: Sequence[str]) -> NDArray[np.float32]:
        """What each place of an image adds to its embedding.

        Parameters
        ----------
        contents : sequence of bytes, length n_images
            The content of each file, which can be read.
        parts : sequence of str
            Names of parts of the store's features.

        Returns
        -------
        ndarray of float32, shape (n_images, height, width, n_features)
            Its mean over height and width is the embedding, of these parts.

        Raises
        ------
        Unreadable
            An image cannot be read.
        UserError
            The maps of several layers have no common number of places.
        """
        own = next(iter(self.store.splits.values())).parts.names
        spreads = itertools.product(self.find_maps(contents), self.store.provenance.pooling.split(","))
        wanted = [spread_pooling(*each) for name, each in zip(own, spreads, strict=True) if name in parts]
        return _join_places(wanted, f"{self.store.path}: the maps of its layers", "a run on one of them (POOLING=NAME)")

    def _refuses(self, start: bytes) -> bool:
        """Whether a file is DICOM that the decoder of the store would have read in another way."""
        return self.store.provenance.decoding == DECODING_BEFORE_DICOM and is_dicom(start)

    def _join(self, listing: Listing, new: dict[bytes, Embeddings], reasons: dict[bytes, str]) -> Split:
        """One row per image of a listing, from the store, from what was embedded, or with a reason."""
        shape = (len(listing.ids), *self._shape)
        embeddings: Embeddings = np.full(shape, np.nan, self.store.provenance.dtype)
        found = list(listing.reasons)
        for row, digest in enumerate(listing.digests):
            if digest is None:
                continue
            found[row] = "" if digest in self._known else reasons.get(digest, "")
            if digest in self._known:
                split, stored = self._known[digest]
                embeddings[row] = self.store.splits[split].embeddings[stored]
            elif not found[row]:
                embeddings[row] = new[digest]
        status = np.array([UNREADABLE if reason else OK for reason in found], np.uint8)
        parts = next(iter(self.store.splits.values())).parts
        return Split(listing.ids, Rows(listing.digest_array(), status, found, embeddings), parts)

    @cached_property
    def _known(self) -> dict[bytes, tuple[str, int]]:
        """Split and row of every image that has an embedding in the store, by digest."""
        return {
            split.rows.digests[row].tobytes(): (name, int(row))
            for name, split in self.store.splits.items()
            for row in np.flatnonzero(split.readable)
        }


class JoinedEmbedder(Embedder):
    """Embeds any images as those of a store that is joined of others: with the network of each.

    Parameters
    ----------
    store : FeatureStore

    Raises
    ------
    StoreError
        A store that it was joined of, or the network beside it, is missing, damaged or of other features.
    """

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self._members = [Embedder(_open_member(store, facts)) for facts in _read_members(store)]

    def __repr__(self) -> str:
        return f"<JoinedEmbedder of '{self.store.path}': {', '.join(map(repr, self._members))}>"

    @property
    def block_images(self) -> int:
        """How many images to embed at a time."""
        return min(member.block_images for member in self._members)

    def embed(self, contents: Sequence[bytes], ids: Sequence[str] | None = None) -> Split:
        """Embed images that are in memory."""
        return self._put_side_by_side([member.embed(contents, ids) for member in self._members])

    def embed_files(
        self, paths: Sequence[Path], workers: int | None = None, progress: Callable[[int], object] | None = None
    ) -> Split:
        """Embed image files; progress is that of the last network."""
        *others, last = self._members
        rows = [member.embed_files(paths, workers) for member in others]
        return self._put_side_by_side([*rows, last.embed_files(paths, workers, progress)])

    def find_maps(self, contents: Sequence[bytes]) -> list[NDArray[np.float32]]:
        """Refused: each network has maps of its own; see `find_places`."""
        raise UserError(f"{self.store.path}: is joined of several stores, whose networks have maps of their own; use a "
                        "run on one of them")  # fmt: skip

    def find_places(self, contents: Sequence[bytes], parts: Sequence[str]) -> NDArray[np.float32]:
        """What each place of an image adds to its embedding.

        Raises
        ------
        UserError
            There would be more than `MAX_PLACES` in a row.
        """
        names = iter(next(iter(self.store.splits.values())).parts.names)
        found = []
        for member in self._members:
            own = next(iter(member.store.splits.values())).parts.names
            wanted = [
                name for name, joined in zip(own, itertools.islice(names, len(own)), strict=True) if joined in parts
            ]
            if wanted:
                found.append(member.find_places(contents, wanted))
        remedy = "a run on one of the stores that it is joined of"
        return _join_places(found, f"{self.store.path}: the maps of its networks", remedy)

    def _put_side_by_side(self, splits: Sequence[Split]) -> Split:
        rows = join_rows([split.rows for split in splits], self.store.provenance.dtype)
        return Split(splits[0].ids, rows, next(iter(self.store.splits.values())).parts)


def _join_places(found: Sequence[NDArray[np.float32]], subject: str, remedy: str) -> NDArray[np.float32]:
    """Put maps side by side that may differ in size.

    Each place is divided into equal ones until all maps have the same number, which changes no mean.
    """
    if len({maps.shape[1:3] for maps in found}) == 1:
        return np.concatenate(found, axis=-1)
    side = math.lcm(*(maps.shape[1] for maps in found), *(maps.shape[2] for maps in found))
    if side > MAX_PLACES:
        raise UserError(f"{subject} have no common number of places below {MAX_PLACES}; use {remedy}")
    return np.concatenate([_divide_places(maps, side) for maps in found], axis=-1)


def _divide_places(maps: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Repeat each place so that a map has so many rows and columns."""
    return maps.repeat(side // maps.shape[1], axis=1).repeat(side // maps.shape[2], axis=2)


def open_embedder(store: FeatureStore) -> Embedder:
    """The embedder of a store, joined or not."""
    return JoinedEmbedder(store) if store.provenance.joined else Embedder(store)


class _Member(TypedDict):
    """What a joined store remembers of a store, as `cache.join` has recorded it."""

    path: str
    fingerprint: str


def _read_members(store: FeatureStore) -> list[_Member]:
    try:
        return check_type(store.record.get("joined"), list[_Member])
    except ValueError as error:
        raise StoreError(f"{store.path}: does not say which stores it was joined of; join them again") from error


def _open_member(store: FeatureStore, facts: _Member) -> FeatureStore:
    member = FeatureStore(facts["path"])
    if member.fingerprint != facts["fingerprint"]:
        raise StoreError(f"{member.path}: holds other features than when {store.path} was joined of it; join it again")
    return member
