"""A table of the runs in some folders, the best first, so that they can be compared at a glance."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.support.errors import DataError, RunError
from cache.support.messages import some
from cache.support.reporting import report, warn
from heads.data.official_score import with_interval
from heads.runs.files import DIGESTS, MEMBERS, REQUEST, RunFiles
from heads.runs.folder import METRICS, StoredRequest, read_request
from heads.runs.metrics import RunMetrics

MAX_DEPTH = 4
"""How many folders deep runs are looked for: ``runs/NAME/HEAD`` is two below ``runs``."""

HEADER: tuple[str, ...] = (
    "run", "store", "head", "decoder", "F1 by folds of train", "primary F1 on valid", "secondary F1", "size"
)  # fmt: skip


@dataclass(frozen=True)
class ListedRun:
    """A finished run and where it comes from.

    Parameters
    ----------
    folder : Path
    data, store : str
        Absolute paths; of an ensemble those of its first member.
    metrics : RunMetrics
    """

    folder: Path
    data: str
    store: str
    metrics: RunMetrics

    @classmethod
    def read(cls, folder: Path) -> "ListedRun":
        """Read a run.

        Raises
        ------
        RunError
            It is unfinished, damaged, or of another version.
        """
        files = RunFiles.open(folder)
        metrics = files.read_json(METRICS, RunMetrics)
        members = metrics.get("members")
        request = read_request(folder / MEMBERS / members[0]["name"] if members else folder)
        source: StoredRequest | dict[str, Any] = request or {}
        return cls(folder, source.get("data", ""), source.get("store", ""), metrics)

    @property
    def n_bytes(self) -> int:
        """Size of its files, those of an ensemble's members included."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink())

    @property
    def order(self) -> tuple[str, float, float]:
        """Runs of the same data stand together, the best on valid first, or else the best on folds."""
        valid, folds = self.metrics["valid"], self.metrics["folds"]
        return self.data, -(valid["primary"] if valid else -1.0), -(folds["primary"] if folds else -1.0)

    def to_row(self) -> dict[str, Any]:
        """The run as a row of a table; scores are None where there are none."""
        metrics = self.metrics
        valid = metrics["valid"]
        return {
            "run": str(self.folder),
            "data": self.data,
            "store": self.store,
            "head": metrics["head"],
            "decoder": metrics["decoder"]["name"],
            "params": metrics["params"],
            "bytes": self.n_bytes,
            "folds": metrics["folds"],
            "valid": valid,
            "optimistic": bool(valid and valid["note"]),
        }


def report_runs(folders: Sequence[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """Report every finished run in some folders, those of the same data together, the best first.

    Parameters
    ----------
    folders : sequence of path
        Folders of runs, or folders with such folders in them.

    Returns
    -------
    list of dict
        One row per run.

    Raises
    ------
    DataError
        There is no finished run.

    Warns
    -----
    DataWarning
        A run is unfinished, damaged, or of another version.
    """
    runs, faults = [], []
    for folder in sorted({found for each in folders for found in _find_runs(Path(each), MAX_DEPTH)}):
        try:
            runs.append(ListedRun.read(folder))
        except RunError as error:
            faults.append(str(error))
    if not runs:
        place, why = some([str(each) for each in folders]), f" ({faults[0]})" if faults else ""
        raise DataError(f"{place}: no finished run{why}; make one with `make head`")
    for fault in faults:
        warn(f"left out: {fault}")
    runs.sort(key=lambda run: run.order)
    lines = [HEADER, *map(_describe, runs)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    data = None
    for cells, run in zip(lines, [None, *runs], strict=True):
        if run and run.data != data:
            data = run.data
            report(f"{os.path.normpath(data) if data else 'unknown data'}:")
        report("  ".join(["", *(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))]).rstrip())
    if any(run.to_row()["optimistic"] for run in runs):
        report("* tuned on valid, so its score there is optimistic")
    return [run.to_row() for run in runs]


def _find_runs(folder: Path, depth: int) -> Iterator[Path]:
    """The folders of runs in a folder, finished or not; members of ensembles are none."""
    if any((folder / name).is_file() for name in (REQUEST, DIGESTS)):
        yield folder
    elif depth and folder.is_dir():
        for each in sorted(folder.iterdir()):
            if each.is_dir() and not each.is_symlink() and not each.name.startswith("."):
                yield from _find_runs(each, depth - 1)


def _describe(run: ListedRun) -> tuple[str, ...]:
    metrics = run.metrics
    valid, folds = metrics["valid"], metrics["folds"]
    primary = with_interval(valid, "primary") + ("*" if valid["note"] else "") if valid else "-"
    secondary = with_interval(valid, "secondary") if valid and valid["secondary_interval"] else "-"
    store = Path(run.store).name or "-"
    by_folds = with_interval(folds, "primary") if folds else "-"
    size = f"{run.n_bytes / 1e6:,.0f} MB"
    return str(run.folder), store, metrics["head"], metrics["decoder"]["name"], by_folds, primary, secondary, size
