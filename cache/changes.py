"""How a data folder differs from a store, by the content of the images."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from cache.images import Listing
from cache.remote_path import AnyPath
from cache.store import FeatureStore
from cache.support.messages import some


@dataclass(frozen=True)
class Changes:
    """The ids, as ``split/id``, for which the next run would have to do something.

    Parameters
    ----------
    new : list of str
        Images whose bytes are not in the store: these are embedded.
    changed : list of str
        Ids whose bytes are others than before, and not in the store under any id: embedded, too.
    renamed : list of str
        New ids, or ids with other bytes, whose bytes are in the store under another id: not embedded.
    removed : list of str
        Ids whose bytes are in the store and nowhere in the folder.
    lost : list of str
        Ids whose bytes could be read before and now cannot.
    recovered : list of str
        Ids whose bytes could not be read before and now can.
    gone : int
        Number of ids of the store that are not in the folder; their images may be there under other ids.
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
    """Images of a store that are missing from a data folder, so that the next run would remove their rows.

    Parameters
    ----------
    description : str
        How many and which; empty if none is missing.
    is_suspect : bool
        Whether this looks like a mistake: a disk that is not mounted, or another folder.
    """

    description: str
    is_suspect: bool


def find_changes(store: FeatureStore, listings: Mapping[str, Listing]) -> Changes:
    """Compare a store with a data folder.

    Parameters
    ----------
    store : FeatureStore
    listings : mapping of str to Listing
        The images of each split of the folder.

    Returns
    -------
    Changes
        Falsy if there are none.
    """
    stored = {
        (split, id): digest
        for split, rows in store.splits.items()
        for id, digest in zip(rows.ids, _digests(rows.rows.digests.tobytes()), strict=True)
    }
    known = set(stored.values())
    changes = Changes([], [], [], [], [], [], 0)
    for split, listing in listings.items():
        for id, digest in zip(listing.ids, _digests(listing.digest_array().tobytes()), strict=True):
            before = stored.pop((split, id), None)
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
    changes.removed.extend(f"{split}/{id}" for (split, id), digest in stored.items() if digest not in present)
    return replace(changes, gone=len(stored))


def find_missing(
    store: FeatureStore, changes: Changes, listings: Mapping[str, Listing], data: AnyPath
) -> MissingImages:
    """Find the images that the next run would remove from a store, and judge whether that is intended.

    It looks like a mistake if a whole split or most images are missing, or cannot be read any more.

    Parameters
    ----------
    store : FeatureStore
    changes : Changes
        What `find_changes` returned for this folder.
    listings : mapping of str to Listing
        The images of each split of the folder.
    data : Path or RemotePath
        The folder.

    Returns
    -------
    MissingImages
        With an empty description if no image is missing.
    """
    leaving = changes.removed + changes.lost
    if not leaving:
        return MissingImages("", False)
    description = f"{len(leaving):,} of the store's images are not in {data} or cannot be read there ({some(leaving)})"
    sizes = {name: len(split.ids) for name, split in store.splits.items()}
    lost = Counter(name.partition("/")[0] for name in changes.lost)
    emptied = [name for name in sizes if name not in listings or lost[name] == sizes[name]]
    is_other = store.record.get("data") != str(data.absolute())
    if emptied:
        return MissingImages(f"split '{emptied[0]}' has vanished: {description}", True)
    if len(changes.lost) > sum(sizes.values()) / 2 or (is_other and len(leaving) > sum(sizes.values()) / 2):
        return MissingImages(f"it was made from {store.record.get('data')}, and {description}", True)
    return MissingImages(description, False)


def _digests(joined: bytes) -> list[bytes]:
    return [joined[start : start + 32] for start in range(0, len(joined), 32)]
