"""Truth and submission files, read and refused as the organisers' evaluators do.

The rules are those of taubsity/clef-caption-evaluation (2023 to 2025), taubsity/clef-caption-evaluation-2026, and the
evaluator handed out in 2022. Two of them are surprising. An empty cell is one concept, the empty string: an image
without concepts scores 1 only if the submission has the second cell and leaves it empty. And a row with the letters
``ID`` in its first cell is taken for a header, wherever it is.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cache.support.errors import DataError
from cache.support.image_ids import IdIndex
from cache.support.messages import count, quote
from eval.concept_cells import describe_dialect, has_cui
from eval.csv_rows import Fault, concept_set, describe_cells, is_header, read_rows, row_faults
from eval.editions import Edition
from eval.files import read_file
from eval.label_rows import looks_like_header, names_ids

ConceptSets = Mapping[str, frozenset[str]]
"""Upper-case concepts of each image id, in the file's order."""


FEW = 0.01
"""A submission with at most this share of its ids in the truth is of another split."""


@dataclass(frozen=True)
class ConceptFile:
    """A file as the evaluator reads it.

    Parameters
    ----------
    sets : ConceptSets
        The images that it counts.
    skipped : ConceptSets
        Images that it takes for headers, because their id contains ``ID``.
    oddities : list of str
        Rows that it reads by a rule that few expect, one line each.
    dialects : list of str
        Cells that it takes for one concept, and that cannot be meant so, one line each.
    """

    sets: ConceptSets
    skipped: ConceptSets
    oddities: list[str] = field(default_factory=list)
    dialects: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"ConceptFile({count(len(self.sets), 'image')}, {len(self.skipped):,} skipped)"


def is_skipped(id: str, edition: Edition) -> bool:
    """Whether the evaluator takes a row with this first cell for a header, so that it does not count."""
    return edition.has_header and "ID" in id


def read_truth(path: Path, edition: Edition) -> ConceptFile:
    """Read a truth file. Of several rows with one id the last counts. Cells after the second are ignored.

    The label files of 2022 and 2023 are accepted too. Unlike submissions, they are separated by TAB and have a header.

    Raises
    ------
    DataError
        A row has no cell of concepts, or the file has no image.
    """
    data = read_file(path)
    first = data.partition(b"\n")[0]
    tabbed = edition.delimiter == "|" and b"\t" in first and b"|" not in first
    delimiter = "\t" if tabbed else edition.delimiter
    truth: dict[str, frozenset[str]] = {}
    skipped: dict[str, frozenset[str]] = {}
    headers: list[str] = []
    replaced: list[str] = []
    shortened: list[str] = []
    for line, cells in read_rows(data, edition, str(path), delimiter):
        if cells and is_skipped(cells[0], edition):
            if len(cells) > 1 and not is_header(cells[0]):
                skipped[cells[0]] = concept_set(cells[1])
            continue
        if tabbed and line == 1 and cells and is_header(cells[0]):
            continue
        if len(cells) < 2:
            raise DataError(
                f"{path}: line {line}: {describe_cells(cells)}, expected an id and its concepts "
                f"({delimiter!r} between them); correct the truth file, or give its edition"
            )
        id, concepts = cells[0], concept_set(cells[1])
        if not truth and not skipped and looks_like_header(cells):
            headers.append(f"line {line}: {quote(','.join(cells))} looks like a header, but the evaluator counts it as "
                           "an image; write ID,CUIs")  # fmt: skip
        if truth.get(id, concepts) != concepts:
            replaced.append(id)
        if any(map(has_cui, cells[2:])):
            shortened.append(id)
        truth[id] = concepts
    if not truth and skipped:
        raise DataError(
            f"{path}: every id contains the letters ID, such as {quote(next(iter(skipped)))}, so the evaluator "
            "takes every row for a header and counts no image; rename the images"
        )
    if not truth:
        raise DataError(f"{path}: no image in it; expected one row per image")
    oddities = [
        *headers,
        *_describe_rows(replaced, "that replaces an earlier one of its image", "the evaluator counts the last one"),
        *_describe_rows(shortened, "with concepts after the second cell", "the evaluator ignores them"),
    ]
    dialects = list(_find_dialects(truth))
    names = {name for each in truth.values() for name in each if name}
    if names and not dialects and not any(map(has_cui, names)):
        dialects.append(f"no concept is 'C' and digits, such as {quote(min(names))}; expected CUIs in the second cell")
    return ConceptFile(truth, skipped, oddities, dialects)


