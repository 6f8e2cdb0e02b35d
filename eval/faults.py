"""Every fault for which an edition refuses a submission, with its line."""

import io
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from cache.support.errors import DataError
from cache.support.messages import quote
from eval.csv_rows import Fault, Row, find_remedy, read_rows, row_faults, split_concepts, too_many_concepts
from eval.editions import LATEST, Edition, find_edition
from eval.evaluator_files import find_header_fault, is_skipped
from eval.files import is_zip, read_submission_bytes
from eval.form_check import HEADER, blank_lines, cell_faults, out_of_order
from eval.labels import read_ids

PLACE = "the list of ids"
NOT_LISTED, NO_ROW = f"is not in {PLACE}", "has no row; add it"
"""Parts of the faults of an id that has no place in the list, and of one that has no row."""

MAX_FAULTS = 100_000
"""The search ends here. A file with more faults than any edition has images is no submission."""


def find_faults(
    submission: str | Path | bytes,
    ids: str | Path | Sequence[str],
    edition: int | Edition = LATEST,
    name: str | None = None,
) -> list[Fault]:
    """Find every fault for which an edition refuses a submission.

    Parameters
    ----------
    submission : str, Path or bytes
        A .csv, a .zip with ``submission.csv`` in it, or the content of a .csv.
    ids : str, Path or sequence of str
        The official ids in their order, or the file that lists them.
    edition : int or Edition
        A year, or its rules.
    name : str, optional
        The submission's name in messages; its path if not given.

    Returns
    -------
    list of Fault
        By line. Faults without a line, such as a missing image, are at the end. Empty if the edition accepts the
        submission.

    Raises
    ------
    DataError
        A file does not exist or cannot be read.
    ParameterError
        There was no such edition.

    Examples
    --------
    >>> for fault in find_faults(b"ID,CUIs\\na1,C1\\na2,C2;C2\\n", ["a1", "a2", "a3"]):
    ...     print(fault)
    line 3: image 'a2': concept 'C2' twice; list each once
    image 'a3' has no row; add it
    """
    edition = find_edition(edition)
    listed = read_ids(ids) if isinstance(ids, str | Path) else ids
    if isinstance(submission, bytes):
        return _sort_faults(submission, listed, edition, name or "submission")
    path = Path(submission)
    faults = _sort_faults(read_submission_bytes(path), listed, edition, name or str(path))
    if is_zip(path) and not edition.zipped:
        faults.append(Fault(0, f"a zip, but {edition.year} expects the file in it; hand in that file"))
    return faults


def _sort_faults(data: bytes, ids: Sequence[str], edition: Edition, name: str) -> list[Fault]:
    found = list(islice(_find(data, ids, edition, name), MAX_FAULTS))
    if len(found) == MAX_FAULTS:
        found.append(Fault(0, f"the search ended at {MAX_FAULTS:,} faults; give the right file, or correct these"))
    return sorted(dict.fromkeys(found), key=lambda fault: fault.line or len(data) + 2)


def _find(data: bytes, ids: Sequence[str], edition: Edition, name: str) -> Iterator[Fault]:
    unreadable = list(islice(_undecodable_lines(data), MAX_FAULTS))
    yield from unreadable
    if unreadable:
        # The other lines are checked all the same.
        data = data.decode("utf-8", errors="replace").encode()
    reported = {fault.line for fault in unreadable}
    places = {id: place for place, id in enumerate(ids) if edition.has_form_check or not is_skipped(id, edition)}
    seen: dict[str, int] = {}
    check = _form_faults if edition.has_form_check else _evaluator_faults
    try:
        for fault in check(data, edition, places, seen, name):
            if fault.line not in reported:
                yield fault
    except DataError as error:
        # The reader cannot go on: what follows would be a guess.
        yield Fault(0, str(error).removeprefix(f"{name}: "))
        return
    for id in places:
        if id not in seen:
            yield Fault(0, f"image {quote(id)} {NO_ROW}")


def _undecodable_lines(data: bytes) -> Iterator[Fault]:
    """Find each line with bytes that are not UTF-8."""
    try:
        data.decode("utf-8")
        return
    except UnicodeDecodeError:
        pass
    for number, line in enumerate(io.BytesIO(data), 1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            yield Fault(number, f"byte 0x{line[error.start]:02x} is not UTF-8; save the file as UTF-8")


def _evaluator_faults(
    data: bytes, edition: Edition, places: dict[str, int], seen: dict[str, int], name: str
) -> Iterator[Fault]:
    """Find what the evaluator refuses."""
    for line, cells in read_rows(data, edition, name):
        if cells and is_skipped(cells[0], edition):
            continue
        header = find_header_fault(line, cells, edition, places)
        for fault in [header] if header else row_faults(cells, edition, places, seen, PLACE):
            yield Fault(line, fault)
        if cells:
            seen[cells[0]] = line


def _form_faults(
    data: bytes, edition: Edition, places: dict[str, int], seen: dict[str, int], name: str
) -> Iterator[Fault]:
    """Find what the form check refuses, and the one fault that it leaves to the evaluator: too many concepts."""
    blank = set()
    for line in blank_lines(data):
        blank.add(line)
        yield Fault(line, "blank line; remove it")
    rows = read_rows(data, edition, name, newline="")
    first = next(rows, Row(1, []))
    if first.cells != HEADER:
        found = f"header {quote(','.join(first.cells))}" if first.cells else "no header"
        yield Fault(1, f"{found}, expected exactly 'ID,CUIs' without a byte order mark")
    # If there is no header, the first row is that of an image, which is then not missing.
    headless = [first] if first.cells and first.cells[0].strip() in places else []
    for line, cells in chain(headless, rows):
        if cells and line not in blank:
            yield from (Fault(line, fault) for fault in _form_row_faults(cells, edition, places, seen))
            seen.setdefault(cells[0].strip(), line)
    listed = [id for id in seen if id in places]
    for row in out_of_order([places[id] for id in listed]):
        id = listed[row]
        yield Fault(seen[id], f"image {quote(id)} is out of order; keep the order of the list of ids")


def _form_row_faults(cells: list[str], edition: Edition, places: dict[str, int], seen: dict[str, int]) -> Iterator[str]:
    yield from cell_faults(cells)
    id = cells[0].strip()
    if id not in places:
        yield f"image {quote(id)} {NOT_LISTED}; {find_remedy(id, edition, places, PLACE)}"
    elif id in seen:
        yield f"image {quote(id)} has a row already; keep one"
    if len(cells) == 2:
        yield from too_many_concepts(id, split_concepts(cells[1]))
