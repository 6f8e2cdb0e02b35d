"""Label and id files in any dialect of the task: separators, headers, line ends, byte order marks, quotes.

This reader is for training data and accepts harmless oddities. Scores use `eval.evaluator_files` instead.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cache.support.errors import DataError
from cache.support.image_ids import strip_ending
from cache.support.messages import count, quote, some
from cache.support.reporting import warn
from cache.support.split_names import SPLIT_PATTERNS, find_split
from eval.concept_cells import split_cell
from eval.label_rows import read_label_rows

if TYPE_CHECKING:
    import pandas as pd

_NAMES = {
    "concepts": r"(?:(?:.*[_ -])?{split}[_ -]concepts|.*concept_detection_{split}(?:_labels)?)",
    "manual": r"(?:.*[_ -])?{split}[_ -]concepts[_ -]manual",
    "ids": r"(?:.*[_ -])?{split}[_ -]ids",
}
_PLAIN_NAMES = {"concepts": "concepts", "manual": "concepts_manual", "ids": "ids"}
"""Names without that of a split, in the split's folder or for every split."""

_ENDINGS = (".csv", ".tsv", ".txt")
"""Those after are read only if there are none before."""


def read_concepts(path: str | Path, *, spelled: bool = False) -> "pd.Series":
    """Read the concepts of each image.

    Id and concepts may be separated by comma, TAB, ``|`` or ``;``. There may be a header in any edition's spelling or
    another one whose columns can be recognised, CRLF line ends, a byte order mark, UTF-16 with one, and quotes. The
    concepts of a cell may be written as a list of Python or JSON, and an image may have one row per concept. The file
    extension of an image is removed from its id. An empty cell means no concept.

    Parameters
    ----------
    path : str or Path
        A label file, or a list of ids alone.
    spelled : bool
        Whether ids stay as they are spelled, with their file extensions.

    Returns
    -------
    Series of tuple of str, indexed by id
        Upper-case concepts, in the file's order.

    Raises
    ------
    DataError
        The file does not exist, is empty or of another kind, or gives an image two different sets of concepts.

    Warns
    -----
    DataWarning
        The file has one row per concept.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "labels.csv").write_text("ID,CUIs\\na1.jpg,C0040405;C0817096\\na2.jpg,\\n")
    ...     read_concepts(f"{folder}/labels.csv").to_dict()
    {'a1': ('C0040405', 'C0817096'), 'a2': ()}
    """
    import pandas as pd  # takes half a second, which the other functions need not

    sets = read_concept_sets(path, spelled=spelled)
    index = pd.Index(list(sets), name="ID", dtype=object)
    return pd.Series(list(sets.values()), index=index, name="CUIs", dtype=object)


def read_concept_sets(path: str | Path, *, spelled: bool = False) -> dict[str, tuple[str, ...]]:
    """Read the concepts of each image, as `read_concepts` does, without pandas.

    Returns
    -------
    dict of str to tuple of str
        Upper-case concepts by id, in the file's order.
    """
    path = Path(path)
    rows: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
    for line, id, cell in read_label_rows(path):
        try:
            concepts = split_cell(cell)
        except ValueError as error:
            raise DataError(f"{path}: line {line}: {error}") from None
        rows.setdefault(id if spelled else image_id(id), []).append((line, concepts))
    if not rows:
        raise DataError(f"{path}: no image in it; expected an id and its concepts per row")
    return _join_rows(path, rows)


def _join_rows(path: Path, rows: dict[str, list[tuple[int, tuple[str, ...]]]]) -> dict[str, tuple[str, ...]]:
    """The concepts of each image: of one row, of several equal ones, or of one row per concept."""
    # A single image with two rows is rather a contradiction.
    has_row_per_concept = len(rows) > 1 and all(len(concepts) < 2 for found in rows.values() for _, concepts in found)
    sets = {id: found[0][1] for id, found in rows.items()}
    n_joined = 0
    for id, found in rows.items():
        if len(found) == 1:
            continue
        odd = next((line for line, concepts in found if concepts != found[0][1]), None)
        if odd is None:
            continue
        if not has_row_per_concept or any(not concepts for _, concepts in found):
            raise DataError(
                f"{path}: line {odd}: image {quote(id)} has an earlier row with other concepts; keep one of them"
            )
        sets[id] = tuple(dict.fromkeys(each for _, concepts in found for each in concepts))
        n_joined += 1
    if n_joined:
        warn(f"{path}: {count(n_joined, 'image')} with one row per concept; their rows are joined")
    return sets


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
    ids = dict.fromkeys(row.id for row in read_label_rows(path, None))
    if not ids:
        raise DataError(f"{path}: no id in it; expected one id per row")
    return list(ids)


def image_id(text: str) -> str:
    """An image's id without a file extension.

    >>> image_id("img_1.jpg")
    'img_1'
    """
    return strip_ending(text.strip())


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
    for ending in _ENDINGS:
        found = _find_files(data, split, kind, ending)
        if len(found) > 1:
            differ = len({path.name for path in found}) == len(found)
            names = [path.name if differ else str(path.relative_to(data)) for path in found]
            raise DataError(f"{data}: {some(names)} are all {kind} of {split}; keep one of them")
        if found:
            return found[0]
    return None


def describe_names(split: str) -> str:
    """The names under which `find_label_file` looks for concepts, for a message.

    >>> describe_names("train")
    'train_concepts.csv, a name that ends so, concept_detection_train.csv or concepts.csv (or .tsv, .txt)'
    """
    named = f"{split}_concepts.csv, a name that ends so, concept_detection_{split}.csv"
    return f"{named} or {_PLAIN_NAMES['concepts']}.csv (or {', '.join(_ENDINGS[1:])})"


def _find_files(data: Path, split: str, kind: str, ending: str) -> list[Path]:
    named = re.compile(_NAMES[kind].format(split=f"(?:{SPLIT_PATTERNS[split]})"), re.IGNORECASE)
    folders = [path for path in _list(data) if path.is_dir() and find_split(path.name) == split]
    tables = [path for path in _list(data, ending) if path.is_file()]
    within = [path for folder in folders for path in _list(folder, ending) if path.is_file()]
    found = [path for path in tables + within if named.fullmatch(path.stem)]
    found += [path for path in within if path.stem.lower() == _PLAIN_NAMES[kind]]
    # A file without a split's name is for every split that has no file of its own. A list of ids is for test alone.
    if not found and (kind != "ids" or split == "test"):
        found = [path for path in tables if path.stem.lower() == _PLAIN_NAMES[kind]]
    return found


def _list(folder: Path, ending: str = "") -> list[Path]:
    """What is in a folder, but for hidden files, which file managers and archive tools leave behind."""
    if not folder.is_dir():
        return []
    # There may be a hundred thousand images: paths are made of the few names that are wanted.
    names = (name for name in os.listdir(folder) if name.lower().endswith(ending) and not name.startswith("."))
    return [folder / name for name in sorted(names)]
