"""What a store contains, and what the next run of `make features` would do to it."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache.changes import Changes, MissingImages, find_changes, find_missing
from cache.digest_memo import DigestMemo
from cache.images import find_images, identify
from cache.lock import find_holder
from cache.parts import find_unfinished
from cache.remote_path import to_path
from cache.store import FeatureStore, require_store


def describe_store(path: str | os.PathLike[str], data: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Describe a store, finished or not.

    Parameters
    ----------
    path : path-like
        The store.
    data : path-like, optional
        A data folder to compare it with, or its URL.

    Returns
    -------
    dict
        Ready for JSON: ``complete``, ``writer``, ``splits``, ``provenance``, ``record``, ``unfinished``, ``changes``
        and ``next``, a sentence on what `make features` would do.

    Raises
    ------
    StoreError
        There is neither a store nor a part of one, or the store is damaged.
    DataError
        The data folder is missing or has no image.
    """
    path = Path(path)
    unfinished = [
        {"fingerprint": parts.fingerprint, "images": sum(len(digests) for digests in parts.digests())}
        for parts in find_unfinished(path)
    ]
    if not unfinished:
        require_store(path)
    described: dict[str, Any] = {"store": str(path), "complete": path.exists(), "writer": find_holder(path)}
    changes, missing = None, MissingImages("", False)
    if path.exists():
        store = FeatureStore(path)
        if data:
            listings = identify(find_images(data), DigestMemo(path))
            changes = find_changes(store, listings)
            missing = find_missing(store, changes, listings, to_path(data))
        described |= _describe_finished(store)
    described["unfinished"] = unfinished
    described["changes"] = asdict(changes) if changes is not None else None
    described["next"] = _describe_next_run(described, changes, missing)
    return described


def _describe_finished(store: FeatureStore) -> dict[str, Any]:
    return {
        "fingerprint": store.fingerprint,
        "content": store.content,
        "provenance": json.loads(store.provenance.to_json()),
        "record": store.record,
        "splits": {
            name: {
                "rows": len(split.ids),
                "features": split.embeddings.shape[-1],
                **({"map": list(split.embeddings.shape[1:3])} if store.has_maps else {}),
                "unreadable": split.describe_unreadable(),
            }
            for name, split in store.splits.items()
        },
    }


def _describe_next_run(described: dict[str, Any], changes: Changes | None, missing: MissingImages) -> str:
    if described["writer"]:
        return f"is being written by {described['writer']}"
    own = [each for each in described["unfinished"] if each["fingerprint"] == described.get("fingerprint")]
    if not described["complete"] or own:
        finished = sum(each["images"] for each in own or described["unfinished"])
        return f"`make features` would continue from {finished:,} images of an unfinished run"
    if changes is None:
        return "give a data folder (--data) to see what `make features` would do"
    if not changes:
        return "`make features` would do nothing: every image of the data folder is in the store"
    counted = [f"{len(ids):,} {kind}" for kind, ids in asdict(changes).items() if isinstance(ids, list) and ids]
    if missing.is_suspect:
        return f"`make features` would refuse to run: {missing.description}"
    n_images = len(changes.new) + len(changes.changed) + len(changes.recovered)
    return f"`make features` would embed at most {n_images:,} images ({', '.join(counted)})"
