"""What a report holds, as plain data; `show.report.page` turns it into HTML."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.duplicates import IdenticalImages, find_identical
from cache.support.errors import ParameterError, RunError
from cache.support.files import digest_file
from cache.support.messages import count
from cache.support.split_names import SPLITS
from cache.support.versions import __version__
from eval.bootstrap import Difference, find_interval
from eval.breakdown import Tally, break_down
from eval.comparison import Comparison, compare_f1
from eval.concept_names import find_names
from eval.editions import MODALITIES, REGIONS
from eval.f1 import ImageF1, image_f1, mean_f1
from eval.labels import find_label_file
from heads.data.official_score import OfficialF1, score_images
from heads.data.split import LabelledSplit
from heads.data.vocabulary import indicator
from heads.runs.concept_table import BandMetrics, ConceptTable
from heads.runs.files import MEMBERS
from heads.runs.folder import read_metrics
from heads.runs.request import FOLDS, TRAIN, RunRequest
from show.report import figures
from show.report.figures import Plot
from show.report.gallery import Explain, Gallery, make_gallery
from show.report.measures import Confusion, ScoreCurves, count_sizes, find_confusion, measure_scores
from show.report.outcome import Outcome, read_valid

MAX_LISTED = 50
"""Unreadable images and groups of identical images that are listed; the rest is counted."""

PRIOR = "prior"
"""The floor: the same concepts for every image, those that score best on train."""


@dataclass(frozen=True)
class Score:
    """A score with its interval."""

    value: float
    low: float
    high: float

    @classmethod
    def from_f1(cls, f1: ImageF1 | None) -> "Score | None":
        """The mean of F1 over images, and its 95% interval."""
        return None if f1 is None else cls(mean_f1(f1), *find_interval(f1))


@dataclass(frozen=True)
class ScoredRun:
    """A row of the table of scores.

    Parameters
    ----------
    name : str
    primary, secondary : Score or None
    comparisons : list of Comparison
        This report's run beside it; empty for the run itself.
    """

    name: str
    primary: Score | None
    secondary: Score | None
    comparisons: list[Comparison]

    @staticmethod
    def verdict(comparison: Comparison) -> str:
        """Whether this report's run and the other differ."""
        difference = comparison.difference
        if difference == Difference(0.0, 0.0, 0.0, 1.0):
            return "every image scores the same"
        if not difference.is_significant:
            return "no significant difference; it may be chance"
        return "this run is better" if difference.mean > 0 else "this run is worse"


@dataclass(frozen=True)
class ConceptRow:
    """A row of the table of concepts."""

    tally: Tally
    name: str
    n_train: int


@dataclass(frozen=True)
class ConfusionTable:
    """A confusion with the names of its concepts."""

    title: str
    names: list[str]
    counts: list[list[int]]

    @property
    def n_hits(self) -> int:
        """Concepts that are hit."""
        return sum(row[place] for place, row in enumerate(self.counts))

    @property
    def n_true(self) -> int:
        """Concepts that are true, hit or missed."""
        return sum(map(sum, self.counts[:-1]))

    def share(self, row: int, column: int) -> float:
        """How large a count is beside the others of its row."""
        return self.counts[row][column] / max(sum(self.counts[row]), 1)


@dataclass(frozen=True)
class SplitFacts:
    """A split of the store."""

    name: str
    n_images: int
    n_labelled: int | None
    concepts_per_image: float | None
    unreadable: list[str]


@dataclass(frozen=True)
class DataFacts:
    """What the data are like.

    Parameters
    ----------
    splits : list of SplitFacts
    identical : list of IdenticalImages
        Groups of identical images, leaks between splits first.
    tail : Plot
    image_sizes : Plot or None
    """

    splits: list[SplitFacts]
    identical: list[IdenticalImages]
    tail: Plot
    image_sizes: Plot | None

    @property
    def n_leaks(self) -> int:
        """Groups with images of several splits."""
        return sum(each.leak for each in self.identical)


@dataclass(frozen=True)
class Content:
    """Everything that the page of a run shows.

    Parameters
    ----------
    title : str
    description : str
        The run in words.
    notes : list of str
        What a reader must know first.
    split : str
        The split that everything is measured on; empty if there is none.
    n_images : int
        Its images.
    why : str
        Why nothing is measured; empty if it is.
    scores : list of ScoredRun
    plots : dict of str to list of Plot
        By section.
    concepts : list of ConceptRow
    bands : list of dict
        How well frequent, medium and rare concepts are predicted, as in ``metrics.json``.
    confusions : list of ConfusionTable
    data : DataFacts
    gallery : Gallery or None
    facts : dict of str to dict of str to str
        Tables of provenance, by title.
    commands : list of str
    version : str
        Of this software.
    """

    title: str
    description: str
    notes: list[str]
    split: str
    n_images: int
    why: str
    scores: list[ScoredRun]
    plots: dict[str, list[Plot]]
    concepts: list[ConceptRow]
    bands: list[BandMetrics]
    confusions: list[ConfusionTable]
    data: DataFacts
    gallery: Gallery | None
    facts: dict[str, dict[str, str]]
    commands: list[str]
    version: str = field(default=__version__)