def read_submission(data: bytes, edition: Edition, ids: Mapping[str, object], name: str) -> ConceptFile:
    """Read a submission, and refuse what the evaluator refuses.

    Parameters
    ----------
    data : bytes
    edition : Edition
    ids : mapping
        The ids of the truth that the evaluator counts.
    name : str
        The file's name in messages.

    Raises
    ------
    DataError
        With the fault that the evaluator finds first.
    """
    found: dict[str, frozenset[str]] = {}
    skipped: dict[str, frozenset[str]] = {}
    for line, cells in read_rows(data, edition, name):
        if cells and is_skipped(cells[0], edition):
            if not is_header(cells[0]):
                skipped[cells[0]] = concept_set(cells[1]) if len(cells) > 1 else frozenset()
            continue
        fault = next(row_faults(cells, edition, ids, found, "the truth"), None)
        if fault:
            fault = find_header_fault(line, cells, edition, ids) or fault
            if fault.endswith("write ids as in the truth"):
                hint = _find_other_spelling(cells[0], ids)
                if not hint:
                    _refuse_other_split(data, edition, ids, name)
                fault += hint
            raise DataError(f"{name}: {Fault(line, fault)}")
        found[cells[0]] = concept_set(cells[1]) if len(cells) > 1 else frozenset()
    if len(found) < len(ids):
        missing = [id for id in ids if id not in found]
        if names_ids(missing[0]):
            raise DataError(
                f"the truth's header is {quote(missing[0])}, which the evaluator counts as an image without a row in "
                f"{name}; write ID,CUIs in the truth"
            )
        raise DataError(
            f"{name}: {len(missing):,} of {len(ids):,} images have no row, such as {quote(missing[0])}; add them"
        )
    return ConceptFile(found, skipped, dialects=list(_find_dialects(found)))


def find_header_fault(line: int, cells: list[str], edition: Edition, ids: Mapping[str, object]) -> str:
    """What is wrong with a header that the evaluator takes for an image; empty if the row is none.

    >>> from eval.editions import find_edition
    >>> find_header_fault(1, ["name", "concepts"], find_edition(2024), {})
    "'name,concepts' looks like a header, but the evaluator takes it for an image; write ID,CUIs"
    """
    if line != 1 or not cells or cells[0] in ids or not (looks_like_header(cells) or names_ids(cells[0])):
        return ""
    remedy = "write ID,CUIs" if edition.has_header else f"{edition.year} takes no header, remove the row"
    found = quote(edition.delimiter.join(cells))
    return f"{found} looks like a header, but the evaluator takes it for an image; {remedy}"


def _refuse_other_split(data: bytes, edition: Edition, ids: Mapping[str, object], name: str) -> None:
    """Refuse a submission of which almost no id is in the truth."""
    found = [cells[0] for _, cells in read_rows(data, edition, name) if cells and not is_skipped(cells[0], edition)]
    n_known = sum(id in ids for id in found)
    if n_known <= FEW * len(found):
        raise DataError(
            f"{name}: {n_known or 'none'} of its {len(found):,} ids is in the truth, which has "
            f"{quote(next(iter(ids)))}, not {quote(found[0])}; it seems to be of another split: give the truth of that"
        )


def _find_other_spelling(id: str, ids: Mapping[str, object]) -> str:
    """How the truth spells an id that it does not have, as the end of a message; empty if it does not."""
    index = IdIndex([re.split(r"[;|\t]", each.removeprefix("\ufeff"))[0] for each in ids])
    try:
        row = index.find_row(id)
    except DataError:
        return ""
    return f", which has {quote(list(ids)[row])}" if row >= 0 else ""


def _find_dialects(sets: ConceptSets) -> Iterator[str]:
    """Find cells in which the evaluator takes several concepts for one."""
    kinds = {concept: kind for concept in frozenset().union(*sets.values()) if (kind := describe_dialect(concept))}
    for kind in dict.fromkeys(kinds.values()) if kinds else ():
        ids = [id for id, concepts in sets.items() if any(kinds.get(each) == kind for each in concepts)]
        first = next(each for each in sets[ids[0]] if kinds.get(each) == kind)
        yield (
            f"{count(len(ids), 'row')} with {kind}, such as {quote(first)}: the evaluator takes it for one concept; "
            "expected a list such as C0040405;C0817096"
        )


def _describe_rows(ids: list[str], what: str, rule: str) -> Iterator[str]:
    if ids:
        found = f"{count(len(ids), 'row')} {what}, such as that of {quote(ids[0])}"
        yield f"{found}: {rule}; write all concepts into the second cell of one row"
