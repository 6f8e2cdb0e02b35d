"""An overview of a data folder before anything is embedded: images, labels, concepts, and what is wrong with them."""

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from joblib import cpu_count

from cache.duplicates import IdenticalImages, group_identical
from cache.images import Image, find_images
from cache.support.errors import DataError, UserError
from cache.support.machine_faults import describe_fault, is_fault_of_machine
from cache.support.messages import count, some
from cache.support.progress import Progress
from cache.support.reporting import DataWarning
from eval.concept_names import find_names, name_concept
from eval.labels import find_label_file, read_ids
from featurize.decoding.image import Unreadable, decode, read_size
from heads.data.groups import find_groups
from heads.data.labels import SplitLabels
from heads.data.unused import find_unused

RARE = 5
"""A concept in fewer training images than this is rare: with five folds, some fold may have none of it."""

MAX_LINES = 10
"""How many concepts, unreadable images or groups of duplicates are described; ``--json`` has all."""


@dataclass(frozen=True)
class SplitOverview:
    """The images and labels of a split.

    Parameters
    ----------
    n_images : int
    n_labelled : int
        How many of them have labels.
    n_concepts : int
        How many different concepts the labels have.
    per_image : list of float
        The smallest, the mean and the greatest number of concepts per image; empty without labels.
    n_listed : int or None
        How many ids the official list of the split has; None if there is no list.
    """

    n_images: int
    n_labelled: int
    n_concepts: int
    per_image: list[float]
    n_listed: int | None


@dataclass(frozen=True)
class ConceptCount:
    """A concept, its name if it has one, and how many images of train and valid have it."""

    concept: str
    name: str
    n_train: int
    n_valid: int


@dataclass(frozen=True)
class DataOverview:
    """What `look_at_data` found.

    Parameters
    ----------
    folder : str
    splits : dict of str to SplitOverview
    endings : dict of str to int
        How many images have each ending.
    widths, heights : list of int
        The smallest, the median and the greatest of the images that can be read, in pixels; empty if none can.
    unreadable : dict of str to str
        The reason for each image that cannot be read, by ``split/id``.
    identical : list of IdenticalImages
        Images with the same bytes, those in several splits first.
    concepts : list of ConceptCount
        The most frequent of train first.
    has_groups : bool
        Whether images have groups, such as patients.
    unused : list of str
        Tables and folders that nothing reads.
    remarks : list of str
        What is odd and does not hinder.
    faults : list of str
        What `make features` or `make head` would refuse.
    """

    folder: str
    splits: dict[str, SplitOverview]
    endings: dict[str, int]
    widths: list[int]
    heights: list[int]
    unreadable: dict[str, str]
    identical: list[IdenticalImages]
    concepts: list[ConceptCount]
    has_groups: bool
    unused: list[str]
    remarks: list[str]
    faults: list[str]

    def __repr__(self) -> str:
        n_images = sum(split.n_images for split in self.splits.values())
        found = (
            f"{count(n_images, 'image')}, {count(len(self.concepts), 'concept')}, {count(len(self.faults), 'fault')}"
        )
        return f"<DataOverview '{self.folder}': {found}>"

    def to_json(self) -> dict[str, Any]:
        """The overview as JSON has it."""
        return asdict(self)

    def describe(self) -> list[str]:
        """The overview in lines of text."""
        return [
            *(f"{name:<6} {_describe_split(split)}" for name, split in self.splits.items()),
            f"images {self._describe_images()}",
            *_list(f"{count(len(self.unreadable), 'image')} cannot be read", _pairs(self.unreadable)),
            *self._describe_duplicates(),
            *self._describe_concepts(),
            f"groups {'of images stay together in folds' if self.has_groups else 'none (groups.csv)'}",
            *([f"unused {some(self.unused, 6)}"] if self.unused else []),
            *(f"note   {line}" for line in self.remarks),
            *(f"FAULT  {line}" for line in self.faults),
        ]

    def _describe_images(self) -> str:
        kinds = ", ".join(f"{number:,} {ending}" for ending, number in self.endings.items())
        if not self.widths:
            return kinds
        sides = {"width": self.widths, "height": self.heights}
        sizes = [f"{name} {low:,} to {high:,} (median {mid:,})" for name, (low, mid, high) in sides.items()]
        return f"{kinds}; {', '.join(sizes)} pixels"

    def _describe_duplicates(self) -> list[str]:
        leaks = sum(each.leak for each in self.identical)
        title = f"{count(len(self.identical), 'group')} of identical images, {leaks:,} of them in two splits"
        if leaks:
            title += ": scores there are too good"
        return _list(title, [f"{'LEAK ' if each.leak else ''}{some(each.images)}" for each in self.identical])

    def _describe_concepts(self) -> list[str]:
        if not self.concepts:
            return ["labels none for train"]
        width = max(len(name_concept(each.concept, self._names)) for each in self.concepts[:MAX_LINES])
        rows = [
            f"{name_concept(each.concept, self._names):{width}}  {each.n_train:7,} train  {each.n_valid:6,} valid"
            for each in self.concepts[:MAX_LINES]
        ]
        in_train = [each for each in self.concepts if each.n_train]
        rare = sum(each.n_train < RARE for each in in_train)
        unseen = [name_concept(each.concept, self._names) for each in self.concepts if not each.n_train]
        title = f"{count(len(in_train), 'concept')} in train, {rare:,} of them in fewer than {RARE} images"
        lines = _list(title, rows, len(in_train))
        if unseen:
            lines.append(f"       {count(len(unseen), 'concept')} in valid but not in train: {some(unseen)}")
        return lines

    @property
    def _names(self) -> dict[str, str]:
        return {each.concept: each.name for each in self.concepts if each.name}


