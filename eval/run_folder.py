"""The two files in a run's folder that scoring reads. `heads` writes them under these names."""

from pathlib import Path
from typing import TypedDict

from cache.support.errors import DataError
from cache.support.json_file import read_json
from eval.files import TASK

VALID = "valid.csv"
"""The run's predictions on the validation images, as a submission."""

VOCABULARY = "vocabulary.json"
"""The concepts that the run can predict."""


class _Vocabulary(TypedDict):
    """What scoring reads of `VOCABULARY`."""

    vocabulary: list[str]


def find_submission(path: str | Path) -> Path:
    """The submission at a path: the path itself, or the file `VALID` in it if it is a run's folder.

    Raises
    ------
    DataError
        The folder has no such file.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    if not (path / VALID).is_file():
        raise DataError(f"{path}: no {VALID} in it; give a finished run (`make head RUN={path}`) or a submission")
    return path / VALID


def read_vocabulary(submission: Path) -> frozenset[str] | None:
    """The vocabulary of the run that a submission belongs to.

    Returns
    -------
    frozenset of str or None
        Upper-case concepts. None if there is no vocabulary beside the submission, or it cannot be read.
    """
    try:
        found = read_json(submission.parent / VOCABULARY, _Vocabulary, TASK.n_bytes)
    except (OSError, ValueError):
        return None
    return frozenset(concept.upper() for concept in found["vocabulary"])
