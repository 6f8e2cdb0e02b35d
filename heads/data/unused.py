"""What a data folder holds besides images and labels: tables and folders that nothing reads."""

import re
from pathlib import Path

from cache.support.split_names import SPLITS, find_split
from eval.concept_names import find_name_files
from eval.labels import find_label_file
from heads.data.groups import GROUPS, SOURCES

TABLES = frozenset({".csv", ".tsv", ".txt", ".json"})
"""Endings of files that may hold labels."""

_NEEDLESS = re.compile(r".*caption.*|.*concepts_manual|phantoms|readme.*|licen[cs]e.*", re.IGNORECASE)
"""Names of the organisers' files that nobody expects to be read."""


def list_tables(data: Path, split: str = "train") -> list[str]:
    """The tables in a data folder and in the folders of it, those first that are called like labels of a split.

    Parameters
    ----------
    data : Path
    split : str

    Returns
    -------
    list of str
        Paths within the folder.
    """
    found = [
        path.relative_to(data).as_posix()
        for pattern in ("[!.]*", "[!.]*/[!.]*.*")
        for path in data.glob(pattern)
        if path.suffix.lower() in TABLES and path.is_file()
    ]

    def lacks(pattern: str, name: str) -> bool:
        return not re.search(pattern, name, re.IGNORECASE)

    return sorted(found, key=lambda name: (lacks(split, name), lacks("concept|label|cui", name), name))


def find_unused(data: Path) -> list[str]:
    """The tables and folders in a data folder that are neither read nor known to be needless.

    Parameters
    ----------
    data : Path

    Returns
    -------
    list of str
        Sorted names; those of folders end in a slash.

    Raises
    ------
    DataError
        Two files may both be the labels of a split.
    """
    kinds = ("concepts", "manual", "ids")
    used = {find_label_file(data, split, kind) for split in SPLITS for kind in kinds}
    used |= set(find_name_files(data))
    used |= {next((data / name for name in (GROUPS, SOURCES) if (data / name).is_file()), None)}
    found = []
    for path in sorted(data.glob("[!.]*")):
        is_table = path.suffix.lower() in TABLES - {".json"} and path.is_file()
        if path.is_dir() and find_split(path.name) is None:
            found.append(f"{path.name}/")
        elif is_table and path not in used and not _NEEDLESS.fullmatch(path.stem):
            found.append(path.name)
    return found
