"""A submission file and its official scores."""

from dataclasses import dataclass
from pathlib import Path

from cache.support.errors import DataError
from cache.support.messages import count
from cache.support.reporting import warn
from eval.csv_rows import Fault
from eval.editions import LATEST, Edition, find_edition
from eval.evaluator_files import ConceptFile, read_submission, read_truth
from eval.f1 import ImageF1, mean_f1, primary_f1, secondary_f1
from eval.faults import find_faults
from eval.files import read_file, read_submission_bytes
from eval.form_check import listed_ids
from eval.run_folder import find_submission


@dataclass(frozen=True, eq=False)
class ScoredFile:
    """A submission's official scores, and what they are computed from.

    Parameters
    ----------
    edition : Edition
        The rules that it was scored by.
    truth, predicted : ConceptFile
        The concepts of each image.
    primary_f1 : ndarray of float64, shape (n_images,)
        F1 per image of the truth.
    secondary_f1 : ndarray of float64, shape (n_counted,), or None
        F1 per image that the secondary score counts. None if that needs a manual truth and none was given.
    form_faults : list of Fault
        Why the form check would refuse the submission, in an edition that has one.
    oddities : list of str
        What the evaluator reads in another way than it was probably meant, one line each, with the file.
    """

    edition: Edition
    truth: ConceptFile
    predicted: ConceptFile
    primary_f1: ImageF1
    secondary_f1: ImageF1 | None
    form_faults: list[Fault]
    oddities: list[str]

    @property
    def primary(self) -> float:
        """The primary score."""
        return mean_f1(self.primary_f1)

    @property
    def secondary(self) -> float | None:
        """The secondary score. None if it needs a manual truth and none was given."""
        return None if self.secondary_f1 is None else mean_f1(self.secondary_f1)

    @property
    def n_images(self) -> int:
        """How many images the primary score counts."""
        return len(self.primary_f1)

    def __repr__(self) -> str:
        secondary = "no secondary F1" if self.secondary is None else f"secondary F1 {self.secondary:.4f}"
        images = count(self.n_images, "image")
        return f"ScoredFile(primary F1 {self.primary:.4f}, {secondary}, {images}, rules of {self.edition.year})"


def score_files(
    submission: str | Path, truth: str | Path, manual: str | Path | None = None, edition: int | Edition = LATEST
) -> ScoredFile:
    """Score a submission file as the official evaluator does.

    Parameters
    ----------
    submission : str or Path
        A .csv, a .zip with ``submission.csv`` in it, or a run's folder.
    truth : str or Path
        The true concepts.
    manual : str or Path, optional
        The manual truth. Without it there is no secondary score.
    edition : int or Edition
        A year, or its rules.

    Returns
    -------
    ScoredFile

    Raises
    ------
    DataError
        A file does not exist, or the evaluator refuses it. The message has the line and the remedy.
    ParameterError
        There was no such edition.

    Warns
    -----
    DataWarning
        The evaluator takes for one concept what cannot be meant so, such as a list in brackets.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "truth.csv").write_text("ID,CUIs\\na1,C0040405;C1\\na2,C1306645\\n")
    ...     _ = Path(folder, "submission.csv").write_text("ID,CUIs\\na1,C0040405\\na2,C1306645\\n")
    ...     scored = score_files(f"{folder}/submission.csv", f"{folder}/truth.csv", f"{folder}/truth.csv")
    >>> scored
    ScoredFile(primary F1 0.8333, secondary F1 1.0000, 2 images, rules of 2026)
    >>> scored.primary_f1
    array([0.66666667, 1.        ])
    """
    edition, submission, truth = find_edition(edition), find_submission(submission), Path(truth)
    manual = None if manual is None else Path(manual)
    data = read_submission_bytes(submission)
    expected = read_truth(truth, edition)
    # An edition without a secondary score does not read the manual truth.
    manual_file = read_truth(manual, edition) if manual and edition.allowed is not None else ConceptFile({}, {})
    predicted = read_submission(data, edition, expected.sets, str(submission))
    files = {truth: expected, submission: predicted} | ({manual: manual_file} if manual else {})
    dialects = [f"{path}: {line}" for path, file in files.items() for line in file.dialects]
    for line in dialects:
        warn(line)
    secondary = None
    if manual or edition.allowed is None:
        try:
            secondary = secondary_f1(manual_file.sets, predicted.sets, edition)
        except DataError as error:
            raise DataError(f"{manual}: {error}") from None
    form_faults = []
    if edition.has_form_check:
        ids = listed_ids({path: read_file(path) for path in (truth, manual) if path}, edition)
        form_faults = find_faults(data, ids, edition, str(submission))
    return ScoredFile(
        edition=edition,
        truth=expected,
        predicted=predicted,
        primary_f1=primary_f1(expected.sets, predicted.sets),
        secondary_f1=secondary,
        form_faults=form_faults,
        oddities=dialects + [f"{path}: {line}" for path, file in files.items() for line in file.oddities],
    )
