"""The official scores, as the organisers' evaluators compute them.

Rules: taubsity/clef-caption-evaluation (2023 to 2025), taubsity/clef-caption-evaluation-2026, and the evaluator
handed out in 2022. One surprise: an empty cell is one concept, the empty string, so an image without concepts is
right only where the submission has the cell and leaves it empty.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from eval.editions import MAX_CONCEPTS, Edition
from eval.errors import UserError

ConceptSets = Mapping[str, frozenset[str]]
"""Upper-case concepts of each image id, in the file's order."""


@dataclass(frozen=True)
class Fault:
    """Why a file is refused.

    Parameters
    ----------
    line : int
        Line in the file, from 1; 0 where it is the file as a whole.
    message : str
        What was found, and what to do.
    """

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}" if self.line else self.message


@dataclass(frozen=True)
class Scores:
    """Official scores of a submission; `secondary` is None where no manual file was given."""

    primary: float
    secondary: float | None
    n_images: int


@dataclass(frozen=True)
class Row:
    """A row of a file: its line, its cells' number, its id and its concepts as written."""

    line: int
    n_cells: int
    id: str
    concepts: tuple[str, ...]


def read_rows(data: bytes, edition: Edition, name: str) -> Iterator[Row]:
    """Read the rows of a truth or submission file as the evaluator does.

    A row with ``ID`` in its first cell is skipped wherever it stands. Concepts are stripped, ids are not.

    Parameters
    ----------
    data : bytes
        The file's content.
    edition : Edition
    name : str
        What errors call the file.

    Yields
    ------
    Row
        A blank line is a row without cells.

    Raises
    ------
    UserError
        The bytes are not UTF-8 or not CSV.
    """
    for line, cells in _cells(decode(data, name), edition, name):
        if cells and is_skipped(cells[0], edition):
            continue
        concepts = tuple(part.strip() for part in cells[1].split(";")) if len(cells) > 1 else ()
        yield Row(line, len(cells), cells[0] if cells else "", concepts)


def is_skipped(id: str, edition: Edition) -> bool:
    """Whether the evaluator takes a row with this first cell for a header, and so never counts it."""
    return edition.header and "ID" in id


def decode(data: bytes, name: str) -> str:
    """Decode a file as strict UTF-8; a byte order mark stays, as it does for the evaluator."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{name}: line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def read_truth(path: Path, edition: Edition) -> ConceptSets:
    """Read a truth file; of rows with the same id the last one counts.

    Raises
    ------
    UserError
        A row has not exactly an id and a cell of concepts.
    """
    truth = {}
    for row in read_rows(path.read_bytes(), edition, str(path)):
        if row.n_cells != 2:
            raise UserError(
                f"{path}: line {row.line}: {row.n_cells} cells, expected an id and its concepts "
                f"('{edition.delimiter}' between them); mend the truth file"
            )
        truth[row.id] = _upper(row)
    if not truth:
        raise UserError(f"{path}: no image in it; expected a row for each image of the test set")
    return truth


def read_submission(data: bytes, edition: Edition, ids: Mapping[str, object], name: str) -> ConceptSets:
    """Read a submission, refusing what the evaluator refuses.

    Raises
    ------
    UserError
        With the first fault.
    """
    found: dict[str, frozenset[str]] = {}
    for row, fault in submission_rows(data, edition, ids, name):
        if fault:
            raise UserError(f"{name}: {fault}")
        if row:
            found[row.id] = _upper(row)
    return found


def submission_rows(
    data: bytes, edition: Edition, ids: Mapping[str, object], name: str
) -> Iterator[tuple[Row | None, Fault | None]]:
    """Read a submission's rows, each with the fault for which the evaluator would refuse it, if any.

    The faults of a row are looked for in the evaluator's order and the first is given, so the first fault of all
    is the evaluator's. A last pair without a row tells of ids that are missing.
    """
    seen: set[str] = set()
    for row in read_rows(data, edition, name):
        fault = _row_fault(row, edition, ids, seen)
        seen.add(row.id)
        yield row, Fault(row.line, fault) if fault else None
    missing = [id for id in ids if id not in seen]
    if missing:
        yield None, Fault(0, f"{len(missing):,} of {len(ids):,} images have no row, such as '{missing[0]}'; add them")


def image_f1(truth: frozenset[str], predicted: frozenset[str]) -> float:
    """F1 of one image's concepts; 0 where either side is empty.

    >>> image_f1(frozenset({"C1", "C2"}), frozenset({"C2"}))
    0.6666666666666666
    """
    common = len(truth & predicted)
    return 2 * common / (len(truth) + len(predicted)) if common else 0.0


def primary_score(truth: ConceptSets, predicted: ConceptSets) -> float:
    """Mean over the truth's images of `image_f1`, in every edition."""
    return sum(image_f1(concepts, predicted[id]) for id, concepts in truth.items()) / len(truth)


def secondary_score(manual: ConceptSets, predicted: ConceptSets, edition: Edition) -> float:
    """Mean F1 over the manual annotations, both sides cut to the edition's allow-list.

    An image whose cut truth is empty leaves the mean; one that only the manual file has stays in it as 0.

    Raises
    ------
    UserError
        The manual file lacks a predicted image, or no image is left to score.
    """
    if edition.allowed is None:
        return 0.0
    total, n_images = 0.0, len(manual)
    for id, concepts in predicted.items():
        if id not in manual:
            raise UserError(f"image '{id}' is not in the manual truth; it needs a row for every image of the truth")
        cut = manual[id] & edition.allowed
        if cut:
            total += image_f1(cut, concepts & edition.allowed)
        else:
            n_images -= 1
    if n_images == 0:
        raise UserError(f"no image of the manual truth has a concept that the secondary score of {edition.year} counts")
    return total / n_images


def _cells(text: str, edition: Edition, name: str) -> Iterator[tuple[int, list[str]]]:
    if not edition.quoted:
        for number, line in enumerate(text.splitlines(), 1):
            yield number, line.split(edition.delimiter) if line else []
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=edition.delimiter)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise UserError(f"{name}: line {reader.line_num}: {error}; expected CSV") from None


def _row_fault(row: Row, edition: Edition, ids: Mapping[str, object], seen: set[str]) -> str | None:
    if row.n_cells == 0:
        return "blank line; remove it"
    if row.n_cells > 2:
        return f"{row.n_cells} cells, expected an id, '{edition.delimiter}', and concepts with ';' between them"
    if row.id not in ids:
        return f"image '{row.id}' is not in the test set; write the ids as the list of ids does"
    if row.id in seen:
        return f"image '{row.id}' has a row already; keep one"
    if len(row.concepts) > MAX_CONCEPTS:
        return f"image '{row.id}': {len(row.concepts):,} concepts, at most {MAX_CONCEPTS} are allowed"
    if len(set(row.concepts)) < len(row.concepts):
        twice = next(concept for concept in row.concepts if row.concepts.count(concept) > 1)
        return f"image '{row.id}': concept '{twice}' twice; name each once (a ';' too many makes empty concepts)"
    return None


def _upper(row: Row) -> frozenset[str]:
    return frozenset(concept.upper() for concept in row.concepts)
