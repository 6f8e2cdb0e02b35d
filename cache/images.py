"""Find the images of a data folder, and identify each by the digest of its bytes.

The layout is the official one: ``<split>/<ID>.jpg`` or ``<split>_images/<ID>.jpg``, with splits train, valid
and test. The id of an image is its file name without the ending.
"""

import os
import stat
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.digest_memo import DigestMemo
from cache.rows import DIGEST_BYTES
from cache.support.errors import DataError
from cache.support.messages import count, some
from cache.support.reporting import warn

SPLITS = ("train", "valid", "test")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".dcm", ".dicom"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})

HASH_THREADS = 4
"""Threads that read and digest images. SHA-256 releases the interpreter's lock, and reading waits for the disk."""


@dataclass(frozen=True)
class Image:
    """An image file: its id and its path."""

    id: str
    path: Path


@dataclass(frozen=True, repr=False)
class Listing:
    """The images of one split, in the order of the rows that a store must have.

    Parameters
    ----------
    ids : list of str, length n_images
        Image ids, each once.
    digests : list of bytes or None, length n_images
        SHA-256 of each image's bytes, None where the bytes cannot be read.
    reasons : list of str, length n_images
        Why they cannot be read; empty where they can.
    """

    ids: list[str]
    digests: list[bytes | None]
    reasons: list[str]

    def __repr__(self) -> str:
        n_unreadable = sum(digest is None for digest in self.digests)
        return f"Listing({count(len(self.ids), 'image')}, {n_unreadable:,} cannot be read)"

    def digest_array(self) -> NDArray[np.uint8]:
        """The digests as a store holds them, shape (n_images, 32): zeros instead of None."""
        joined = b"".join(digest or bytes(DIGEST_BYTES) for digest in self.digests)
        return np.frombuffer(joined, np.uint8).reshape(-1, DIGEST_BYTES)


def find_images(data: str | os.PathLike[str]) -> dict[str, list[Image]]:
    """Find every image of a data folder.

    Parameters
    ----------
    data : path-like
        The data folder.

    Returns
    -------
    dict of str to list of Image
        The images of each split that has any, sorted by id.

    Raises
    ------
    DataError
        The folder is missing or has no image, a part of it cannot be read, two images have the same id, or a file
        name is not UTF-8.

    Warns
    -----
    DataWarning
        A split has no image, or files are left out because their ending is not that of an image.
    """
    data = Path(data)
    if not data.is_dir():
        raise DataError(f"{data}: no such folder; expected a folder with train/, valid/ and test/ in it")
    splits: dict[str, list[Image]] = {}
    for split in SPLITS:
        folders = [folder for folder in (data / split, data / f"{split}_images") if folder.is_dir()]
        images = sorted((image for folder in folders for image in _walk(folder)), key=lambda image: image.id)
        if images:
            splits[split] = images
        elif folders:
            warn(f"{folders[0]}: no image in it; split '{split}' is left out")
    if not splits:
        raise DataError(
            f"{data}: no image found; expected <split>/<ID>.jpg or <split>_images/<ID>.jpg, "
            f"with splits {', '.join(SPLITS)} and endings {', '.join(sorted(SUFFIXES))}"
        )
    _refuse_repeated(data, splits)
    return splits


def identify(splits: Mapping[str, list[Image]], memo: DigestMemo) -> dict[str, Listing]:
    """Digest the bytes of every image; where they cannot be read, note the reason instead.

    Parameters
    ----------
    splits : mapping of str to list of Image
        What `find_images` found.
    memo : DigestMemo
        Digests of files that have not changed since they were last read.

    Returns
    -------
    dict of str to Listing
    """

    def digest_or_reason(image: Image) -> tuple[bytes | None, str]:
        try:
            if not stat.S_ISREG(image.path.stat().st_mode):
                return None, "cannot be read: not a regular file"  # reading a pipe would never end
            return memo.digest(image.path), ""
        except OSError as error:
            return None, f"cannot be read: {error.strerror}"

    with ThreadPoolExecutor(HASH_THREADS) as pool:
        found = {split: list(pool.map(digest_or_reason, images)) for split, images in splits.items()}
    return {
        split: Listing([image.id for image in images], [d for d, _ in found[split]], [r for _, r in found[split]])
        for split, images in splits.items()
    }


def _walk(folder: Path) -> list[Image]:
    images, others = [], []
    walked: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, onerror=_refuse_unreadable, followlinks=True):
        here = os.stat(root)
        if (here.st_dev, here.st_ino) in walked:
            folders.clear()  # a link that points back
            continue
        walked.add((here.st_dev, here.st_ino))
        for name in names:
            path = Path(root, name)
            if name.startswith("."):
                continue  # left behind by file managers and archive tools
            if path.suffix.lower() in SUFFIXES:
                _refuse_odd_name(path)
                images.append(Image(path.stem, path))
            elif path.suffix.lower() != ".csv":
                others.append(str(path.relative_to(folder)))
    if others:
        warn(f"{folder}: left out {count(len(others), 'file')} without the ending of an image: {some(sorted(others))}")
    return images


def _refuse_unreadable(error: OSError) -> None:
    raise DataError(
        f"{error.filename}: cannot be read ({error.strerror}), so its images would be missing; "
        "make it readable, or remove it"
    )


def _refuse_odd_name(path: Path) -> None:
    try:
        path.name.encode("utf-8")
    except UnicodeEncodeError:
        printable = os.fsencode(path).decode("utf-8", errors="backslashreplace")
        raise DataError(f"{printable}: its name is not UTF-8, which an id must be; rename it") from None


def _refuse_repeated(data: Path, splits: Mapping[str, list[Image]]) -> None:
    counts = Counter(image.id for images in splits.values() for image in images)
    repeated = sorted(id for id, n_files in counts.items() if n_files > 1)
    if not repeated:
        return
    paths = [
        str(image.path.relative_to(data)) for images in splits.values() for image in images if image.id == repeated[0]
    ]
    raise DataError(
        f"{data}: {count(len(repeated), 'id')} used by more than one image ({some(repeated)}; "
        f"{repeated[0]} is {' and '.join(paths[:2])}); expected ids that are unique over all splits: "
        "rename or remove one of each"
    )
