"""Where a score comes from: precision, recall and F1 of each concept and group of concepts, images without a hit."""

import csv
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from cache.support.files import replacing
from eval.editions import MODALITIES, REGIONS
from eval.evaluator_files import ConceptSets

COLUMNS = ("level", "name", "group", "n_true", "n_predicted", "n_hits", "precision", "recall", "f1")


@dataclass(frozen=True)
class Tally:
    """Counts of a concept, a group of concepts or an image, over all images or concepts.

    Parameters
    ----------
    level : str
        ``all``, ``group``, ``concept`` or ``image``.
    name : str
    group : str
        ``modality``, ``region`` or ``rest``; empty where it is none.
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
        """Share of the predicted that is true; None where nothing is predicted."""
        return self.n_hits / self.n_predicted if self.n_predicted else None

    @property
    def recall(self) -> float | None:
        """Share of the true that is predicted; None where nothing is true."""
        return self.n_hits / self.n_true if self.n_true else None

    @property
    def f1(self) -> float:
        """Their harmonic mean."""
        return 2 * self.n_hits / (self.n_true + self.n_predicted)

    def cells(self) -> dict[str, Any]:
        """All that is known, by `COLUMNS`."""
        return {column: getattr(self, column) for column in COLUMNS}


def break_down(truth: ConceptSets, predicted: ConceptSets) -> list[Tally]:
    """Count hits by group, by concept, and the images without any.

    The empty concept of an empty cell is none here.

    Parameters
    ----------
    truth, predicted : ConceptSets
        Of the same images.

    Returns
    -------
    list of Tally
        All concepts together, the groups, the concepts from the most frequent on, and each image that has concepts,
        true or predicted, and no hit.
    """
    true = _count(truth.values())
    named = _count(predicted[id] for id in truth)
    hits = _count(concepts & predicted[id] for id, concepts in truth.items())
    concepts = sorted(true | named, key=lambda concept: (-true[concept], -named[concept], concept))
    tallies = [Tally("concept", each, find_group(each), true[each], named[each], hits[each]) for each in concepts]
    groups = [
        _add("group", name, name, [each for each in tallies if each.group == name])
        for name in ("modality", "region", "rest")
    ]
    none = frozenset({""})
    missed = [
        Tally("image", id, "", len(concepts - none), len(predicted[id] - none), 0)
        for id, concepts in truth.items()
        if not concepts & predicted[id]
    ]
    whole = _add("all", "all", "", tallies)
    return [each for each in (whole, *groups, *tallies, *missed) if each.n_true + each.n_predicted]


def find_group(concept: str) -> str:
    """The group of a concept.

    >>> find_group("C0040405"), find_group("C0817096"), find_group("C0242073")
    ('modality', 'region', 'rest')
    """
    return "modality" if concept in MODALITIES else "region" if concept in REGIONS else "rest"


def write_breakdown(path: Path, tallies: list[Tally]) -> None:
    """Write a breakdown as CSV, whole or not at all; a share of nothing is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(tally.cells() for tally in tallies)
    with replacing(path) as temporary:
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
