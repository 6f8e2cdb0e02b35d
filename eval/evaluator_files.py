"""Truth and submission files, read and refused as the organisers' evaluators do.

Rules: taubsity/clef-caption-evaluation (2023 to 2025), taubsity/clef-caption-evaluation-2026, and the evaluator
handed out in 2022. Two surprises: an empty cell is one concept, the empty string, so an image without concepts is
right only where the submission has the cell and leaves it empty; and a row with the letters ``ID`` in its first cell
is taken for a header wherever it stands.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.support.errors import UserError
from cache.support.messages import quote
from eval.csv_rows import Fault, cells_of, is_header, read_rows, row_faults, upper_set
from eval.editions import Edition
from eval.files import read_file

ConceptSets = Mapping[str, frozenset[str]]
"""Upper-case concepts of each image id, in the file's order."""


@dataclass(frozen=True)
class ConceptFile:
    """What the evaluator makes of a file.

    Parameters
    ----------
    sets : ConceptSets
        The images that it counts.
    passed_over : ConceptSets
        Images that it takes for headers, because their id contains ``ID``.
    """

    sets: ConceptSets
    passed_over: ConceptSets


def is_skipped(id: str, edition: Edition) -> bool:
    """Whether the evaluator takes a row with this first cell for a header, and so never counts it."""
    return edition.header and "ID" in id


def read_truth(path: Path, edition: Edition) -> ConceptFile:
    """Read a truth file; of rows with the same id the last one counts, and cells after the second do not.

    The label files of 2022 and 2023 are separated by TAB and have a header, unlike submissions: they are truth too.

    Raises
    ------
    UserError
        A row has no cell of concepts, or no image is in the file.
    """
    data = read_file(path)
    first = data.partition(b"\n")[0]
    tabbed = edition.delimiter == "|" and b"\t" in first and b"|" not in first
    delimiter = "\t" if tabbed else edition.delimiter
    truth: dict[str, frozenset[str]] = {}
    passed_over: dict[str, frozenset[str]] = {}
    for line, cells in read_rows(data, edition, str(path), delimiter):
        if cells and is_skipped(cells[0], edition):
            if len(cells) > 1 and not is_header(cells[0]):
                passed_over[cells[0]] = upper_set(cells[1])
            continue
        if tabbed and line == 1 and cells and is_header(cells[0]):
            continue
        if len(cells) < 2:
            raise UserError(
                f"{path}: line {line}: {cells_of(cells)}, expected an id and its concepts "
                f"({delimiter!r} between them); mend the truth file, or name its edition"
            )
        truth[cells[0]] = upper_set(cells[1])
    if not truth and passed_over:
        raise UserError(
            f"{path}: every id has the letters ID in it, such as {quote(next(iter(passed_over)))}, so the evaluator "
            "takes every row for a header and no image counts; rename the images"
        )
    if not truth:
        raise UserError(f"{path}: no image in it; expected a row for each image")
    return ConceptFile(truth, passed_over)


def read_submission(data: bytes, edition: Edition, ids: Mapping[str, object], name: str) -> ConceptFile:
    """Read a submission, refusing what the evaluator refuses.

    Parameters
    ----------
    data : bytes
    edition : Edition
    ids : mapping
        The ids of the truth that the evaluator counts.
    name : str
        What errors call the file.

    Raises
    ------
    UserError
        With the fault that the evaluator finds first.
    """
    found: dict[str, frozenset[str]] = {}
    passed_over: dict[str, frozenset[str]] = {}
    for line, cells in read_rows(data, edition, name):
        if cells and is_skipped(cells[0], edition):
            if not is_header(cells[0]):
                passed_over[cells[0]] = upper_set(cells[1]) if len(cells) > 1 else frozenset()
            continue
        fault = next(row_faults(cells, edition, ids, found, "the truth"), None)
        if fault:
            raise UserError(f"{name}: {Fault(line, fault)}")
        found[cells[0]] = upper_set(cells[1]) if len(cells) > 1 else frozenset()
    if len(found) < len(ids):
        missing = [id for id in ids if id not in found]
        raise UserError(
            f"{name}: {len(missing):,} of {len(ids):,} images have no row, such as {quote(missing[0])}; add them"
        )
    return ConceptFile(found, passed_over)
