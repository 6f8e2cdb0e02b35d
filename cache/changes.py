"""How a data folder differs from what a store holds, by the content of the images."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from cache.images import Listing
from cache.store import FeatureStore


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
    unreadable : list of str
        Ids whose bytes could be had and now cannot, or the other way round.
    gone : int
        How many ids of the store are not in the folder, be their images there under other ids or not.
    """

    new: list[str]
    changed: list[str]
    renamed: list[str]
    removed: list[str]
    unreadable: list[str]
    gone: int

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))


def find_changes(store: FeatureStore, listings: Mapping[str, Listing]) -> Changes:
    """Compare a store with a listing of a data folder."""
    held = {
        (split, id): digest
        for split, rows in store.splits.items()
        for id, digest in zip(rows.ids, _digests(rows.rows.digests.tobytes()), strict=True)
    }
    known = set(held.values())
    changes = Changes([], [], [], [], [], 0)
    for split, listing in listings.items():
        for id, digest in zip(listing.ids, _digests(listing.digest_array().tobytes()), strict=True):
            before = held.pop((split, id), None)
            if digest == before:
                continue
            name = f"{split}/{id}"
            if not any(digest) or (before is not None and not any(before)):
                changes.unreadable.append(name)
            elif digest in known:
                changes.renamed.append(name)
            else:
                (changes.new if before is None else changes.changed).append(name)
    present = {digest for listing in listings.values() for digest in listing.digests}
    changes.removed.extend(f"{split}/{id}" for (split, id), digest in held.items() if digest not in present)
    return replace(changes, gone=len(held))


def _digests(joined: bytes) -> list[bytes]:
    return [joined[start : start + 32] for start in range(0, len(joined), 32)]
