"""The form check of 2026, which comes before the scores: header, order of ids, spelling of concepts."""

import csv
import io
import re
from collections.abc import Iterator, Sequence

from eval.errors import UserError
from eval.official import Fault, decode

HEADER = ["ID", "CUIs"]
CUI = re.compile(r"C[0-9]+")


def form_faults(data: bytes, ids: Sequence[str], name: str) -> Iterator[Fault]:
    """Find what the form check of 2026 refuses.

    Parameters
    ----------
    data : bytes
        The submission.
    ids : sequence of str
        The official ids in their order: those of the truth, then what the manual file has besides.
    name : str
        What errors call the file.

    Yields
    ------
    Fault
        In the order of the check; the first is the organisers'.
    """
    try:
        reader = csv.reader(io.StringIO(decode(data, name), newline=""))
        rows = [(reader.line_num, row) for row in reader]
    except (UserError, csv.Error) as error:
        yield Fault(0, str(error))
        return
    blank = [line for line, row in rows[1:] if not "".join(row).strip() and len(row) < 2]
    yield from (Fault(line, "blank line; remove it") for line in blank)
    if not rows or rows[0][1] != HEADER:
        found = ",".join(rows[0][1]) if rows else "nothing"
        yield Fault(1, f"header {found!r}, expected exactly 'ID,CUIs' without a byte order mark")
    seen: set[str] = set()
    filled = [(line, row) for line, row in rows[1:] if row]
    for position, (line, row) in enumerate(filled):
        fault = _row_fault(row, position, ids, seen)
        if fault:
            yield Fault(line, fault)
        seen.add(row[0])
    missing = [id for id in ids if id not in seen]
    if missing:
        yield Fault(0, f"{len(missing):,} of {len(ids):,} images have no row, such as '{missing[0]}'; add them")


def _row_fault(row: list[str], position: int, ids: Sequence[str], seen: set[str]) -> str | None:
    if len(row) != 2:
        return f"{len(row)} cells, expected an id, ',', and concepts with ';' between them"
    id, cell = row
    if id != id.strip() or cell != cell.strip():
        return f"spaces around a cell of image '{id.strip()}'; remove them"
    if id in seen:
        return f"image '{id}' has a row already; keep one"
    expected = ids[position] if position < len(ids) else None
    if id != expected:
        wanted = f"'{expected}'" if expected is not None else "no further row"
        return f"image '{id}' where {wanted} is expected; keep the order of the list of ids"
    return _concepts_fault(id, cell)


def _concepts_fault(id: str, cell: str) -> str | None:
    if not cell:
        return None
    concepts = [part.strip() for part in cell.split(";")]
    if "" in concepts:
        return f"image '{id}': an empty concept; remove the ';' too many"
    odd = [concept for concept in concepts if not CUI.fullmatch(concept)]
    if odd:
        return f"image '{id}': concept '{odd[0]}', expected 'C' and digits"
    if len(set(concepts)) < len(concepts):
        return f"image '{id}': a concept twice; name each once"
    return None