def collect(
    outcome: Outcome, against: Sequence[Path] = (), explain: Explain | None = None, n_explained: int = 0
) -> Content:
    """Collect everything that the page of a run shows.

    Parameters
    ----------
    outcome : Outcome
    against : sequence of Path
        Folders of other runs on the same data, to compare this one with.
    explain : callable, optional
        Makes heat maps.
    n_explained : int
        Images of the gallery that get them.

    Raises
    ------
    RunError
        A run to compare with is missing, damaged, or of other data.
    ParameterError
        A run is to be compared with itself, or there is nothing to compare by.
    """
    paths = dict.fromkeys(against)
    short = Counter(path.name for path in paths)
    others = [(path.name if short[path.name] == 1 else str(path), _read_other(outcome, path)) for path in paths]
    names = find_names(outcome.data)
    split, metrics = outcome.split, outcome.metrics
    plots: dict[str, list[Plot]] = {section: [] for section in ("scores", "decoding", "concepts", "calibration")}
    scores: list[ScoredRun] = []
    concepts: list[ConceptRow] = []
    confusions: list[ConfusionTable] = []
    gallery, why = None, ""
    if split is None:
        why = _explain_absence(outcome)
    elif not split.readable.any():
        why = f"No image of {split.name} can be read, so there is nothing to measure."
    else:
        official = _score(split, outcome.predicted)
        if official is None:
            why = f"The official evaluator counts no image of {split.name}: their ids have the letters ID in them."
        else:
            scores = list(_compare(split, official, others))
            plots["scores"] = list(_plot_scores(scores))
        f1 = _find_f1(split, outcome.predicted)
        curves = measure_scores(outcome.blocks(), outcome.calibrate, split.Y, split.n_true)
        concepts = _list_concepts(outcome, split, names)
        plots |= _plot_outcome(outcome, split, curves, float(f1.mean()), concepts)
        confusions = list(_confuse(split, outcome.predicted, names))
        gallery = _show_images(outcome, split, f1, names, explain, n_explained)
    return Content(
        title=f"{metrics['head']} on {outcome.data.name}",
        description=_describe_run(outcome),
        notes=list(_note(outcome)),
        split=split.name if split else "",
        n_images=len(split.ids) if split else 0,
        why=why,
        scores=scores,
        plots=plots,
        concepts=concepts,
        bands=_count_bands(concepts),
        confusions=confusions,
        data=_describe_data(outcome, gallery),
        gallery=gallery,
        facts=_list_facts(outcome),
        commands=outcome.commands,
    )


def _describe_run(outcome: Outcome) -> str:
    metrics = outcome.metrics
    decoder, train = metrics["decoder"], metrics["train"]
    n_concepts, n_images = count(train["n_concepts"], "concept"), count(train["n_images"], "image")
    learnt = f"It learnt {n_concepts} from {n_images} of {train['splits']}."
    tuned = {FOLDS: ", tuned on folds of train", None: ""}.get(decoder["tuned_on"], ", tuned on valid")
    if "members" in metrics:
        parts = ", ".join(Path(each["run"]).name for each in metrics["members"])
        name = metrics["head"].capitalize()
        return f"{name} of {len(metrics['members'])} runs ({parts}). Decoder: {decoder['name']}{tuned}. {learnt}"
    return (
        f"The head {metrics['head']} scores what the frozen network {outcome.labelled.store.provenance.backbone} makes "
        f"of an image. The decoder {decoder['name']}{tuned}{',' * bool(tuned)} turns the scores into concepts. {learnt}"
    )


def _explain_absence(outcome: Outcome) -> str:
    reason = "The data have no split valid"
    if "members" in outcome.metrics:
        return f"{reason}, and an ensemble saves no scores of train, so there is nothing to measure."
    return f"{reason}, and the run saved no out-of-fold scores of train, because its decoder learns nothing from folds."


