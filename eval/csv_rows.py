"""Rows of truth and submission files: how the evaluators read them, and every reason to refuse one.

Rules: as in `eval.evaluator_files`. The surprise: what Python's `csv.reader` forgives, they forgive.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cache.support.errors import UserError
from cache.support.messages import quote
from eval.editions import MAX_CONCEPTS, Edition


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


def read_rows(
    data: bytes, edition: Edition, name: str, delimiter: str | None = None, newline: str | None = None
) -> Iterator[Row]:
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
    newline : str, optional
        As in `open`: line ends inside quotes become ``\\n`` for the evaluator, and stay (``""``) for the form check.

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
    lines = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline=newline)
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
        raise UserError(f"{name}: line {line}: {error}; expected CSV with an id and its concepts in a row") from None


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


def is_header(id: str) -> bool:
    """Whether a first cell names a column: `ID`, or `… ID` as in 2025.

    >>> is_header("ID"), is_header("ImageCLEFmedical 2025 ID"), is_header("MID1")
    (True, True, False)
    """
    words = id.removeprefix("\ufeff").casefold().split()
    return bool(words) and words[-1] == "id"


def row_faults(
    cells: list[str], edition: Edition, ids: Mapping[str, object], seen: Mapping[str, object], place: str
) -> Iterator[str]:
    """All faults of a submission's row, in the evaluator's order, so that the first is the evaluator's.

    Parameters
    ----------
    cells : list of str
    edition : Edition
    ids, seen : mapping
        The ids that may have a row, and those that had one.
    place : str
        Where the ids stand.

    Yields
    ------
    str
        What was found, and what to do.
    """
    if not cells:
        yield "blank line; remove it"
        return
    id = cells[0]
    if len(cells) > 2:
        yield f"{cells_of(cells)}, expected an id, '{edition.delimiter}', and concepts with ';' between them"
    if id not in ids:
        yield f"image {quote(id)} is not in {place}; {find_remedy(id, edition, ids, place)}"
    elif id in seen:
        yield f"image {quote(id)} has a row already; keep one"
    if len(cells) > 1:
        concepts = split_concepts(cells[1])
        yield from too_many(id, concepts)
        twice = find_repeated(concepts)
        if twice is not None:
            hint = " (a ';' too many makes empty concepts)" if not twice else ""
            yield f"image {quote(id)}: concept {quote(twice)} twice; name each once{hint}"


def find_remedy(id: str, edition: Edition, ids: Mapping[str, object], place: str) -> str:
    """What to do about an unknown id: the one change that makes it known, if there is one.

    >>> from eval.editions import EDITIONS
    >>> find_remedy("a1|C1", EDITIONS[2024], {"a1": 0}, "the truth")
    "put ',' between id and concepts, not '|'"
    """
    changes = {
        "save the file without a byte order mark": id.removeprefix("\ufeff"),
        "remove the spaces around it": id.strip(),
        "remove the quotes": id.strip('"'),
        "leave out the file ending": id.rpartition(".")[0],
    }
    changes |= {
        f"put {edition.delimiter!r} between id and concepts, not {mark!r}": id.partition(mark)[0] for mark in "|,\t;"
    }
    remedy = next((remedy for remedy, changed in changes.items() if changed != id and changed in ids), None)
    if remedy is None and is_header(id):
        remedy = f"{edition.year} takes no header, remove the row"
    return remedy or f"write ids as {place} does"


def cells_of(cells: list[str]) -> str:
    """What is said of a row with too few or too many cells.

    >>> cells_of(["a1"]), cells_of([])
    ("1 cell for image 'a1'", 'blank line')
    """
    return f"{len(cells)} cell{'s' * (len(cells) > 1)} for image {quote(cells[0])}" if cells else "blank line"


def too_many(id: str, concepts: list[str]) -> Iterator[str]:
    """The fault of more concepts than an image may have, in every edition."""
    if len(concepts) > MAX_CONCEPTS:
        yield f"image {quote(id)}: {len(concepts):,} concepts, at most {MAX_CONCEPTS} are allowed; name fewer"


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
