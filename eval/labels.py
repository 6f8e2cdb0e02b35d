"""Label and id files in any dialect of the task: separators, headers, line ends, byte order marks, quotes.

This reader is for training data and accepts harmless oddities. Scores use `eval.evaluator_files` instead.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cache.support.errors import DataError
from cache.support.messages import quote, some
from eval.csv_rows import is_header
from eval.files import read_file

if TYPE_CHECKING:
    import pandas as pd

DELIMITERS = ",\t|"
_IMAGE_ENDING = re.compile(r"\.(jpe?g|png|bmp|gif|tiff?|webp|dcm)$", re.IGNORECASE)

_PATTERNS = {
    "concepts": r"(?:(?:.*_)?{split}_concepts|.*concept_detection_{split}(?:_labels)?)\.csv",
    "manual": r"(?:.*_)?{split}_concepts_manual\.csv",
    "ids": r"(?:.*_)?{split}_ids\.csv",
}
_IN_SPLIT_FOLDER = {"concepts": "concepts.csv", "manual": "concepts_manual.csv", "ids": "ids.csv"}


def read_concepts(path: str | Path) -> "pd.Series":
    """Read the concepts of each image.

    Id and concepts may be separated by comma, TAB or ``|``. There may be a header in any edition's spelling, CRLF line
    ends, a byte order mark, and quotes. The file extension of an image is removed from its id. An empty cell means no
    concept.

    Parameters
    ----------
    path : str or Path
        A label file, or a list of ids alone.

    Returns
    -------
    Series of tuple of str, indexed by id
        Upper-case concepts, in the file's order.

    Raises
    ------
    DataError
        The file does not exist, is empty or of another kind, or gives an image two different sets of concepts.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "labels.csv").write_text("ID,CUIs\\na1.jpg,C0040405;C0817096\\na2.jpg,\\n")
    ...     read_concepts(f"{folder}/labels.csv").to_dict()
    {'a1': ('C0040405', 'C0817096'), 'a2': ()}
    """
    import pandas as pd  # takes half a second, which reading ids need not

    path = Path(path)
    concepts: dict[str, tuple[str, ...]] = {}
    for line, cells in _read_rows(path):
        id, found = _read_row(path, line, cells)
        if concepts.setdefault(id, found) != found:
            raise DataError(
                f"{path}: line {line}: image {quote(id)} has an earlier row with other concepts; keep one of them"
            )
    if not concepts:
        raise DataError(f"{path}: no image in it; expected an id and its concepts per row")
    index = pd.Index(list(concepts), name="ID", dtype=object)
    return pd.Series(list(concepts.values()), index=index, name="CUIs", dtype=object)


def read_ids(path: str | Path) -> list[str]:
    """Read an official list of ids as it is spelled, because a submission must repeat it exactly.

    An id that occurs twice counts once, at its first place, as for the evaluators.

    Parameters
    ----------
    path : str or Path
        A list of ids, or a label file.

    Raises
    ------
    DataError
        The file does not exist, is empty or of another kind.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "ids.csv").write_text("ID\\na2\\na1\\n")
    ...     read_ids(f"{folder}/ids.csv")
    ['a2', 'a1']
    """
    path = Path(path)
    ids = dict.fromkeys(cells[0].strip() for _, cells in _read_rows(path))
    if not ids:
        raise DataError(f"{path}: no id in it; expected one id per row")
    return list(ids)


def image_id(text: str) -> str:
    """An image's id without a file extension.

    >>> image_id("img_1.jpg")
    'img_1'
    """
    return _IMAGE_ENDING.sub("", text.strip())


def find_label_file(data: str | Path, split: str, kind: str = "concepts") -> Path | None:
    """Find a split's label file in a data folder, under any edition's name for it.

    Parameters
    ----------
    data : str or Path
        The data folder.
    split : str
        ``train``, ``valid`` or ``test``.
    kind : str
        ``concepts``, ``manual`` or ``ids``.

    Returns
    -------
    Path or None
        None if there is no such file.

    Raises
    ------
    DataError
        There are several; the message lists them.
    """
    data = Path(data)
    pattern = re.compile(_PATTERNS[kind].format(split=split), re.IGNORECASE)
    found = sorted(path for path in data.glob("*.csv") if pattern.fullmatch(path.name))
    plain = _IN_SPLIT_FOLDER[kind]
    folders = [data / split, data / f"{split}_images"]
    found += [path for path in (folder / plain for folder in folders) if path.is_file()]
    shared = data / plain
    # A file without a split's name is for every split that has no file of its own. A list of ids is for test alone.
    if not found and shared.is_file() and (kind != "ids" or split == "test"):
        found = [shared]
    if len(found) > 1:
        raise DataError(f"{data}: {some([path.name for path in found])} are all {kind} of {split}; keep one of them")
    return found[0] if found else None


def _read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Read the rows of a file in any dialect, with their lines, without header and blank lines."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a label file such as train_concepts.csv")
    data = read_file(path)
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8 (byte {error.start:,}); save it as UTF-8") from None
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
        raise DataError(
            f"{path}: line {reader.line_num}: {error}; expected a label file with an id and its concepts per row"
        ) from None


def _read_row(path: Path, line: int, cells: list[str]) -> tuple[str, tuple[str, ...]]:
    if len(cells) > 2 or not cells[0].strip():
        raise DataError(
            f"{path}: line {line}: {quote(','.join(cells))} is not an id and its concepts; "
            "expected a row such as 'ID,C0040405;C0817096'"
        )
    id = image_id(cells[0])
    parts = cells[1].split(";") if len(cells) == 2 else []
    # A concept that is listed twice is one concept; the order stays.
    return id, tuple(dict.fromkeys(part.strip().upper() for part in parts if part.strip()))


def _find_delimiter(first: str) -> str:
    unquoted = re.sub(r'"[^"]*"', "", first)
    return next((each for each in unquoted if each in DELIMITERS), ",")


def _is_header(cells: list[str]) -> bool:
    """Whether a first row is a header: the name of an id column, alone or followed by `cuis` in any case."""
    return is_header(cells[0]) and [cell.strip().casefold() for cell in cells[1:]] in ([], ["cuis"])