def _note(outcome: Outcome) -> Iterator[str]:
    metrics, split = outcome.metrics, outcome.split
    valid = metrics["valid"]
    if split is not None and split.name == TRAIN:
        yield (
            "There is no split valid. What follows is measured by folds of train: each image was scored by a head, and "
            "decoded by a decoder, that had learnt from the other folds alone."
        )
    if valid is not None and valid["note"]:
        yield f"About the scores: {valid['note']}."
    if metrics["train"]["splits"] != TRAIN:
        yield "The saved head has learnt from train and valid. What follows is of the head before it learnt from valid."
    if metrics["store"]["weights"].startswith("random:"):
        yield "The frozen network is random, not trained: the run is a baseline."
    if metrics["train"]["valid_concepts_unseen"]:
        n_unseen = metrics["train"]["valid_concepts_unseen"]
        yield f"{count(n_unseen, 'concept')} of valid in no training image: never predicted, and counted as missed."


def _score(split: LabelledSplit, predicted: Sequence[Sequence[str]]) -> OfficialF1 | None:
    truth = dict(zip(split.ids, split.concepts, strict=True))
    return score_images(truth, split.manual, dict(zip(split.ids, predicted, strict=True)), split.name)


def _compare(
    split: LabelledSplit, official: OfficialF1, others: Sequence[tuple[str, Mapping[str, Sequence[str]]]]
) -> Iterator[ScoredRun]:
    """The run, the prior and the others."""
    yield ScoredRun("this run", Score.from_f1(official.primary), Score.from_f1(official.secondary), [])
    same_for_all = dict.fromkeys(split.ids, split.fallback)
    for name, predicted in ((PRIOR, same_for_all), *others):
        other = _score(split, [predicted[id] for id in split.ids])
        assert other is not None  # the same images are counted
        comparisons = [compare_f1("primary F1", official.primary, other.primary)]
        if official.secondary is not None and other.secondary is not None:
            comparisons.append(compare_f1("secondary F1", official.secondary, other.secondary))
        yield ScoredRun(name, Score.from_f1(other.primary), Score.from_f1(other.secondary), comparisons)


def _plot_scores(scores: Sequence[ScoredRun]) -> Iterator[Plot]:
    for what, found in (
        ("primary F1", [(run.name, run.primary) for run in scores]),
        ("secondary F1", [(run.name, run.secondary) for run in scores]),
    ):
        known = [(name, (score.value, score.low, score.high)) for name, score in found if score]
        if known:
            yield figures.plot_scores([name for name, _ in known], [score for _, score in known], what)


def _read_other(outcome: Outcome, folder: Path) -> dict[str, tuple[str, ...]]:
    """What a run to compare with predicts for valid."""
    if folder.resolve() == outcome.folder.resolve():
        raise ParameterError(f"{folder}: is the run itself; expected other runs to compare it with (--against)")
    metrics = read_metrics(folder)
    split = outcome.split
    if split is None or split.name == TRAIN:
        raise ParameterError(f"{outcome.folder}: has no split valid to compare runs on; leave out {folder} (--against)")
    predicted = read_valid(folder)
    if set(predicted) != set(split.ids) or not _has_same_labels(folder, split, "members" in metrics):
        raise RunError(
            f"{folder}: is of other data than {outcome.folder}; expected runs with the same images and labels of valid"
        )
    return predicted


def _has_same_labels(folder: Path, split: LabelledSplit, is_ensemble: bool) -> bool:
    """Whether a run was made with the labels of a split; True if its data folder is gone, so that nobody can tell."""
    if is_ensemble:
        folder = folder / MEMBERS / read_metrics(folder).get("members", [])[0]["name"]
    path = find_label_file(Path(RunRequest.read(folder).data), split.name)
    return path is None or split.files.get(path.name) == digest_file(path).hex()


