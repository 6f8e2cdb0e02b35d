"""Predict a split with a run or an ensemble."""

import os
from pathlib import Path

from eval.editions import LATEST, Edition, find_edition
from heads.ensembles.ensemble import open_predictor
from heads.runs.submission import write_predictions


def predict_run(
    run: str | os.PathLike[str],
    store: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    *,
    split: str = "test",
    edition: int | Edition = LATEST,
) -> Path:
    """Write the submission of a run or an ensemble for a split, checked by the rules of the edition.

    Parameters
    ----------
    run : path
        The folder of a finished run or ensemble.
    store : path, optional
        A store with the features that the run was trained on. An ensemble remembers the stores of its members.
    data : path, optional
        The data folder. Its list of ids, if it has one, decides rows and order. Otherwise the store does.
    split : str
        ``train``, ``valid`` or ``test``.
    edition : int or Edition
        A year, or its rules.

    Returns
    -------
    Path
        The file to hand in.

    Raises
    ------
    RunError
        The run is missing or damaged.
    StoreError
        The store is missing, damaged or of other features.
    DataError
        The list of ids is at fault, or the edition would refuse the submission.
    ParameterError
        There was no such edition.
    """
    folder, store, data = Path(run), Path(store) if store else None, Path(data) if data else None
    rules = find_edition(edition)
    return write_predictions(open_predictor(folder, store), folder, data, split, rules)
