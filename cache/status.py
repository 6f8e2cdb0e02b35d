"""What a store is, and what a run would do to it now."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache.changes import Changes, MissingImages, find_changes, find_missing
from cache.digest_memo import DigestMemo
from cache.images import find_images, identify
from cache.lock import find_holder
from cache.parts import find_unfinished
from cache.store import FeatureStore
from cache.support.errors import UserError


def describe_store(path: Path, data: Path | None) -> dict[str, Any]:
    """Describe a store, finished or not.

    Parameters
    ----------
    path : Path
        The store.
    data : Path, optional
        A data folder to compare it with.

    Returns
    -------
    dict
        Ready for JSON: ``complete``, ``writer``, ``splits``, ``provenance``, ``record``, ``unfinished``, ``changes``
        and ``next``, a sentence on what a run would do.

    Raises
    ------
    UserError
        There is neither a store nor a part of one, or the store is damaged.
    """
    unfinished = [
        {"fingerprint": parts.fingerprint, "images": sum(len(rows.digests) for rows in parts)}
        for parts in find_unfinished(path)
    ]
    if not path.exists() and not unfinished:
        raise UserError(f"{path}: no such store; make it with `make features` or name another STORE")
    described: dict[str, Any] = {"store": str(path), "complete": path.exists(), "writer": find_holder(path)}
    changes, missing = None, MissingImages("", False)
    if path.exists():
        store = FeatureStore(path)
        if data:
            listings = identify(find_images(data), DigestMemo(path))
            changes = find_changes(store, listings)
            missing = find_missing(store, changes, listings, data)
        described |= _describe_finished(store)
    described["unfinished"] = unfinished
    described["changes"] = asdict(changes) if changes is not None else None
    described["next"] = _say_next(described, changes, missing)
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
                "unreadable": split.unreadable(),
            }
            for name, split in store.splits.items()
        },
    }


def _say_next(described: dict[str, Any], changes: Changes | None, missing: MissingImages) -> str:
    if described["writer"]:
        return f"is being written by {described['writer']}"
    own = [each for each in described["unfinished"] if each["fingerprint"] == described.get("fingerprint")]
    if not described["complete"] or own:
        kept = sum(each["images"] for each in own or described["unfinished"])
        return f"a run would go on from {kept:,} images of an unfinished one"
    if changes is None:
        return "name a data folder (--data) to see what a run would do"
    if not changes:
        return "a run would do nothing: every image of the data folder is here"
    counted = [f"{len(ids):,} {kind}" for kind, ids in asdict(changes).items() if isinstance(ids, list) and ids]
    if missing.is_suspect:
        return f"a run would refuse: {missing.description}"
    n_images = len(changes.new) + len(changes.changed) + len(changes.recovered)
    return f"a run would embed at most {n_images:,} images ({', '.join(counted)})"