def _find_f1(split: LabelledSplit, predicted: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """F1 of each image that can be read."""
    given = [tuple(each) for each, readable in zip(predicted, split.readable, strict=True) if readable]
    everything = sorted({concept for each in (*split.readable_concepts, *given) for concept in each})
    return image_f1(indicator(split.readable_concepts, everything), indicator(given, everything))


def _list_concepts(outcome: Outcome, split: LabelledSplit, names: Mapping[str, str]) -> list[ConceptRow]:
    """Every concept that is true, predicted or learnt, the most frequent first."""
    truth = {id: frozenset(each) for id, each in zip(split.ids, split.concepts, strict=True)}
    given = {id: frozenset(each) for id, each in zip(split.ids, outcome.predicted, strict=True)}
    tallies = [tally for tally in break_down(truth, given) if tally.level == "concept"]
    n_train = outcome.labelled.train.count_concepts()
    known = {tally.name for tally in tallies}
    tallies += [Tally("concept", each, "", 0, 0, 0) for each in split.vocabulary if each not in known]
    return [ConceptRow(tally, names.get(tally.name, ""), n_train.get(tally.name, 0)) for tally in tallies]


def _count_bands(concepts: Sequence[ConceptRow]) -> list[BandMetrics]:
    """How well the concepts that are true or predicted do, by how many images of train have them."""
    judged = [row for row in concepts if row.tally.n_true + row.tally.n_predicted]
    n_train = {row.tally.name: row.n_train for row in judged}
    return ConceptTable([row.tally for row in judged], {}, n_train, "").count_bands()


def _plot_outcome(
    outcome: Outcome, split: LabelledSplit, curves: ScoreCurves, f1: float, concepts: Sequence[ConceptRow]
) -> dict[str, list[Plot]]:
    axis = "probability of the decoder" if outcome.is_calibrated else "score of the head"
    judged = [row for row in concepts if row.tally.n_true + row.tally.n_predicted]
    by_count = figures.plot_f1_by_count([row.n_train for row in judged], [row.tally.f1 for row in judged])
    return {
        "decoding": [figures.plot_thresholds(curves, f1, axis), figures.plot_top(curves, f1)],
        "concepts": [by_count] if judged else [],
        "calibration": [
            figures.plot_reliability(curves.raw, curves.calibrated, outcome.is_calibrated),
            figures.plot_sizes(count_sizes(split.concepts, outcome.predicted)),
        ],
    }


def _confuse(
    split: LabelledSplit, predicted: Sequence[Sequence[str]], names: Mapping[str, str]
) -> Iterator[ConfusionTable]:
    for title, group in (("Modalities", MODALITIES), ("Body regions", REGIONS)):
        found: Confusion = find_confusion(split.concepts, predicted, group)
        yield ConfusionTable(title, [names.get(each, each) or "none" for each in found.concepts], found.counts)


def _show_images(
    outcome: Outcome,
    split: LabelledSplit,
    f1: NDArray[np.float64],
    names: Mapping[str, str],
    explain: Explain | None,
    n_explained: int,
) -> Gallery:
    stored = outcome.labelled.store.split(split.name)
    digests = {id: digest.tobytes() for id, digest in zip(stored.ids, stored.rows.digests, strict=True)}
    predicted = [each for each, readable in zip(outcome.predicted, split.readable, strict=True) if readable]
    return make_gallery(
        split.readable_ids,
        digests,
        split.readable_concepts,
        predicted,
        f1,
        outcome.data,
        split.name,
        names,
        explain,
        n_explained,
    )


def _describe_data(outcome: Outcome, gallery: Gallery | None) -> DataFacts:
    labelled = {split.name: split for split in (outcome.labelled.train, outcome.labelled.valid) if split}
    splits = []
    for name, rows in outcome.labelled.store.splits.items():
        joined = labelled.get(name)
        per_image = float(np.mean([len(each) for each in joined.concepts])) if joined else None
        n_labelled = len(joined.ids) if joined else None
        splits.append(SplitFacts(name, len(rows.ids), n_labelled, per_image, rows.describe_unreadable()))
    sizes = gallery.sizes if gallery else []
    counts = outcome.labelled.train.count_concepts()
    return DataFacts(
        splits=sorted(splits, key=lambda each: [*SPLITS, each.name].index(each.name)),
        identical=find_identical(outcome.labelled.store),
        tail=figures.plot_tail(list(counts.values())),
        image_sizes=figures.plot_image_sizes(sizes) if sizes else None,
    )


def _list_facts(outcome: Outcome) -> dict[str, dict[str, str]]:
    metrics, store = outcome.metrics, outcome.labelled.store
    run = {"folder": outcome.folder.name, "head": metrics["head"], "decoder": metrics["decoder"]["name"],
           "tuned on": metrics["decoder"]["tuned_on"] or "nothing to tune", "learnt from": metrics["train"]["splits"],
           "digest of the request": metrics["requests"]["whole"]}  # fmt: skip
    facts = {"Run": run, "Parameters": {key: str(value) for key, value in metrics["params"].items()}}
    if "members" in metrics:
        facts["Members"] = {each["name"]: Path(each["run"]).name for each in metrics["members"]}
    weights = store.weights_origin
    facts["Features"] = {
        "store": store.path.name, "network": store.provenance.backbone, "weights": f"{weights.name} ({weights.source})",
        "cut after": store.provenance.layer, "pooling": store.provenance.pooling,
        "size": f"{store.provenance.size} px", "engine": f"{store.provenance.engine}, {store.provenance.precision}",
        "stored as": store.provenance.dtype, "fingerprint": store.fingerprint, "content": store.content,
    }  # fmt: skip
    facts["Seconds"] = {key: f"{value:.1f}" for key, value in metrics["seconds"].items()}
    facts["Versions"] = dict(metrics["versions"])
    return {title: table for title, table in facts.items() if table}