@dataclass(frozen=True)
class _Inspected:
    """What the bytes of an image show: their digest, why they cannot be read, or its width and height."""

    digest: bytes
    reason: str
    size: tuple[int, int] | None


def look_at_data(data: str | os.PathLike[str]) -> DataOverview:
    """Read every image and label file of a data folder, and count what is there and what is wrong.

    Nothing is written, and no network is needed.

    Parameters
    ----------
    data : path
        The data folder.

    Returns
    -------
    DataOverview

    Raises
    ------
    DataError
        The folder is missing or has no image, or the disk or the network fails.
    """
    data = Path(data)
    remarks: list[str] = []
    faults: list[str] = []
    with _collecting(remarks):
        images = find_images(data)
    labels: dict[str, SplitLabels] = {}
    for split, found in images.items():
        if split == "test" and find_label_file(data, split) is None:
            continue  # those of a challenge are not given out
        with _collecting(remarks, faults):
            labels[split] = SplitLabels.read(data, split, [each.id for each in found])
    inspected = _inspect_all(images)
    sizes = np.array([each.size for each in inspected.values() if each.size], dtype=np.int64).reshape(-1, 2)
    by_digest: dict[bytes, list[str]] = defaultdict(list)
    for name, each in inspected.items():
        if each.digest:
            by_digest[each.digest].append(name)
    listed: dict[str, int] = {}
    has_groups, names, unused = False, {}, []
    with _collecting(remarks, faults):
        listed = _count_listed(data, images)
    with _collecting(remarks, faults):
        train, valid = ([each.id for each in images.get(split, ())] for split in ("train", "valid"))
        has_groups = find_groups(data, train, valid)[0] is not None
    with _collecting(remarks, faults):
        names, unused = find_names(data), find_unused(data)
    endings = Counter(each.path.suffix.lower() or "without ending" for found in images.values() for each in found)
    return DataOverview(
        folder=str(data),
        splits={name: _count_split(found, labels.get(name), listed.get(name)) for name, found in images.items()},
        endings=dict(endings.most_common()),
        widths=_summarise(sizes[:, 0]),
        heights=_summarise(sizes[:, 1]),
        unreadable={name: each.reason for name, each in inspected.items() if each.reason},
        identical=group_identical(by_digest),
        concepts=_count_concepts(labels, names),
        has_groups=has_groups,
        unused=unused,
        remarks=remarks,
        faults=faults,
    )


