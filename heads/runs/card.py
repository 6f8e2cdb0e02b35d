"""The model card of a run: what it learnt from, how good it is, what it is not for, and how it is repeated.

After Mitchell and others, "Model Cards for Model Reporting" (2019).
"""

import csv
import html
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.provenance import N_DIGITS, OF_FILE
from cache.support.errors import DataError
from cache.support.image_ids import IdIndex
from cache.support.messages import count, one_line
from eval.concept_names import find_names, name_concept
from heads.data.groups import SOURCES
from heads.data.official_score import with_interval
from heads.data.split import LabelledSplit
from heads.data.store import LabelledStore
from heads.runs.metrics import RunMetrics
from heads.runs.request import FOLDS

FEW_IMAGES = 10
"""A concept with fewer training images than this is listed as a small one."""

MAX_LISTED = 20
"""Concepts that are listed by name; the rest is counted."""

LICENCE_COLUMNS = ("licence", "license")


@dataclass(frozen=True)
class ModelCard:
    """What the card of a run is written from.

    Parameters
    ----------
    metrics : dict
        Those of the run.
    data : LabelledStore
        What it learnt from.
    folder : Path
        The data folder.
    commands : sequence of str
        The commands that repeat it, in their order.
    """

    metrics: RunMetrics
    data: LabelledStore
    folder: Path
    commands: Sequence[str]

    def render(self) -> str:
        """The card as Markdown. What comes from the data is escaped."""
        head, name = self.metrics["head"], escape_markdown(self.folder.name)
        sections = {
            "Scores": self._describe_scores(),
            "Data": self._describe_data(),
            "Licences": self._describe_licences(),
            "Limits": self._describe_limits(),
            "Repeat it": self._describe_repetition(),
        }
        parts = [f"# Model card: {head} on {name}", *self._describe_model()]
        for title, lines in sections.items():
            parts += [f"## {title}", *lines]
        return "\n\n".join(parts) + "\n"

    def _describe_model(self) -> Iterator[str]:
        metrics, decoder = self.metrics, self.metrics["decoder"]
        facts, weights = metrics["store"].get("provenance", {}), metrics["store"]["weights"]
        origin = (
            f"the weights with SHA-256 {weights.removeprefix(OF_FILE)[:N_DIGITS]}" if OF_FILE in weights else weights
        )
        network = (
            f"the frozen network {facts['backbone']} ({escape_markdown(origin)})" if facts else "its members' networks"
        )
        tuned = {FOLDS: ", tuned on folds of train,", None: ""}.get(decoder["tuned_on"], ", tuned on valid,")
        turns = (
            f"The decoder `{decoder['name']}`{tuned} turns" if facts else f"Decoder: {decoder['name']}{tuned}. It turns"
        )
        yield (
            f"It predicts which of {metrics['train']['n_concepts']:,} medical concepts a radiology image shows. "
            f"The head `{metrics['head']}` scores embeddings of {network}. {turns} scores into concepts."
        )
        yield "For research on concept detection. It is not a medical device, and no diagnosis may rest on it."

    def _describe_scores(self) -> Iterator[str]:
        valid, folds, nested = self.metrics["valid"], self.metrics["folds"], self.metrics["nested"]
        rows = []
        if valid is not None:
            rows.append(f"| primary F1 | valid, {valid['n_images']:,} images | {with_interval(valid, 'primary')} |")
            if valid["secondary_interval"] is not None:
                rows.append(f"| secondary F1 | valid | {with_interval(valid, 'secondary')} |")
        if folds is not None:
            rows.append(f"| primary F1, by folds | {folds['on']} | {with_interval(folds, 'primary')} |")
        if nested is not None:
            rows.append(
                f"| primary F1, nested cross-validation | {nested['on']} | {with_interval(nested, 'primary')} |"
            )
        if rows:
            yield "\n".join(["| score | images | value [95% interval] |", "|---|---|---|", *rows])
        else:
            yield "No score: there is no image of valid to score on, and the decoder was not tuned on folds of train."
        if valid is not None and valid["note"]:
            yield f"Note: {valid['note']}."

    def _describe_data(self) -> Iterator[str]:
        rows = ["| split | images | cannot be read | concepts per image |", "|---|---|---|---|"]
        for split in self._splits():
            mean = np.mean([len(each) for each in split.concepts])
            rows.append(f"| {split.name} | {len(split.ids):,} | {int((~split.readable).sum()):,} | {mean:.1f} |")
        yield "\n".join(rows)
        counts = list(self.data.train.count_concepts().values())
        spread = f"{min(counts)} to {max(counts):,}" if counts else "0"
        groups = "Images of a group, such as a patient, stay on one side of every fold. " * (
            self.data.train.groups is not None
        )
        yield f"{groups}Training images per concept: {spread}, median {int(np.median(counts or [0])):,}."

    def _describe_licences(self) -> Iterator[str]:
        licences = find_licences(self.folder, [id for split in self._splits() for id in split.ids])
        if licences:
            yield "\n".join(f"- {escape_markdown(name)}: {count(n, 'image')}" for name, n in licences.most_common())
            yield "The strictest of them also limits what may be done with this run."
        else:
            yield f"Not known: no {SOURCES} with a column `licence` in the data folder. Check before you share the run."

    def _describe_limits(self) -> Iterator[str]:
        train, names = self.data.train, find_names(self.folder)
        counts = train.count_concepts()
        rare = sorted(
            (concept for concept in counts if counts[concept] < FEW_IMAGES), key=lambda each: (counts[each], each)
        )
        known = set().union(*train.readable_concepts)
        valid = self.data.valid
        unseen = sorted({concept for each in (valid.concepts if valid else []) for concept in each} - known)
        lines = [
            f"{len(rare):,} of {len(counts):,} concepts have fewer than {FEW_IMAGES} training images, so they are "
            f"hardly learnt{_list(rare, names)}.",
            f"Concepts of valid that are in no training image, and so are never predicted: {len(unseen):,}"
            f"{_list(unseen, names)}.",
            "An image that cannot be read gets the same few concepts as every other such image.",
            "Images of other hospitals, devices or kinds may score lower. The interval covers chance alone.",
        ]
        if self.metrics["store"]["weights"].startswith("random:"):
            lines.append("The network is random, not trained: the run is a baseline.")
        yield "\n".join(f"- {line}" for line in lines)

    def _describe_repetition(self) -> Iterator[str]:
        yield "```sh\n" + "\n".join(self.commands) + "\n```"
        versions = ", ".join(f"{name} {version}" for name, version in self.metrics["versions"].items())
        yield f"Made with {versions}."

    def _splits(self) -> list[LabelledSplit]:
        return [split for split in (self.data.train, self.data.valid) if split]


