"""Find the images of a data folder, and identify each by the digest of its bytes.

The layout is the official one: ``<split>/<ID>.jpg`` or ``<split>_images/<ID>.jpg``, with splits train, valid
and test, or other names for them. The id of an image is its file name without the ending.

One surprise: where file names repeat in a split, as those of DICOM series do, the ids of its images in folders are
their paths, such as ``p1/IM0001``.
"""

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from cache.digest_memo import DigestMemo, digest_any
from cache.packed_files import describe_packed
from cache.remote_path import AnyPath, RemotePath, list_files, to_path
from cache.rows import DIGEST_BYTES
from cache.support.errors import DataError
from cache.support.image_ids import DICOM_ENDINGS, IMAGE_ENDINGS, find_id_fault
from cache.support.machine_faults import describe_fault, is_fault_of_machine
from cache.support.messages import count, one_line, some
from cache.support.reporting import warn
from cache.support.split_names import SPLITS, find_split

HASH_THREADS, REMOTE_THREADS = 4, 32
"""Threads that read and digest images. SHA-256 releases the interpreter's lock, and reading waits for the disk, or for
another machine."""

IGNORED_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "dicomdir"})
IGNORED_FOLDERS = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"})
"""What file managers, archive tools and disks leave behind, in lower case. Hidden files are ignored, too."""

MAX_LOOKED_AT = 10_000
"""How many files of a folder that is no split are looked at for an image."""


@dataclass(frozen=True)
class Image:
    """An image file: its id and its path."""

    id: str
    path: AnyPath


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


def find_images(data: str | os.PathLike[str] | RemotePath) -> dict[str, list[Image]]:
    """Find every image of a data folder.

    Parameters
    ----------
    data : path-like
        The data folder, or its URL. Of a URL only the names of files are looked at, not their content.

    Returns
    -------
    dict of str to list of Image
        The images of each split that has any, sorted by id.

    Raises
    ------
    DataError
        The folder is missing or has no image, two folders are the same split, a part of the folder cannot be read, two
        images have the same id, or the name of a file cannot be an id.

    Warns
    -----
    DataWarning
        A split has no image, a folder with images is no split, files are left out because they are no images, or the
        ids of a split have folders in them.
    """
    data = to_path(data)
    if isinstance(data, RemotePath):
        return _choose_ids(data, _find_remote(data))
    if not data.is_dir():
        raise DataError(f"{data}: no such folder; expected a folder with train/, valid/ and test/ in it")
    folders, others = _find_folders(data)
    splits: dict[str, list[_Found]] = {}
    for split in SPLITS:
        found = {folder: images for folder in folders[split] if (images := _walk(folder))}
        if len(found) > 1:
            _refuse_two_folders(data, split, [folder.name for folder in found])
        if found:
            splits[split] = next(iter(found.values()))
        elif folders[split]:
            folder = folders[split][0]
            warn(f"{folder}: no image in it; split '{split}' is left out{describe_packed(data)}")
    if not splits:
        raise DataError(
            f"{data}: no image found; expected <split>/<ID>.jpg or <split>_images/<ID>.jpg, "
            f"with splits {', '.join(SPLITS)} and endings {', '.join(sorted(IMAGE_ENDINGS))}{_find_remedy(data)}"
        )
    _warn_of_what_is_left_out(data, splits, others, [split for split in SPLITS if not folders[split]])
    return _choose_ids(data, splits)