@contextmanager
def _collecting(remarks: list[str], faults: list[str] | None = None) -> Iterator[None]:
    """Collect warnings about the data, and errors of the user if there is a list for them."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DataWarning)
            yield
    except UserError as error:
        if faults is None:
            raise
        faults.append(str(error))
    finally:
        remarks += [text for each in caught if (text := str(each.message)) not in remarks]


def _inspect_all(images: Mapping[str, Sequence[Image]]) -> dict[str, _Inspected]:
    """Read every image; the keys are ``split/id``."""
    names = [f"{split}/{each.id}" for split, found in images.items() for each in found]
    paths = [each.path for found in images.values() for each in found]
    inspected = {}
    with closing(Progress(len(paths), "reading")) as progress, ThreadPoolExecutor(cpu_count()) as pool:
        try:
            for name, each in zip(names, pool.map(_inspect, paths), strict=True):
                inspected[name] = each
                progress.add(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return inspected


def _inspect(path: Path) -> _Inspected:
    try:
        if not path.is_file():
            return _Inspected(b"", "cannot be read: not a regular file", None)
        data = path.read_bytes()
    except OSError as error:
        if is_fault_of_machine(error):
            raise DataError(describe_fault(path, error)) from error
        return _Inspected(b"", f"cannot be read: {error.strerror}", None)
    digest = sha256(data).digest()
    try:
        decode(data)
    except Unreadable as error:
        return _Inspected(digest, str(error), None)
    return _Inspected(digest, "", read_size(data))


def _count_listed(data: Path, images: Iterable[str]) -> dict[str, int]:
    paths = {split: find_label_file(data, split, "ids") for split in images}
    return {split: len(read_ids(path)) for split, path in paths.items() if path}


def _count_split(images: Sequence[Image], labels: SplitLabels | None, n_listed: int | None) -> SplitOverview:
    if labels is None:
        return SplitOverview(len(images), 0, 0, [], n_listed)
    sizes = [len(each) for each in labels.concepts]
    different = {concept for each in labels.concepts for concept in each}
    per_image = [float(min(sizes)), float(np.mean(sizes)), float(max(sizes))]
    return SplitOverview(len(images), len(sizes), len(different), per_image, n_listed)


def _count_concepts(labels: Mapping[str, SplitLabels], names: Mapping[str, str]) -> list[ConceptCount]:
    train, valid = (
        Counter(concept for each in labels[split].concepts for concept in each) if split in labels else Counter()
        for split in ("train", "valid")
    )
    order = sorted(train.keys() | valid.keys(), key=lambda each: (-train[each], -valid[each], each))
    return [ConceptCount(each, names.get(each, ""), train[each], valid[each]) for each in order]


def _summarise(values: Any) -> list[int]:
    return [int(values.min()), int(np.median(values)), int(values.max())] if len(values) else []


def _describe_split(split: SplitOverview) -> str:
    parts = [count(split.n_images, "image")]
    if split.per_image:
        least, mean, most = split.per_image
        parts.append(f"{split.n_labelled:,} with labels, {mean:.1f} concepts per image ({least:.0f} to {most:.0f})")
    else:
        parts.append("no labels")
    if split.n_listed is not None:
        parts.append(f"{split.n_listed:,} in the official list")
    return ", ".join(parts)


def _pairs(items: Mapping[str, str]) -> list[str]:
    return [f"{name}: {reason}" for name, reason in items.items()]


def _list(title: str, rows: Sequence[str], n_rows: int | None = None) -> list[str]:
    """A title with some rows below it."""
    rest = (len(rows) if n_rows is None else n_rows) - MAX_LINES
    more = [f"         and {rest:,} more (--json lists all)"] if rest > 0 else []
    return [f"       {title}", *(f"         {row}" for row in rows[:MAX_LINES]), *more]
