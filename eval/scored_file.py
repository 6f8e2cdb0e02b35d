"""Score files against files: what the evaluator does with a submission that is handed in."""

from dataclasses import dataclass
from pathlib import Path

from cache.support.errors import UserError
from eval.csv_rows import Fault
from eval.editions import Edition
from eval.evaluator_files import ConceptFile, read_submission, read_truth
from eval.f1 import ImageF1, mean_f1, primary_f1, secondary_f1
from eval.faults import find_faults
from eval.files import read_file, read_submission_bytes
from eval.form_check import listed_ids


@dataclass(frozen=True, eq=False)
class Scored:
    """A submission's official scores, and what they are made of.

    Parameters
    ----------
    truth, predicted : ConceptFile
    primary_f1 : ndarray of float64, shape (n_images,)
        F1 of each image of the truth.
    secondary_f1 : ndarray of float64, or None
        F1 of each image that the secondary score counts; None where a manual file is needed and was not given.
    form : list of Fault
        What a form check would refuse besides, in an edition that has one.
    """

    truth: ConceptFile
    predicted: ConceptFile
    primary_f1: ImageF1
    secondary_f1: ImageF1 | None
    form: list[Fault]

    @property
    def primary(self) -> float:
        """The primary score."""
        return mean_f1(self.primary_f1)

    @property
    def secondary(self) -> float | None:
        """The secondary score; None where a manual file is needed and was not given."""
        return None if self.secondary_f1 is None else mean_f1(self.secondary_f1)

    @property
    def n_images(self) -> int:
        """How many images the primary score counts."""
        return len(self.primary_f1)


def score_files(submission: Path, truth: Path, manual: Path | None, edition: Edition) -> Scored:
    """Score a submission file.

    Parameters
    ----------
    submission, truth : Path
    manual : Path, optional
        The manual truth; without it there is no secondary score.
    edition : Edition

    Raises
    ------
    UserError
        The evaluator refuses a file; with the line and the remedy.
    """
    data = read_submission_bytes(submission)
    expected = read_truth(truth, edition)
    # An edition that does not score it does not read it.
    manual_sets = read_truth(manual, edition).sets if manual and edition.allowed is not None else {}
    predicted = read_submission(data, edition, expected.sets, str(submission))
    secondary = None
    if manual or edition.allowed is None:
        try:
            secondary = secondary_f1(manual_sets, predicted.sets, edition)
        except UserError as error:
            raise UserError(f"{manual}: {error}") from None
    form = []
    if edition.form:
        ids = listed_ids(*(read_file(path) for path in (truth, manual) if path))
        form = find_faults(data, ids, edition, str(submission))
    return Scored(
        truth=expected,
        predicted=predicted,
        primary_f1=primary_f1(expected.sets, predicted.sets),
        secondary_f1=secondary,
        form=form,
    )
