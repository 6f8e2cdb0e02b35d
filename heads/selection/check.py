"""Check a whole request in seconds, before images are embedded for hours: names, values, labels, ids, folders.

Nothing is written. No store is needed: the store will have the images that the data folder has now, and these are
listed without reading them.
"""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.images import find_images
from cache.provenance import NO_POOLING
from cache.store import FeatureStore
from cache.support.errors import DataError, StoreError
from cache.support.messages import some
from cache.support.reporting import DataWarning, report
from eval.editions import Edition, find_edition
from eval.submission import render_submission
from heads.data.folds import check_folds
from heads.data.split import LabelledSplit, expect_split
from heads.data.store import join_splits
from heads.data.unused import find_unused
from heads.runs.checks import check_kind, check_labels
from heads.runs.folder import check_folder, read_request
from heads.runs.request import TRAIN, VALID_SPLIT, RunRequest
from heads.runs.submission import find_official_ids, find_official_rows
from heads.selection.budget import Budget

if TYPE_CHECKING:
    from heads.estimators.base import Head


def check_fit(
    head: str,
    store: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    grid: Mapping[str, Sequence[Any]] | None = None,
    by: str = VALID_SPLIT,
    edition: int | Edition | None = None,
    pooling: str | None = None,
    **options: Any,
) -> None:
    """Check what `heads.fit_run`, `heads.sweep_runs` and `heads.predict_run` will be asked for.

    Parameters
    ----------
    head : str
        A head of the registry.
    store, data, out : path
        The store, which need not exist, the data folder, and the folder of the run.
    grid : mapping of str to sequence, optional
        The values of each parameter of a sweep.
    by : str
        What decides in a sweep.
    edition : int or Edition, optional
        The year whose rules the submission for test will follow, if one will be made.
    pooling : str, optional
        As in `heads.fit_run`, or ``none`` if the store will hold maps.
    **options
        The other options of `heads.fit_run`.

    Raises
    ------
    UserError
        What one of these functions would raise.
    """
    store, data, out = Path(store), Path(data), Path(out)
    options = options | {"pooling": None if pooling == NO_POOLING else pooling}
    request = RunRequest.resolve(head, store, data, out, options)
    rules = None if edition is None else find_edition(edition)
    check_folder(out)
    requests = [request] if grid is None else _list_requests(request, grid)
    expected = _ExpectedStore.find(store, data, pooling)
    # Making a head loads scikit-learn, which takes a second. Where a run of this request and all its images are there,
    # nothing that takes long follows.
    is_repeated = grid is None and expected.is_made and request.is_of(read_request(out))
    if not is_repeated:
        expected.check_kind(request.make_head())
    train, valid = expected.label(request.concepts)
    if not is_repeated:
        check_labels(request, request.make_decoder(), train, valid)
        for each in requests:
            each.make_head().check_data(None, train.Y)
    if grid is not None:
        _check_chooser(by, train, valid)
    if rules:
        expected.check_ids(rules, train.fallback)


def check_choose(
    store: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    heads: Sequence[str] | None = None,
    decoders: Sequence[str] | None = None,
    pooling: str | None = None,
) -> None:
    """Check what `heads.choose` will be asked for.

    Parameters
    ----------
    store, data, heads, decoders
        As in `heads.choose`. The store need not exist.
    pooling : str, optional
        As in `heads.choose`, or ``none`` if the store will hold maps.

    Raises
    ------
    UserError
        What `heads.choose` would raise.
    """
    from heads.selection.leaderboard import list_candidates

    candidates = list_candidates(heads, decoders)
    expected = _ExpectedStore.find(Path(store), Path(data), pooling)
    for each in candidates if heads else ():
        expected.check_kind(each.head)
    train, _ = expected.label()
    check_folds(train.Y.shape[0], train.groups)


def check_best(
    store: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    budget: str,
    train: str = TRAIN,
    edition: int | Edition | None = None,
) -> None:
    """Check what `heads.find_best` will be asked for.

    Parameters
    ----------
    store, data, out, budget, train
        As in `heads.find_best`. The store need not exist.
    edition : int or Edition, optional
        The year whose rules the submission for test will follow, if one will be made.

    Raises
    ------
    UserError
        What `heads.find_best` would raise, but for a budget that is too short for one trial.
    """
    from heads.selection.trials import SETTINGS

    Budget.parse(budget)
    store, data, out = Path(store), Path(data), Path(out)
    request = RunRequest.resolve(
        next(iter(SETTINGS)), store, data, out.with_name(f"{out.name}.search"), {"train": train}
    )
    rules = None if edition is None else find_edition(edition)
    check_folder(out)
    expected = _ExpectedStore.find(store, data, None)
    expected.check_kind(request.make_head())
    labelled, valid = expected.label()
    check_labels(request, request.make_decoder(), labelled, valid)
    if rules:
        expected.check_ids(rules, labelled.fallback)


def _list_requests(request: RunRequest, grid: Mapping[str, Sequence[Any]]) -> list[RunRequest]:
    from heads.selection.sweep import list_trials, request_trial

    return [request_trial(request, trial) for trial in list_trials(request, grid)]


def _check_chooser(by: str, train: LabelledSplit, valid: LabelledSplit | None) -> None:
    from heads.selection.sweep import check_chooser

    check_chooser(by, train, valid)


@dataclass(frozen=True)
class _ExpectedStore:
    """What a store will hold once `make features` has run, and whether it has all these images already."""

    path: Path
    data: Path
    ids: Mapping[str, list[str]]
    has_maps: bool
    is_made: bool

    @classmethod
    def find(cls, path: Path, data: Path, pooling: str | None) -> "_ExpectedStore":
        """List the images of a data folder. Before there is a store, report what of the folder is not used."""
        store = None
        if path.exists():
            with suppress(StoreError):  # `make features` says what is wrong with it
                store = FeatureStore(path)
        with _silently():
            images = find_images(data)
        if store is None and (unused := find_unused(data)):
            report(f"{data}: not used: {some(unused, 6)}")
        has_maps = pooling == NO_POOLING if pooling else store is not None and store.has_maps
        ids = {split: [each.id for each in found] for split, found in images.items()}
        is_made = store is not None and {name: split.ids for name, split in store.splits.items()} == ids
        return cls(path, data, ids, has_maps, is_made)

    def check_kind(self, head: "Head") -> None:
        """Refuse a head that learns from something else."""
        check_kind(head, self.has_maps, f"{self.path}: {'maps (POOLING=none)' if self.has_maps else 'embeddings'}")

    def label(self, concepts: Sequence[str] = ()) -> tuple[LabelledSplit, LabelledSplit | None]:
        """Join train and valid with their labels."""
        with _silently():
            train = expect_split(self.data, "train", self._find_ids("train"))
            valid = expect_split(self.data, "valid", self.ids["valid"]) if "valid" in self.ids else None
            return join_splits(self.data, train, valid, concepts)

    def check_ids(self, edition: Edition, concepts: list[str]) -> None:
        """Refuse a list of ids from which no submission can be made, whatever is predicted."""
        stored = self._find_ids("test")
        with _silently():
            ids, place = find_official_ids(stored, self.data, "test")
            find_official_rows(stored, np.ones(len(stored), dtype=bool), ids, "test", place, edition)
        render_submission(ids, [concepts] * len(ids), edition)

    def _find_ids(self, split: str) -> list[str]:
        if split not in self.ids:
            raise DataError(f"{self.data}: no images of split '{split}'; it has {some(sorted(self.ids))}")
        return self.ids[split]


@contextmanager
def _silently() -> Iterator[None]:
    """Drop warnings about the data: the commands that follow give them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        yield
