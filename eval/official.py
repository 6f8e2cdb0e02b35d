"""Truth and submission files, read and refused as the organisers' evaluators do.

Rules: taubsity/clef-caption-evaluation (2023 to 2025), taubsity/clef-caption-evaluation-2026, and the evaluator
handed out in 2022. Two surprises: an empty cell is one concept, the empty string, so an image without concepts is
right only where the submission has the cell and leaves it empty; and a row with the letters ``ID`` in its first cell
is taken for a header wherever it stands.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from eval.editions import MAX_CONCEPTS, Edition
from eval.errors import UserError, shown
from eval.files import read_file

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


class Row(NamedTuple):
    """A row of a file: the line it begins on, and its cells."""

    line: int
    cells: list[str]


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


def read_rows(data: bytes, edition: Edition, name: str, delimiter: str | None = None) -> Iterator[Row]:
    """Read the rows of a file, headers included.

    Parameters
    ----------
    data : bytes
        The file's content.
    edition : Edition
    name : str
        What errors call the file.
    delimiter : str, optional
        The edition's if not given.

    Yields
    ------
    Row
        A blank line is a row without cells.

    Raises
    ------
    UserError
        The bytes are not UTF-8 or not CSV.
    """
    refuse_other_text(data, name)
    # Line by line, so that a large file costs no more memory than its bytes.
    lines = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline=None)
    mark = delimiter or edition.delimiter
    if edition.quoted:
        reader = csv.reader(lines, delimiter=mark)
    else:
        reader = csv.reader(lines, delimiter=mark, quoting=csv.QUOTE_NONE)
    line = 1
    try:
        for cells in reader:
            yield Row(line, cells)
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{name}: line {line}: {error}; expected CSV") from None


def refuse_other_text(data: bytes, name: str) -> None:
    """Refuse what is not strict UTF-8; a byte order mark stays in the text, as it does for the evaluator.

    Raises
    ------
    UserError
        With the line.
    """
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{name}: line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def is_skipped(id: str, edition: Edition) -> bool:
    """Whether the evaluator takes a row with this first cell for a header, and so never counts it."""
    return edition.header and "ID" in id


def is_header(id: str) -> bool:
    """Whether a first cell names a column: `ID`, or `… ID` as in 2025.

    >>> is_header("ID"), is_header("ImageCLEFmedical 2025 ID"), is_header("MID1")
    (True, True, False)
    """
    words = id.removeprefix("\ufeff").casefold().split()
    return bool(words) and words[-1] == "id"


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
                f"({delimiter!r} between them); mend the truth file"
            )
        truth[cells[0]] = upper_set(cells[1])
    if not truth:
        raise UserError(f"{path}: no image in it; expected a row for each image of the test set")
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
        fault = next(row_faults(cells, edition, ids, found), None)
        if fault:
            raise UserError(f"{name}: {Fault(line, fault)}")
        found[cells[0]] = upper_set(cells[1]) if len(cells) > 1 else frozenset()
    if len(found) < len(ids):
        missing = [id for id in ids if id not in found]
        raise UserError(
            f"{name}: {len(missing):,} of {len(ids):,} images have no row, such as {shown(missing[0])}; add them"
        )
    return ConceptFile(found, passed_over)


def row_faults(
    cells: list[str], edition: Edition, ids: Mapping[str, object], seen: Mapping[str, object]
) -> Iterator[str]:
    """All faults of a submission's row, in the evaluator's order, so that the first is the evaluator's."""
    if not cells:
        yield "blank line; remove it"
        return
    id = cells[0]
    if len(cells) > 2:
        yield f"{cells_of(cells)}, expected an id, '{edition.delimiter}', and concepts with ';' between them"
    if id not in ids:
        yield f"image {shown(id)} is not in the test set; write the ids as the list of ids does"
    elif id in seen:
        yield f"image {shown(id)} has a row already; keep one"
    if len(cells) > 1:
        concepts = split_concepts(cells[1])
        yield from too_many(id, concepts)
        twice = find_repeated(concepts)
        if twice is not None:
            hint = " (a ';' too many makes empty concepts)" if not twice else ""
            yield f"image {shown(id)}: concept {shown(twice)} twice; name each once{hint}"


def cells_of(cells: list[str]) -> str:
    """What is said of a row with too few or too many cells.

    >>> cells_of(["a1"]), cells_of([])
    ("1 cell for image 'a1'", 'blank line')
    """
    return f"{len(cells)} cell{'s' * (len(cells) > 1)} for image {shown(cells[0])}" if cells else "blank line"


def too_many(id: str, concepts: list[str]) -> Iterator[str]:
    """The fault of more concepts than an image may have, in every edition."""
    if len(concepts) > MAX_CONCEPTS:
        yield f"image {shown(id)}: {len(concepts):,} concepts, at most {MAX_CONCEPTS} are allowed"


def find_repeated(names: list[str]) -> str | None:
    """The first name that stands twice, None if all are different.

    >>> find_repeated(["a", "b", "a"])
    'a'
    """
    if len(set(names)) == len(names):
        return None
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def split_concepts(cell: str) -> list[str]:
    """The stripped concepts of a cell; an empty cell is one empty concept.

    >>> split_concepts("C1; C2;"), split_concepts("")
    (['C1', 'C2', ''], [''])
    """
    return [part.strip() for part in cell.split(";")]


def upper_set(cell: str) -> frozenset[str]:
    """A cell's concepts as the evaluator compares them."""
    return frozenset([part.strip().upper() for part in cell.split(";")])
