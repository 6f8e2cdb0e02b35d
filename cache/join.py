"""Join stores: the features of the same images from several networks, layers or sizes, side by side in one store.

The joined store is a store like any other, so everything that learns from one learns from it. Its provenance has those
of the stores that it is made of. They are needed again only to embed new images.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.feature_parts import FeatureParts, name_parts
from cache.images import Listing
from cache.lock import locked
from cache.provenance import Provenance
from cache.rows import Rows, join_rows, row_blocks
from cache.store import FeatureStore, Split
from cache.support.errors import ParameterError, StoreError
from cache.support.messages import count, some
from cache.support.reporting import report
from cache.writer import write_store


def join_stores(stores: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> FeatureStore:
    """Join stores of the same images into one.

    Images are joined by id. One that is unreadable in a store is unreadable in the joined one.

    Parameters
    ----------
    stores : sequence of path
        At least two.
    out : path
        The joined store. One of the same stores is left as it is.

    Returns
    -------
    FeatureStore

    Raises
    ------
    ParameterError
        Fewer than two stores are given, or one of them twice.
    StoreError
        A store is missing or damaged, holds maps, or is joined itself; stores hold different images; or `out` is a
        store of another kind.
    """
    out = Path(out)
    opened = [FeatureStore(path) for path in stores]
    _check(opened, out)
    with locked(out, StoreError):
        return _join(opened, out)


def _join(opened: Sequence[FeatureStore], out: Path) -> FeatureStore:
    members = [_describe(store) for store in opened]
    if out.exists():
        earlier = FeatureStore(out)
        if not earlier.provenance.joined:
            raise StoreError(f"{out}: is a store that is not joined; name another STORE")
        if earlier.record.get("joined") == members:
            report(f"{out}: up to date ({count(len(opened), 'store')}, {_count_features(earlier):,} features)")
            return earlier
    _check_images(opened)
    first = opened[0]
    matched = {name: [_match(split, store.split(name)) for store in opened] for name, split in first.splits.items()}
    listings = {name: _list(split) for name, split in first.splits.items()}
    parts = [next(iter(store.splits.values())).parts for store in opened]
    record: dict[str, Any] = dict(first.record) | {
        "asked": {
            "weights": " ".join(store.record["asked"]["weights"] for store in opened),
            "layer": " ".join(store.record["asked"]["layer"] for store in opened),
        },
        "weights_source": _choose_source(opened),
        "parts": name_parts([store.path.stem for store in opened], parts),
        "joined": members,
    }
    provenance = Provenance.join([store.provenance for store in opened])
    rows = _iterate(opened, matched, provenance.dtype)
    write_store(out, provenance, record, listings, rows, (sum(sum(each.widths) for each in parts),))
    joined = FeatureStore(out)
    n_images = sum(len(split.ids) for split in joined.splits.values())
    report(f"{out}: {count(len(opened), 'store')} joined, {count(n_images, 'image')} of {_count_features(joined):,} "
           f"features ({', '.join(record['parts']['names'])})")  # fmt: skip
    return joined


def _check(opened: Sequence[FeatureStore], out: Path) -> None:
    """Refuse stores that cannot be joined, whatever their images."""
    if len(opened) < 2:
        raise ParameterError(f"{count(len(opened), 'store')} given, expected at least two to join")
    paths = [store.path.resolve() for store in opened]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise ParameterError(f"{twice}: given twice, expected different stores")
    if out.resolve() in paths:
        raise ParameterError(f"{out}: is one of the stores to join, which it would replace; name another STORE")
    for store in opened:
        if store.has_maps:
            raise StoreError(f"{store.path}: holds maps, expected embeddings; make them with POOLING=avg")
        if store.provenance.joined:
            raise StoreError(f"{store.path}: is joined itself; name the stores that it is made of")


def _check_images(opened: Sequence[FeatureStore]) -> None:
    """Refuse stores of different images, with counts and examples."""
    first = opened[0]
    for other in opened[1:]:
        if set(first.splits) != set(other.splits):
            raise StoreError(f"{first.path} has splits {some(sorted(first.splits))}, {other.path} "
                             f"{some(sorted(other.splits))}; expected stores of the same images")  # fmt: skip
        for name, split in first.splits.items():
            differences = _compare(split, other.split(name))
            if differences:
                raise StoreError(
                    f"{first.path} and {other.path} hold different images of {name}: {'; '.join(differences)}; "
                    "make the features of both from the same data"
                )


def _compare(one: Split, other: Split) -> list[str]:
    mine, theirs = (dict(zip(split.ids, map(bytes, split.rows.digests), strict=True)) for split in (one, other))
    only_here, only_there = [id for id in mine if id not in theirs], [id for id in theirs if id not in mine]
    changed = [id for id, digest in mine.items() if id in theirs and any(digest) and any(theirs[id])
               and digest != theirs[id]]  # fmt: skip
    kinds = {"only in the first": only_here, "only in the second": only_there, "with other bytes": changed}
    return [f"{count(len(ids), 'image')} {kind} ({some(ids)})" for kind, ids in kinds.items() if ids]


def _match(split: Split, other: Split) -> NDArray[np.int64]:
    """The row of each image of a split in that of another store."""
    rows = {id: row for row, id in enumerate(other.ids)}
    return np.array([rows[id] for id in split.ids], dtype=np.int64)


def _list(split: Split) -> Listing:
    digests = [bytes(digest) if any(digest) else None for digest in split.rows.digests]
    reasons = [reason if digest is None else "" for digest, reason in zip(digests, split.rows.reasons, strict=True)]
    return Listing(list(split.ids), digests, reasons)


def _iterate(opened: Sequence[FeatureStore], matched: dict[str, list[NDArray[np.int64]]], dtype: str) -> Iterator[Rows]:
    """The rows of all stores side by side, some at a time."""
    for name, rows_of in matched.items():
        splits = [store.split(name) for store in opened]
        for part in row_blocks(splits[0].embeddings):
            found = [split.rows.take(rows[part]) for split, rows in zip(splits, rows_of, strict=True)]
            yield join_rows(found, dtype)


def _describe(store: FeatureStore) -> dict[str, str]:
    """What the joined store remembers of a store, to find it again and to know whether it has changed."""
    return {"path": str(store.path.absolute()), "fingerprint": store.fingerprint, "content": store.content}


def _choose_source(opened: Sequence[FeatureStore]) -> str:
    """The source of weights that were trained, if any were: results of a random network alone are marked."""
    sources = [str(store.record["weights_source"]) for store in opened]
    return next((each for each in sources if not each.startswith("random:")), sources[0])


def _count_features(store: FeatureStore) -> int:
    parts: FeatureParts = next(iter(store.splits.values())).parts
    return sum(parts.widths)
