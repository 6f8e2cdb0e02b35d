"""Scores in a run's folder: arrays of NumPy that carry their digest, because they may be added to a finished run."""

import hashlib
import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.support.files import replacing
from cache.support.json_file import DamagedFileError
from heads.runs.files import SCORES, require_plain, writing


def save_scores(scores: NDArray[np.float32], folder: Path, name: str = SCORES) -> None:
    """Save scores in a run, so that another decoder or an ensemble needs no training.

    Their digest stands behind the end of the array, where NumPy does not look.
    """
    scores, start = np.ascontiguousarray(scores, np.float32), _start_of_scores(scores.shape)
    digest = hashlib.sha256(start)
    digest.update(scores.data)
    with writing(folder), replacing(folder / name) as temporary, open(temporary, "wb") as file:
        for part in (start, scores.data, digest.digest()):
            file.write(part)


def load_scores(folder: Path, shape: tuple[int, ...], name: str = SCORES) -> NDArray[np.float32] | None:
    """Load the scores of a run as a memory map; None if they are missing, damaged or of another shape."""
    path, start = folder / name, _start_of_scores(shape)
    n_bytes = int(np.prod(shape)) * 4
    try:
        if path.is_symlink():
            return None
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
            require_plain(file, path, len(start) + n_bytes + hashlib.sha256().digest_size)
            # The beginning is compared and not parsed: it must be that of these scores.
            if file.read(len(start)) != start:
                return None
            if not n_bytes:
                return np.empty(shape, np.float32)
            scores: NDArray[np.float32] = np.memmap(file, np.float32, "r", len(start), shape)
            digest = hashlib.sha256(start)
            digest.update(scores.data)
            file.seek(len(start) + n_bytes)
            return scores if file.read() == digest.digest() else None
    except (DamagedFileError, OSError):
        return None


def _start_of_scores(shape: tuple[int, ...]) -> bytes:
    """What NumPy writes before an array of float32 of a shape."""
    start = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": tuple(map(int, shape))}
    np.lib.format.write_array_header_1_0(start, header)
    return start.getvalue()
