"""Archives and files of other programs in a data folder, in which images and labels may still be packed."""

import re
from itertools import chain
from pathlib import Path

from cache.support.messages import some

_ARCHIVE = re.compile(
    r".+\.(?:zip|z\d\d|zipx|7z|rar|tar|tgz|tbz2?|txz|gz|bz2|xz|zst|iso)(?:\.(?:\d{2,3}|part))?", re.IGNORECASE
)
_DATA_SET = re.compile(r".+\.(?:parquet|arrow|feather|tfrecords?)", re.IGNORECASE)
_SPREADSHEET = re.compile(r".+\.(?:xls[xmb]?|ods|numbers)", re.IGNORECASE)


def describe_packed(data: Path, labels: bool = False) -> str:
    """What in a data folder, or in a folder of it, has to be unpacked or saved in another form first.

    Parameters
    ----------
    data : Path
    labels : bool
        Whether labels are missing, which may be in a spreadsheet, too.

    Returns
    -------
    str
        The end of a message, such as ``; train.zip is not unpacked: unpack it there``; empty if there is nothing.
    """
    paths = sorted(path for path in chain(data.glob("*"), data.glob("*/*")) if not path.name.startswith("."))

    def named(pattern: re.Pattern[str]) -> list[str]:
        return [str(path.relative_to(data)) for path in paths if pattern.fullmatch(path.name) and path.is_file()]

    archives, tables, sheets = named(_ARCHIVE), named(_DATA_SET), named(_SPREADSHEET) if labels else []
    hint = f"; {_are(archives)} not unpacked: unpack {_them(archives)} there" if archives else ""
    hint += f"; {_are(tables)} not read: save the images and labels in {_them(tables)} as files" if tables else ""
    return hint + (f"; {_are(sheets)} not read: save {_them(sheets)} as CSV in UTF-8" if sheets else "")


def _are(names: list[str]) -> str:
    return f"{some(names)} {'is' if len(names) == 1 else 'are'}"


def _them(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"
