"""The two files in a run's folder that scoring reads. `heads` writes them under these names."""

import json
from pathlib import Path

from cache.support.errors import DataError, UserError
from eval.files import read_file

VALID = "valid.csv"
"""The run's predictions on the validation images, as a submission."""

VOCABULARY = "vocabulary.json"
"""The concepts that the run can predict."""


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
        vocabulary = json.loads(read_file(submission.parent / VOCABULARY))["vocabulary"]
        return frozenset(str(concept).upper() for concept in vocabulary)
    except (UserError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
