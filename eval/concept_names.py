"""Names of concepts in plain words, from the table that the organisers give with the labels: ``cui_mapping.csv``."""

import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.support.errors import DataError
from cache.support.reporting import warn
from eval.label_rows import CONCEPT_COLUMNS, open_table

_FILES = re.compile(
    r"(?:.*[_ -])?(?:cui|concept)s?[_ -]?(?:mapping|names?)(?:[_ -].*)?\.(?:csv|tsv|txt)", re.IGNORECASE
)
_NAME_COLUMNS = r"(?:canonical|preferred|concept|umls|cui)?(?:name|term|meaning|description|definition)s?"
_MAX_WIDTH = 60
"""Characters of a name in a table for the terminal. The longest of ROCOv2 has more than a hundred."""


def find_names(data: str | Path) -> dict[str, str]:
    """Find the names of concepts in a data folder.

    Parameters
    ----------
    data : str or Path

    Returns
    -------
    dict of str to str
        Names by concept; empty if the folder has no table of them. Where several tables name a concept, the first one
        counts, in the order of `find_name_files`.

    Warns
    -----
    DataWarning
        A table cannot be read. Names only help to read results, so that is no error.
    """
    names: dict[str, str] = {}
    for path in find_name_files(data):
        try:
            names = read_names(path) | names
        except DataError as error:
            warn(f"{error}; its names of concepts are not used")
    return names


def find_name_files(data: str | Path) -> list[Path]:
    """The tables of names in a data folder, such as ``cui_mapping.csv``, sorted.

    Parameters
    ----------
    data : str or Path
    """
    data = Path(data)
    if not data.is_dir():
        return []
    names = [name for name in os.listdir(data) if _FILES.fullmatch(name) and not name.startswith(".")]
    return [path for path in sorted(data / name for name in names) if path.is_file()]


def read_names(path: str | Path) -> dict[str, str]:
    """Read a table of concepts and their names, in any encoding and with any separator that label files may have.

    Parameters
    ----------
    path : str or Path
        A header names the columns, such as ``CUI,Canonical name``. Without one, concepts come first and names second.

    Returns
    -------
    dict of str to str
        Names by upper-case concept. Rows without a name are left out.

    Raises
    ------
    DataError
        The file cannot be read, or it is no table.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "cui_mapping.csv").write_text("CUI,Canonical name\\nC0817096,Chest\\n")
    ...     read_names(f"{folder}/cui_mapping.csv")
    {'C0817096': 'Chest'}
    """
    path = Path(path)
    lines, delimiter = open_table(path)
    reader = csv.reader(lines, delimiter=delimiter)
    names: dict[str, str] = {}
    columns: tuple[int, int] | None = None
    width = 0
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns, width = _find_columns(cells), len(cells)
                if columns:
                    continue
                columns = 0, 1
            concept, name = _pick(cells, columns, width, delimiter)
            if concept and name:
                names.setdefault(concept.upper(), name)
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}; expected a concept and its name per row") from None
    return names


def name_concept(concept: str, names: Mapping[str, str]) -> str:
    """A concept for a line of text: its name and its code.

    >>> name_concept("C0817096", {"C0817096": "Chest"}), name_concept("C0817096", {})
    ('Chest (C0817096)', 'C0817096')
    """
    return f"{shorten(names[concept])} ({concept})" if concept in names else concept


def shorten(name: str) -> str:
    """A name cut to the width of a table.

    >>> len(shorten("a" * 100))
    60
    """
    return name if len(name) <= _MAX_WIDTH else f"{name[: _MAX_WIDTH - 1]}…"


def _find_columns(cells: Sequence[str]) -> tuple[int, int] | None:
    """Where concept and name are, if the first row is a header."""
    plain = [re.sub(r"[\W_]+", "", cell).casefold() for cell in cells]
    concepts = [at for at, cell in enumerate(plain) if any(re.fullmatch(each, cell) for each in CONCEPT_COLUMNS)]
    names = [at for at, cell in enumerate(plain) if at not in concepts[:1] and re.fullmatch(_NAME_COLUMNS, cell)]
    if not concepts and not names:
        return None
    first = concepts[0] if concepts else int(names[0] == 0)
    return first, names[0] if names else int(first == 0)


def _pick(cells: Sequence[str], columns: tuple[int, int], width: int, delimiter: str) -> tuple[str, str]:
    """The concept and its name. A name in the last column may hold the separator without being in quotes."""
    concept, name = columns
    if max(columns) >= len(cells):
        return "", ""
    text = delimiter.join(cells[name:]) if name == width - 1 else cells[name]
    return cells[concept].strip(), " ".join(text.split())
