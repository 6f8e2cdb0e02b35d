"""How a data folder differs from what a store holds, by the content of the images."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from cache.images import Listing
from cache.store import FeatureStore
from cache.support.messages import some


@dataclass(frozen=True)
class Changes:
    """The ids, as ``split/id``, that a run would have to do something about.

    Parameters
    ----------
    new : list of str
        Images whose bytes the store does not hold: these are embedded.
    changed : list of str
        Ids that stand for other bytes than before, which the store does not hold either: embedded, too.
    renamed : list of str
        New ids, or ids with other bytes, that the store holds under another id: not embedded.
    removed : list of str
        Ids whose images are in the store and nowhere in the folder.
    lost : list of str
        Ids whose bytes could be had and now cannot.
    recovered : list of str
        Ids whose bytes could not be had and now can.
    gone : int
        How many ids of the store are not in the folder, be their images there under other ids or not.
    """

    new: list[str]
    changed: list[str]
    renamed: list[str]
    removed: list[str]
    lost: list[str]
    recovered: list[str]
    gone: int

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class MissingImages:
    """What leaves a store, in words (empty if nothing does), and whether that looks like a mistake."""

    description: str
    is_suspect: bool


def find_changes(store: FeatureStore, listings: Mapping[str, Listing]) -> Changes:
    """Compare a store with a listing of a data folder."""
    held = {
        (split, id): digest
        for split, rows in store.splits.items()
        for id, digest in zip(rows.ids, _digests(rows.rows.digests.tobytes()), strict=True)
    }
    known = set(held.values())
    changes = Changes([], [], [], [], [], [], 0)
    for split, listing in listings.items():
        for id, digest in zip(listing.ids, _digests(listing.digest_array().tobytes()), strict=True):
            before = held.pop((split, id), None)
            if digest == before:
                continue
            name = f"{split}/{id}"
            if not any(digest):
                (changes.lost if before is not None else changes.new).append(name)
            elif before is not None and not any(before):
                changes.recovered.append(name)
            elif digest in known:
                changes.renamed.append(name)
            else:
                (changes.new if before is None else changes.changed).append(name)
    present = {digest for listing in listings.values() for digest in listing.digests}
    changes.removed.extend(f"{split}/{id}" for (split, id), digest in held.items() if digest not in present)
    return replace(changes, gone=len(held))


def find_missing(store: FeatureStore, changes: Changes, listings: Mapping[str, Listing], data: Path) -> MissingImages:
    """Judge whether rows leave a store because that is meant.

    A whole split or most images that are missing, or cannot be read any more, look like a disk that is not there or
    like another folder.
    """
    leaving = changes.removed + changes.lost
    if not leaving:
        return MissingImages("", False)
    told = f"{len(leaving):,} of the store's images are not in {data} or cannot be read there ({some(leaving)})"
    sizes = {name: len(split.ids) for name, split in store.splits.items()}
    lost = Counter(name.partition("/")[0] for name in changes.lost)
    emptied = [name for name in sizes if name not in listings or lost[name] == sizes[name]]
    is_other = store.record.get("data") != str(data.absolute())
    if emptied:
        return MissingImages(f"split '{emptied[0]}' has vanished: {told}", True)
    if len(changes.lost) > sum(sizes.values()) / 2 or (is_other and len(leaving) > sum(sizes.values()) / 2):
        return MissingImages(f"it was made from {store.record.get('data')}, and {told}", True)
    return MissingImages(told, False)


def _digests(joined: bytes) -> list[bytes]:
    return [joined[start : start + 32] for start in range(0, len(joined), 32)]
