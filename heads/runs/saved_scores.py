"""Scores in a run's folder: arrays of NumPy that carry their digest, because they may be added to a finished run."""

import hashlib
import io
import os
from pathlib import Path

import numpy as np

from cache.support.files import replacing
from cache.support.json_file import DamagedFileError
from heads.data.rounding import pack_scores, unpack_scores
from heads.data.types import Scores
from heads.runs.files import SCORES, require_plain, writing


def save_scores(scores: Scores, folder: Path, name: str = SCORES) -> None:
    """Save scores in a run, so that another decoder or an ensemble needs no training.

    They are saved in 16 bits (`pack_scores`): what was made with them is made again only if they were rounded before.
    Their digest stands behind the end of the array, where NumPy does not look.
    """
    packed, start = pack_scores(scores), _start_of_scores(scores.shape)
    digest = hashlib.sha256(start)
    digest.update(packed.data)
    with writing(folder), replacing(folder / name) as temporary, open(temporary, "wb") as file:
        for part in (start, packed.data, digest.digest()):
            file.write(part)


def load_scores(folder: Path, shape: tuple[int, ...], name: str = SCORES) -> Scores | None:
    """Load the scores of a run; None if they are missing, damaged or of another shape."""
    path, start = folder / name, _start_of_scores(shape)
    n_bytes = int(np.prod(shape)) * np.dtype(np.uint16).itemsize
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
            packed = np.memmap(file, np.uint16, "r", len(start), shape)
            digest = hashlib.sha256(start)
            digest.update(packed.data)
            file.seek(len(start) + n_bytes)
            return unpack_scores(packed) if file.read() == digest.digest() else None
    except (DamagedFileError, OSError):
        return None


def _start_of_scores(shape: tuple[int, ...]) -> bytes:
    """What NumPy writes before an array of packed scores of a shape."""
    start = io.BytesIO()
    header = {"descr": "<u2", "fortran_order": False, "shape": tuple(map(int, shape))}
    np.lib.format.write_array_header_1_0(start, header)
    return start.getvalue()