def find_licences(data: Path, ids: Sequence[str]) -> Counter[str]:
    """Count the licences of images.

    Parameters
    ----------
    data : Path
        The data folder. Its ``sources.csv`` may have a column ``licence``.
    ids : sequence of str

    Returns
    -------
    Counter
        Images by licence; ``not stated`` where the cell is empty. Empty if there is no such column.
    """
    path = data / SOURCES
    if not path.is_file():
        return Counter()
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            column = next((name for name in LICENCE_COLUMNS if name in (rows.fieldnames or ())), None)
            if column is None or "ID" not in (rows.fieldnames or ()):
                return Counter()
            stated = {row["ID"].strip(): (row[column] or "").strip() for row in rows if row["ID"]}
        found = zip(IdIndex(ids).find_rows(list(stated)), stated.values(), strict=True)
        return Counter(licence or "not stated" for row, licence in found if row >= 0)
    except (UnicodeDecodeError, csv.Error, DataError):
        return Counter()  # licences are extra, so a table that is at fault costs no run


def escape_markdown(text: str) -> str:
    """Text of the data in Markdown: on one line, with nothing in it that Markdown or HTML would follow.

    >>> escape_markdown("a|b <script> *c*")
    'a\\\\|b &lt;script&gt; \\\\*c\\\\*'
    """
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", html.escape(one_line(text), quote=False))


def _list(concepts: Sequence[str], names: dict[str, str]) -> str:
    """The first concepts by name, as the end of a sentence."""
    if not concepts:
        return ""
    listed = [escape_markdown(name_concept(each, names)) for each in concepts[:MAX_LISTED]]
    rest = len(concepts) - len(listed)
    return ": " + ", ".join(listed) + (f" and {rest:,} more" if rest else "")
