"""The form check of 2026, which comes before the scores: header, order of ids, spelling of concepts."""

import csv
import io
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from cache.support.messages import quote
from eval.csv_rows import cells_of, find_repeated, split_concepts

HEADER = ["ID", "CUIs"]
CUI = re.compile(r"C\d+")


def listed_ids(*files: bytes) -> list[str]:
    """The official ids in the order that the form check wants: those of the truth, then what the manual file adds.

    The check takes the first row of each file for its header, whatever is in it, and no other.

    Parameters
    ----------
    *files : bytes
        Contents of the truth and of the manual file, in UTF-8.
    """
    ids: dict[str, None] = {}
    for data in files:
        rows = csv.reader(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline=""))
        next(rows, None)
        ids |= dict.fromkeys(row[0].strip() for row in rows if row)
    return list(ids)


def blank_lines(data: bytes) -> Iterator[int]:
    """Numbers of the lines after the first with nothing on them; a form feed ends a line here, as for the check."""
    for number, line in enumerate(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="replace"), 1):
        if number > 1 and not all(part.strip() for part in line.splitlines()):
            yield number


def cell_faults(cells: list[str]) -> Iterator[str]:
    """What the form check refuses of a row by itself, in its order."""
    if len(cells) != 2:
        yield f"{cells_of(cells)}, expected an id, ',', and concepts with ';' between them"
        return
    id, cell = cells
    if id != id.strip() or cell != cell.strip():
        yield f"spaces around a cell of image {quote(id.strip())}; remove them"
    if not cell.strip():
        return
    concepts = split_concepts(cell)
    if "" in concepts:
        yield f"image {quote(id)}: an empty concept; remove the ';' too many"
    odd = next((concept for concept in concepts if concept and not CUI.fullmatch(concept)), None)
    if odd is not None:
        yield f"image {quote(id)}: concept {quote(odd)}, expected 'C' and digits"
    twice = find_repeated([concept for concept in concepts if concept])
    if twice is not None:
        yield f"image {quote(id)}: concept {quote(twice)} twice; name each once"


def out_of_order(positions: Sequence[int]) -> list[int]:
    """The fewest rows that must move for the official order.

    Parameters
    ----------
    positions : sequence of int
        The place of each row's id in the official list, all different.

    Returns
    -------
    list of int
        Indices into `positions` that are not on one longest increasing subsequence.

    Examples
    --------
    >>> out_of_order([3, 0, 1, 2]), out_of_order([0, 2, 5])
    ([0], [])
    """
    ends: list[int] = []  # the smallest last position of an increasing run of each length
    rows: list[int] = []  # and the row it is of
    before: list[int] = []
    for row, position in enumerate(positions):
        length = bisect_left(ends, position)
        before.append(rows[length - 1] if length else -1)
        ends[length : length + 1] = [position]
        rows[length : length + 1] = [row]
    kept, row = set(), rows[-1] if rows else -1
    while row >= 0:
        kept.add(row)
        row = before[row]
    return [row for row in range(len(positions)) if row not in kept]
