"""The form check of 2026, which comes before the scores: header, order of ids, spelling of concepts."""

import io
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from cache.support.messages import quote
from eval.csv_rows import describe_cells, find_repeated, read_rows, split_concepts
from eval.editions import Edition

HEADER = ["ID", "CUIs"]
CUI = re.compile(r"C\d+")


def listed_ids(files: Mapping[Path, bytes], edition: Edition) -> list[str]:
    """The official ids in the order that the form check expects: those of the truth, then others of the manual file.

    The check skips the first row of each file as its header, whatever it is, and no other row.

    Parameters
    ----------
    files : mapping of Path to bytes
        Contents of the truth and of the manual file.
    edition : Edition

    Raises
    ------
    DataError
        A file is not CSV to the check, though it is to the evaluator, which reads line ends within quotes in another
        way.
    """
    ids: dict[str, None] = {}
    for path, data in files.items():
        rows = islice(read_rows(data, edition, str(path), newline=""), 1, None)
        ids |= dict.fromkeys(row.cells[0].strip() for row in rows if row.cells)
    return list(ids)


def blank_lines(data: bytes) -> Iterator[int]:
    """Numbers of the blank lines after the first. A form feed ends a line here, as it does for the check."""
    for number, line in enumerate(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="replace"), 1):
        if number > 1 and not all(part.strip() for part in line.splitlines()):
            yield number


def cell_faults(cells: list[str]) -> Iterator[str]:
    """Find the faults of a row by itself, in the order of the form check."""
    if len(cells) != 2:
        yield f"{describe_cells(cells)}, expected an id, ',', and concepts with ';' between them"
        return
    id, cell = cells
    if id != id.strip() or cell != cell.strip():
        yield f"spaces around a cell of image {quote(id.strip())}; remove them"
    if not cell.strip():
        return
    concepts = split_concepts(cell)
    if "" in concepts:
        yield f"image {quote(id)}: an empty concept; remove the extra ';'"
    odd = next((concept for concept in concepts if concept and not CUI.fullmatch(concept)), None)
    if odd is not None:
        yield f"image {quote(id)}: concept {quote(odd)}, expected 'C' and digits"
    repeated = find_repeated([concept for concept in concepts if concept])
    if repeated is not None:
        yield f"image {quote(id)}: concept {quote(repeated)} twice; list each once"


def out_of_order(positions: Sequence[int]) -> list[int]:
    """Find the smallest set of rows that must move to restore the official order.

    All rows of one longest increasing subsequence of the positions can stay. It is found by patience sorting, in
    O(n log n).

    Parameters
    ----------
    positions : sequence of int
        Position of each row's id in the official list, all different.

    Returns
    -------
    list of int
        The rows that must move, as indices into `positions`.

    Examples
    --------
    >>> out_of_order([3, 0, 1, 2]), out_of_order([0, 2, 5])
    ([0], [])
    """
    ends: list[int] = []  # for each length, the smallest last position of an increasing subsequence so far
    rows: list[int] = []  # the row of that position
    before: list[int] = []  # for each row, the row before it in the longest subsequence that it ends
    for row, position in enumerate(positions):
        length = bisect_left(ends, position)
        before.append(rows[length - 1] if length else -1)
        ends[length : length + 1] = [position]
        rows[length : length + 1] = [row]
    staying, row = set(), rows[-1] if rows else -1
    while row >= 0:
        staying.add(row)
        row = before[row]
    return [row for row in range(len(positions)) if row not in staying]
