"""Traps of the official score: what it does in silence, and what that cost a submission."""

from collections.abc import Collection, Iterator
from pathlib import Path

from cache.support.messages import count, quote
from eval.evaluator_files import ConceptSets
from eval.f1 import mean_f1, primary_f1
from eval.run_folder import read_vocabulary
from eval.scored_file import Scored

NO_CONCEPT = frozenset({""})


def find_traps(scored: Scored, vocabulary: Collection[str] | None) -> list[str]:
    """What a submission's primary score lost to rules that nobody expects.

    Parameters
    ----------
    scored : Scored
    vocabulary : collection of str, optional
        The concepts that could be predicted.

    Returns
    -------
    list of str
        A line for each trap that it stepped into.
    """
    lines = [*_passed_over(scored), *_separators(scored), *_bare_ids(scored)]
    return [*lines, *_outside(scored, frozenset(vocabulary))] if vocabulary is not None else lines


def find_vocabulary(submission: Path, train: Path | None) -> frozenset[str] | None:
    """The concepts that a submission's author could have learnt.

    Parameters
    ----------
    submission : Path
        If it stands in a run, the run's vocabulary is meant.
    train : Path, optional
        Label file of the training images; comes first.

    Raises
    ------
    UserError
        The label file is at fault. A vocabulary that cannot be read is none.
    """
    if train is not None:
        from eval.labels import read_concepts  # loads pandas

        return frozenset(concept for each in read_concepts(train) for concept in each)
    return read_vocabulary(submission)


def _passed_over(scored: Scored) -> Iterator[str]:
    truth, predicted = scored.truth.passed_over, scored.predicted.passed_over
    if truth:
        given = {id: predicted.get(id, frozenset()) for id in truth}
        counted = float(scored.primary_f1.sum() + primary_f1(truth, given).sum()) / (scored.n_images + len(truth))
        cost = _cost(scored.primary, counted, "if they counted")
        yield (
            f"{count(len(truth), 'image')} with the letters ID in the id, such as {quote(next(iter(truth)))}: the "
            f"evaluator takes them for headers and passes them over; {cost}"
        )
    strange = [id for id in predicted if id not in truth]
    if strange:
        yield (
            f"{count(len(strange), 'row')} of the submission with the letters ID in the first cell, such as "
            f"{quote(strange[0])}, that the truth does not have: the evaluator never looks at them"
        )


def _separators(scored: Scored) -> Iterator[str]:
    for whose, sets in (("submission", scored.predicted.sets), ("truth", scored.truth.sets)):
        cleaned = {id: concepts - NO_CONCEPT for id, concepts in sets.items() if "" in concepts and len(concepts) > 1}
        if not cleaned:
            continue
        mended = {**sets, **cleaned}
        pair = (scored.truth.sets, mended) if whose == "submission" else (mended, scored.predicted.sets)
        cost = _cost(scored.primary, mean_f1(primary_f1(*pair)), "without it")
        yield (
            f"{count(len(cleaned), 'row')} of the {whose} with a ';' too many, such as that of "
            f"{quote(next(iter(cleaned)))}: it makes an empty concept, which counts as any other; {cost}"
        )


def _bare_ids(scored: Scored) -> Iterator[str]:
    bare = {id: NO_CONCEPT for id, concepts in scored.predicted.sets.items() if not concepts}
    right = [id for id in bare if scored.truth.sets[id] == NO_CONCEPT]
    if right:
        f1 = primary_f1(scored.truth.sets, {**scored.predicted.sets, **bare})
        yield (
            f"{count(len(right), 'image')} without concepts and with the id alone, such as {quote(right[0])}: only a "
            f"second cell that is empty is right; {_cost(scored.primary, mean_f1(f1), 'with it')}"
        )


def _outside(scored: Scored, vocabulary: frozenset[str]) -> Iterator[str]:
    known = vocabulary | NO_CONCEPT
    truth = scored.truth.sets
    affected = {id: concepts for id, concepts in truth.items() if not concepts <= known}
    if not affected:
        return
    unseen = {concept for concepts in affected.values() for concept in concepts - known}
    # An image with no other concept keeps them: what is right for it cannot be said.
    cut: ConceptSets = {**truth, **{id: concepts & known or concepts for id, concepts in affected.items()}}
    best = mean_f1(primary_f1(truth, {id: concepts & known for id, concepts in truth.items()}))
    without = mean_f1(primary_f1(cut, scored.predicted.sets))
    yield (
        f"{count(len(unseen), 'true concept')} of {count(len(affected), 'image')} outside the vocabulary, such as "
        f"{quote(min(unseen))}: they count as missed; {_cost(scored.primary, without, 'without them')}, and no "
        f"prediction from this vocabulary can exceed {best:.4f}"
    )


def _cost(official: float, otherwise: float, when: str) -> str:
    """What a trap cost, or gave.

    >>> _cost(0.5, 0.52, "without it")
    'it cost 0.0200 of primary F1 (0.5200 without it)'
    """
    change = otherwise - official
    said = f"it cost {change:.4f}" if change >= 0 else f"it gave {-change:.4f}"
    return f"{said} of primary F1 ({otherwise:.4f} {when})"
