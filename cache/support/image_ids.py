"""Image ids: which texts can be one, and how an id that is spelled in another way finds its image.

Ids are stored as the file system spells them. Label files spell them as other programs do: with an ending, with letters
composed or decomposed, with another kind of space. Only the search ignores these differences; no id is changed.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

from cache.support.errors import DataError
from cache.support.messages import quote, some
from cache.support.split_names import find_split

PICTURE_ENDINGS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
DICOM_ENDINGS = frozenset({".dcm", ".dicom", ".dic", ".dc3", ".ima"})
IMAGE_ENDINGS = PICTURE_ENDINGS | DICOM_ENDINGS
"""Endings of image files, in lower case. They are not part of an id."""

MAX_ID_BYTES = 512
"""Longest id. A file name has at most 255 bytes; an id may have folders before it."""

_ENDING = re.compile(rf"({'|'.join(re.escape(ending) for ending in sorted(IMAGE_ENDINGS))})$", re.IGNORECASE)
_BREAKING = frozenset({"Cc", "Zl", "Zp"})
"""Unicode categories of control characters and line breaks."""


def strip_ending(id: str) -> str:
    """An id without the ending of an image file.

    >>> strip_ending("a1.jpg"), strip_ending("a1.DCM.png"), strip_ending("a1.5")
    ('a1', 'a1.DCM', 'a1.5')
    """
    return _ENDING.sub("", id)


def find_id_fault(id: str) -> str:
    r"""Why a text cannot be the id of an image; empty if it can.

    Everything that can be written to a file and read back can. Messages escape what cannot be printed.

    >>> find_id_fault("Screenshot 3.45\u202fPM"), find_id_fault("a\nb")
    ('', 'has a control character or a line break')
    """
    try:
        size = len(id.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not UTF-8"
    if size > MAX_ID_BYTES:
        return f"is longer than {MAX_ID_BYTES} bytes"
    if not id.isprintable() and any(unicodedata.category(each) in _BREAKING for each in id):
        return "has a control character or a line break"
    return "" if id else "is empty"


class IdIndex:
    r"""The rows of images by their ids, for ids that another program may have spelled.

    An id finds the image that has exactly this id. If there is none, these differences are ignored, one after another:

    - endings of image files, ``./`` and the folder of a split before the id, ``\`` for ``/``;
    - composed and decomposed letters, kinds of spaces, characters without width;
    - the folder of an image, if the id has none.

    Parameters
    ----------
    ids : sequence of str, length n_images
        The ids of the images, each once.

    Examples
    --------
    >>> IdIndex(["a1", "p1/IM1", "p2/IM1"]).find_rows(["a1.jpg", "train/p2/IM1.dcm", "b7"])
    [0, 2, -1]
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids
        self._rows = {id: row for row, id in enumerate(ids)}

    def find_rows(self, ids: Sequence[str]) -> list[int]:
        """Find the row of each id, -1 where no image fits.

        Raises
        ------
        DataError
            Several images fit an id; the message has two of them.
        """
        return [self.find_row(id) for id in ids]

    def find_row(self, id: str) -> int:
        """Find the row of one id; see `find_rows`."""
        for spelling in _spellings(id):
            if spelling in self._rows:
                return self._rows[spelling]
        rows = self._by_key.get(_key(id)) or self._by_name.get(_key(id)) or [-1]
        if len(rows) > 1:
            fitting = " or ".join(quote(self._ids[row]) for row in rows[:2])
            raise DataError(f"id {quote(id)} fits {len(rows):,} images, such as {fitting}; spell it as one of them")
        return rows[0]

    @cached_property
    def _by_key(self) -> dict[str, list[int]]:
        rows = defaultdict(list)
        for row, id in enumerate(self._ids):
            rows[_key(id)].append(row)
        return dict(rows)

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        """Images in folders, by the last part of the id."""
        rows = defaultdict(list)
        for row, id in enumerate(self._ids):
            if "/" in id:
                rows[_key(id.rpartition("/")[2])].append(row)
        return dict(rows)


def require_one_id_per_image(ids: Sequence[str], rows: Sequence[int], stored: Sequence[str]) -> None:
    """Check that no two ids have found the same image.

    Raises
    ------
    DataError
        With two such ids.
    """
    first: dict[int, str] = {}
    for id, row in zip(ids, rows, strict=True):
        if row >= 0 and first.setdefault(row, id) != id:
            raise DataError(f"{some([quote(first[row]), quote(id)])} are both image {quote(stored[row])}; keep one")


def _spellings(id: str) -> list[str]:
    """An id as it is, then without its endings, one after another."""
    found = [id]
    while (shorter := strip_ending(found[-1])) not in (found[-1], ""):
        found.append(shorter)
    return found


def _key(id: str) -> str:
    """What ids have in common that differ only in spelling.

    >>> _key("train/cafe\\u0301\\u202f1.dcm.png") == _key("caf\\u00e9 1")
    True
    """
    text = id.replace("\\", "/").removeprefix("./")
    folder, _, rest = text.partition("/")
    text = rest if rest and find_split(folder) else text
    if not text.isascii():
        categories = {each: unicodedata.category(each) for each in set(text)}
        text = "".join(" " if categories[each] == "Zs" else each for each in text if categories[each] != "Cf")
        text = unicodedata.normalize("NFC", text)
    return _spellings(text.strip())[-1]
