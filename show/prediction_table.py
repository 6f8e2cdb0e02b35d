"""Predictions as lines of text, as rows of a CSV file, and as JSON."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from cache.support.files import replacing
from eval.concept_names import shorten
from show.predictor import Prediction

COLUMNS = ("image", "concept", "name", "probability", "predicted", "unreadable")
"""The header of the CSV file: one row per image and concept. ``unreadable`` is the reason, where there is one."""

N_OTHERS = 5
"""Concepts that are not predicted, per image, in lines of text."""


def format_lines(prediction: Prediction, n_others: int = N_OTHERS) -> Iterator[str]:
    """A prediction as lines of text: the image, then a line per concept; ``+`` marks those that are predicted.

    Parameters
    ----------
    prediction : Prediction
    n_others : int
        How many concepts that are not predicted.
    """
    yield prediction.image
    if not prediction.is_readable:
        yield f"  cannot be read: {prediction.reason}; the fallback set of the run:"
    for each in prediction.rank(n_others):
        probability = f"{each.probability:.3f}" if prediction.is_readable else "     "
        yield f"  {'+' if each.is_predicted else ' '} {probability}  {each.concept:<9} {shorten(each.name)}".rstrip()


def to_json(prediction: Prediction, n_others: int | None = None) -> dict[str, Any]:
    """A prediction as JSON can hold it."""
    ranked = prediction.rank(n_others)
    return {
        "image": prediction.image,
        "sha256": prediction.sha256,
        "unreadable": prediction.reason or None,
        "concepts": prediction.concepts,
        "scores": [
            {
                "concept": each.concept,
                "name": each.name,
                "probability": round(each.probability, 6) if prediction.is_readable else None,
                "predicted": each.is_predicted,
            }
            for each in ranked
        ],
    }


def format_json(prediction: Prediction, n_others: int | None = None) -> str:
    """A prediction as one line of JSON."""
    return json.dumps(to_json(prediction, n_others))


class PredictionWriter(Protocol):
    """Writes a prediction."""

    def __call__(self, prediction: Prediction) -> None:
        """Write it."""


@contextmanager
def writing_csv(path: Path, n_others: int | None = None) -> Iterator[PredictionWriter]:
    """Write a CSV file as predictions come; it takes its name at the end of the block.

    Parameters
    ----------
    path : Path
    n_others : int, optional
        Rows per image for concepts that are not predicted; all if not given.

    Yields
    ------
    callable
        Writes the rows of a prediction.

    Raises
    ------
    ParameterError
        The path is a folder.
    OSError
        It cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)

        def write(prediction: Prediction) -> None:
            writer.writerows(
                (
                    prediction.image,
                    each.concept,
                    each.name,
                    f"{each.probability:.6f}" if prediction.is_readable else "",
                    int(each.is_predicted),
                    prediction.reason,
                )
                for each in prediction.rank(n_others)
            )

        yield write
        file.flush()
