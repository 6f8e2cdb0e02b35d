"""Rows of label files in any dialect: encodings, separators, headers, columns, line ends and quotes."""

import csv
import io
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from cache.support.errors import DataError
from cache.support.messages import quote
from eval.concept_cells import has_cui
from eval.csv_rows import is_header
from eval.files import TABLE, read_file

DELIMITERS = ",\t|;"
"""What may be between columns. The first of them in the first line is."""

CONCEPT_COLUMNS = (
    r"(?:umls|concept)?s?cuis?(?:ids?|codes?|list)?",
    r"concepts?(?:ids?|codes?|list)?|labels?|umls(?:ids?|codes?)?",
)
GROUP_COLUMNS = ("groups?",)
"""Names of a column, without spaces and punctuation, in any case. Those before go before those after."""

_ID_COLUMNS = (r"id|image(?:id|uid)|img(?:id|uid)", r"(?:image|img|file)(?:name|path|file)?s?|path")
_ID_COLUMN_ALONE = re.compile(r"id|(?:image|img)(?:id|uid|name)|filename")
_MARK, _MARK_OR_SPACE = re.compile(r"[;|\t,]\s*C\d{7}", re.IGNORECASE), re.compile(r"[;|,\s]\s*C\d{7}", re.IGNORECASE)
"""What stands between id and concepts where both are in one cell."""

