"""Rules of the official score that few expect, and what they cost a submission. The evaluator does not report them."""

from collections.abc import Collection, Iterator
from pathlib import Path

from cache.support.messages import count, quote
from eval.evaluator_files import ConceptSets
from eval.f1 import mean_f1, primary_f1
from eval.labels import read_concepts
from eval.run_folder import read_vocabulary
from eval.scored_file import ScoredFile

NO_CONCEPT = frozenset({""})
"""What the evaluator reads in an empty cell."""


def find_traps(scored: ScoredFile, vocabulary: Collection[str] | None) -> list[str]:
    """Find unexpected rules that changed a submission's primary score.

    Parameters
    ----------
    scored : ScoredFile
    vocabulary : collection of str, optional
        The concepts that could be predicted.

    Returns
    -------
    list of str
        One line per rule, with the difference that it makes.
    """
    lines = [*_skipped_images(scored), *_extra_separators(scored), *_missing_cells(scored)]
    return [*lines, *_unknown_concepts(scored, frozenset(vocabulary))] if vocabulary is not None else lines


def find_vocabulary(submission: Path, train: Path | None) -> frozenset[str] | None:
    """Find the concepts that a submission's author could have learnt.

    Parameters
    ----------
    submission : Path
        If it is in a run's folder, the run's vocabulary is used.
    train : Path, optional
        Label file of the training images; it is used first.

    Returns
    -------
    frozenset of str or None
        None if neither is there, or the run's vocabulary cannot be read.

    Raises
    ------
    DataError
        The label file does not exist or cannot be read.
    """
    if train is not None:
        return frozenset(concept for each in read_concepts(train) for concept in each)
    return read_vocabulary(submission)


def _skipped_images(scored: ScoredFile) -> Iterator[str]:
    """Images whose id contains ID."""
    truth, predicted = scored.truth.skipped, scored.predicted.skipped
    if truth:
        given = {id: predicted.get(id, frozenset()) for id in truth}
        counted = float(scored.primary_f1.sum() + primary_f1(truth, given).sum()) / (scored.n_images + len(truth))
        cost = _describe_cost(scored.primary, counted, "if they counted")
        yield (
            f"{count(len(truth), 'image')} with the letters ID in the id, such as {quote(next(iter(truth)))}: the "
            f"evaluator takes them for headers and skips them; {cost}"
        )
    unknown = [id for id in predicted if id not in truth]
    if unknown:
        yield (
            f"{count(len(unknown), 'row')} of the submission with the letters ID in the first cell, such as "
            f"{quote(unknown[0])}, which the truth does not have: the evaluator ignores them"
        )


def _extra_separators(scored: ScoredFile) -> Iterator[str]:
    """Cells with a `;` at an end, or two in a row."""
    for name, sets in (("submission", scored.predicted.sets), ("truth", scored.truth.sets)):
        cleaned = {id: concepts - NO_CONCEPT for id, concepts in sets.items() if "" in concepts and len(concepts) > 1}
        if not cleaned:
            continue
        corrected = {**sets, **cleaned}
        pair = (scored.truth.sets, corrected) if name == "submission" else (corrected, scored.predicted.sets)
        cost = _describe_cost(scored.primary, mean_f1(primary_f1(*pair)), "without it")
        yield (
            f"{count(len(cleaned), 'row')} of the {name} with an extra ';', such as that of "
            f"{quote(next(iter(cleaned)))}: it makes an empty concept, which counts like any other; {cost}"
        )


def _missing_cells(scored: ScoredFile) -> Iterator[str]:
    """Images without concepts whose row has no second cell."""
    bare = {id: NO_CONCEPT for id, concepts in scored.predicted.sets.items() if not concepts}
    right = [id for id in bare if scored.truth.sets[id] == NO_CONCEPT]
    if right:
        f1 = primary_f1(scored.truth.sets, {**scored.predicted.sets, **bare})
        yield (
            f"{count(len(right), 'image')} without concepts and with the id alone, such as {quote(right[0])}: only an "
            f"empty second cell is right; {_describe_cost(scored.primary, mean_f1(f1), 'with it')}"
        )


def _unknown_concepts(scored: ScoredFile, vocabulary: frozenset[str]) -> Iterator[str]:
    """True concepts outside the vocabulary."""
    known = vocabulary | NO_CONCEPT
    truth = scored.truth.sets
    affected = {id: concepts for id, concepts in truth.items() if not concepts <= known}
    if not affected:
        return
    unknown = {concept for concepts in affected.values() for concept in concepts - known}
    # An image with no other concept keeps them: it is not known what would be right for it instead.
    limited: ConceptSets = {**truth, **{id: concepts & known or concepts for id, concepts in affected.items()}}
    best = mean_f1(primary_f1(truth, {id: concepts & known for id, concepts in truth.items()}))
    without = mean_f1(primary_f1(limited, scored.predicted.sets))
    yield (
        f"{count(len(unknown), 'true concept')} of {count(len(affected), 'image')} outside the vocabulary, such as "
        f"{quote(min(unknown))}: they count as missed; {_describe_cost(scored.primary, without, 'without them')}, and "
        f"no prediction from this vocabulary can exceed {best:.4f}"
    )


def _describe_cost(official: float, otherwise: float, when: str) -> str:
    """What a rule cost, or added.

    >>> _describe_cost(0.5, 0.52, "without it")
    'it cost 0.0200 of primary F1 (0.5200 without it)'
    """
    change = otherwise - official
    cost = f"it cost {change:.4f}" if change >= 0 else f"it added {-change:.4f}"
    return f"{cost} of primary F1 ({otherwise:.4f} {when})"