def find_files(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Find the images among files and folders.

    Parameters
    ----------
    paths : sequence of path-like
        A file is taken, whatever its name. Of a folder, with those in it, every image is; see `find_images`.

    Returns
    -------
    list of Path
        In the order of `paths`, those of a folder sorted; each once.

    Raises
    ------
    DataError
        A path is neither a file nor a folder, a folder cannot be read, or there is no image.

    Warns
    -----
    DataWarning
        Files of a folder are left out because they are no images.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            found |= dict.fromkeys(sorted(each.path for each in _walk(path) if isinstance(each.path, Path)))
        elif path.exists():
            found[path] = None
        else:
            raise DataError(f"{path}: no such file or folder; expected images, or folders with images in them")
    if not found:
        packed = "".join(describe_packed(Path(path)) for path in paths)
        raise DataError(
            f"{some([str(path) for path in paths])}: no image found; expected files, or folders with files that end "
            f"in {', '.join(sorted(IMAGE_ENDINGS))}{packed}"
        )
    return list(found)


def is_dicom(path: AnyPath) -> bool:
    """Whether a file that was found as an image is DICOM, by its ending or, if it has none of an image, its content."""
    ending = path.suffix.lower()
    if isinstance(path, RemotePath) or ending in IMAGE_ENDINGS:
        return ending in DICOM_ENDINGS
    return _is_dicom(_read_start(path))


def identify(splits: Mapping[str, list[Image]], memo: DigestMemo | None = None) -> dict[str, Listing]:
    """Digest the bytes of every image; where they cannot be read, note the reason instead.

    Parameters
    ----------
    splits : mapping of str to list of Image
        What `find_images` found.
    memo : DigestMemo, optional
        Digests of files that have not changed since they were last read.

    Returns
    -------
    dict of str to Listing

    Raises
    ------
    DataError
        An image cannot be read because of the disk, the network or a lack of open files, which says nothing of it.
    """

    def digest_or_reason(image: Image) -> tuple[bytes | None, str]:
        path = image.path
        try:
            if isinstance(path, Path) and not stat.S_ISREG(path.stat().st_mode):
                return None, "cannot be read: not a regular file"  # reading a pipe would never end
            return memo.digest(path) if memo else digest_any(path), ""
        except OSError as error:
            if is_fault_of_machine(error):
                raise DataError(describe_fault(image.path, error)) from error
            return None, f"cannot be read: {error.strerror}"

    is_remote = any(isinstance(image.path, RemotePath) for images in splits.values() for image in images[:1])
    with ThreadPoolExecutor(REMOTE_THREADS if is_remote else HASH_THREADS) as pool:
        found = {split: list(pool.map(digest_or_reason, images)) for split, images in splits.items()}
    return {
        split: Listing([image.id for image in images], [d for d, _ in found[split]], [r for _, r in found[split]])
        for split, images in splits.items()
    }


@dataclass(frozen=True)
class _Found:
    """An image file, its name without the ending, and its path within the folder of its split, without it, too."""

    name: str
    within: str
    path: AnyPath


def _find_remote(data: RemotePath) -> dict[str, list[_Found]]:
    """The images of each split under a URL: files in a folder of that name that end as images do."""
    folders: dict[str, dict[str, list[_Found]]] = defaultdict(dict)
    others = []
    for path in list_files(data):
        folder, _, within = path.url.removeprefix(f"{data.url}/").partition("/")
        split = find_split(folder)
        if any(map(_is_ignored, (folder, *within.split("/")))) or path.suffix.lower() == ".csv":
            continue
        if split is None or not within or path.suffix.lower() not in IMAGE_ENDINGS:
            others.append(f"{folder}/{within}" if within else folder)
        else:
            found = _Found(path.stem, within.removesuffix(path.suffix), path)
            folders[split].setdefault(folder, []).append(found)
    if not folders:
        found_instead = f"; it has {some(others)}" if others else ""
        raise DataError(f"{data}: no image found; expected <split>/<ID>.jpg, with splits {', '.join(SPLITS)}, and "
                        f"endings {', '.join(sorted(IMAGE_ENDINGS))}{found_instead}")  # fmt: skip
    if others:
        warn(f"{data}: left out {count(len(others), 'file')} outside the images of the splits: {some(others)}")
    for split, found_in in folders.items():
        if len(found_in) > 1:
            _refuse_two_folders(data, split, list(found_in))
    return {split: next(iter(folders[split].values())) for split in SPLITS if split in folders}


def _refuse_two_folders(data: AnyPath, split: str, folders: Sequence[str]) -> NoReturn:
    raise DataError(
        f"{data}: {' and '.join(f'{folder}/' for folder in folders)} both have images of split '{split}'; "
        "put them into one folder, or move one of them out of it"
    )


def _find_folders(data: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """The folders of each split, those with the plainest names first, and the other folders."""
    folders: dict[str, list[Path]] = defaultdict(list)
    others = []
    seen: set[tuple[int, int]] = set()
    try:
        for entry in sorted(data.iterdir(), key=lambda path: (path.name not in SPLITS, path.name)):
            if not entry.is_dir() or _is_ignored(entry.name):
                continue
            split, place = find_split(entry.name), entry.stat()
            if split is None:
                others.append(entry)
            elif (place.st_dev, place.st_ino) not in seen:  # one may be a link to the other
                folders[split].append(entry)
                seen.add((place.st_dev, place.st_ino))
    except OSError as error:
        _refuse_unreadable(error)
    return folders, others


def _walk(folder: Path) -> list[_Found]:
    images, others = [], []
    n_before = len(str(folder)) + 1
    for path in _list_files(folder):
        within = str(path)[n_before:]
        if path.suffix.lower() in IMAGE_ENDINGS:
            images.append(_Found(path.stem, within.removesuffix(path.suffix), path))
        elif _is_image_without_ending(path):
            images.append(_Found(path.name, within, path))
        elif path.suffix.lower() != ".csv":
            others.append(within)
    if others:
        warn(f"{folder}: left out {count(len(others), 'file')} without the ending of an image: {some(sorted(others))}")
    return images


def _list_files(folder: Path) -> Iterator[Path]:
    """Every file of a folder and of those in it, but for what file managers and archive tools have left behind."""
    walked: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, onerror=_refuse_unreadable, followlinks=True):
        here = os.stat(root)
        if (here.st_dev, here.st_ino) in walked:
            folders.clear()  # a link that points back
            continue
        walked.add((here.st_dev, here.st_ino))
        folders[:] = [name for name in folders if not _is_ignored(name)]
        yield from (Path(root, name) for name in names if not _is_ignored(name))


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in IGNORED_FILES | IGNORED_FOLDERS


def _is_image_without_ending(path: Path) -> bool:
    """Whether the content of a file is DICOM, or that of another image if its name has no ending, or a number for it.

    The parts of a DICOM name may be divided by points: ``1.2.840.113619.2.5``.
    """
    start = _read_start(path)
    has_no_ending = not path.suffix.strip(".0123456789")
    return _is_dicom(start) or (has_no_ending and (_is_picture(start) or _is_dicom_without_preamble(start)))


def _read_start(path: Path) -> bytes:
    """The first 132 bytes of a file; fewer where there are no more, none if it cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return b""  # opening a pipe would never end
        with open(path, "rb") as file:
            return file.read(132)
    except OSError as error:
        if is_fault_of_machine(error):
            _refuse_unreadable(error)
        return b""


def _is_dicom(start: bytes) -> bool:
    return start[128:132] == b"DICM"


def _is_dicom_without_preamble(start: bytes) -> bool:
    """Whether a file begins with an element of group 2 or 8, low in the group, with a type or a short length."""
    is_early = start[:2] in (b"\x02\0", b"\x08\0") and len(start) > 8 and start[2] <= 0x18 and start[3] == 0
    return is_early and ((start[4:6].isalpha() and start[4:6].isupper()) or start[6:8] == b"\0\0")


def _is_picture(start: bytes) -> bool:
    signatures = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
    is_webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    is_bmp = start[:2] == b"BM" and start[6:10] == bytes(4)
    return start.startswith(signatures) or is_webp or is_bmp


def _refuse_unreadable(error: OSError) -> NoReturn:
    raise DataError(
        f"{error.filename}: cannot be read ({error.strerror}), so its images would be missing; "
        "make it readable, or remove it"
    )


def _find_remedy(data: Path) -> str:
    """What a folder without images has instead, as the end of a message."""
    folders = [each for each in sorted(data.iterdir()) if each.is_dir() and not _is_ignored(each.name)]
    inner = next((each for each in folders if _find_folders(each)[0]), None)
    if inner is not None:
        return f"; {inner.name}/ in it has such folders: give {inner}"
    return (f"; it has {some([f'{each.name}/' for each in folders])}" if folders else "") + describe_packed(data)


def _warn_of_what_is_left_out(
    data: Path, splits: Mapping[str, Sequence[_Found]], folders: Sequence[Path], absent: Sequence[str]
) -> None:
    expected = f"{', '.join(SPLITS[:-1])} or {SPLITS[-1]}"
    for folder in folders:
        image = next(filter(_has_image_ending, islice(_list_files(folder), MAX_LOOKED_AT)), None)
        if image is not None:
            warn(f"{folder}/: left out with its images, such as {image.name}; if it is a split, call it {expected}")
    loose = sorted(path.name for path in data.iterdir() if path.is_file() and _has_image_ending(path))
    if loose:
        warn(f"{data}: left out {count(len(loose), 'image')} beside the folders of the splits: {some(loose)}")
    packed = describe_packed(data) if absent else ""
    if packed:
        warn(f"{data}: no folder of {' or '.join(absent)}{packed}")


def _has_image_ending(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_ENDINGS and not _is_ignored(path.name)


def _choose_ids(data: AnyPath, splits: Mapping[str, Sequence[_Found]]) -> dict[str, list[Image]]:
    """Images by their names, or by their paths in the splits where names of images in folders repeat."""
    everything = [each for found in splits.values() for each in found]
    counts = Counter(each.name for each in everything)
    repeated = {name for name, n_files in counts.items() if n_files > 1}
    repeated -= {each.name for each in everything if "/" not in each.within}  # no path would tell it from the others
    chosen = {}
    for split, found in splits.items():
        by_path = any(each.name in repeated for each in found)
        images = [Image(each.within if by_path else each.name, each.path) for each in found]
        for image in images:
            _refuse_odd_id(image)
        chosen[split] = sorted(images, key=lambda image: image.id)
    _refuse_repeated(data, chosen)
    for split, images in chosen.items():
        paths = [image.id for image in images if "/" in image.id]
        if paths:
            warn(f"{data}: file names repeat, so ids of {split} are paths, such as {paths[0]}")
    return chosen


def _refuse_odd_id(image: Image) -> None:
    fault = find_id_fault(image.id)
    if fault == "is not UTF-8":
        printable = os.fsencode(str(image.path)).decode("utf-8", errors="backslashreplace")
        raise DataError(f"{printable}: its name is not UTF-8, which an id must be; rename it")
    if fault:
        raise DataError(f"{one_line(str(image.path))}: its name {fault}, so it cannot be an id; rename it")


def _refuse_repeated(data: AnyPath, splits: Mapping[str, list[Image]]) -> None:
    counts = Counter(image.id for images in splits.values() for image in images)
    repeated = sorted(id for id, n_files in counts.items() if n_files > 1)
    if not repeated:
        return
    paths = [
        str(image.path).removeprefix(f"{data}/")
        for images in splits.values()
        for image in images
        if image.id == repeated[0]
    ]
    remedy = "give their folders other names, or remove" if "/" in repeated[0] else "rename or remove"
    raise DataError(
        f"{data}: {count(len(repeated), 'id')} used by more than one image ({some(repeated)}; "
        f"{repeated[0]} is {' and '.join(paths[:2])}); expected ids that are unique over all splits: "
        f"{remedy} one of each"
    )
