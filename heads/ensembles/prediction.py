"""Predict a split with a run or an ensemble."""

from pathlib import Path

from eval.editions import Edition
from heads.ensembles.ensemble import open_predictor
from heads.runs.submission import write_predictions


def predict_run(folder: Path, store_path: Path | None, data: Path | None, split: str, edition: Edition) -> Path:
    """Write the submission of a run or an ensemble for a split.

    Parameters
    ----------
    folder : Path
        The run or the ensemble.
    store_path : Path, optional
        A store with the features that the run was trained on. An ensemble remembers the stores of its members.
    data : Path, optional
        The data folder. Its list of ids, if it has one, decides rows and order. Otherwise the store does.
    split : str
    edition : Edition

    Returns
    -------
    Path
        The file to hand in.

    Raises
    ------
    UserError
        The run, the store or the list of ids is at fault.
    """
    return write_predictions(open_predictor(folder, store_path), folder, data, split, edition)
