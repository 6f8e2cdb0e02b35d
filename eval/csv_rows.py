"""Rows of truth and submission files: how the evaluators read them, and every reason to refuse one.

The rules are those of `eval.evaluator_files`. The evaluators use Python's `csv.reader`, so a file that it forgives is
accepted, however odd.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cache.support.errors import DataError
from cache.support.messages import quote
from eval.editions import MAX_CONCEPTS, Edition


@dataclass(frozen=True)
class Fault:
    """A reason to refuse a file.

    Parameters
    ----------
    line : int
        Line in the file, from 1; 0 for the file as a whole.
    message : str
        What was found, and what to do.
    """

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}" if self.line else self.message


class Row(NamedTuple):
    """A row of a file: the line where it begins, and its cells."""

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
        The file's name in messages.
    delimiter : str, optional
        The edition's if not given.
    newline : str, optional
        As in `open`. Line ends within quotes become ``\\n`` for the evaluator, and stay (``""``) for the form check.

    Yields
    ------
    Row
        A blank line is a row without cells.

    Raises
    ------
    DataError
        The bytes are not UTF-8 or not CSV.
    """
    check_utf8(data, name)
    # Line by line, so that a large file takes no more memory than its bytes.
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
        raise DataError(f"{name}: line {line}: {error}; expected CSV with an id and its concepts per row") from None


def check_utf8(data: bytes, name: str) -> None:
    """Refuse bytes that are not strict UTF-8. A byte order mark stays in the text, as it does for the evaluator.

    Raises
    ------
    DataError
        With the line.
    """
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name}: line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def is_header(id: str) -> bool:
    """Whether a first cell is the name of a column: `ID`, or `… ID` as in 2025.

    >>> is_header("ID"), is_header("ImageCLEFmedical 2025 ID"), is_header("MID1")
    (True, True, False)
    """
    words = id.removeprefix("\ufeff").casefold().split()
    return bool(words) and words[-1] == "id"


def row_faults(
    cells: list[str], edition: Edition, ids: Mapping[str, object], seen: Mapping[str, object], place: str
) -> Iterator[str]:
    """Find all faults of a submission's row, in the evaluator's order: the first is the one that it reports.

    Parameters
    ----------
    cells : list of str
    edition : Edition
    ids, seen : mapping
        The ids that may have a row, and those that had one.
    place : str
        Where the ids come from, for messages.

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
        yield f"{describe_cells(cells)}, expected an id, '{edition.delimiter}', and concepts with ';' between them"
    if id not in ids:
        yield f"image {quote(id)} is not in {place}; {find_remedy(id, edition, ids, place)}"
    elif id in seen:
        yield f"image {quote(id)} has a row already; keep one"
    if len(cells) > 1:
        concepts = split_concepts(cells[1])
        yield from too_many_concepts(id, concepts)
        repeated = find_repeated(concepts)
        if repeated is not None:
            hint = " (an extra ';' makes an empty concept)" if not repeated else ""
            yield f"image {quote(id)}: concept {quote(repeated)} twice; list each once{hint}"


def find_remedy(id: str, edition: Edition, ids: Mapping[str, object], place: str) -> str:
    """What to do about an unknown id: the one change that makes it a known one, if there is such a change.

    >>> from eval.editions import EDITIONS
    >>> find_remedy("a1|C1", EDITIONS[2024], {"a1": 0}, "the truth")
    "put ',' between id and concepts, not '|'"
    """
    changes = {
        "save the file without a byte order mark": id.removeprefix("\ufeff"),
        "remove the spaces around it": id.strip(),
        "remove the quotes": id.strip('"'),
        "remove the file extension": id.rpartition(".")[0],
    }
    changes |= {
        f"put {edition.delimiter!r} between id and concepts, not {mark!r}": id.partition(mark)[0] for mark in "|,\t;"
    }
    remedy = next((remedy for remedy, changed in changes.items() if changed != id and changed in ids), None)
    if remedy is None and is_header(id):
        remedy = f"{edition.year} takes no header, remove the row"
    return remedy or f"write ids as in {place}"


def describe_cells(cells: list[str]) -> str:
    """A row with too few or too many cells, for a message.

    >>> describe_cells(["a1"]), describe_cells([])
    ("1 cell for image 'a1'", 'blank line')
    """
    return f"{len(cells)} cell{'s' * (len(cells) > 1)} for image {quote(cells[0])}" if cells else "blank line"


def too_many_concepts(id: str, concepts: list[str]) -> Iterator[str]:
    """The fault of more concepts than any edition allows for an image."""
    if len(concepts) > MAX_CONCEPTS:
        yield f"image {quote(id)}: {len(concepts):,} concepts, at most {MAX_CONCEPTS} are allowed; predict fewer"


def find_repeated(names: list[str]) -> str | None:
    """The first name that occurs twice; None if all are different.

    >>> find_repeated(["a", "b", "a"])
    'a'
    """
    if len(set(names)) == len(names):
        return None
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def split_concepts(cell: str) -> list[str]:
    """The concepts of a cell, without spaces around them. An empty cell is one empty concept.

    >>> split_concepts("C1; C2;"), split_concepts("")
    (['C1', 'C2', ''], [''])
    """
    return [part.strip() for part in cell.split(";")]


def concept_set(cell: str) -> frozenset[str]:
    """The concepts of a cell as the evaluator compares them: without spaces around them, in upper case."""
    return frozenset([part.strip().upper() for part in cell.split(";")])
