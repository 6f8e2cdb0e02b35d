"""Score files against files: what the evaluator does with a submission that is handed in."""

from pathlib import Path

from eval.editions import Edition
from eval.form import form_faults
from eval.official import Fault, Scores, primary_score, read_submission, read_truth, secondary_score
from eval.submission import read_bytes


def score_files(submission: Path, truth: Path, manual: Path | None, edition: Edition) -> tuple[Scores, list[Fault]]:
    """Score a submission file.

    Parameters
    ----------
    submission, truth : Path
    manual : Path, optional
        The manual truth; without it there is no secondary score.
    edition : Edition

    Returns
    -------
    scores : Scores
    form : list of Fault
        What a form check would refuse besides, in an edition that has one.

    Raises
    ------
    UserError
        The evaluator refuses a file; with the line and the remedy.
    """
    data = read_bytes(submission)
    expected = read_truth(truth, edition)
    by_hand = read_truth(manual, edition) if manual else None
    predicted = read_submission(data, edition, expected, str(submission))
    secondary = secondary_score(by_hand, predicted, edition) if by_hand is not None else None
    official_ids = [*expected, *(id for id in by_hand or () if id not in expected)]
    form = list(form_faults(data, official_ids, str(submission))) if edition.form else []
    return Scores(primary_score(expected, predicted), secondary, len(expected)), form
