"""Label and id files in any dialect of the task: separators, headers, line ends, byte order marks, quotes.

This reader is for training data and forgives what does no harm; what scores a submission is `eval.evaluator_files`.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from cache.support.errors import UserError
from cache.support.messages import quote, some
from eval.csv_rows import is_header
from eval.files import read_file

DELIMITERS = ",\t|"
_IMAGE_ENDING = re.compile(r"\.(jpe?g|png|bmp|gif|tiff?|webp|dcm)$", re.IGNORECASE)

_PATTERNS = {
    "concepts": r"(?:(?:.*_)?{split}_concepts|.*concept_detection_{split}(?:_labels)?)\.csv",
    "manual": r"(?:.*_)?{split}_concepts_manual\.csv",
    "ids": r"(?:.*_)?{split}_ids\.csv",
}
_IN_SPLIT_FOLDER = {"concepts": "concepts.csv", "manual": "concepts_manual.csv", "ids": "ids.csv"}


def read_concepts(path: Path) -> pd.Series:
    """Read the concepts of each image.

    Comma, TAB or ``|`` separate id and concepts; a header in any of the editions' spellings, or none; CRLF, byte
    order mark and quotes are met; an image's file ending is cut from its id; an empty cell is no concept.

    Parameters
    ----------
    path : Path
        The label file, or a list of ids alone.

    Returns
    -------
    Series of tuple of str, indexed by id
        Upper-case concepts, in the file's order.

    Raises
    ------
    UserError
        The file is missing, empty or not of this kind, or gives an image two different sets of concepts.
    """
    concepts: dict[str, tuple[str, ...]] = {}
    for line, cells in _read_rows(path):
        id, found = _read_row(path, line, cells)
        if concepts.setdefault(id, found) != found:
            raise UserError(f"{path}: line {line}: image {quote(id)} stands earlier with other concepts; keep one row")
    if not concepts:
        raise UserError(f"{path}: no image in it; expected an id and its concepts in a row")
    index = pd.Index(list(concepts), name="ID", dtype=object)
    return pd.Series(list(concepts.values()), index=index, name="CUIs", dtype=object)


def read_ids(path: Path) -> list[str]:
    """Read an official list of ids, as it spells them: a submission must repeat it to the letter.

    An id that stands twice is one, at its first place, as for the evaluators.

    Raises
    ------
    UserError
        The file is missing, empty or not of this kind.
    """
    ids = dict.fromkeys(cells[0].strip() for _, cells in _read_rows(path))
    if not ids:
        raise UserError(f"{path}: no id in it; expected an id in a row")
    return list(ids)


def image_id(text: str) -> str:
    """The id of an image that may be spelt with its file's ending.

    >>> image_id("img_1.jpg")
    'img_1'
    """
    return _IMAGE_ENDING.sub("", text.strip())


def find_label_file(data: Path, split: str, kind: str = "concepts") -> Path | None:
    """Find a split's label file in a data folder, under any edition's name for it.

    Parameters
    ----------
    data : Path
        The data folder.
    split : str
        ``train``, ``valid`` or ``test``.
    kind : str
        ``concepts``, ``manual`` or ``ids``.

    Returns
    -------
    Path or None
        None if there is none.

    Raises
    ------
    UserError
        Several files answer; the message names them.
    """
    pattern = re.compile(_PATTERNS[kind].format(split=split), re.IGNORECASE)
    found = sorted(path for path in data.glob("*.csv") if pattern.fullmatch(path.name))
    plain = _IN_SPLIT_FOLDER[kind]
    folders = [data / split, data / f"{split}_images"]
    found += [path for path in (folder / plain for folder in folders) if path.is_file()]
    shared = data / plain
    # A file without a split's name stands for every split that has none of its own; ids alone are of test.
    if not found and shared.is_file() and (kind != "ids" or split == "test"):
        found = [shared]
    if len(found) > 1:
        raise UserError(f"{data}: {some([path.name for path in found])} are all {kind} of {split}; keep one of them")
    return found[0] if found else None


def _read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file in any dialect, with their lines, without the header and blank lines."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a label file such as train_concepts.csv")
    data = read_file(path)
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 (byte {error.start:,}); save it as UTF-8") from None
    lines = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
    first = next((line for line in lines if line.strip()), "")
    lines.seek(0)
    reader, is_first = csv.reader(lines, delimiter=_find_delimiter(first)), True
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not (is_first and _is_header(cells)):
                yield reader.line_num, cells
            is_first = False
    except csv.Error as error:
        raise UserError(
            f"{path}: line {reader.line_num}: {error}; expected a label file with an id and its concepts in a row"
        ) from None


def _read_row(path: Path, line: int, cells: list[str]) -> tuple[str, tuple[str, ...]]:
    if len(cells) > 2 or not cells[0].strip():
        raise UserError(
            f"{path}: line {line}: {quote(','.join(cells))} is not an id and its concepts; "
            "expected a row such as 'ID,C0040405;C0817096'"
        )
    id = image_id(cells[0])
    parts = cells[1].split(";") if len(cells) == 2 else []
    # A concept that is named twice is one concept; order stays.
    return id, tuple(dict.fromkeys(part.strip().upper() for part in parts if part.strip()))


def _find_delimiter(first: str) -> str:
    unquoted = re.sub(r'"[^"]*"', "", first)
    return next((each for each in unquoted if each in DELIMITERS), ",")


def _is_header(cells: list[str]) -> bool:
    """Whether a first row names columns: an id's before `cuis` in any case, or alone."""
    return is_header(cells[0]) and [cell.strip().casefold() for cell in cells[1:]] in ([], ["cuis"])
