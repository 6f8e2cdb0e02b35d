"""The table per concept of a run: what it predicts well and what it does not, by name."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from cache.support.files import write_text
from cache.support.messages import count
from eval.breakdown import Tally, break_down
from eval.concept_names import name_concept

CONCEPTS = "concepts.csv"
"""The table as a file of the run."""

COUNTS = ("n_true", "n_predicted", "n_hits")
COLUMNS = ("concept", "name", "group", "n_train", "n_true", "n_predicted", "n_hits", "precision", "recall", "f1")

BANDS = {"frequent": 101, "medium": 20, "rare": 0}
"""Bands of concepts by how many training images have them, each with its least number (after Liu et al., 2019)."""

MAX_LINES = 10
"""How many concepts are reported; the file has all."""


class BandMetrics(TypedDict):
    """How well the concepts of a band are predicted, all together."""

    name: str
    """One of `BANDS`."""
    min_train: int
    """Least number of training images."""
    n_concepts: int
    n_true: int
    precision: float | None
    recall: float | None
    f1: float


@dataclass(frozen=True)
class ConceptTable:
    """How well each concept is predicted.

    Parameters
    ----------
    tallies : list of Tally
        The concepts that are true or predicted, the most frequent first.
    names : mapping of str to str
        Names by concept; those that have none are missing.
    n_train : mapping of str to int
        How many training images have each concept.
    on : str
        The images that were predicted: ``valid``, or ``folds of train``.
    """

    tallies: list[Tally]
    names: Mapping[str, str]
    n_train: Mapping[str, int]
    on: str

    @classmethod
    def from_predictions(
        cls,
        truth: Sequence[Sequence[str]],
        predicted: Sequence[Sequence[str]],
        names: Mapping[str, str],
        n_train: Mapping[str, int],
        on: str,
    ) -> "ConceptTable":
        """Compare the true and the predicted concepts of each image."""
        sets = [{str(row): frozenset(each) for row, each in enumerate(concepts)} for concepts in (truth, predicted)]
        tallies = [each for each in break_down(*sets) if each.level == "concept"]
        return cls(tallies, names, n_train, on)

    def count_bands(self) -> list[BandMetrics]:
        """How well frequent, medium and rare concepts are predicted; a band without concepts is left out."""
        bands: list[BandMetrics] = []
        rest = list(self.tallies)
        for name, least in BANDS.items():
            within = [each for each in rest if self.n_train.get(each.name, 0) >= least]
            rest = [each for each in rest if each not in within]
            if not within:
                continue
            n_true, n_predicted, n_hits = (sum(getattr(each, key) for each in within) for key in COUNTS)
            total = Tally("group", name, name, n_true, n_predicted, n_hits)
            bands.append(
                {
                    "name": name,
                    "min_train": least,
                    "n_concepts": len(within),
                    "n_true": n_true,
                    "precision": total.precision,
                    "recall": total.recall,
                    "f1": total.f1,
                }
            )
        return bands

    def write(self, path: Path) -> None:
        """Write the table as CSV. Precision and recall that are undefined are empty cells."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for each in self.tallies:
            scores = ("" if value is None else f"{value:.4f}" for value in (each.precision, each.recall, each.f1))
            counts = self.n_train.get(each.name, 0), each.n_true, each.n_predicted, each.n_hits
            writer.writerow((each.name, self.names.get(each.name, ""), each.group, *counts, *scores))
        write_text(path, text.getvalue())

    def describe(self, path: Path) -> list[str]:
        """The table in lines: the most frequent concepts, and how many of the others are predicted at all.

        Parameters
        ----------
        path : Path
            The file that has the rest.
        """
        if not self.tallies:
            return []
        most = self.tallies[:MAX_LINES]
        labels = [name_concept(each.name, self.names) for each in most]
        width = max(map(len, (*labels, "concept")))
        lines = [f"  {'concept':{width}}  {'train':>7}  {'true':>6}  predicted  precision  recall      F1"]
        for each, label in zip(most, labels, strict=True):
            precision, recall = (_format(value) for value in (each.precision, each.recall))
            lines.append(
                f"  {label:{width}}  {self.n_train.get(each.name, 0):7,}  {each.n_true:6,}  {each.n_predicted:9,}  "
                f"{precision:>9}  {recall:>6}  {each.f1:6.3f}"
            )
        bands = [f"{each['n_concepts']:,} {each['name']} {each['f1']:.3f}" for each in self.count_bands()]
        lines.append(f"  F1 by how frequent concepts are in train: {', '.join(bands)}")
        true = [each for each in self.tallies if each.n_true]
        never = sum(not each.n_hits for each in true)
        found = f"{never:,} of them never found" if never else "each found at least once"
        lines.append(f"  {count(len(true), 'concept')} of {self.on}, {found} ({path})")
        return lines


def _format(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
