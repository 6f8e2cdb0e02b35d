"""What a score is made of: precision, recall and F1 per concept and group of concepts, and images without a hit."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from cache.support.files import replacing
from eval.editions import MODALITIES, REGIONS
from eval.evaluator_files import ConceptSets

COLUMNS = ("level", "name", "group", "n_true", "n_predicted", "n_hits", "precision", "recall", "f1")
LABEL = "label"
"""The column with a concept's name in plain words."""

GROUPS = ("modality", "region", "rest")


@dataclass(frozen=True)
class Tally:
    """Counts for one concept, one group of concepts, one image, or all together.

    Parameters
    ----------
    level : str
        ``all``, ``group``, ``concept`` or ``image``.
    name : str
    group : str
        One of `GROUPS`; empty for an image and for all together.
    n_true, n_predicted, n_hits : int
        How often it is true, predicted, and both.
    """

    level: str
    name: str
    group: str
    n_true: int
    n_predicted: int
    n_hits: int

    @property
    def precision(self) -> float | None:
        """Share of the predictions that are true; None if there is none."""
        return self.n_hits / self.n_predicted if self.n_predicted else None

    @property
    def recall(self) -> float | None:
        """Share of the true concepts that are predicted; None if there is none."""
        return self.n_hits / self.n_true if self.n_true else None

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.n_hits / (self.n_true + self.n_predicted)

    def to_row(self) -> dict[str, Any]:
        """The counts and scores by the names in `COLUMNS`."""
        return {column: getattr(self, column) for column in COLUMNS}


def break_down(truth: ConceptSets, predicted: ConceptSets) -> list[Tally]:
    """Count hits per group and per concept, and list the images without any.

    The evaluator takes an empty cell for one empty concept. Here it is no concept.

    Parameters
    ----------
    truth, predicted : mapping of str to frozenset of str
        Concepts of each image id, for the same images, such as ``scored.truth.sets`` and ``scored.predicted.sets``.

    Returns
    -------
    list of Tally
        All concepts together; the groups; the concepts, the most frequent first; and each image that has true or
        predicted concepts, but no hit.

    Examples
    --------
    >>> truth = {"a1": frozenset({"C0040405", "C9"}), "a2": frozenset({"C1306645"})}
    >>> predicted = {"a1": frozenset({"C0040405"}), "a2": frozenset({"C0041618"})}
    >>> for tally in break_down(truth, predicted)[:3]:
    ...     print(tally.name, tally.precision, tally.recall, tally.f1)
    all 0.5 0.3333333333333333 0.4
    modality 0.5 0.5 0.5
    rest None 0.0 0.0
    """
    n_true = _count(truth.values())
    n_predicted = _count(predicted[id] for id in truth)
    n_hits = _count(concepts & predicted[id] for id, concepts in truth.items())
    concepts = sorted(n_true | n_predicted, key=lambda concept: (-n_true[concept], -n_predicted[concept], concept))
    tallies = [
        Tally("concept", each, find_group(each), n_true[each], n_predicted[each], n_hits[each]) for each in concepts
    ]
    groups = [_add("group", name, name, [each for each in tallies if each.group == name]) for name in GROUPS]
    empty = frozenset({""})
    missed = [
        Tally("image", id, "", len(concepts - empty), len(predicted[id] - empty), 0)
        for id, concepts in truth.items()
        if not concepts & predicted[id]
    ]
    total = _add("all", "all", "", tallies)
    return [each for each in (total, *groups, *tallies, *missed) if each.n_true + each.n_predicted]


def find_group(concept: str) -> str:
    """The group of a concept.

    >>> find_group("C0040405"), find_group("C0817096"), find_group("C0242073")
    ('modality', 'region', 'rest')
    """
    return "modality" if concept in MODALITIES else "region" if concept in REGIONS else "rest"


def write_breakdown(path: str | Path, tallies: list[Tally], names: Mapping[str, str] | None = None) -> None:
    """Write a breakdown as CSV. Precision and recall that are None are empty cells.

    Parameters
    ----------
    path : str or Path
    tallies : list of Tally
    names : mapping of str to str, optional
        Names of concepts in plain words, for the column ``label``.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, (*COLUMNS, LABEL), lineterminator="\n")
    writer.writeheader()
    writer.writerows(tally.to_row() | {LABEL: (names or {}).get(tally.name, "")} for tally in tallies)
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(text.getvalue().encode("utf-8"))


def _count(sets: Iterable[frozenset[str]]) -> Counter[str]:
    counts = Counter(chain.from_iterable(sets))
    del counts[""]
    return counts


def _add(level: str, name: str, group: str, tallies: list[Tally]) -> Tally:
    return Tally(
        level,
        name,
        group,
        sum(each.n_true for each in tallies),
        sum(each.n_predicted for each in tallies),
        sum(each.n_hits for each in tallies),
    )