_ENCODINGS = (
    (BOM_UTF32_LE, "utf-32"), (BOM_UTF32_BE, "utf-32"), (BOM_UTF16_LE, "utf-16"), (BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_OTHER_FILES = {
    b"PK\x03\x04": "a zip or an Excel workbook", b"\xd0\xcf\x11\xe0": "an Excel workbook", b"\x1f\x8b": "a gzip",
    b"PAR1": "a parquet file", b"7z\xbc\xaf": "a 7z", b"%PDF": "a PDF",
}  # fmt: skip


class LabelRow(NamedTuple):
    """A row of a label file: the line where it ends, the id of an image as it is spelled, and the other cell."""

    line: int
    id: str
    cell: str


@dataclass(frozen=True)
class _Columns:
    """Where the cells of a row are."""

    id: int
    value: int | None
    n_columns: int


def read_label_rows(path: Path, names: Sequence[str] | None = CONCEPT_COLUMNS) -> Iterator[LabelRow]:
    """Read the rows of a file in any dialect, without header and blank lines.

    Parameters
    ----------
    path : Path
    names : sequence of str, optional
        Patterns of the names that the column beside the ids may have. None where ids alone are wanted.

    Yields
    ------
    LabelRow

    Raises
    ------
    DataError
        The file does not exist or is of another kind, or a row has no id, or more cells than it should have.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a label file such as train_concepts.csv")
    lines, delimiter = open_table(path)
    reader, columns = csv.reader(lines, delimiter=delimiter), None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                header = [cell.strip() for cell in cells]
                columns = _find_columns(header, names, f"{path}: line {reader.line_num}")
                if columns:
                    continue
                columns = _Columns(0, 1, 2)
            yield _pick(path, reader.line_num, cells, columns if names else replace(columns, value=None), delimiter)
    except csv.Error as error:
        raise DataError(
            f"{path}: line {reader.line_num}: {error}; expected a label file with an id and its concepts per row"
        ) from None


def open_table(path: Path) -> tuple[io.TextIOWrapper, str]:
    """Open a table in any encoding that can be recognised.

    Returns
    -------
    lines : text stream
        For `csv.reader`.
    delimiter : str
        What is between columns.

    Raises
    ------
    DataError
        The file cannot be read, or it is no text.
    """
    lines = _decode(read_file(path, TABLE), path)
    return lines, _find_delimiter(lines)


def looks_like_header(cells: Sequence[str]) -> bool:
    """Whether the first row of a table of ids and concepts is a header, whatever its columns are called.

    >>> looks_like_header(["image_id", "cui"]), looks_like_header(["a1", "C0040405"])
    (True, False)
    """
    plain = [_plain(cell) for cell in cells]
    is_named = bool(_find_named(plain, CONCEPT_COLUMNS) or re.fullmatch(_ID_COLUMNS[0], plain[0]))
    return is_named and not any(has_cui(cell) for cell in cells)


def names_ids(column: str) -> bool:
    """Whether a text is a name for a column of ids.

    >>> names_ids("image_id"), names_ids("File Name"), names_ids("a1")
    (True, True, False)
    """
    return bool(_find_named([_plain(column)], _ID_COLUMNS)) or is_header(column)


def _decode(data: bytes, path: Path) -> io.TextIOWrapper:
    """The text of a file: UTF-8, or another encoding that a byte order mark names."""
    kind = next((kind for start, kind in _OTHER_FILES.items() if data.startswith(start)), None)
    if kind:
        raise DataError(f"{path}: {kind}, not a text file; save it as CSV in UTF-8")
    encoding = next((encoding for mark, encoding in _ENCODINGS if data.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and b"\0" in data[:1000]:
        raise DataError(f"{path}: has zero bytes, as UTF-16 without a byte order mark has; save it as UTF-8")
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: not a text file in UTF-8 (line {line:,}, byte {error.start:,}: 0x{data[error.start]:02x}, as in "
            "cp1252 and other encodings of Windows); save it as UTF-8"
        ) from None
    # Line by line, so that a large file takes no more memory than its bytes.
    return io.TextIOWrapper(io.BytesIO(data), encoding=encoding, newline="")


def _find_delimiter(lines: io.TextIOWrapper) -> str:
    """What is between columns; the lines are left at the first one of the table."""
    first = next((line for line in lines if line.strip()), "")
    told = re.fullmatch(r"sep=(.)\s*", first, re.IGNORECASE)  # Excel writes and reads such a line
    if told:
        return told[1]
    lines.seek(0)
    unquoted = re.sub(r'"[^"]*"', "", first)
    return next((each for each in unquoted if each in DELIMITERS), ",")


def _find_columns(header: list[str], names: Sequence[str] | None, place: str) -> _Columns | None:
    """The columns of a header; None if the row is none."""
    if any(has_cui(cell) for cell in header):
        return None
    plain = [_plain(cell) for cell in header]
    while len(plain) > 1 and not plain[-1]:
        plain.pop()
    if len(plain) == 1:
        is_name = _ID_COLUMN_ALONE.fullmatch(plain[0]) or is_header(header[0])
        return _Columns(0, 1, 2) if is_name else None
    ids, values = _find_ids(header, plain), _find_named(plain, names or CONCEPT_COLUMNS)
    if not ids and not values:
        return None
    what = "groups" if names is GROUP_COLUMNS else "concepts"
    if names is None:
        value = values[0] if values else None
    elif values:
        value = _only(values, header, place, what)
    elif names is GROUP_COLUMNS and len(plain) == 2:
        value = 1 - ids[0]
    else:
        raise DataError(f"{place}: header {quote(','.join(header))} names no column of {what}; expected ID,CUIs")
    ids = [1 - value] if len(plain) == 2 and value is not None else [column for column in ids if column != value]
    if not ids:
        raise DataError(f"{place}: header {quote(','.join(header))} names no column of ids; expected ID,CUIs")
    return _Columns(_only(ids, header, place, "ids"), value, len(plain))


def _find_ids(header: Sequence[str], plain: Sequence[str]) -> list[int]:
    """The columns that may hold ids."""
    ids = _find_named(plain, _ID_COLUMNS[:1])
    others = _find_named(plain, _ID_COLUMNS[1:])
    if [plain[column] for column in ids] == ["id"]:
        return ids + others  # a number of the row, maybe
    return ids or others or [column for column, name in enumerate(header) if is_header(name)]


def _find_named(plain: Sequence[str], names: Sequence[str]) -> list[int]:
    """The columns whose names fit the first pattern that any fits."""
    found: list[int] = []
    for pattern in names:
        found = found or [column for column, name in enumerate(plain) if re.fullmatch(pattern, name)]
    return found


def _only(columns: Sequence[int], header: Sequence[str], place: str, what: str) -> int:
    if len(columns) > 1:
        names = " and ".join(quote(header[column]) for column in columns[:2])
        raise DataError(f"{place}: columns {names} may both hold the {what}; remove one of them")
    return columns[0]


def _plain(name: str) -> str:
    """The name of a column without spaces and punctuation, in lower case."""
    return re.sub(r"[\W_]+", "", name).casefold()


def _pick(path: Path, line: int, cells: list[str], columns: _Columns, delimiter: str) -> LabelRow:
    """The id and the other cell of a row."""
    while len(cells) > 1 and not cells[-1].strip():
        cells = cells[:-1]
    id = cells[columns.id].strip() if columns.id < len(cells) else ""
    if columns.value is None and id:
        return LabelRow(line, id, "")
    rest = cells[columns.value :] if columns.value is not None else []
    value, is_odd = rest[0] if rest else "", len(cells) > columns.n_columns
    if is_odd and columns.value == columns.n_columns - 1:
        joined = delimiter.join(rest).strip()
        if delimiter == ";" or (joined[0] in "[{(" and joined[-1] in "]})"):  # the list has no quotes around it
            value, is_odd = joined, False
    if not id or is_odd:
        raise DataError(
            f"{path}: line {line}: {quote(delimiter.join(cells))} is not an id and its concepts; "
            "expected a row such as 'ID,C0040405;C0817096'"
        )
    mark = (_MARK if value else _MARK_OR_SPACE).search(id)
    if mark:
        raise DataError(
            f"{path}: line {line}: {quote(id)} has an id and concepts in one cell, with {mark[0][0]!r} between them; "
            f"expected the separator {delimiter!r}, as in the first line"
        )
    return LabelRow(line, id, value)
