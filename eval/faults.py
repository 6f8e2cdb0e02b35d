"""Every fault for which an edition refuses a submission, with its line."""

import io
from collections.abc import Iterator, Sequence
from itertools import chain, islice

from cache.support.errors import UserError
from cache.support.messages import quote
from eval.csv_rows import Fault, Row, find_remedy, read_rows, row_faults, split_concepts, too_many
from eval.editions import Edition
from eval.evaluator_files import is_skipped
from eval.form_check import HEADER, blank_lines, cell_faults, out_of_order

PLACE = "the list of ids"

MAX_FAULTS = 100_000
"""A file with more faults than any edition has images is no submission; the search ends there."""


def find_faults(data: bytes, ids: Sequence[str], edition: Edition, name: str) -> list[Fault]:
    """Find every fault for which an edition refuses a submission.

    Parameters
    ----------
    data : bytes
    ids : sequence of str
        The official ids in their order.
    edition : Edition
    name : str
        What errors call the file.

    Returns
    -------
    list of Fault
        By line; what no line can be named for, such as a missing image, at the end.
    """
    found = list(islice(_find(data, ids, edition, name), MAX_FAULTS))
    if len(found) == MAX_FAULTS:
        found.append(Fault(0, f"{MAX_FAULTS:,} faults and no end; name the right file, or mend these first"))
    return sorted(dict.fromkeys(found), key=lambda fault: fault.line or len(data) + 2)


def _find(data: bytes, ids: Sequence[str], edition: Edition, name: str) -> Iterator[Fault]:
    unreadable = list(islice(_other_bytes(data), MAX_FAULTS))
    yield from unreadable
    if unreadable:
        # What is wrong besides is told all the same.
        data = data.decode("utf-8", errors="replace").encode()
    told = {fault.line for fault in unreadable}
    places = {id: place for place, id in enumerate(ids) if edition.form or not is_skipped(id, edition)}
    seen: dict[str, int] = {}
    check = _form_faults if edition.form else _evaluator_faults
    try:
        for fault in check(data, edition, places, seen, name):
            if fault.line not in told:
                yield fault
    except UserError as error:
        # The reader cannot go on: what follows would be a guess.
        yield Fault(0, str(error).removeprefix(f"{name}: "))
        return
    for id in places:
        if id not in seen:
            yield Fault(0, f"image {quote(id)} has no row; add it")


def _other_bytes(data: bytes) -> Iterator[Fault]:
    """Each line with bytes that are not UTF-8."""
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
    for line, cells in read_rows(data, edition, name):
        if cells and is_skipped(cells[0], edition):
            continue
        for fault in row_faults(cells, edition, places, seen, PLACE):
            yield Fault(line, fault)
        if cells:
            seen[cells[0]] = line


def _form_faults(
    data: bytes, edition: Edition, places: dict[str, int], seen: dict[str, int], name: str
) -> Iterator[Fault]:
    """What the form check refuses, and the one thing that it leaves to the evaluator: too many concepts."""
    blank = set()
    for line in blank_lines(data):
        blank.add(line)
        yield Fault(line, "blank line; remove it")
    rows = read_rows(data, edition, name, newline="")
    first = next(rows, Row(1, []))
    if first.cells != HEADER:
        found = f"header {quote(','.join(first.cells))}" if first.cells else "no header"
        yield Fault(1, f"{found}, expected exactly 'ID,CUIs' without a byte order mark")
    # Where the header is missing, the first row is an image's and not to be called missing too.
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
        yield f"image {quote(id)} is not in {PLACE}; {find_remedy(id, edition, places, PLACE)}"
    elif id in seen:
        yield f"image {quote(id)} has a row already; keep one"
    if len(cells) == 2:
        yield from too_many(id, split_concepts(cells[1]))
